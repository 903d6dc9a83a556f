//! Statements, each a named constant beside the code that runs it.
//!
//! Only [`statements!`] makes a [`Statement`], and it makes the list of its module with it: a test prepares all of them on both databases,
//! and a list that the test does not take is dead code, which does not pass the lints.

/// A statement, in the words of each database. A database that does not need it has none: running it there does nothing.
#[derive(Debug, Clone, Copy)]
pub struct Statement {
    /// For SQLite.
    pub(super) sqlite: Option<&'static str>,
    /// For PostgreSQL.
    pub(super) postgres: Option<&'static str>,
}

impl Statement {
    /// For [`statements!`] alone.
    pub(in crate::storage) const fn of_macro(sqlite: Option<&'static str>, postgres: Option<&'static str>) -> Self {
        Self { sqlite, postgres }
    }
}

/// Declares the statements of a module, and their list for the test that prepares them.
///
/// - `NAME = "…";` is the same on both databases.
/// - `NAME { sqlite: "…", postgres: "…", };` differs; either may be left out.
/// - `NAME(id TEXT, …) = "INSERT … SELECT … FROM ", " …";` takes `$1` as a JSON array of objects, and has them as the table `given` between
///   its two parts. Bytes ([`hex`]) are of type BYTEA.
macro_rules! statements {
    ($($(#[$meta:meta])* $vis:vis $name:ident $(($($column:ident $kind:ident),+ $(,)?))? $({ $(sqlite: $sqlite:expr,)? $(postgres: $postgres:expr,)? })?
        $(= $first:expr $(, $second:expr)?)?;)+) => {
        $(
            $(#[$meta])*
            $vis const $name: $crate::storage::engine::Statement = $crate::storage::engine::statement!(
                [$($($column $kind),+)?] [$($first $(, $second)?)?] [$($($sqlite)?)?] [$($($postgres)?)?]
            );
        )+

        /// All of them, for the test that prepares them.
        #[cfg(test)]
        pub(in crate::storage) const STATEMENTS: &[(&str, $crate::storage::engine::Statement)] = &[$((stringify!($name), $name)),+];
    };
}

/// One of [`statements!`].
macro_rules! statement {
    ([] [$both:expr] [] []) => {
        $crate::storage::engine::Statement::of_macro(Some($both), Some($both))
    };
    ([$($column:ident $kind:ident),+] [$before:expr, $after:expr] [] []) => {
        $crate::storage::engine::Statement::of_macro(
            Some(concat!($before, $crate::storage::engine::given!(sqlite $($column $kind),+), $after)),
            Some(concat!($before, $crate::storage::engine::given!(postgres $($column $kind),+), $after)),
        )
    };
    ([] [] [$sqlite:expr] [$postgres:expr]) => {
        $crate::storage::engine::Statement::of_macro(Some($sqlite), Some($postgres))
    };
    ([] [] [$sqlite:expr] []) => {
        $crate::storage::engine::Statement::of_macro(Some($sqlite), None)
    };
    ([] [] [] [$postgres:expr]) => {
        $crate::storage::engine::Statement::of_macro(None, Some($postgres))
    };
}

/// The rows of a JSON array as the table `given`: of the parameter that is named, or of `$1`.
macro_rules! given {
    ($db:ident $first:ident $first_kind:ident $(, $column:ident $kind:ident)*) => {
        $crate::storage::engine::given!($db "$1": $first $first_kind $(, $column $kind)*)
    };
    (sqlite $rows:literal: $first:ident $first_kind:ident $(, $column:ident $kind:ident)*) => {
        concat!(
            "(SELECT ", $crate::storage::engine::given!(@ $first $first_kind), " AS ", stringify!($first),
            $(", ", $crate::storage::engine::given!(@ $column $kind), " AS ", stringify!($column),)*
            " FROM json_each(", $rows, ")) AS given"
        )
    };
    (postgres $rows:literal: $first:ident $first_kind:ident $(, $column:ident $kind:ident)*) => {
        concat!(
            "json_to_recordset(CAST(CAST(", $rows, " AS TEXT) AS json)) AS given(", stringify!($first), " ", stringify!($first_kind),
            $(", ", stringify!($column), " ", stringify!($kind),)* ")"
        )
    };
    (@ $column:ident BYTEA) => {
        concat!("unhex(substr(json_extract(value, '$.", stringify!($column), "'), 3))")
    };
    (@ $column:ident $kind:ident) => {
        concat!("json_extract(value, '$.", stringify!($column), "')")
    };
}

/// The column `id` of the JSON array `$1`, as an array of PostgreSQL's. It is read once; in `IN (SELECT …)` the planner may read it once a row.
macro_rules! given_ids {
    () => {
        "ARRAY(SELECT json_array_elements(CAST(CAST($1 AS TEXT) AS json)) ->> 'id')"
    };
}

pub(in crate::storage) use {given, given_ids, statement, statements};

/// Bytes as a row of JSON has them: what PostgreSQL reads as BYTEA.
pub fn hex(bytes: &[u8]) -> String {
    format!("\\x{}", crate::printable::hex(bytes))
}

/// The rows of a statement, as its first parameter takes them.
///
/// # Errors
///
/// [`StoreError::Internal`](crate::storage::StoreError::Internal) if they cannot be written as JSON.
pub fn given_rows<T: serde::Serialize>(rows: &[T]) -> Result<String, crate::storage::StoreError> {
    serde_json::to_string(rows).map_err(|error| crate::storage::StoreError::Internal(error.to_string()))
}
