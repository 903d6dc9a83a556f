//! Migrations: the queue's and ours, and whether this version may work on what it finds.

use sqlx::{
    Pool,
    migrate::{Migrate as _, MigrateError, Migrator},
};

use super::{Dialect, OpenError};

/// Runs the queue's migrations and then ours, which build on them; how many ran.
///
/// Migrations that this version does not know are no fault: they only add, unless they say otherwise. Whoever calls this holds a lock.
pub async fn migrate<DB: Dialect>(pool: &Pool<DB>) -> Result<usize, OpenError>
where
    <DB as sqlx::Database>::Connection: sqlx::migrate::Migrate,
{
    let failed = |error: MigrateError| match error {
        MigrateError::VersionNotPresent(version) => OpenError::NotMigrated(version),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => OpenError::Migration(database_words(&error)),
        other => OpenError::Migration(other.to_string()),
    };
    let mut connection = pool.acquire().await.map_err(|error| OpenError::Migration(database_words(&error)))?;
    let mut ran = 0;
    for mut migrator in [DB::queue_migrations(), DB::migrations()] {
        migrator.set_ignore_missing(true).set_locking(false);
        let table = migrator.table_name.clone();
        for schema in migrator.create_schemas.iter() {
            connection.create_schema_if_not_exists(schema).await.map_err(failed)?;
        }
        connection.ensure_migrations_table(&table).await.map_err(failed)?;
        let before = connection.list_applied_migrations(&table).await.map_err(failed)?;
        let applied: Vec<i64> = before.iter().map(|migration| migration.version).collect();
        let _ = warn_of_newer(&migrator, &applied);
        ran += migrator.iter().filter(|migration| !applied.contains(&migration.version)).count();
        migrator.run_direct(None, &mut *connection, false).await.map_err(failed)?;
    }
    Ok(ran)
}

/// Logs that the database has migrations of a newer version. Those that are known to this version.
pub fn warn_of_newer(migrator: &Migrator, applied: &[i64]) -> Vec<i64> {
    let known: Vec<i64> = migrator.iter().map(|migration| migration.version).collect();
    if let Some(newest) = applied.iter().filter(|version| !known.contains(version)).max() {
        tracing::warn!(migration = newest, "a newer version of csrd migrated this database: this one goes on, since that only added to it");
    }
    known
}

/// Refuses a database that a newer version changed in a way that this one cannot live with. `minimum` is what the table says, if it is there.
pub fn check_compatible<DB: Dialect>(minimum: Option<i64>) -> Result<(), OpenError> {
    let newest = DB::migrations().iter().map(|migration| migration.version).max();
    match minimum {
        Some(minimum) if Some(minimum) > newest => Err(OpenError::Newer(minimum)),
        _ => Ok(()),
    }
}

/// What the database says, without the place in its own sources.
pub fn database_words(error: &sqlx::Error) -> String {
    let Some(database) = error.as_database_error() else { return error.to_string() };
    let message = database.message();
    if database.code().as_deref() == Some("42501") {
        format!("{message}: see Rights in docs/how-to/postgresql.md")
    } else {
        message.to_owned()
    }
}
