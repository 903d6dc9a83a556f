//! Whom a token names, and what it reaches.

use shared::ids::{Scope, TenantId};

/// What a token may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// `custom_csrs:read`
    CustomCsrsRead,
    /// `custom_csrs:write`, which includes reading.
    CustomCsrsWrite,
    /// `custom_certificates:read`
    CustomCertificatesRead,
    /// `custom_certificates:write`, which includes reading.
    CustomCertificatesWrite,
    /// `webhooks:read`
    WebhooksRead,
    /// `webhooks:write`, which includes reading.
    WebhooksWrite,
}

impl Permission {
    /// All words of `scope` that allow something here.
    pub const WORDS: [&str; 6] = [
        "custom_csrs:read",
        "custom_csrs:write",
        "custom_certificates:read",
        "custom_certificates:write",
        "webhooks:read",
        "webhooks:write",
    ];

    /// The word of `scope` that allows it and no more.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.words()[0]
    }

    /// The words of `scope` (RFC 8693) that allow it.
    const fn words(self) -> &'static [&'static str] {
        match self {
            Self::CustomCsrsRead => &["custom_csrs:read", "custom_csrs:write"],
            Self::CustomCsrsWrite => &["custom_csrs:write"],
            Self::CustomCertificatesRead => &["custom_certificates:read", "custom_certificates:write"],
            Self::CustomCertificatesWrite => &["custom_certificates:write"],
            Self::WebhooksRead => &["webhooks:read", "webhooks:write"],
            Self::WebhooksWrite => &["webhooks:write"],
        }
    }
}

/// What a token lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// It does not name the zone or account.
    Scope,
    /// It names the zone or account, and does not allow this.
    Permission,
}

/// Whom a token names that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub(super) subject: String,
    pub(super) zones: Vec<String>,
    pub(super) accounts: Vec<String>,
    /// The words of its `scope`, or `None` if it has none: then every permission is allowed.
    pub(super) scope: Option<Vec<String>>,
}

impl Caller {
    /// The token's `sub`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Checks that the token reaches this scope with this permission. An account in a token does not reach the account's zones.
    ///
    /// # Errors
    ///
    /// What it lacks. What it may not reach counts first.
    pub fn check(&self, scope: &Scope, permission: Permission) -> Result<(), Lack> {
        let names = |ids: &[String], id: &TenantId| ids.iter().any(|named| named == "*" || named == id.as_str());
        let is_reached = match scope {
            Scope::Zone(id) => names(&self.zones, id),
            Scope::Account(id) => names(&self.accounts, id),
        };
        if !is_reached {
            return Err(Lack::Scope);
        }
        let allowed = self.scope.as_ref().is_none_or(|words| words.iter().any(|word| permission.words().contains(&word.as_str())));
        if allowed { Ok(()) } else { Err(Lack::Permission) }
    }
}
