//! Accepts a custom CSR, for a create and for a rekey.

use poem_openapi::ApiResponse;
use shared::{
    bodies::create::Accepted,
    codes::ErrorCode,
    custom_csr::CustomCsr,
    ids::{CustomCsrId, Scope},
    issue::Issue,
    metrics,
    storage::{Acceptance, Changes, IdempotencyKey, NewCustomCsr},
};

use super::{
    dto::CustomCsrResponse,
    find,
    wait::{self, Prefer},
};
use crate::{
    auth::access::Access,
    grants,
    http::{deadline::Deadline, envelope::Message, error::ApiError, payload::Json},
    state::AppState,
};

/// What POST answers.
#[derive(ApiResponse)]
pub enum Created {
    /// Accepted. The key is being made: read the custom CSR until its `status` is no longer `pending`.
    #[oai(status = 201)]
    Created(
        Json<CustomCsrResponse>,
        /// Where to read it: an absolute path.
        #[oai(header = "Location")]
        String,
        /// `wait=N` where `Prefer: wait=N` was followed.
        #[oai(header = "Preference-Applied")]
        Option<String>,
        /// `true` if the `Idempotency-Key` made this custom CSR before.
        #[oai(header = "Idempotent-Replayed")]
        Option<String>,
    ),
}

/// A request for a custom CSR in which nothing is wrong.
pub struct Validated<'a> {
    /// Whose it will be.
    pub scope: &'a Scope,
    /// By which the request can be repeated.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The custom CSR that it is to replace.
    pub replaces: Option<CustomCsrId>,
    /// What the body says.
    pub accepted: Accepted,
}

/// Accepts a custom CSR, and waits for it if the client or the service wants that.
///
/// # Errors
///
/// The refusals of the store: 1403, 1404, 1419, 1465, 1466, 1470.
pub async fn accept(
    state: &AppState,
    deadline: Deadline,
    access: &Access,
    validated: Validated<'_>,
    prefer: Prefer,
) -> Result<Created, ApiError> {
    let Validated { scope, idempotency_key, replaces, accepted: Accepted { request, warnings } } = validated;
    let messages = warnings.iter().map(Message::from).collect();
    // One time for the ID and for the row: both say when it was accepted.
    let now = state.clock.now();
    let new = NewCustomCsr {
        id: CustomCsrId::new(now),
        scope: scope.clone(),
        request,
        idempotency_key,
        replaces,
        max_pending: state.max_pending,
    };
    let mut changes = state.store.signals().changes_of(new.id);
    let accepting = state.store.accept_custom_csr(&new, access.actor(), now);
    let mut is_replayed = false;
    let csr = match deadline.write(accepting).await? {
        Acceptance::Accepted(csr) => {
            metrics::custom_csr_accepted(csr.request.key_type);
            *csr
        }
        Acceptance::Replayed(id) => {
            find::check_grant(state, deadline, scope).await?;
            is_replayed = true;
            changes = state.store.signals().changes_of(id);
            find::custom_csr(state, deadline, scope, id).await?
        }
        Acceptance::KeyReused => {
            find::check_grant(state, deadline, scope).await?;
            return Err(ErrorCode::IdempotencyKeyReused.into());
        }
        Acceptance::NotGranted => {
            // It says why; it was granted since if it finds nothing.
            find::check_grant(state, deadline, scope).await?;
            return Err(ErrorCode::AccessNotGranted.into());
        }
        Acceptance::NoQuota => return Err(grants::no_quota(scope).into()),
        Acceptance::QuotaUsedUp(quota) => return Err(grants::quota_used_up(scope, quota).into()),
        Acceptance::TooManyPending => return Err(grants::too_many_pending(scope, state.max_pending).into()),
        Acceptance::TooManyKeys => return Err(grants::too_many_keys(scope.kind()).into()),
    };
    let (csr, applied) = wait_for(state, deadline, access, csr, changes, prefer).await;
    let location = access.location(&format!("custom_csrs/{}", csr.id));
    Ok(Created::Created(Json(CustomCsrResponse::new(csr.into(), messages)), location, applied, is_replayed.then(|| "true".to_owned())))
}

/// Waits for a custom CSR. Once it is accepted the request is answered, whatever happens meanwhile.
async fn wait_for(
    state: &AppState,
    deadline: Deadline,
    access: &Access,
    csr: CustomCsr,
    changes: Changes<'_>,
    prefer: Prefer,
) -> (CustomCsr, Option<String>) {
    let secs = prefer.secs().unwrap_or(state.create_wait_secs);
    if prefer.secs().is_none() && secs == 0 {
        return (csr, None);
    }
    let waited = wait::until_not_pending(state, csr.clone(), changes, access.subject(), secs, deadline).await;
    (waited.custom_csr.unwrap_or(csr), prefer.secs().and(waited.applied_secs).map(wait::applied))
}

/// What the body and the header say, or the faults of both together.
///
/// # Errors
///
/// Every fault; 1400 for the body as a whole stands alone.
pub fn all_faults(
    body: Result<Accepted, Vec<Issue>>,
    key: Result<Option<IdempotencyKey>, Issue>,
) -> Result<(Accepted, Option<IdempotencyKey>), ApiError> {
    match (body, key) {
        (Ok(accepted), Ok(key)) => Ok((accepted, key)),
        (Ok(_), Err(issue)) => Err(issue.into()),
        (Err(issues), Ok(_)) => Err(ApiError::new(issues)),
        (Err(issues), Err(_)) if is_undecodable(&issues) => Err(ApiError::new(issues)),
        (Err(mut issues), Err(issue)) => {
            issues.push(issue);
            Err(ApiError::new(issues))
        }
    }
}

fn is_undecodable(issues: &[Issue]) -> bool {
    issues.iter().any(|issue| issue.code == ErrorCode::BodyUndecodable && issue.pointer.is_none())
}
