//! Who did what: the entries of the append-only audit table.

mod action;

pub use self::action::Action;
use crate::{
    clock::Timestamp,
    ids::{CustomCertificateId, CustomCsrId, HandoverId, IncidentId, Scope, WebhookId},
};

/// How somebody reached csrd. A token may name anybody, even `os:root`: only this tells a request from a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// By a request with a token.
    Api,
    /// By a command on a machine that has the database.
    Cli,
    /// By a request with a hand-over link.
    Handover,
    /// By a worker, for a policy.
    Worker,
}

impl Via {
    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Cli => "cli",
            Self::Handover => "handover",
            Self::Worker => "worker",
        }
    }

    /// Reads the table's word, or returns `None` if there is no such word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Api, Self::Cli, Self::Handover, Self::Worker].into_iter().find(|via| via.as_str() == word)
    }

    /// Derives the way from the address, for entries of an older version, which did not write it: only commands come from `local`.
    #[must_use]
    pub fn of_old_entry(who: &str, from: &str) -> Self {
        if from == "local" && who.starts_with("os:") { Self::Cli } else { Self::Api }
    }
}

/// Who acts, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The token's subject, `os:USER` for commands, `handover:ID` for a hand-over link, or the purpose of a worker.
    pub who: String,
    /// How they came.
    pub via: Via,
    /// The peer's address, or `local` for commands.
    pub from: String,
    /// The request's ID; for the rekeys of an incident, the plan's ID; `None` for other commands.
    pub request_id: Option<String>,
}

impl Actor {
    /// A worker that acts without a request, for this purpose.
    #[must_use]
    pub fn worker(purpose: &str) -> Self {
        Self { who: purpose.to_owned(), via: Via::Worker, from: "local".to_owned(), request_id: None }
    }
}

/// What it was done to. As text, `custom_csr/ID`, `custom_certificate/ID`, `webhook/ID`, `handover/ID`, `renewal_policy/ZONE`, `incident/ID`,
/// `zone/ID`, `account/ID`, `master_key/ID` or `audit/COUNT/SHA256`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A custom CSR.
    CustomCsr(CustomCsrId),
    /// A custom certificate.
    CustomCertificate(CustomCertificateId),
    /// A webhook.
    Webhook(WebhookId),
    /// A zone or an account, or, with the ID `*`, all of them.
    Scope,
    /// Entries of the audit table.
    Archive {
        /// How many were moved to the file.
        entries: u64,
        /// Of the file, in hexadecimal.
        sha256: String,
    },
    /// The master key with this ID.
    MasterKey(String),
    /// A hand-over link.
    Handover(HandoverId),
    /// The renewal policy of the entry's zone.
    RenewalPolicy,
    /// A plan of rekeys.
    Incident(IncidentId),
}

/// The zone or account of an entry, in the table's form: `zones/ID` or `accounts/ID`, where the ID may be `*` for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditScope(String);

impl From<&Scope> for AuditScope {
    fn from(scope: &Scope) -> Self {
        Self(scope.to_string())
    }
}

impl AuditScope {
    /// All zones.
    #[must_use]
    pub fn all_zones() -> Self {
        Self("zones/*".to_owned())
    }

    /// All accounts.
    #[must_use]
    pub fn all_accounts() -> Self {
        Self("accounts/*".to_owned())
    }

    /// Parses the table's form, or returns `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_one = Scope::parse(text).is_some() || matches!(text, "zones/*" | "accounts/*");
        is_one.then(|| Self(text.to_owned()))
    }

    /// The table's form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `zone` or `account`, and the ID.
    #[must_use]
    pub fn parts(&self) -> (&str, &str) {
        let (kind, id) = self.0.split_once('/').unwrap_or_default();
        (kind.trim_end_matches('s'), id)
    }
}

/// An entry to write, by an [`Actor`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// What was done.
    pub action: Action,
    /// To what.
    pub resource: Resource,
    /// In which zone or account.
    pub scope: AuditScope,
    /// The custom CSRs of a certificate that was replaced.
    pub replaced: Option<Replaced>,
}

/// Of which custom CSRs a custom certificate was before and after it was replaced: the same one, unless it was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// Before.
    pub old: CustomCsrId,
    /// After.
    pub new: CustomCsrId,
}

impl NewEntry {
    /// An entry about a custom CSR.
    #[must_use]
    pub fn custom_csr(action: Action, id: CustomCsrId, scope: &Scope) -> Self {
        Self { action, resource: Resource::CustomCsr(id), scope: scope.into(), replaced: None }
    }

    /// An entry about a custom certificate.
    #[must_use]
    pub fn custom_certificate(action: Action, id: CustomCertificateId, zone: &Scope) -> Self {
        Self { action, resource: Resource::CustomCertificate(id), scope: zone.into(), replaced: None }
    }

    /// An entry about a webhook.
    #[must_use]
    pub fn webhook(action: Action, id: WebhookId, scope: &Scope) -> Self {
        Self { action, resource: Resource::Webhook(id), scope: scope.into(), replaced: None }
    }

    /// An entry about a custom certificate that got another certificate.
    #[must_use]
    pub fn replace(id: CustomCertificateId, zone: &Scope, replaced: Replaced) -> Self {
        Self { replaced: Some(replaced), ..Self::custom_certificate(Action::Replace, id, zone) }
    }

    /// An entry about a zone or an account.
    #[must_use]
    pub const fn scope(action: Action, scope: AuditScope) -> Self {
        Self { action, resource: Resource::Scope, scope, replaced: None }
    }

    /// An entry about entries that were moved to a file. They belong to all zones and accounts, and the table has no word for both.
    #[must_use]
    pub fn archive(entries: u64, sha256: String) -> Self {
        let resource = Resource::Archive { entries, sha256 };
        Self { action: Action::Archive, resource, scope: AuditScope::all_zones(), replaced: None }
    }

    /// An entry about a master key. It belongs to all zones and accounts, and the table has no word for both.
    #[must_use]
    pub fn master_key(action: Action, id: &str) -> Self {
        Self { action, resource: Resource::MasterKey(id.to_owned()), scope: AuditScope::all_zones(), replaced: None }
    }

    /// An entry about a hand-over link.
    #[must_use]
    pub fn handover(action: Action, id: HandoverId, scope: &Scope) -> Self {
        Self { action, resource: Resource::Handover(id), scope: scope.into(), replaced: None }
    }

    /// An entry about the renewal policy of a zone.
    #[must_use]
    pub fn renewal_policy(action: Action, zone: &Scope) -> Self {
        Self { action, resource: Resource::RenewalPolicy, scope: zone.into(), replaced: None }
    }

    /// An entry about a plan of rekeys. It may be about all zones and accounts; the table has no word for both.
    #[must_use]
    pub fn incident(action: Action, id: IncidentId) -> Self {
        Self { action, resource: Resource::Incident(id), scope: AuditScope::all_zones(), replaced: None }
    }

    /// The resource as text.
    #[must_use]
    pub fn resource(&self) -> String {
        match &self.resource {
            Resource::CustomCsr(id) => format!("custom_csr/{id}"),
            Resource::CustomCertificate(id) => format!("custom_certificate/{id}"),
            Resource::Webhook(id) => format!("webhook/{id}"),
            Resource::Archive { entries, sha256 } => format!("audit/{entries}/{sha256}"),
            Resource::MasterKey(id) => format!("master_key/{id}"),
            Resource::Handover(id) => format!("handover/{id}"),
            Resource::RenewalPolicy => format!("renewal_policy/{}", self.scope.parts().1),
            Resource::Incident(id) => format!("incident/{id}"),
            Resource::Scope => {
                let (kind, id) = self.scope.parts();
                format!("{kind}/{id}")
            }
        }
    }
}

/// An entry of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number: entries are read in this order.
    pub number: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What: an [`Action`]'s word.
    pub action: String,
    /// To what.
    pub resource: String,
    /// In which zone or account.
    pub scope: AuditScope,
    /// The custom CSRs of a certificate that was replaced.
    pub replaced: Option<Replaced>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{account, zone};

    #[test]
    fn a_resource_is_written_with_its_kind() {
        let id = CustomCsrId::new(Timestamp::from_micros(0));
        assert_eq!(NewEntry::custom_csr(Action::Create, id, &zone("z")).resource(), format!("custom_csr/{id}"));
        assert_eq!(NewEntry::scope(Action::Grant, (&zone("z")).into()).resource(), "zone/z");
        assert_eq!(NewEntry::scope(Action::Revoke, (&account("a")).into()).resource(), "account/a");
        assert_eq!(NewEntry::scope(Action::TokenIssue, AuditScope::all_zones()).resource(), "zone/*");
        assert_eq!(NewEntry::archive(3, "ab".to_owned()).resource(), "audit/3/ab");
        assert_eq!(NewEntry::master_key(Action::KeyUse, "ab").resource(), "master_key/ab");
    }

    #[test]
    fn an_entry_without_a_way_is_a_commands_only_where_it_came_from_this_machine() {
        assert_eq!(Via::of_old_entry("os:root", "local"), Via::Cli);
        assert_eq!(Via::of_old_entry("os:root", "127.0.0.1"), Via::Api);
        assert_eq!(Via::of_old_entry("me", "local"), Via::Api);
        assert!([Via::Api, Via::Cli, Via::Handover, Via::Worker].iter().all(|via| Via::parse(via.as_str()) == Some(*via)));
    }
}
