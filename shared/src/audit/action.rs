//! The actions of the audit table, each with its word.

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A custom CSR was accepted, or a webhook made.
    Create,
    /// Name or description of a custom CSR, or the settings of a custom certificate or of a webhook, were changed.
    Edit,
    /// A custom CSR, a custom certificate or a webhook was deleted. A deleted custom CSR may be hidden at first.
    Delete,
    /// A custom CSR that was hidden was brought back.
    Restore,
    /// A custom CSR that was hidden was destroyed with its key.
    Purge,
    /// A custom certificate was uploaded.
    Upload,
    /// A custom certificate got another certificate.
    Replace,
    /// A custom CSR was accepted in place of another one.
    Rekey,
    /// A certificate and its private key were written to files.
    Export,
    /// A zone or an account was granted custom CSRs.
    Grant,
    /// The grant was revoked.
    Revoke,
    /// A token was signed.
    TokenIssue,
    /// Entries of this table were moved to a file.
    Archive,
    /// A master key was made.
    KeyNew,
    /// A master key became the one that seals.
    KeyUse,
    /// Records were sealed anew with a master key.
    KeyReseal,
    /// A master key was forgotten.
    KeyRetire,
    /// A hand-over link was made.
    HandoverCreate,
    /// A hand-over link was opened, for the first time.
    HandoverOpen,
    /// A certificate came through a hand-over link, which ended it.
    HandoverUse,
    /// A hand-over link was revoked.
    HandoverRevoke,
    /// A plan of rekeys was made.
    IncidentPlan,
    /// A plan was started, for the first time or again.
    IncidentStart,
    /// A plan was stopped.
    IncidentStop,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::Create,
        Self::Edit,
        Self::Delete,
        Self::Restore,
        Self::Purge,
        Self::Upload,
        Self::Replace,
        Self::Rekey,
        Self::Export,
        Self::Grant,
        Self::Revoke,
        Self::TokenIssue,
        Self::Archive,
        Self::KeyNew,
        Self::KeyUse,
        Self::KeyReseal,
        Self::KeyRetire,
        Self::HandoverCreate,
        Self::HandoverOpen,
        Self::HandoverUse,
        Self::HandoverRevoke,
        Self::IncidentPlan,
        Self::IncidentStart,
        Self::IncidentStop,
    ];

    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Edit => "edit",
            Self::Delete => "delete",
            Self::Restore => "restore",
            Self::Purge => "purge",
            Self::Upload => "upload",
            Self::Replace => "replace",
            Self::Rekey => "rekey",
            Self::Export => "export",
            Self::Grant => "grant",
            Self::Revoke => "revoke",
            Self::TokenIssue => "token_issue",
            Self::Archive => "archive",
            Self::KeyNew => "key_new",
            Self::KeyUse => "key_use",
            Self::KeyReseal => "key_reseal",
            Self::KeyRetire => "key_retire",
            Self::HandoverCreate => "handover_create",
            Self::HandoverOpen => "handover_open",
            Self::HandoverUse => "handover_use",
            Self::HandoverRevoke => "handover_revoke",
            Self::IncidentPlan => "incident_plan",
            Self::IncidentStart => "incident_start",
            Self::IncidentStop => "incident_stop",
        }
    }

    /// Reads the table's word, or returns `None` if there is no such word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_has_a_word_of_its_own() {
        assert!(Action::ALL.iter().all(|action| Action::parse(action.as_str()) == Some(*action)));
    }
}
