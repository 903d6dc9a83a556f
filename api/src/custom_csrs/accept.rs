//! Accepts a custom CSR, for a create and for a rekey.

use poem_openapi::{ApiResponse, Union};
use serde::Serialize;
use shared::{
    codes::ErrorCode,
    custom_csr::{CustomCsr, CustomCsrRequest},
    ids::{CustomCsrId, Scope, SetId},
    issue::{Issue, Warning},
    metrics,
    storage::{Acceptance, Changes, IdempotencyKey, NewCustomCsr},
};

use super::{
    dto::{CustomCsrDto, CustomCsrResponse},
    find,
    list::CustomCsrListResponse,
    wait::{self, Prefer},
};
use crate::{
    auth::access::Access,
    grants,
    http::{
        deadline::Deadline,
        envelope::Message,
        error::ApiError,
        pages::{PerPage, ResultInfo},
        payload::Json,
    },
    state::AppState,
};

/// What was made: the custom CSRs of a set, as their list shows them, or one.
///
/// `result_info` tells the two apart for generated clients, which take the first type that fits.
#[derive(Debug, Union, Serialize)]
#[oai(rename = "CreatedCustomCsrs")]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "each is made for one answer, nearly always the large one")]
pub enum CreatedDto {
    /// Those of a set.
    Set(CustomCsrListResponse),
    /// One custom CSR.
    One(CustomCsrResponse),
}

/// What POST answers.
#[derive(ApiResponse)]
pub enum Created {
    /// Accepted. The key is being made: read the custom CSR until its `status` is no longer `pending`. `result` is an array if a set was made.
    #[oai(status = 201)]
    Created(
        Json<CreatedDto>,
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

/// A request for custom CSRs in which nothing is wrong.
pub struct Validated<'a> {
    /// Whose they will be.
    pub scope: &'a Scope,
    /// By which the request can be repeated.
    pub idempotency_key: Option<IdempotencyKey>,
    /// What is asked for, and the custom CSR that each is to replace. One, if it is none of a set.
    pub wanted: Vec<(CustomCsrRequest, Option<CustomCsrId>)>,
    /// The set that they will be of.
    pub set_id: Option<SetId>,
    /// Warnings about the body.
    pub warnings: Vec<Warning>,
}

/// Accepts custom CSRs, and waits for them if the client or the service wants that.
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
    let Validated { scope, idempotency_key, wanted, set_id, warnings } = validated;
    let messages = warnings.iter().map(Message::from).collect();
    // One time for the IDs and for the rows: all say when they were accepted.
    let now = state.clock.now();
    let new: Vec<_> = wanted
        .into_iter()
        .map(|(request, replaces)| NewCustomCsr {
            id: CustomCsrId::new(now),
            scope: scope.clone(),
            request,
            idempotency_key: idempotency_key.clone(),
            replaces,
            set_id,
            max_pending: state.max_pending,
        })
        .collect();
    let changes_of = |ids: Vec<CustomCsrId>| ids.into_iter().map(|id| state.store.signals().changes_of(id)).collect::<Vec<_>>();
    let changes = changes_of(new.iter().map(|new| new.id).collect());
    let outcome = match &*new {
        [one] => deadline.write(state.store.accept_custom_csr(one, access.actor(), now)).await?,
        set => deadline.write(state.store.accept_set(set, access.actor(), now)).await?,
    };
    let mut is_replayed = false;
    let csrs: Vec<_> = match outcome {
        Acceptance::Accepted(csrs) => {
            for csr in &csrs {
                metrics::custom_csr_accepted(csr.request.key_type);
            }
            csrs.into_iter().zip(changes).collect()
        }
        Acceptance::Replayed(ids) => {
            find::check_grant(state, deadline, scope).await?;
            is_replayed = true;
            let mut left = Vec::new();
            for (id, changes) in ids.iter().zip(changes_of(ids.clone())) {
                left.extend(deadline.read(state.store.find_custom_csr(scope, *id)).await?.map(|csr| (csr, changes)));
            }
            left
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
        Acceptance::QuotaUsedUp(quota) => return Err(grants::quota_used_up(scope, quota, new.len()).into()),
        Acceptance::TooManyPending => return Err(grants::too_many_pending(scope, state.max_pending, new.len()).into()),
        Acceptance::TooManyKeys => return Err(grants::too_many_keys(scope.kind()).into()),
    };
    let (csrs, applied) = wait_for(state, deadline, access, csrs, prefer).await;
    let (location, made) = answer(access, csrs, messages)?;
    Ok(Created::Created(Json(made), location, applied, is_replayed.then(|| "true".to_owned())))
}

/// What is answered, and where it is read again.
fn answer(access: &Access, csrs: Vec<CustomCsr>, messages: Vec<Message>) -> Result<(String, CreatedDto), ErrorCode> {
    let set_id = csrs.first().ok_or(ErrorCode::CustomCsrNotFound)?.set_id;
    let mut made: Vec<_> = csrs.into_iter().map(CustomCsrDto::from).collect();
    let one = match set_id {
        Some(set_id) => {
            let count = made.len();
            let set = CustomCsrListResponse::new(made, messages, ResultInfo::new(1, PerPage::DEFAULT, count, count as u64));
            return Ok((access.location(&format!("custom_csrs?set_id={set_id}")), CreatedDto::Set(set)));
        }
        None => made.swap_remove(0),
    };
    Ok((access.location(&format!("custom_csrs/{}", one.id.0)), CreatedDto::One(CustomCsrResponse::new(one, messages))))
}

/// Waits for custom CSRs, all of them within the time. Once they are accepted the request is answered, whatever happens meanwhile.
async fn wait_for(
    state: &AppState,
    deadline: Deadline,
    access: &Access,
    csrs: Vec<(CustomCsr, Changes<'_>)>,
    prefer: Prefer,
) -> (Vec<CustomCsr>, Option<String>) {
    let secs = prefer.secs().unwrap_or(state.create_wait_secs);
    if prefer.secs().is_none() && secs == 0 {
        return (csrs.into_iter().map(|(csr, _)| csr).collect(), None);
    }
    let waited = wait::until_none_is_pending(state, csrs, access.subject(), secs, deadline).await;
    (waited.seen, prefer.secs().and(waited.applied_secs).map(wait::applied))
}

/// What the body and the header say, or the faults of both together.
///
/// # Errors
///
/// Every fault; 1400 for the body as a whole stands alone.
pub fn all_faults<T>(
    body: Result<T, Vec<Issue>>,
    key: Result<Option<IdempotencyKey>, Issue>,
) -> Result<(T, Option<IdempotencyKey>), ApiError> {
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
