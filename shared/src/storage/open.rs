//! Opening a database: on the file or the server where it is.

use super::{
    connect::{Access, Database, Location, OpenError},
    postgres, sqlite,
};

impl Database {
    /// Opens it; creates and migrates it where needed.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub async fn open(location: &Location, access: Access) -> Result<Self, OpenError> {
        match location {
            Location::Sqlite(path) => sqlite::open(path, access).await,
            Location::Postgres(options) => postgres::open(options, access).await,
        }
    }
}
