//! `Prefer: wait=N` (RFC 7240): the answer waits until a custom CSR is no longer pending.

use std::time::Duration;

use poem::http::{HeaderMap, HeaderName};
use poem_openapi::registry::MetaSchema;
use shared::{
    custom_csr::{CustomCsr, Status},
    storage::Changes,
};
use tokio::time::Instant;

use crate::{
    http::{
        deadline::Deadline,
        header::{HeaderParameter, elements},
    },
    state::AppState,
};

/// The header.
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The longest wait. The document names it too.
const WAIT_MAX_SECS: u32 = 30;

/// Between two looks at the row, should a signal be missed.
const TICK: Duration = Duration::from_secs(1);

/// How long a client wants to wait, if it does.
#[derive(Clone, Copy)]
pub struct Prefer(Option<u32>);

impl Prefer {
    /// The seconds, at most 30.
    #[must_use]
    pub const fn secs(self) -> Option<u32> {
        self.0
    }
}

impl HeaderParameter for Prefer {
    fn schema() -> MetaSchema {
        let description = "`wait=N` (RFC 7240): answer when the status is no longer `pending`, or after N seconds, at most 30.";
        MetaSchema { description: Some(description), example: Some("wait=10".into()), ..MetaSchema::new("string") }
    }

    fn read(headers: &HeaderMap) -> Self {
        Self(preferred_secs(headers))
    }
}

/// The seconds that a request asks to wait, or `None` if it does not or the preference is malformed.
///
/// The first well-formed `wait` counts (RFC 7240, 2); more than [`WAIT_MAX_SECS`] counts as that.
fn preferred_secs(headers: &HeaderMap) -> Option<u32> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(elements).find_map(wait_secs)
}

/// The seconds of a preference, if it is a well-formed `wait`.
fn wait_secs(preference: &str) -> Option<u32> {
    let (name, value) = preference.split(';').next()?.split_once('=')?;
    let wait = name.trim().eq_ignore_ascii_case("wait").then(|| value.trim())?;
    let digits = wait.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(wait);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // So many digits that they do not fit are more than the longest wait.
    Some(digits.parse().unwrap_or(WAIT_MAX_SECS).min(WAIT_MAX_SECS))
}

/// The value of `Preference-Applied`.
#[must_use]
pub fn applied(secs: u32) -> String {
    format!("wait={secs}")
}

/// How a wait ended.
pub struct Waited<T> {
    /// What was waited for, as it was read last.
    pub seen: T,
    /// The seconds that were granted, or `None` if too many requests wait already.
    pub applied_secs: Option<u32>,
}

/// Waits until a custom CSR is deleted, which it then is `None` for, or no longer pending, for `secs` at most. It holds no connection meanwhile.
/// The database has until `deadline`, or until a second after the wait, to answer. If the row cannot be read, its last state counts.
///
/// `changes` must be from before `custom_csr` was read, so that none is missed.
pub async fn until_not_pending(
    state: &AppState,
    custom_csr: CustomCsr,
    changes: Changes<'_>,
    subject: &str,
    secs: u32,
    deadline: Deadline,
) -> Waited<Option<CustomCsr>> {
    let Some(_place) = state.waiting.try_take(subject) else { return Waited { seen: Some(custom_csr), applied_secs: None } };
    let end = Instant::now() + Duration::from_secs(u64::from(secs));
    Waited { seen: watch(state, custom_csr, changes, end, deadline).await, applied_secs: Some(secs) }
}

/// The same for several, for `secs` together. One that is deleted meanwhile stays as it was given.
pub async fn until_none_is_pending(
    state: &AppState,
    custom_csrs: Vec<(CustomCsr, Changes<'_>)>,
    subject: &str,
    secs: u32,
    deadline: Deadline,
) -> Waited<Vec<CustomCsr>> {
    let Some(_place) = state.waiting.try_take(subject) else {
        return Waited { seen: custom_csrs.into_iter().map(|(csr, _)| csr).collect(), applied_secs: None };
    };
    let end = Instant::now() + Duration::from_secs(u64::from(secs));
    let mut seen = Vec::new();
    for (csr, changes) in custom_csrs {
        seen.push(watch(state, csr.clone(), changes, end, deadline).await.unwrap_or(csr));
    }
    Waited { seen, applied_secs: Some(secs) }
}

async fn watch(state: &AppState, seen: CustomCsr, mut changes: Changes<'_>, end: Instant, deadline: Deadline) -> Option<CustomCsr> {
    let (scope, id) = (seen.scope.clone(), seen.id);
    let mut seen = Some(seen);
    let mut stopping = state.stopping.clone();
    while seen.as_ref().is_some_and(|csr| csr.status == Status::Pending) && Instant::now() < end {
        let next_look = end.min(Instant::now() + TICK);
        tokio::select! {
            () = changes.next() => {}
            () = tokio::time::sleep_until(next_look) => {}
            _ = stopping.wait_for(|stopping| *stopping) => break,
        }
        match deadline.or_later(end + TICK).read(state.store.find_custom_csr(&scope, id)).await {
            Ok(now) => seen = now,
            Err(error) => tracing::debug!(%error, "the row cannot be read; the wait goes on"),
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    fn secs(values: &[&'static str]) -> Option<u32> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PREFER, HeaderValue::from_static(value));
        }
        preferred_secs(&headers)
    }

    #[test]
    fn the_first_well_formed_wait_counts_and_thirty_is_the_most() {
        assert_eq!(secs(&["wait=10"]), Some(10));
        assert_eq!(secs(&["respond-async, WAIT = 5; x=y"]), Some(5));
        assert_eq!(secs(&["return=minimal", "wait=\"7\", wait=9"]), Some(7));
        assert_eq!(secs(&["wait=soon, wait=8"]), Some(8));
        assert_eq!(secs(&["note=\"a, wait=1, b\", wait=6"]), Some(6));
        assert_eq!(secs(&["wait=60"]), Some(30));
        assert_eq!(secs(&["wait=99999999999999999999"]), Some(30));
        assert_eq!(secs(&["wait=0"]), Some(0));
        for malformed in ["wait", "wait=", "wait=-1", "wait=1.5", "wait=soon", "waiting=3", "wait=\"5", ""] {
            assert_eq!(secs(&[malformed]), None, "{malformed}");
        }
        assert_eq!(secs(&[]), None);
    }
}
