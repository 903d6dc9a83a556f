//! Custom certificates to and from the columns of their rows.

use super::{MatchedCertificate, NewChain, UsableCsr};
use crate::{
    clock::Timestamp,
    custom_certificate::{BundleMethod, CertificateChain, CertificateType, CustomCertificate, LAST_SECOND, LeafDetails},
    custom_csr::{KeyType, Status},
    ids::{CustomCertificateId, CustomCsrId, SetId},
    renewal::{self, Renewal, RenewalStatus},
    storage::{
        Dialect, StoreError,
        engine::{Reader, Value, corrupt, values},
    },
    x509::certificate::leaf_details,
};

/// The first notAfter, in microseconds, that is not over.
pub(super) fn first_valid(now: Timestamp) -> i64 {
    now.minus(LAST_SECOND).micros().saturating_add(1)
}

/// The parameters of a chain, in the order of the columns.
pub(super) fn chain_values(new: &NewChain) -> Result<Vec<Value>, StoreError> {
    let CertificateChain { pem, hosts, issuer, signature, not_after, leaf } = new.chain.clone();
    let LeafDetails { not_before, serial_number, fingerprint_sha256 } = leaf;
    let hosts = json(&hosts)?;
    let csr = new.custom_csr_id.to_string();
    Ok(values![csr, pem, hosts, issuer, signature, not_after.micros(), not_before.micros(), serial_number, fingerprint_sha256])
}

pub(super) fn json(value: &(impl serde::Serialize + ?Sized)) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Internal(error.to_string()))
}

/// The pattern of LIKE for a JSON array of strings with this one in it, where a comma stands for the bracket: nowhere else does a quotation
/// mark follow a comma.
pub(super) fn with_host(host: &str) -> Result<String, StoreError> {
    let escaped = json(host)?.replace('!', "!!").replace('%', "!%").replace('_', "!_");
    Ok(format!("%,{escaped}%"))
}

/// The leaf of a chain that is stored here, in the encoding that all of them have.
pub(super) fn leaf_pem(chain_pem: &str) -> &str {
    chain_pem.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap_or_default()
}

impl<DB: Dialect> Reader<'_, DB> {
    pub(in crate::storage) fn certificate_id(&self) -> Result<CustomCertificateId, StoreError> {
        self.parsed("id", CustomCertificateId::parse)
    }

    pub(super) fn matched_certificate(&self) -> Result<MatchedCertificate, StoreError> {
        Ok(MatchedCertificate {
            id: self.certificate_id()?,
            zone: self.scope()?,
            modified_at: Timestamp::from_micros(self.int("modified_at")?),
            custom_csr_id: self.parsed("custom_csr_id", CustomCsrId::parse)?,
            key_type: self.parsed("key_type", KeyType::parse)?,
            set_id: self.parsed("set_id", SetId::parse)?,
        })
    }

    pub(in crate::storage) fn certificate(&self) -> Result<CustomCertificate, StoreError> {
        let time = |column| self.int(column).map(Timestamp::from_micros);
        let leaf = self.leaf()?;
        let renewal = self.renewal(&leaf.fingerprint_sha256)?;
        Ok(CustomCertificate {
            id: self.certificate_id()?,
            zone: self.scope()?,
            custom_csr_id: self.parsed("custom_csr_id", CustomCsrId::parse)?,
            chain: CertificateChain {
                pem: self.text("chain_pem")?,
                hosts: self.parsed("hosts", |json| serde_json::from_str(json).ok())?,
                issuer: self.text("issuer")?,
                signature: self.text("signature")?,
                not_after: time("not_after")?,
                leaf,
            },
            bundle_method: self.parsed("bundle_method", BundleMethod::parse)?,
            certificate_type: self.parsed("certificate_type", CertificateType::parse)?,
            priority: u16::try_from(self.int("priority")?).map_err(|_| corrupt("priority"))?,
            uploaded_at: time("uploaded_at")?,
            modified_at: time("modified_at")?,
            renewal,
        })
    }

    /// The state of the renewal of a certificate whose leaf has this fingerprint.
    fn renewal(&self, fingerprint: &str) -> Result<Renewal, StoreError> {
        let (state, about) = (self.optional("renewal_state", RenewalStatus::parse)?, self.optional_text("renewal_leaf")?);
        let status = renewal::status(state, about.as_deref(), fingerprint);
        if self.optional_text("ari_leaf")?.as_deref() != Some(fingerprint) {
            return Ok(Renewal { status, ..Renewal::default() });
        }
        let after = self.optional_int("renew_after")?.map(Timestamp::from_micros);
        Ok(Renewal { status, after, explanation_url: self.optional_text("renewal_explanation_url")? })
    }

    pub(super) fn leaf(&self) -> Result<LeafDetails, StoreError> {
        if self.optional_int("described_at")? == Some(self.int("modified_at")?) {
            return Ok(LeafDetails {
                not_before: self.int("not_before").map(Timestamp::from_micros)?,
                serial_number: self.text("serial_number")?,
                fingerprint_sha256: self.text("fingerprint_sha256")?,
            });
        }
        self.parsed("chain_pem", leaf_details)
    }

    pub(super) fn usable_csr(&self) -> Result<UsableCsr, StoreError> {
        let spki = DB::blob(self.0, "spki_sha256").map_err(|_| corrupt("spki_sha256"))?;
        Ok(UsableCsr {
            id: self.parsed("id", CustomCsrId::parse)?,
            status: self.parsed("status", Status::parse)?,
            sans: self.parsed("sans", |json| serde_json::from_str(json).ok())?,
            spki_sha256: spki.map(|spki| spki.try_into().map_err(|_| corrupt("spki_sha256"))).transpose()?,
        })
    }
}
