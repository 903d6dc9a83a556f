//! For tests: temporary databases and builders.

use tempfile::TempDir;

use crate::{
    clock::{Clock, SystemClock, Timestamp},
    ids::{CustomCsrId, Scope, TenantId},
    model::{CustomCsrRequest, KeyType, Subject},
    storage::{Database, NewCustomCsr, open_sqlite},
};

/// A database in a directory of its own, in WAL mode as in production. The directory goes with it.
pub struct TestDatabase {
    /// The open database.
    pub database: Database,
    /// Where it lies.
    pub directory: TempDir,
}

impl TestDatabase {
    /// A fresh, migrated database.
    ///
    /// # Panics
    ///
    /// Where the machine has no room for one.
    #[expect(clippy::expect_used, reason = "for tests only: without a database there is nothing to test")]
    pub async fn sqlite() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let database = open_sqlite(&directory.path().join("csrd.db"), true).await.expect("a fresh database");
        Self { database, directory }
    }
}

/// The zone with this ID.
///
/// # Panics
///
/// Where it is no ID.
#[must_use]
#[expect(clippy::expect_used, reason = "for tests only")]
pub fn zone(id: &str) -> Scope {
    Scope::Zone(TenantId::parse(id).expect("an ID"))
}

/// The account with this ID.
///
/// # Panics
///
/// Where it is no ID.
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

/// A custom CSR about to be accepted, with a fresh ID.
#[must_use]
pub fn new_custom_csr(scope: &Scope, key_type: KeyType) -> NewCustomCsr {
    NewCustomCsr { id: CustomCsrId::new(now()), scope: scope.clone(), request: request(key_type) }
}
