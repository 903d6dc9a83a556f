//! How tokens are verified.

use std::time::Duration;

use super::keys::KeySource;

/// What a token needs to be accepted.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// Where the keys are.
    pub source: KeySource,
    /// The `iss` that is demanded.
    pub issuer: Option<String>,
    /// The `aud` that is demanded.
    pub audience: Option<String>,
    /// The name of the claim with the zones.
    pub zones_claim: String,
    /// The name of the claim with the accounts.
    pub accounts_claim: String,
    /// The name of the claim with the permissions.
    pub scope_claim: String,
    /// How far clocks may differ.
    pub leeway: Duration,
}
