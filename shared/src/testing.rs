//! For tests: temporary databases and builders.

pub mod faulty;

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    path::PathBuf,
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, postgres::PgConnectOptions};
use tempfile::TempDir;
use ulid::Ulid;

use crate::{
    audit::{Actor, Via},
    clock::{Clock, SystemClock, Timestamp},
    custom_csr::{CustomCsrRequest, KeyType, Subject},
    ids::{CustomCsrId, Scope, TenantId},
    storage::{Access, Database, Location, MAX_PENDING, Migrate, NewCustomCsr, Queue},
};

/// Names the PostgreSQL server for tests. If it is set, every test database is made on that server.
pub const SERVER_VARIABLE: &str = "CSRD_TEST_POSTGRES_URL";

/// A database for one test: a file in WAL mode as in production, or a database on the server that
/// [`SERVER_VARIABLE`] names. It is deleted after the test.
pub struct TestDatabase {
    /// The open database.
    pub database: Database,
    /// Where it is.
    pub location: Location,
    /// For files.
    pub directory: TempDir,
    _dropped: Option<DropDatabase>,
}

impl TestDatabase {
    /// A fresh, migrated database.
    ///
    /// # Panics
    ///
    /// If the database cannot be made.
    pub async fn new() -> Self {
        Self::opened(Access { exclusive: true, pool_size: 8, migrate: Migrate::Always }).await
    }

    /// A fresh database, opened in this way.
    ///
    /// # Panics
    ///
    /// If the database cannot be made.
    #[expect(clippy::expect_used, reason = "for tests only: without a database there is nothing to test")]
    pub async fn opened(access: Access) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let (location, dropped) = match server() {
            Some(server) => postgres_database(server, access).await,
            None => (Location::Sqlite(directory.path().join("csrd.db")), None),
        };
        let database = Database::open(&location, access).await.expect("a fresh database");
        Self { database, location, directory, _dropped: dropped }
    }

    /// The SQLite file.
    ///
    /// # Panics
    ///
    /// On PostgreSQL.
    #[must_use]
    #[expect(clippy::panic, reason = "for tests only")]
    pub fn file(&self) -> PathBuf {
        match &self.location {
            Location::Sqlite(path) => path.clone(),
            Location::Postgres(_) => panic!("not a file"),
        }
    }

    /// Whether this is PostgreSQL.
    #[must_use]
    pub const fn is_postgres(&self) -> bool {
        matches!(self.location, Location::Postgres(_))
    }

    /// Runs statements, in which `{jobs}` and `{workers}` are the queue's tables.
    ///
    /// # Panics
    ///
    /// If the database refuses.
    #[expect(clippy::expect_used, reason = "for tests only")]
    pub async fn execute(&self, sql: &str) {
        match &self.database.queue {
            Queue::Sqlite(writer) => {
                let mut turn = writer.turn().await.expect("its turn");
                let done = turn.connection().expect("the connection").execute(AssertSqlSafe(self.named(sql))).await;
                turn.done();
                done.map(drop)
            }
            Queue::Postgres(pool) => pool.execute(AssertSqlSafe(self.named(sql))).await.map(drop),
        }
        .expect("the statement");
    }

    /// The number that a query gives.
    ///
    /// # Panics
    ///
    /// If the database refuses.
    #[expect(clippy::expect_used, reason = "for tests only")]
    pub async fn number(&self, sql: &str) -> i64 {
        match &self.database.queue {
            Queue::Sqlite(writer) => {
                let mut turn = writer.turn().await.expect("its turn");
                let number = sqlx::query_scalar(AssertSqlSafe(self.named(sql))).fetch_one(turn.connection().expect("the connection")).await;
                turn.done();
                number
            }
            Queue::Postgres(pool) => sqlx::query_scalar(AssertSqlSafe(self.named(sql))).fetch_one(pool).await,
        }
        .expect("a number")
    }

    /// Keeps writers out until the returned value is dropped; readers go on.
    ///
    /// # Panics
    ///
    /// If the database refuses.
    #[expect(clippy::expect_used, reason = "for tests only")]
    pub async fn lock_writers(&self) -> Box<dyn std::any::Any + Send> {
        match &self.database.queue {
            Queue::Sqlite(writer) => Box::new(writer.turn().await.expect("the only one that writes")),
            Queue::Postgres(pool) => {
                let mut tx = pool.begin_with("BEGIN").await.expect("a transaction");
                tx.execute("LOCK TABLE scopes, custom_csrs IN EXCLUSIVE MODE").await.expect("the lock");
                Box::new(tx)
            }
        }
    }

    fn named(&self, sql: &str) -> String {
        let (jobs, workers) = if self.is_postgres() { ("apalis.jobs", "apalis.workers") } else { ("Jobs", "Workers") };
        sql.replace("{jobs}", jobs).replace("{workers}", workers)
    }
}

#[expect(clippy::disallowed_methods, clippy::expect_used, reason = "for tests only: the one setting that they have")]
fn server() -> Option<PgConnectOptions> {
    std::env::var(SERVER_VARIABLE).ok().map(|url| url.parse().expect("the URL of a PostgreSQL server"))
}

#[expect(clippy::expect_used, reason = "for tests only")]
async fn postgres_database(server: PgConnectOptions, access: Access) -> (Location, Option<DropDatabase>) {
    let name = format!("csrd_test_{}", Ulid::generate().to_string().to_lowercase());
    let mut admin = PgConnection::connect_with(&server).await.expect("a connection to the server");
    let template = if access.migrate == Migrate::Always { template(&mut admin, &server).await } else { "template1".to_owned() };
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {template}"))).await.expect("a database");
    let location = Location::Postgres(Box::new(server.clone().database(&name)));
    (location, Some(DropDatabase { server, name }))
}

/// A migrated database to copy: two dozen migrations for each test take longer than most tests. The first test of a test program makes it, and
/// the server keeps it.
#[expect(clippy::expect_used, reason = "for tests only")]
async fn template(admin: &mut PgConnection, server: &PgConnectOptions) -> String {
    let program = std::env::current_exe().and_then(|path| Ok((std::fs::metadata(&path)?.modified()?, path))).expect("the test program");
    let name = format!("csrd_template_{:x}", BuildHasherDefault::<DefaultHasher>::default().hash_one(program));
    // Until the connection ends. Each test is a process of its own.
    admin.execute("SELECT pg_advisory_lock(7411)").await.expect("the lock");
    let found = sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE datname = $1").bind(&name).fetch_one(&mut *admin).await;
    if found.is_ok_and(|found: i64| found == 0) {
        let draft = format!("{name}_draft");
        admin.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {draft}"))).await.expect("no remains");
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {draft}"))).await.expect("a database");
        let location = Location::Postgres(Box::new(server.clone().database(&draft)));
        let access = Access { exclusive: true, pool_size: 2, migrate: Migrate::Always };
        Database::open(&location, access).await.expect("a fresh database").close().await;
        admin.execute(AssertSqlSafe(format!("ALTER DATABASE {draft} RENAME TO {name}"))).await.expect("the template");
    }
    admin.execute("SELECT pg_advisory_unlock(7411)").await.expect("the lock's end");
    name
}

/// Drops the database, whoever is still connected to it.
struct DropDatabase {
    server: PgConnectOptions,
    name: String,
}

impl Drop for DropDatabase {
    fn drop(&mut self) {
        let (server, sql) = (self.server.clone(), format!("DROP DATABASE {} WITH (FORCE)", self.name));
        // Dropping is not asynchronous: a thread of its own may wait.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async { PgPool::connect_with(server).await.ok()?.execute(AssertSqlSafe(sql)).await.ok() })
        });
        if !matches!(dropped.join(), Ok(Some(_))) {
            tracing::warn!(database = self.name, "a test database was left behind");
        }
    }
}

/// The zone with this ID.
///
/// # Panics
///
/// If it is no ID.
#[must_use]
#[expect(clippy::expect_used, reason = "for tests only")]
pub fn zone(id: &str) -> Scope {
    Scope::Zone(TenantId::parse(id).expect("an ID"))
}

/// The account with this ID.
///
/// # Panics
///
/// If it is no ID.
#[must_use]
#[expect(clippy::expect_used, reason = "for tests only")]
pub fn account(id: &str) -> Scope {
    Scope::Account(TenantId::parse(id).expect("an ID"))
}

/// The present.
#[must_use]
pub fn now() -> Timestamp {
    SystemClock.now()
}

/// Someone who acts.
#[must_use]
pub fn actor() -> Actor {
    Actor { who: "tester".into(), via: Via::Api, from: "127.0.0.1".into(), request_id: Some("test".into()) }
}

/// A request that passes every check.
#[must_use]
pub fn request(key_type: KeyType) -> CustomCsrRequest {
    CustomCsrRequest {
        subject: Subject {
            country: "us".into(),
            state: "California".into(),
            locality: "San Francisco".into(),
            organization: "Müller & Söhne".into(),
            organizational_unit: None,
            common_name: "www.foo.com".into(),
        },
        name: Some("shop".into()),
        description: None,
        sans: vec!["www.foo.com".into(), "Foo.com".into(), "foo.com".into()],
        key_type,
    }
}

/// A custom CSR to accept, with a fresh ID.
#[must_use]
pub fn new_custom_csr(scope: &Scope, key_type: KeyType) -> NewCustomCsr {
    NewCustomCsr {
        id: CustomCsrId::new(now()),
        scope: scope.clone(),
        request: request(key_type),
        idempotency_key: None,
        replaces: None,
        set_id: None,
        max_pending: MAX_PENDING,
    }
}
