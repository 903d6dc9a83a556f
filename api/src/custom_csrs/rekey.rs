//! `POST /custom_csrs/{custom_csr_id}/rekey`: accepts a custom CSR with the same subject and names and a new key.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use shared::{
    bodies::undecodable::explained,
    custom_csr::{CustomCsr, CustomCsrRequest, Status},
    ids::{CustomCsrId, Scope},
    issue::{Issue, Warning},
};

use super::{
    accept::{Created, Validated, accept, all_faults},
    dto::{NewKeyType, TAG},
    find,
    not_active::not_active,
    wait::Prefer,
};
use crate::{
    auth::{access::Access, caller::Permission::CustomCsrsWrite},
    http::{
        body::OptionalBody,
        deadline::Deadline,
        error::ApiError,
        failure::{Failure, Operation},
        header::Header,
        idempotency::IdempotencyHeader,
        path::Path,
    },
    state::AppState,
};

/// What differs from the old custom CSR beside the key. What is absent is copied, and so is what is `null`; an empty `name` or `description`
/// clears it; members that a rekey does not change are ignored, with warning 2005, and unknown ones with 2012.
#[derive(Debug, Object)]
#[oai(rename = "CustomCsrRekey")]
pub struct CustomCsrRekeyInput {
    /// The key pair to make, any case; the one of a set stays.
    pub key_type: Option<NewKeyType>,
    /// Your own name for it.
    #[oai(nullable, validator(max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"))]
    pub name: Option<String>,
    /// A free-form description.
    #[oai(nullable, validator(max_length = 1024, pattern = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$"))]
    pub description: Option<String>,
}

/// The operation.
pub struct Rekey;

impl Operation for Rekey {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (
            400,
            "The request is wrong: 1400 to 1402, 1417, 1418, 1461, 1462, 1464, or a SAN of the old custom CSR is no longer accepted: 1412 to 1416. Several faults are reported together.",
        ),
        (403, "No access (1404), no quota allocated (1403), or the quota is used up (1465)."),
        (404, "No such custom CSR in this scope (1419), or no such route (7000)."),
        (409, "The custom CSR, or one of its set, is pending: 1474."),
        (415, "The body is compressed: 1468."),
        (422, "The Idempotency-Key was used before for another custom CSR or with another body: 1466."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Rekey {
    /// Rekey a custom CSR
    ///
    /// Makes a new custom CSR with the same subject and names and a new key; `replaces` names the old one, which stays until it is deleted.
    /// It counts against the quota. A body is needed only for another `key_type`, `name` or `description` than the old one's.
    /// One of a set has the whole set rekeyed, all or nothing: for each key type of the set a custom CSR of the same set is made, which replaces the
    /// newest that is no longer pending, and `result` is an array. A `key_type` has no effect then.
    #[oai(path = "/custom_csrs/:custom_csr_id/rekey", method = "post", operation_id = "custom-csrs-rekey")]
    async fn rekey(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        #[oai(name = "custom_csr_id")] id: Path<CustomCsrId>,
        body: OptionalBody<CustomCsrRekeyInput>,
        #[oai(name = "Prefer")] Header(prefer): Header<Prefer>,
        #[oai(name = "Idempotency-Key")] Header(key): Header<IdempotencyHeader>,
    ) -> Result<Created, Failure<Rekey>> {
        let (state, deadline) = (state.0, Deadline::default());
        let scope = access.scope(CustomCsrsWrite)?;
        find::check_grant(state, deadline, scope).await?;
        let id = id.id()?;
        let old = find::custom_csr(state, deadline, scope, id).await?;
        let text = body.json()?;
        // The old one's ID stands before the body: the same key for another one is another request.
        let identity = [id.to_string().as_bytes(), text.unwrap_or_default()].concat();
        let replaced = replaced(state, deadline, scope, &old).await?;
        let parsed = parse(state, replaced, text).map_err(|issues| explained(text.unwrap_or_default(), issues));
        let ((wanted, warnings), idempotency_key) = all_faults(parsed, key.of(access.subject(), &identity))?;
        let is_complete = wanted.iter().all(|(_, replaces)| replaces.is_some());
        if old.status == Status::Pending || !is_complete {
            return Err(not_active(Status::Pending).into());
        }
        // It needs no room while the request waits.
        drop((body, identity));
        let validated = Validated { scope, idempotency_key, wanted, set_id: old.set_id, warnings };
        Ok(accept(state, deadline, &access, validated, prefer).await?)
    }
}

/// What a rekey asks for, and what each replaces.
type Wanted = Vec<(CustomCsrRequest, Option<CustomCsrId>)>;

/// What a rekey of this custom CSR replaces: it, or, of its set, the newest of each key type. One that is pending is replaced by none: a request
/// that is repeated finds what it found before.
async fn replaced(state: &AppState, deadline: Deadline, scope: &Scope, old: &CustomCsr) -> Result<Vec<CustomCsr>, ApiError> {
    let Some(set_id) = old.set_id else { return Ok(vec![old.clone()]) };
    let mut newest = Vec::<CustomCsr>::new();
    for csr in deadline.read(state.store.list_set(scope, set_id)).await? {
        match newest.iter_mut().find(|other| other.request.key_type == csr.request.key_type) {
            Some(other) if csr.status != Status::Pending || other.status == Status::Pending => *other = csr,
            Some(_) => {}
            None => newest.push(csr),
        }
    }
    Ok(newest)
}

/// The old requests with what the body changes, or the faults of the first that has any: they have the same names.
fn parse(state: &AppState, replaced: Vec<CustomCsr>, body: Option<&[u8]>) -> Result<(Wanted, Vec<Warning>), Vec<Issue>> {
    let (mut wanted, mut warnings) = (Vec::new(), Vec::new());
    for old in replaced {
        let accepted = match old.set_id {
            Some(_) => state.validator.parse_rekey_of_set(old.request, body)?,
            None => state.validator.parse_rekey(old.request, body)?,
        };
        wanted.push((accepted.request, (old.status != Status::Pending).then_some(old.id)));
        warnings = accepted.warnings;
    }
    Ok((wanted, warnings))
}
