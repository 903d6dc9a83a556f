//! What a client is told about the grant of a zone or an account.

use shared::{
    codes::ErrorCode,
    ids::Scope,
    issue::Issue,
    storage::{IDEMPOTENCY_KEYS_MAX, ScopeGrant},
};

use crate::{
    http::{deadline::Deadline, envelope::Message},
    state::AppState,
};

/// 1404 for a zone or an account that may have nothing new: `grant` is what was found of it, if anything.
#[must_use]
pub fn not_granted(scope: &Scope, grant: Option<&ScopeGrant>) -> Issue {
    let hint = match grant {
        None => never_granted(scope),
        Some(_) => revoked(scope.kind()),
    };
    Issue::new(ErrorCode::AccessNotGranted).hinting(hint)
}

/// 1404 for a zone or an account whose grant was revoked.
#[must_use]
pub fn revoked(kind: &str) -> String {
    format!("The grant of custom CSRs for this {kind} was revoked. Ask the operator of this service for access.")
}

/// 1403 for a zone or an account that was granted custom CSRs, but no number of them.
#[must_use]
pub fn no_quota(scope: &Scope) -> Issue {
    let hint = format!("This {} was granted custom CSRs, but no quota. Ask the operator of this service for one.", scope.kind());
    Issue::new(ErrorCode::QuotaNotAllocated).hinting(hint)
}

/// 1465 for a zone or an account that has as many custom CSRs as it may have, or has no room for as many as a set has.
#[must_use]
pub fn quota_used_up(scope: &Scope, quota: u32, wanted: usize) -> Issue {
    let kind = scope.kind();
    let reason = match wanted {
        1 => format!("the {kind} has all {quota} custom CSRs that it may have"),
        _ => format!("the {kind} may have {quota} custom CSRs, and has no room for the {wanted} of this set"),
    };
    let hint = "Failed custom CSRs count too, and deleted ones that can still be restored. The operator of this service can allocate a larger quota.";
    Issue::new(ErrorCode::QuotaUsedUp).because(reason).hinting(hint)
}

/// 1470 for a zone or an account that has as many pending custom CSRs as it may have, or has no room for as many as a set has.
#[must_use]
pub fn too_many_pending(scope: &Scope, most: u32, wanted: usize) -> Issue {
    let kind = scope.kind();
    let reason = match wanted {
        1 => format!("The {kind} has {most} pending custom CSRs, as many as it may have."),
        _ => format!("The {kind} may have {most} pending custom CSRs, and has no room for the {wanted} of this set."),
    };
    Issue::new(ErrorCode::TooManyRequests).hinting(format!("{reason} Wait until some of them are no longer pending."))
}

/// 1470 for a zone or an account of which as many Idempotency-Keys are remembered as may be.
#[must_use]
pub fn too_many_keys(kind: &str) -> Issue {
    let hint = format!(
        "The {kind} has sent {IDEMPOTENCY_KEYS_MAX} Idempotency-Keys in 24 hours, as many as it may. Send the request without one, or later."
    );
    Issue::new(ErrorCode::TooManyRequests).hinting(hint)
}

/// The hint on a list that is empty because the zone or the account was never granted anything. Its ID may be misspelled. If the database
/// does not say, there is no hint: the list itself is known.
pub async fn hint_on_list(state: &AppState, deadline: Deadline, scope: &Scope, total: u64) -> Vec<Message> {
    if total > 0 || !matches!(deadline.read(state.store.find_scope(scope)).await, Ok(None)) {
        return Vec::new();
    }
    vec![Message::hint(never_granted(scope), None)]
}

fn never_granted(scope: &Scope) -> String {
    let kind = scope.kind();
    format!("This {kind} was never granted custom CSRs. Check its ID, or ask the operator of this service for access.")
}
