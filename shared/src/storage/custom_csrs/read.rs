//! How custom CSRs are read: one by one, many at a time.

use std::{collections::HashMap, sync::Arc};

use crate::{
    clock::Timestamp,
    custom_csr::{CustomCsr, CustomCsrRequest, KeyType, Status, Subject},
    ids::{CustomCertificateId, CustomCsrId, Scope, SetId},
    storage::{
        Dialect, StoreError,
        engine::{Failure, Outcome, Reader, Sql, Work, given, given_rows, statements, values},
    },
};

/// The columns that a [`CustomCsr`] is read from.
macro_rules! columns {
    () => {
        "id, scope, account_id, status, error, created_at, updated_at, country, state, locality, organization, \
         organizational_unit, common_name, name, description, sans, key_type, csr_pem, replaces, set_id"
    };
}

/// The same, with the IDs of the certificates that use the row, the oldest first.
macro_rules! columns_with_certificates {
    () => {
        concat!(
            $crate::storage::custom_csrs::columns!(),
            ", (SELECT string_agg(c.id, ',' ORDER BY c.uploaded_at, c.id) FROM custom_certificates c \
             WHERE c.custom_csr_id = custom_csrs.id) AS certificate_ids"
        )
    };
}

/// That a row which the statement finds by its ID is pending. `|| ''` keeps PostgreSQL from the index of pending rows: it takes that index for
/// small while rows come and go faster than it counts them, and would read all of it for one row.
macro_rules! is_pending {
    () => {
        "custom_csrs.status || '' = 'pending'"
    };
}

pub(in crate::storage) use {columns, columns_with_certificates, is_pending};

statements! {
    /// The rows with these pairs of ID and scope. PostgreSQL keeps a plan that it made while the table was almost empty: looking rows up one by
    /// one, by their ID, is right for a table of any size.
    FIND_CUSTOM_CSRS {
        sqlite: concat!(
            "SELECT ", columns_with_certificates!(), " FROM custom_csrs WHERE (id, scope) IN (SELECT given.id, given.scope FROM ",
            given!(sqlite id TEXT, scope TEXT), ")"
        ),
        postgres: concat!(
            "SELECT found.* FROM (SELECT DISTINCT id, scope FROM ", given!(postgres id TEXT, scope TEXT), ") AS given CROSS JOIN LATERAL (SELECT ",
            columns_with_certificates!(), " FROM custom_csrs WHERE custom_csrs.id = given.id AND custom_csrs.scope || '' = given.scope OFFSET 0) AS found"
        ),
    };
}

impl<DB: Dialect> Reader<'_, DB> {
    pub(in crate::storage) fn custom_csr_id(&self) -> Result<CustomCsrId, StoreError> {
        self.parsed("id", CustomCsrId::parse)
    }

    pub(in crate::storage) fn custom_csr(&self) -> Result<CustomCsr, StoreError> {
        Ok(CustomCsr {
            id: self.custom_csr_id()?,
            scope: self.scope()?,
            account: self.account()?,
            status: self.parsed("status", Status::parse)?,
            error: self.optional_text("error")?,
            created_at: Timestamp::from_micros(self.int("created_at")?),
            updated_at: Timestamp::from_micros(self.int("updated_at")?),
            request: CustomCsrRequest {
                subject: Subject {
                    country: self.text("country")?,
                    state: self.text("state")?,
                    locality: self.text("locality")?,
                    organization: self.text("organization")?,
                    organizational_unit: self.optional_text("organizational_unit")?,
                    common_name: self.text("common_name")?,
                },
                name: self.optional_text("name")?,
                description: self.optional_text("description")?,
                sans: self.parsed("sans", |json| serde_json::from_str(json).ok())?,
                key_type: self.parsed("key_type", KeyType::parse)?,
            },
            csr_pem: self.optional_text("csr_pem")?,
            replaces: self.optional("replaces", CustomCsrId::parse)?,
            set_id: self.optional("set_id", SetId::parse)?,
            certificate_ids: self
                .optional("certificate_ids", |ids| ids.split(',').map(CustomCertificateId::parse).collect())?
                .unwrap_or_default(),
        })
    }
}

/// Reads custom CSRs by ID and scope.
pub(in crate::storage) struct Reading<DB: Dialect> {
    pub sql: Arc<Sql<DB>>,
}

impl<DB: Dialect> Clone for Reading<DB> {
    fn clone(&self) -> Self {
        Self { sql: Arc::clone(&self.sql) }
    }
}

#[derive(serde::Serialize)]
struct Wanted {
    id: String,
    scope: String,
}

impl<DB: Dialect> Work for Reading<DB> {
    type Request = (CustomCsrId, Scope);
    type Response = Option<CustomCsr>;
    type Key = (CustomCsrId, Scope);
    const TOGETHER: bool = true;

    fn key(request: &Self::Request) -> Self::Key {
        request.clone()
    }

    async fn run(&self, requests: &[&Self::Request], _: bool) -> Result<Vec<Outcome<Self::Response>>, Failure> {
        // A read that the database refuses says nothing of the one row that cannot be read: all are told.
        let failed = |error| Failure { error, is_answer: false };
        let wanted: Vec<_> = requests.iter().map(|(id, scope)| Wanted { id: id.to_string(), scope: scope.to_string() }).collect();
        let rows = self.sql.rows(FIND_CUSTOM_CSRS, values![given_rows(&wanted).map_err(failed)?]).await.map_err(failed)?;
        let mut found = HashMap::new();
        for row in &rows {
            let row = Reader::<DB>(row);
            found.insert((row.text("id").map_err(failed)?, row.text("scope").map_err(failed)?), row.custom_csr());
        }
        // Two may ask for the same one.
        let answer = |Wanted { id, scope }| found.get(&(id, scope)).map_or(Ok(None), |csr| csr.clone().map(Some));
        Ok(wanted.into_iter().map(|wanted| Outcome::Answer(answer(wanted))).collect())
    }
}
