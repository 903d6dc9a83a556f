//! Trust anchors: the roots that an operator wants chains to lead to.

use std::collections::HashSet;

use super::{formats::Fault, parsed::Parsed, readings::Readings};

/// The roots that chains have to lead to.
#[derive(Debug)]
pub struct TrustAnchors(Readings);

/// Why a file holds no trust anchors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TrustAnchorsError(String);

impl TrustAnchors {
    /// Reads root certificates, in any form in which certificates are uploaded.
    ///
    /// # Errors
    ///
    /// If there are none, or one of them cannot be parsed.
    pub fn parse(pem: &[u8]) -> Result<Self, TrustAnchorsError> {
        Readings::of(&String::from_utf8_lossy(pem)).map(Self).map_err(|fault| {
            TrustAnchorsError(match fault {
                Fault::PrivateKey => "it holds a private key".to_owned(),
                Fault::Unreadable(reason) => reason,
            })
        })
    }

    /// The anchors whose subject is the issuer of one of these certificates.
    #[must_use]
    pub(super) fn of(&self, certificates: &[Parsed<'_>]) -> Vec<&Parsed<'_>> {
        let issuers: HashSet<_> = certificates.iter().map(|certificate| &certificate.issuer).collect();
        self.0.different().iter().filter(|anchor| issuers.contains(&anchor.subject)).collect()
    }
}
