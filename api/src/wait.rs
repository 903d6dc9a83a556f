//! `Prefer: wait=N` (RFC 7240): the answer waits until a custom CSR is no longer pending.

use std::time::Duration;

use poem::http::{HeaderMap, HeaderName};
use shared::{
    custom_csr::{CustomCsr, Status},
    storage::Changes,
};
use tokio::time::Instant;

use crate::{http::deadline::Deadline, state::AppState};

/// What the client prefers.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The longest wait.
pub const WAIT_MAX_SECS: u32 = 30;

/// A look at the row now and then, should a signal be missed.
const TICK: Duration = Duration::from_secs(1);

/// The seconds that a request asks to wait, none where it does not or where the preference is malformed.
///
/// The first `wait` counts (RFC 7240, 2); more than [`WAIT_MAX_SECS`] counts as that.
#[must_use]
pub fn preferred_secs(headers: &HeaderMap) -> Option<u32> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    let wait = preferences.find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim())
    })?;
    let digits = wait.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(wait);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // So many digits that they do not fit are more than the longest wait.
    Some(digits.parse().unwrap_or(WAIT_MAX_SECS).min(WAIT_MAX_SECS))
}

/// What a wait ended with.
pub struct Waited {
    /// The custom CSR as it was read last; none where it is gone.
    pub custom_csr: Option<CustomCsr>,
    /// The seconds that were granted; none where too many wait already.
    pub applied_secs: Option<u32>,
}

/// Waits until a custom CSR is no longer pending or gone, for `secs` at most. It holds no connection meanwhile. The database may keep
/// it until `deadline`, or for a second beyond the wait. Where the row cannot be read, its last state counts.
///
/// `changes` are from before `custom_csr` was read, so that none falls between.
pub async fn until_decided(
    state: &AppState,
    custom_csr: CustomCsr,
    mut changes: Changes<'_>,
    subject: &str,
    secs: u32,
    deadline: Deadline,
) -> Waited {
    let (scope, id) = (custom_csr.scope.clone(), custom_csr.id);
    let mut custom_csr = Some(custom_csr);
    let Some(_place) = state.waiting.try_take(subject) else { return Waited { custom_csr, applied_secs: None } };
    let end = Instant::now() + Duration::from_secs(u64::from(secs));
    let mut stopping = state.stopping.clone();
    while custom_csr.as_ref().is_some_and(|csr| csr.status == Status::Pending) && Instant::now() < end {
        let next_look = end.min(Instant::now() + TICK);
        tokio::select! {
            () = changes.next() => {}
            () = tokio::time::sleep_until(next_look) => {}
            _ = stopping.wait_for(|stopping| *stopping) => break,
        }
        match deadline.or_later(end + TICK).read(state.store.find_custom_csr(&scope, id)).await {
            Ok(now) => custom_csr = now,
            Err(error) => tracing::debug!(%error, "the row is looked at again later"),
        }
    }
    Waited { custom_csr, applied_secs: Some(secs) }
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
        assert_eq!(secs(&["wait=60"]), Some(30));
        assert_eq!(secs(&["wait=99999999999999999999"]), Some(30));
        assert_eq!(secs(&["wait=0"]), Some(0));
        for malformed in ["wait", "wait=", "wait=-1", "wait=1.5", "wait=soon", "waiting=3", "wait=\"5", ""] {
            assert_eq!(secs(&[malformed]), None, "{malformed}");
        }
        assert_eq!(secs(&[]), None);
    }
}
