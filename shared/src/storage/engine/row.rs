//! Reads columns by name. What breaks the schema's promises is [`StoreError::Corrupt`], never a guess.

use super::Dialect;
use crate::storage::StoreError;

/// A row. Each subject adds what it reads from its own.
pub struct Reader<'a, DB: Dialect>(pub &'a DB::Row);

/// A column that holds what it cannot.
pub fn corrupt(column: &str) -> StoreError {
    StoreError::Corrupt(format!("column {column}"))
}

impl<DB: Dialect> Reader<'_, DB> {
    pub fn optional_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        DB::text(self.0, column).map_err(|error| StoreError::Corrupt(format!("column {column}: {error}")))
    }

    pub fn text(&self, column: &str) -> Result<String, StoreError> {
        self.optional_text(column)?.ok_or_else(|| corrupt(column))
    }

    pub fn optional_int(&self, column: &str) -> Result<Option<i64>, StoreError> {
        DB::int(self.0, column).map_err(|error| StoreError::Corrupt(format!("column {column}: {error}")))
    }

    pub fn int(&self, column: &str) -> Result<i64, StoreError> {
        self.optional_int(column)?.ok_or_else(|| corrupt(column))
    }

    pub fn count(&self, column: &str) -> Result<u32, StoreError> {
        u32::try_from(self.int(column)?).map_err(|_| corrupt(column))
    }

    pub fn blob(&self, column: &str) -> Result<Vec<u8>, StoreError> {
        DB::blob(self.0, column).ok().flatten().ok_or_else(|| corrupt(column))
    }

    /// A SHA-256.
    pub fn digest(&self, column: &str) -> Result<[u8; 32], StoreError> {
        self.blob(column)?.try_into().map_err(|_| corrupt(column))
    }

    pub fn parsed<T>(&self, column: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, StoreError> {
        parse(&self.text(column)?).ok_or_else(|| corrupt(column))
    }

    pub fn optional<T>(&self, column: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, StoreError> {
        self.optional_text(column)?.map(|text| parse(&text).ok_or_else(|| corrupt(column))).transpose()
    }
}
