//! `POST /custom_csrs`: accepts a custom CSR.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{Object, OpenApi};
use shared::{
    bodies::{create::Accepted, undecodable::explained},
    custom_csr::CustomCsrRequest,
    ids::SetId,
    storage::IdempotencyKey,
};

use super::{
    accept::{Created, Validated, accept, all_faults},
    dto::{NewKeyType, TAG},
    find::check_grant,
    wait::Prefer,
};
use crate::{
    auth::{access::Access, caller::Permission::CustomCsrsWrite},
    http::{
        body::Body,
        deadline::Deadline,
        error::ApiError,
        failure::{Failure, Operation},
        header::Header,
        idempotency::IdempotencyHeader,
    },
    state::AppState,
};

/// A request for a custom CSR. Nothing is trimmed; unknown members are ignored, with warning 2012; `null` is the same as absent.
#[derive(Debug, Object)]
#[oai(rename = "CustomCsrRequest")]
pub struct CustomCsrInput {
    /// Two-letter code of the country (ISO 3166-1 alpha-2, any case), or `XX`.
    #[oai(validator(min_length = 2, max_length = 2, pattern = "^[A-Za-z]{2}$"))]
    pub country: String,
    /// State or province.
    #[oai(validator(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    ))]
    pub state: String,
    /// City or place.
    #[oai(validator(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    ))]
    pub locality: String,
    /// Organization.
    #[oai(validator(min_length = 1, max_length = 64, pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"))]
    pub organization: String,
    /// Organizational unit.
    #[oai(nullable, validator(max_length = 64, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"))]
    pub organizational_unit: Option<String>,
    /// Common name. Public CAs want it to be one of the SANs.
    #[oai(validator(min_length = 1, max_length = 64, pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"))]
    pub common_name: String,
    /// Your own name for it.
    #[oai(nullable, validator(max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"))]
    pub name: Option<String>,
    /// A free-form description.
    #[oai(nullable, validator(max_length = 1024, pattern = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$"))]
    pub description: Option<String>,
    /// Subject alternative names: host names that can be registered, no IP addresses.
    #[oai(validator(min_items = 1, max_items = 100, min_length = 1, max_length = 255, pattern = "^[*A-Za-z0-9._-]+$"))]
    pub sans: Vec<String>,
    /// The key pair to make, any case; `rsa2048` if absent.
    pub key_type: Option<NewKeyType>,
    /// The key pairs of a set, any case, instead of `key_type`: one custom CSR is made for each.
    #[oai(nullable, validator(min_items = 2, max_items = 4, unique_items))]
    pub key_types: Option<Vec<NewKeyType>>,
}

/// The operation.
pub struct Create;

impl Operation for Create {
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "The request is wrong: 1400 to 1402, 1405 to 1417, 1460 to 1464, 1513. Several faults are reported together."),
        (403, "No access (1404), no quota allocated (1403), or the quota is used up (1465)."),
        (404, "No such route (7000), or all that the Idempotency-Key made was deleted (1419)."),
        (415, "The body is compressed: 1468."),
        (422, "The Idempotency-Key was used before with another body: 1466."),
    ];
}

#[OpenApi(tag = "TAG")]
impl Create {
    /// Create a custom CSR
    ///
    /// Validates at once and answers 201 with `status: pending`; the key and the CSR are made in the background.
    /// With `key_types`, a set is made: a custom CSR for each, all or none of them, and `result` is an array. Each counts against the quota.
    /// An `Idempotency-Key` is remembered for 24 hours. Answers 429 (1470) if 10,000 of them are remembered for this zone or account,
    /// or if as many of its custom CSRs are pending as the service allows.
    #[oai(path = "/custom_csrs", method = "post", operation_id = "custom-csrs-create")]
    async fn create(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        body: Body<CustomCsrInput>,
        #[oai(name = "Prefer")] Header(prefer): Header<Prefer>,
        #[oai(name = "Idempotency-Key")] Header(key): Header<IdempotencyHeader>,
    ) -> Result<Created, Failure<Create>> {
        let (state, deadline) = (state.0, Deadline::default());
        let scope = access.scope(CustomCsrsWrite)?;
        let (accepted, idempotency_key) = match validate(state, &access, &body, &key) {
            Ok(validated) => validated,
            Err(faults) => {
                check_grant(state, deadline, scope).await?;
                return Err(faults.into());
            }
        };
        // It needs no room while the request waits.
        drop(body);
        let Accepted { request, set, warnings } = accepted;
        let set_id = (!set.is_empty()).then(|| SetId::new(state.clock.now()));
        let wanted = match set_id {
            Some(_) => set.into_iter().map(|key_type| (CustomCsrRequest { key_type, ..request.clone() }, None)).collect(),
            None => vec![(request, None)],
        };
        let validated = Validated { scope, idempotency_key, wanted, set_id, warnings };
        Ok(accept(state, deadline, &access, validated, prefer).await?)
    }
}

fn validate(
    state: &AppState,
    access: &Access,
    body: &Body<CustomCsrInput>,
    key: &IdempotencyHeader,
) -> Result<(Accepted, Option<IdempotencyKey>), ApiError> {
    let body = body.json()?;
    all_faults(state.validator.parse(body).map_err(|issues| explained(body, issues)), key.of(access.subject(), body))
}
