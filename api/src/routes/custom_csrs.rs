//! Custom CSRs of zones and of accounts. Each method parses, asks the store and renders; the two resources differ in their paths.

use std::{future::Future, sync::Arc, time::Duration};

use poem::{http::HeaderMap, web::Data};
use poem_openapi::{ApiResponse, OpenApi, param::Path, payload::Json};
use shared::{
    error::{ErrorCode, Issue, StoreError},
    ids::{CustomCsrId, Scope},
    model::CustomCsr,
    storage::{Acceptance, IdempotencyKey, NewCustomCsr},
    x509::request::Accepted,
};
use tokio::time::{Instant, timeout_at};

use crate::{
    access::Access,
    auth::Permission::{CustomCsrsRead, CustomCsrsWrite},
    body::Body,
    dto::{CustomCsrDto, CustomCsrInput, CustomCsrListResponse, CustomCsrResponse, DeletedCustomCsr, DeletedCustomCsrResponse, ResultInfo},
    envelope::{ApiError, Failure, Message, Statuses},
    idempotency,
    pagination::ListParams,
    state::AppState,
    wait,
};

/// Declares which statuses an operation's errors have.
macro_rules! statuses {
    ($($name:ident: [$($status:literal $description:literal),* $(,)?])*) => { $(
        #[doc = concat!("The errors of an operation: ", stringify!($name), ".")]
        pub struct $name;
        impl Statuses for $name {
            const LIST: &'static [(u16, &'static str)] = &[$(($status, $description)),*];
        }
    )* };
}

statuses! {
    CreateErrors: [
        400 "The request is wrong: 1400 to 1402, 1405 to 1417, 1460 to 1464. Several faults are reported together.",
        401 "The token is not accepted: 1000 to 1005.",
        403 "No access (1404), no quota allocated (1403), or the quota is used up (1465).",
        404 "No such route (7000), or the custom CSR that the Idempotency-Key made was deleted (1419).",
        405 "Method not allowed: 7001.",
        422 "The Idempotency-Key was used before with another body: 1466.",
        413 "The body is larger than 64 KiB: 1467.",
        429 "Too many requests: 1470.",
        500 "A fault of the service: 1500.",
        503 "The database cannot be reached, or a part of the service is not ready: 1471.",
    ]
    ListErrors: [
        400 "The request is wrong: 1401, 1402, 1464.",
        401 "The token is not accepted: 1000 to 1005.",
        403 "No access: 1404.",
        404 "No such route: 7000.",
        405 "Method not allowed: 7001.",
        429 "Too many requests: 1470.",
        500 "A fault of the service: 1500.",
        503 "The database cannot be reached, or a part of the service is not ready: 1471.",
    ]
    OneErrors: [
        400 "The request is wrong: 1401, 1402, 1418.",
        401 "The token is not accepted: 1000 to 1005.",
        403 "No access: 1404.",
        404 "No such custom CSR in this scope (1419), or no such route (7000).",
        405 "Method not allowed: 7001.",
        429 "Too many requests: 1470.",
        500 "A fault of the service: 1500.",
        503 "The database cannot be reached, or a part of the service is not ready: 1471.",
    ]
    DeleteErrors: [
        400 "The request is wrong: 1401, 1402, 1418.",
        401 "The token is not accepted: 1000 to 1005.",
        403 "No access: 1404.",
        404 "No such custom CSR in this scope (1419), or no such route (7000).",
        405 "Method not allowed: 7001.",
        409 "An active certificate uses the custom CSR: 1420.",
        429 "Too many requests: 1470.",
        500 "A fault of the service: 1500.",
        503 "The database cannot be reached, or a part of the service is not ready: 1471.",
    ]
}

/// What GET of one answers.
#[derive(ApiResponse)]
pub enum Found {
    /// The custom CSR as it is now.
    #[oai(status = 200)]
    Found(
        Json<CustomCsrResponse>,
        /// `wait=N` where `Prefer: wait=N` was followed.
        #[oai(header = "Preference-Applied")]
        Option<String>,
    ),
}

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
    ),
}

/// How long the database may keep a request, all its steps together: a client is to be answered within 5 s whatever the database does.
const DATABASE_TIME: Duration = Duration::from_millis(4_500);

/// The operations, for any scope, of one request.
struct CustomCsrs<'a> {
    state: &'a AppState,
    database_end: Instant,
}

impl<'a> CustomCsrs<'a> {
    fn new(state: &'a AppState) -> Self {
        Self { state, database_end: Instant::now() + DATABASE_TIME }
    }

    /// A read, or the error that says that it may be made again.
    async fn read<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let late = |_| Err(StoreError::Unavailable("no answer in time".to_owned()));
        timeout_at(self.database_end, call).await.unwrap_or_else(late)
    }

    /// A write, or the error that says that it may have happened.
    async fn write<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let late = |_| Err(StoreError::Ambiguous("no answer in time".to_owned()));
        timeout_at(self.database_end, call).await.unwrap_or_else(late)
    }

    async fn create(&self, access: &Access, body: &Body<CustomCsrInput>, headers: &HeaderMap) -> Result<Created, ApiError> {
        let scope = access.scope(CustomCsrsWrite)?;
        let (accepted, idempotency_key) = match self.judge(access, body, headers) {
            Ok(judged) => judged,
            Err(faults) => {
                self.check_grant(scope).await?;
                return Err(faults);
            }
        };
        let now = self.state.clock.now();
        let new = NewCustomCsr { id: CustomCsrId::new(now), scope: scope.clone(), request: accepted.request, idempotency_key };
        let csr = match self.write(self.state.store.accept_custom_csr(&new, now)).await? {
            Acceptance::Accepted(csr) => *csr,
            Acceptance::Replayed(id) => {
                self.check_grant(scope).await?;
                self.read(self.state.store.find_custom_csr(scope, id)).await?.ok_or(ErrorCode::CustomCsrNotFound)?
            }
            Acceptance::KeyReused => {
                self.check_grant(scope).await?;
                return Err(ErrorCode::IdempotencyKeyReused.into());
            }
            Acceptance::NotGranted => return Err(ErrorCode::AccessNotGranted.into()),
            Acceptance::NoQuota => return Err(ErrorCode::QuotaNotAllocated.into()),
            Acceptance::QuotaUsedUp(quota) => return Err(quota_used_up(scope, quota)),
        };
        let (csr, applied) = self.wait_for(csr, headers).await;
        let location = format!("{}/{}", access.path().trim_end_matches('/'), csr.id);
        let messages = accepted.warnings.iter().map(Message::from).collect();
        Ok(Created::Created(Json(CustomCsrResponse::new(csr.into(), messages)), location, applied))
    }

    /// Faults of the body and of the header come together.
    fn judge(
        &self,
        access: &Access,
        body: &Body<CustomCsrInput>,
        headers: &HeaderMap,
    ) -> Result<(Accepted, Option<IdempotencyKey>), ApiError> {
        let body = body.json()?;
        match (self.state.validator.parse(body), idempotency::parse(headers, access.subject(), body)) {
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

    /// A POST that was accepted is answered, whatever happens while it waits.
    async fn wait_for(&self, csr: CustomCsr, headers: &HeaderMap) -> (CustomCsr, Option<String>) {
        let preferred = wait::preferred_secs(headers);
        let secs = preferred.unwrap_or(self.state.create_wait_secs);
        if preferred.is_none() && secs == 0 {
            return (csr, None);
        }
        match wait::until_decided(self.state, &csr.scope, csr.id, secs).await {
            Ok(waited) => (waited.custom_csr.unwrap_or(csr), preferred.and(waited.applied_secs).map(applied)),
            Err(error) => {
                tracing::warn!(%error, "answered without waiting");
                (csr, None)
            }
        }
    }

    /// Comes before any fault of the body or of its key is told. The accepting transaction checks it too, so a good request needs it not.
    async fn check_grant(&self, scope: &Scope) -> Result<(), ApiError> {
        match self.read(self.state.store.find_scope(scope)).await?.filter(|grant| grant.granted) {
            None => Err(ErrorCode::AccessNotGranted.into()),
            Some(grant) if grant.quota.is_none() => Err(ErrorCode::QuotaNotAllocated.into()),
            Some(_) => Ok(()),
        }
    }

    async fn list(&self, access: &Access, params: &ListParams) -> Result<Json<CustomCsrListResponse>, ApiError> {
        let scope = access.scope(CustomCsrsRead)?;
        let query = params.parse()?;
        let page = self.read(self.state.store.list_custom_csrs(scope, &query)).await?;
        let info = ResultInfo::new(&query, &page);
        Ok(Json(CustomCsrListResponse::new(page.rows.into_iter().map(CustomCsrDto::from).collect(), Vec::new(), info)))
    }

    async fn get(&self, access: &Access, id: &str, headers: &HeaderMap) -> Result<Found, ApiError> {
        let scope = access.scope(CustomCsrsRead)?;
        let id = parse_id(id)?;
        let (found, applied_secs) = match wait::preferred_secs(headers) {
            Some(secs) => {
                let waited = wait::until_decided(self.state, scope, id, secs).await?;
                (waited.custom_csr, waited.applied_secs)
            }
            None => (self.read(self.state.store.find_custom_csr(scope, id)).await?, None),
        };
        let csr = found.ok_or(ErrorCode::CustomCsrNotFound)?;
        Ok(Found::Found(Json(CustomCsrResponse::new(csr.into(), Vec::new())), applied_secs.map(applied)))
    }

    async fn delete(&self, access: &Access, id: &str) -> Result<Json<DeletedCustomCsrResponse>, ApiError> {
        let scope = access.scope(CustomCsrsWrite)?;
        let id = parse_id(id)?;
        if !self.write(self.state.store.delete_custom_csr(scope, id)).await? {
            return Err(ErrorCode::CustomCsrNotFound.into());
        }
        Ok(Json(DeletedCustomCsrResponse::new(DeletedCustomCsr { id: id.to_string() }, Vec::new())))
    }
}

/// The value of `Preference-Applied`.
fn applied(secs: u32) -> String {
    format!("wait={secs}")
}

/// 1400 for the body as a whole stands alone.
fn is_undecodable(issues: &[Issue]) -> bool {
    issues.iter().any(|issue| issue.code == ErrorCode::BodyUndecodable && issue.pointer.is_none())
}

fn parse_id(id: &str) -> Result<CustomCsrId, ErrorCode> {
    CustomCsrId::parse(id).ok_or(ErrorCode::CustomCsrIdInvalid)
}

fn quota_used_up(scope: &Scope, quota: u32) -> ApiError {
    let reason = format!("the {} has all {quota} custom CSRs that it may have", scope.kind());
    Issue::new(ErrorCode::QuotaUsedUp).because(reason).into()
}

/// Declares the four operations under one kind of scope.
macro_rules! resource {
    ($(#[$doc:meta])* $name:ident, $collection:literal, $one:literal, $create:literal, $list:literal, $get:literal, $delete:literal) => {
        $(#[$doc])*
        pub struct $name;

        #[OpenApi]
        impl $name {
            /// Create a custom CSR
            ///
            /// Validates at once and answers 201 with `status: pending`; the key and the CSR are made in the background.
            #[oai(path = $collection, method = "post", operation_id = $create)]
            async fn create(
                &self,
                state: Data<&Arc<AppState>>,
                access: Access,
                #[oai(name = "scope_id")] _scope_id: Path<String>,
                body: Body<CustomCsrInput>,
                headers: &HeaderMap,
            ) -> Result<Created, Failure<CreateErrors>> {
                Ok(CustomCsrs::new(state.0).create(&access, &body, headers).await?)
            }

            /// List custom CSRs
            ///
            /// Newest first, unless asked otherwise. Past the last page: an empty array.
            #[oai(path = $collection, method = "get", operation_id = $list)]
            async fn list(
                &self,
                state: Data<&Arc<AppState>>,
                access: Access,
                #[oai(name = "scope_id")] _scope_id: Path<String>,
                params: ListParams,
            ) -> Result<Json<CustomCsrListResponse>, Failure<ListErrors>> {
                Ok(CustomCsrs::new(state.0).list(&access, &params).await?)
            }

            /// Get a custom CSR
            #[oai(path = $one, method = "get", operation_id = $get)]
            async fn get(
                &self,
                state: Data<&Arc<AppState>>,
                access: Access,
                #[oai(name = "scope_id")] _scope_id: Path<String>,
                #[oai(name = "custom_csr_id")] id: Path<String>,
                headers: &HeaderMap,
            ) -> Result<Found, Failure<OneErrors>> {
                Ok(CustomCsrs::new(state.0).get(&access, &id, headers).await?)
            }

            /// Delete a custom CSR
            ///
            /// Destroys the private key with it and gives its quota back.
            #[oai(path = $one, method = "delete", operation_id = $delete)]
            async fn delete(
                &self,
                state: Data<&Arc<AppState>>,
                access: Access,
                #[oai(name = "scope_id")] _scope_id: Path<String>,
                #[oai(name = "custom_csr_id")] id: Path<String>,
            ) -> Result<Json<DeletedCustomCsrResponse>, Failure<DeleteErrors>> {
                Ok(CustomCsrs::new(state.0).delete(&access, &id).await?)
            }
        }
    };
}

resource!(
    /// The custom CSRs of a zone.
    ZoneCustomCsrs, "/zones/:scope_id/custom_csrs", "/zones/:scope_id/custom_csrs/:custom_csr_id",
    "zone-custom-csrs-create", "zone-custom-csrs-list", "zone-custom-csrs-get", "zone-custom-csrs-delete"
);
resource!(
    /// The custom CSRs of an account.
    AccountCustomCsrs, "/accounts/:scope_id/custom_csrs", "/accounts/:scope_id/custom_csrs/:custom_csr_id",
    "account-custom-csrs-create", "account-custom-csrs-list", "account-custom-csrs-get", "account-custom-csrs-delete"
);
