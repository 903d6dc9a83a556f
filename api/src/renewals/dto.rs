//! Renewal policies on the wire.

use poem_openapi::{Enum, Object};
use serde::Serialize;
use shared::renewal::{self, RenewalPolicy};

use crate::http::{
    envelope::{Message, envelopes},
    mounted::Tag,
    types::DateTime,
};

/// The tag of the operations.
pub const TAG: Tag = Tag("renewal-policies");

/// Which key renewed certificates have.
#[derive(Debug, Clone, Copy, Enum, Serialize)]
#[oai(rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum RenewalKey {
    /// The same as before.
    Reuse,
    /// A new one each time: their custom CSR is rekeyed, which counts against the quota.
    New,
}

impl From<renewal::RenewalKey> for RenewalKey {
    fn from(key: renewal::RenewalKey) -> Self {
        match key {
            renewal::RenewalKey::Reuse => Self::Reuse,
            renewal::RenewalKey::New => Self::New,
        }
    }
}

/// A zone's policy for renewing its certificates.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "RenewalPolicy")]
pub struct RenewalPolicyDto {
    /// The zone.
    pub zone_id: String,
    /// Which key renewed certificates have.
    pub key: RenewalKey,
    /// The part of a certificate's lifetime that is left when it is renewed.
    pub at: f64,
    /// When it was first set.
    pub created_at: DateTime,
    /// When it was last set.
    pub updated_at: DateTime,
}

impl From<RenewalPolicy> for RenewalPolicyDto {
    fn from(policy: RenewalPolicy) -> Self {
        let RenewalPolicy { zone, key, at, created_at, updated_at } = policy;
        Self {
            zone_id: zone.id().to_string(),
            key: key.into(),
            at: at.number(),
            created_at: DateTime(created_at.rfc3339()),
            updated_at: DateTime(updated_at.rfc3339()),
        }
    }
}

envelopes! {
    /// A renewal policy.
    RenewalPolicyResponse(RenewalPolicyDto) {}
}
