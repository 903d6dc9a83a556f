//! Incidents: plans of rekeys, for when many private keys or certificates have to be replaced at once.

use std::time::Duration;

use serde_json::{Map, Value, json};
use wildmatch::WildMatch;

use crate::{
    clock::Timestamp,
    ids::{CustomCertificateId, CustomCsrId, IncidentId, Scope},
    x509::provenance::{KnownKey, Provenance},
};

/// How long a plan is kept after it ends, or after it was made if it is never started.
pub const KEPT: Duration = Duration::from_hours(24 * 365);

/// Which certificates a plan is about: those that match all of these filters.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// Part of the name of an issuer of a certificate of the chain, in any case.
    pub issuer: Option<String>,
    /// The public key of a certificate of the chain, or of an issuer of one.
    pub key: Option<KnownKey>,
    /// The leaf's notBefore is before this time.
    pub issued_before: Option<Timestamp>,
    /// The private key was requested before this time.
    pub key_made_before: Option<Timestamp>,
    /// A host of the certificate, in any case; `*` stands for any characters.
    pub host: Option<String>,
}

impl Filters {
    /// Whether every certificate matches.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.issuer.is_none() && self.key.is_none() && self.issued_before.is_none() && self.key_made_before.is_none() && self.host.is_none()
    }

    /// Whether a certificate matches. A chain that cannot be parsed matches no filter that needs it, except for the issuer that is stored beside
    /// it.
    #[must_use]
    pub fn fit(&self, candidate: &Candidate) -> bool {
        let needs_chain = self.issuer.is_some() || self.key.is_some() || self.issued_before.is_some();
        let chain = if needs_chain { Provenance::of(&candidate.chain_pem) } else { None };
        let issued_by = |part: &String| {
            let part = part.to_lowercase();
            let of_chain = chain.iter().flat_map(|chain| &chain.issuers);
            of_chain.chain([&candidate.issuer]).any(|issuer| issuer.to_lowercase().contains(&part))
        };
        self.issuer.as_ref().is_none_or(issued_by)
            && self.key.as_ref().is_none_or(|key| chain.as_ref().is_some_and(|chain| chain.involves(key)))
            && self.issued_before.is_none_or(|time| chain.as_ref().is_some_and(|chain| chain.not_before < time))
            && self.key_made_before.is_none_or(|time| candidate.key_asked_at < time)
            && self.host.as_ref().is_none_or(|pattern| {
                let pattern = WildMatch::new_case_insensitive(pattern);
                candidate.hosts.iter().any(|host| pattern.matches(host))
            })
    }

    /// The filters as they are stored and shown.
    #[must_use]
    pub fn json(&self) -> Value {
        let members = [
            ("issuer", self.issuer.as_ref().map(|text| json!(text))),
            ("spki_sha256", self.key.as_ref().map(|key| json!(key.sha256()))),
            ("issued_before", self.issued_before.map(|time| json!(time.rfc3339()))),
            ("key_made_before", self.key_made_before.map(|time| json!(time.rfc3339()))),
            ("host", self.host.as_ref().map(|pattern| json!(pattern))),
        ];
        let given = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(given.collect::<Map<_, _>>())
    }
}

/// A certificate that is not expired, with the custom CSR that it uses.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its ID.
    pub id: CustomCertificateId,
    /// Its zone.
    pub zone: Scope,
    /// Its hosts.
    pub hosts: Vec<String>,
    /// Who issued the leaf.
    pub issuer: String,
    /// The leaf's notAfter.
    pub not_after: Timestamp,
    /// The certificates, the leaf first.
    pub chain_pem: String,
    /// The custom CSR.
    pub custom_csr_id: CustomCsrId,
    /// The zone or account of the custom CSR.
    pub scope: Scope,
    /// When the custom CSR was accepted.
    pub key_asked_at: Timestamp,
}

/// The status of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncidentStatus {
    /// It was made, and changed nothing yet.
    Planned,
    /// Workers are rekeying.
    Running,
    /// It was stopped: what is done stays.
    Stopped,
    /// Nothing is left to do.
    Done,
}

impl IncidentStatus {
    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Done => "done",
        }
    }

    /// Reads the table's word, or returns `None` if there is no such word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Planned, Self::Running, Self::Stopped, Self::Done].into_iter().find(|status| status.as_str() == word)
    }
}

/// A plan and its progress.
#[derive(Debug, Clone)]
pub struct Incident {
    /// Its ID.
    pub id: IncidentId,
    /// Its status.
    pub status: IncidentStatus,
    /// Its filters: [`Filters::json`].
    pub filters: Value,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was first started.
    pub started_at: Option<Timestamp>,
    /// When it was stopped or finished.
    pub ended_at: Option<Timestamp>,
    /// The time between two rekeys of all workers together.
    pub pause: Option<Duration>,
    /// Its progress.
    pub progress: Progress,
}

/// The progress of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The certificates of the plan.
    pub certificates: u64,
    /// Their custom CSRs.
    pub custom_csrs: u64,
    /// Those that are left to rekey.
    pub planned: u64,
    /// Those that were rekeyed: each has a new custom CSR.
    pub rekeyed: u64,
    /// Those that no longer need a rekey, or may not have one.
    pub skipped: u64,
    /// New custom CSRs whose keys are being made.
    pub pending: u64,
    /// New custom CSRs whose keys were made.
    pub active: u64,
    /// New custom CSRs whose keys could not be made.
    pub failed: u64,
    /// New custom CSRs that were deleted since.
    pub deleted: u64,
}

/// Why a custom CSR of a plan is not rekeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// It was deleted since the plan was made.
    Deleted,
    /// None of the plan's certificates uses it any longer: they were moved to other custom CSRs, or deleted.
    Unused,
    /// Another plan rekeyed it since this one was made.
    RekeyedByOther,
    /// The grant of its zone or account was revoked.
    NotGranted,
}

impl SkipReason {
    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Unused => "unused",
            Self::RekeyedByOther => "rekeyed_by_other_plan",
            Self::NotGranted => "not_granted",
        }
    }
}

/// What became of one custom CSR of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rekey {
    /// The custom CSR.
    pub custom_csr_id: CustomCsrId,
    /// Its zone or account.
    pub scope: Scope,
    /// `planned`, `rekeyed` or `skipped`.
    pub state: String,
    /// Why it was skipped: the word of a [`SkipReason`].
    pub reason: Option<String>,
    /// Its successor.
    pub new_custom_csr_id: Option<CustomCsrId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{now, zone};

    #[test]
    fn a_certificate_fits_what_fits_all_filters_together() {
        let day = Duration::from_hours(24);
        let candidate = Candidate {
            id: CustomCertificateId::new(now()),
            zone: zone("z"),
            hosts: vec!["www.foo.com".into(), "*.bar.com".into()],
            issuer: "Distrusted Trust GmbH".into(),
            not_after: now().plus(day),
            chain_pem: String::new(),
            custom_csr_id: CustomCsrId::new(now()),
            scope: zone("z"),
            key_asked_at: now().minus(day * 10),
        };
        let fits = |change: &dyn Fn(&mut Filters)| {
            let mut filters = Filters::default();
            change(&mut filters);
            filters.fit(&candidate)
        };
        assert!(fits(&|filters| filters.issuer = Some("trusted TRUST".into())) && !fits(&|filters| filters.issuer = Some("Other".into())));
        assert!(fits(&|filters| filters.key_made_before = Some(now().minus(day * 9))));
        assert!(!fits(&|filters| filters.key_made_before = Some(now().minus(day * 11))));
        for (pattern, expected) in
            [("WWW.foo.com", true), ("*.foo.com", true), ("*.bar.com", true), ("foo.com", false), ("*.com", true), ("www.foo", false)]
        {
            assert_eq!(fits(&|filters| filters.host = Some(pattern.into())), expected, "{pattern}");
        }
        assert!(!fits(&|filters| (filters.host, filters.issuer) = (Some("*".into()), Some("Other".into()))));
        assert!(!fits(&|filters| filters.issued_before = Some(now())), "no leaf says when it was issued");
        assert!(Filters::default().is_empty() && Filters::default().json() == json!({}));
        let filters = Filters { host: Some("*".into()), ..Filters::default() };
        assert_eq!((filters.is_empty(), filters.json()), (false, json!({ "host": "*" })));
    }
}
