//! The certificates of an upload, read and not judged yet.

use super::{
    formats::Fault,
    issues::{issue, private_key_refused},
    parsed::Parsed,
    pem,
    readings::Readings,
};
use crate::{codes::ErrorCode, issue::Issue};

/// The most certificates of an upload, each counted once: each costs signatures to verify.
const MAX_CERTIFICATES: usize = 10;

/// Certificates that were sent and can be read, not judged yet.
#[derive(Debug)]
pub struct PemChain(Readings);

impl PemChain {
    /// Reads certificates in any form in which they are accepted.
    ///
    /// # Errors
    ///
    /// 1473 if there is a private key among them, and 1426.
    pub fn parse(text: &str) -> Result<Self, Issue> {
        Readings::of(text).map(Self).map_err(|fault| match fault {
            Fault::PrivateKey => private_key_refused(),
            Fault::Unreadable(reason) => issue(ErrorCode::CertificateUnparsable, reason),
        })
    }

    /// The same, if they are few enough for an upload: at most ten. One that repeats counts once.
    ///
    /// # Errors
    ///
    /// 1426.
    pub fn bounded(self) -> Result<Self, Issue> {
        let count = self.0.different().len();
        if count > MAX_CERTIFICATES {
            let reason = format!(
                "it holds {count} certificates, and at most {MAX_CERTIFICATES} are accepted; leave out what is neither the leaf nor an \
                 intermediate"
            );
            return Err(issue(ErrorCode::CertificateUnparsable, reason));
        }
        Ok(self)
    }

    /// The same certificates in the same order, in the encoding in which chains are stored.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.order().iter().map(|index| pem::encode("CERTIFICATE", self.0.different()[*index].der)).collect()
    }

    /// SHA-256 of the SubjectPublicKeyInfo of each certificate that says that it is no CA's, in the encoding that CSRs made here have. If all say
    /// that they are a CA's, of each: one of them may have been meant for a leaf.
    #[must_use]
    pub fn leaf_keys(&self) -> Vec<[u8; 32]> {
        let says_ca = |certificate: &&Parsed<'_>| certificate.basic_constraints().is_some_and(|constraints| constraints.ca);
        let (cas, leaves): (Vec<_>, Vec<_>) = self.0.different().iter().partition(says_ca);
        let candidates = if leaves.is_empty() { cas } else { leaves };
        candidates.iter().map(|certificate| certificate.key.sha256).collect()
    }

    /// SHA-256 of the first certificate's SubjectPublicKeyInfo, in the encoding that CSRs made here have.
    #[must_use]
    pub fn first_spki_sha256(&self) -> Option<[u8; 32]> {
        self.0.different().first().map(|first| first.key.sha256)
    }

    /// What was read of them.
    pub(super) const fn readings(&self) -> &Readings {
        &self.0
    }
}
