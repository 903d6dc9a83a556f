//! What of a custom CSR is read, for the statements of both databases.

/// The columns that a [`crate::custom_csr::CustomCsr`] is read from.
macro_rules! csr_columns {
    () => {
        "id, scope, account_id, status, error, created_at, updated_at, country, state, locality, organization, \
         organizational_unit, common_name, name, description, sans, key_type, csr_pem, replaces"
    };
}

/// The same, with the IDs of the certificates that use the row, the oldest first.
macro_rules! csr_columns_with_certificates {
    () => {
        concat!(
            $crate::storage::custom_csrs::columns::csr_columns!(),
            ", (SELECT string_agg(c.id, ',' ORDER BY c.uploaded_at, c.id) FROM custom_certificates c \
             WHERE c.custom_csr_id = custom_csrs.id) AS certificate_ids"
        )
    };
}

/// Starts the rows of these jobs, which wait for a key of type `$3`, and gives them job `$1`; `$2` is a JSON array with the IDs of the jobs.
macro_rules! start_rows_of_jobs {
    ($is_one_of_the_ids:literal) => {
        concat!(
            "UPDATE custom_csrs SET starts = starts + 1, job_id = $1 \
             WHERE status = 'pending' AND key_type = $3 AND job_id ",
            $is_one_of_the_ids,
            " RETURNING ",
            $crate::storage::custom_csrs::columns::csr_columns!(),
            ", CAST(NULL AS TEXT) AS certificate_ids, attempts, starts, job_id"
        )
    };
}

/// The rows that a query's pairs of ID and scope name.
macro_rules! find_custom_csrs {
    ($pairs:literal) => {
        concat!(
            "SELECT ",
            $crate::storage::custom_csrs::columns::csr_columns_with_certificates!(),
            " FROM custom_csrs WHERE (id, scope) IN (",
            $pairs,
            ")"
        )
    };
}

pub(in crate::storage) use {csr_columns, csr_columns_with_certificates, find_custom_csrs, start_rows_of_jobs};

use crate::{
    clock::Timestamp,
    custom_csr::{CustomCsr, CustomCsrRequest, KeyType, Status, Subject},
    ids::{CustomCertificateId, CustomCsrId},
    storage::{Dialect, StoreError, row::Reader},
};

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
            certificate_ids: self
                .optional("certificate_ids", |ids| ids.split(',').map(CustomCertificateId::parse).collect())?
                .unwrap_or_default(),
        })
    }
}
