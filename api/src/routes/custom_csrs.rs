//! Custom CSRs of zones and of accounts. Each method parses, asks the store and renders; the two resources differ in their paths.

use std::sync::Arc;

use poem::{http::HeaderMap, web::Data};
use poem_openapi::{ApiResponse, OpenApi, param::Path};
use shared::{
    bodies::{create::Accepted, edit::Edit},
    codes::ErrorCode,
    custom_csr::{CustomCsr, Status},
    ids::{CustomCsrId, Scope},
    issue::Issue,
    storage::{Acceptance, Changes, Deletion, IdempotencyKey, NewCustomCsr},
};

use super::{
    custom_certificates::not_active,
    statuses::{CreateErrors, DeleteErrors, EditErrors, ListErrors, OneErrors, QuotaErrors, RekeyErrors},
};
use crate::{
    auth::Permission::{CustomCsrsRead, CustomCsrsWrite},
    auth::access::Access,
    dto::{
        CustomCsrDto, CustomCsrEditInput, CustomCsrInput, CustomCsrListResponse, CustomCsrRekeyInput, CustomCsrResponse, DeletedCustomCsr,
        DeletedCustomCsrResponse, QuotaResponse, ResultInfo,
    },
    http::body::{Body, OptionalBody},
    http::deadline::Deadline,
    http::envelope::{ApiError, Failure, Message},
    http::payload::Json,
    http::query::Query,
    idempotency,
    state::AppState,
    wait::{self, Waited},
};

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

/// A custom CSR that was asked for, judged.
struct Asked<'a> {
    scope: &'a Scope,
    idempotency_key: Option<IdempotencyKey>,
    replaces: Option<CustomCsrId>,
    accepted: Accepted,
}

/// The operations, for any scope, of one request.
struct CustomCsrs<'a> {
    state: &'a AppState,
    deadline: Deadline,
}

impl<'a> CustomCsrs<'a> {
    fn new(state: &'a AppState) -> Self {
        Self { state, deadline: Deadline::default() }
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
        let asked = Asked { scope, idempotency_key, replaces: None, accepted };
        self.accept(access, asked, headers, access.path()).await
    }

    /// Accepts what was judged, and waits for it where that is asked for.
    async fn accept(&self, access: &Access, asked: Asked<'_>, headers: &HeaderMap, collection: &str) -> Result<Created, ApiError> {
        let Asked { scope, idempotency_key, replaces, accepted: Accepted { request, warnings } } = asked;
        let messages = warnings.iter().map(Message::from).collect();
        // One time for the ID and for the row: both say when it was accepted.
        let now = self.state.clock.now();
        let new = NewCustomCsr {
            id: CustomCsrId::new(now),
            scope: scope.clone(),
            request,
            idempotency_key,
            replaces,
            max_pending: self.state.max_pending,
        };
        let mut changes = self.state.store.signals().changes_of(new.id);
        let accepting = self.state.store.accept_custom_csr(&new, access.actor(), now);
        let csr = match self.deadline.write(accepting).await? {
            Acceptance::Accepted(csr) => *csr,
            Acceptance::Replayed(id) => {
                self.check_grant(&new.scope).await?;
                changes = self.state.store.signals().changes_of(id);
                self.find(&new.scope, id).await?
            }
            Acceptance::KeyReused => {
                self.check_grant(&new.scope).await?;
                return Err(ErrorCode::IdempotencyKeyReused.into());
            }
            Acceptance::NotGranted => return Err(ErrorCode::AccessNotGranted.into()),
            Acceptance::NoQuota => return Err(ErrorCode::QuotaNotAllocated.into()),
            Acceptance::QuotaUsedUp(quota) => return Err(quota_used_up(&new.scope, quota)),
            Acceptance::TooManyPending | Acceptance::TooManyKeys => return Err(ErrorCode::TooManyRequests.into()),
        };
        let (csr, applied) = self.wait_for(access, csr, changes, headers).await;
        let location = format!("{}/{}", collection.trim_end_matches('/'), csr.id);
        Ok(Created::Created(Json(CustomCsrResponse::new(csr.into(), messages)), location, applied))
    }

    /// A new custom CSR with the same subject and names and a new key.
    async fn rekey(
        &self,
        access: &Access,
        id: &str,
        body: &OptionalBody<CustomCsrRekeyInput>,
        headers: &HeaderMap,
    ) -> Result<Created, ApiError> {
        let scope = access.scope(CustomCsrsWrite)?;
        self.check_grant(scope).await?;
        let id = parse_id(id)?;
        let old = self.find(scope, id).await?;
        let body = body.json()?;
        // The old one's ID stands before the body: the same key for another one is another request.
        let identity = [id.to_string().as_bytes(), body.unwrap_or_default()].concat();
        let key = idempotency::parse(headers, access.subject(), &identity);
        let (accepted, idempotency_key) = all_faults(self.state.validator.parse_rekey(old.request, body), key)?;
        if old.status == Status::Pending {
            return Err(not_active(old.status).into());
        }
        let asked = Asked { scope, idempotency_key, replaces: Some(id), accepted };
        let collection = access.path().rsplit_once("/custom_csrs/").map_or("", |(before, _)| before);
        self.accept(access, asked, headers, &format!("{collection}/custom_csrs")).await
    }

    async fn find(&self, scope: &Scope, id: CustomCsrId) -> Result<CustomCsr, ApiError> {
        let found = self.deadline.read(self.state.store.find_custom_csr(scope, id)).await?;
        found.ok_or_else(|| ErrorCode::CustomCsrNotFound.into())
    }

    async fn edit(&self, access: &Access, id: &str, body: &Body<CustomCsrEditInput>) -> Result<Json<CustomCsrResponse>, ApiError> {
        let (scope, id) = (access.scope(CustomCsrsWrite)?, parse_id(id)?);
        self.find(scope, id).await?;
        let (edit, warnings) = Edit::parse(body.json()?)?;
        let editing = self.state.store.edit_custom_csr(scope, id, &edit, access.actor(), self.state.clock.now());
        let edited = self.deadline.write(editing).await?.ok_or(ErrorCode::CustomCsrNotFound)?;
        Ok(Json(CustomCsrResponse::new(edited.into(), warnings.iter().map(Message::from).collect())))
    }

    async fn quota(&self, access: &Access) -> Result<Json<QuotaResponse>, ApiError> {
        let scope = access.scope(CustomCsrsRead)?;
        let grant = self.deadline.read(self.state.store.find_scope(scope)).await?;
        Ok(Json(QuotaResponse::new(grant.into(), Vec::new())))
    }

    fn judge(
        &self,
        access: &Access,
        body: &Body<CustomCsrInput>,
        headers: &HeaderMap,
    ) -> Result<(Accepted, Option<IdempotencyKey>), ApiError> {
        let body = body.json()?;
        all_faults(self.state.validator.parse(body), idempotency::parse(headers, access.subject(), body))
    }

    /// A POST that was accepted is answered, whatever happens while it waits.
    async fn wait_for(&self, access: &Access, csr: CustomCsr, changes: Changes<'_>, headers: &HeaderMap) -> (CustomCsr, Option<String>) {
        let preferred = wait::preferred_secs(headers);
        let secs = preferred.unwrap_or(self.state.create_wait_secs);
        if preferred.is_none() && secs == 0 {
            return (csr, None);
        }
        let waited = wait::until_decided(self.state, csr.clone(), changes, access.subject(), secs, self.deadline).await;
        (waited.custom_csr.unwrap_or(csr), preferred.and(waited.applied_secs).map(applied))
    }

    /// Comes before any fault of the body or of its key is told. The accepting transaction checks it too, so a good request needs it not.
    async fn check_grant(&self, scope: &Scope) -> Result<(), ApiError> {
        match self.deadline.read(self.state.store.find_scope(scope)).await?.filter(|grant| grant.granted) {
            None => Err(ErrorCode::AccessNotGranted.into()),
            Some(grant) if grant.quota.is_none() => Err(ErrorCode::QuotaNotAllocated.into()),
            Some(_) => Ok(()),
        }
    }

    async fn list(&self, access: &Access, query: &Query) -> Result<Json<CustomCsrListResponse>, ApiError> {
        let scope = access.scope(CustomCsrsRead)?;
        let query = query.custom_csrs()?;
        let page = self.deadline.read(self.state.store.list_custom_csrs(scope, &query)).await?;
        let info = ResultInfo::new(query.page, query.per_page, page.rows.len(), page.total);
        Ok(Json(CustomCsrListResponse::new(page.rows.into_iter().map(CustomCsrDto::from).collect(), Vec::new(), info)))
    }

    async fn get(&self, access: &Access, id: &str, headers: &HeaderMap) -> Result<Found, ApiError> {
        let scope = access.scope(CustomCsrsRead)?;
        let id = parse_id(id)?;
        let Some(secs) = wait::preferred_secs(headers) else {
            let csr = self.find(scope, id).await?;
            return Ok(Found::Found(Json(CustomCsrResponse::new(csr.into(), Vec::new())), None));
        };
        let changes = self.state.store.signals().changes_of(id);
        let csr = self.find(scope, id).await?;
        let Waited { custom_csr, applied_secs } =
            wait::until_decided(self.state, csr, changes, access.subject(), secs, self.deadline).await;
        let csr = custom_csr.ok_or(ErrorCode::CustomCsrNotFound)?;
        Ok(Found::Found(Json(CustomCsrResponse::new(csr.into(), Vec::new())), applied_secs.map(applied)))
    }

    async fn delete(&self, access: &Access, id: &str) -> Result<Json<DeletedCustomCsrResponse>, ApiError> {
        let scope = access.scope(CustomCsrsWrite)?;
        let id = parse_id(id)?;
        let deleting = self.state.store.delete_custom_csr(scope, id, access.actor(), self.state.clock.now());
        match self.deadline.write(deleting).await? {
            Deletion::Deleted => {}
            Deletion::NotFound => return Err(ErrorCode::CustomCsrNotFound.into()),
            Deletion::InUse => return Err(ErrorCode::CustomCsrInUse.into()),
        }
        Ok(Json(DeletedCustomCsrResponse::new(DeletedCustomCsr { id: id.to_string() }, Vec::new())))
    }
}

/// The value of `Preference-Applied`.
fn applied(secs: u32) -> String {
    format!("wait={secs}")
}

/// Faults of the body and of the header come together.
fn all_faults(
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

/// Declares the operations under one kind of scope: the paths, then the IDs of the operations.
macro_rules! resource {
    ($(#[$doc:meta])* $name:ident, $collection:literal, $one:literal, $rekey_path:literal, $quota_path:literal;
     $create:literal, $list:literal, $get:literal, $edit:literal, $delete:literal, $rekey:literal, $quota:literal) => {
        $(#[$doc])*
        pub struct $name;

        #[OpenApi]
        impl $name {
            /// Create a custom CSR
            ///
            /// Validates at once and answers 201 with `status: pending`; the key and the CSR are made in the background.
            /// An `Idempotency-Key` is remembered for 24 hours. Answers 429 (1470) if 10,000 of them are remembered for this zone or account,
            /// or if as many of its custom CSRs are pending as the service allows.
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
                query: Query,
            ) -> Result<Json<CustomCsrListResponse>, Failure<ListErrors>> {
                Ok(CustomCsrs::new(state.0).list(&access, &query).await?)
            }

            /// Get the quota
            ///
            /// How many custom CSRs there may be, and are.
            #[oai(path = $quota_path, method = "get", operation_id = $quota)]
            async fn quota(
                &self,
                state: Data<&Arc<AppState>>,
                access: Access,
                #[oai(name = "scope_id")] _scope_id: Path<String>,
            ) -> Result<Json<QuotaResponse>, Failure<QuotaErrors>> {
                Ok(CustomCsrs::new(state.0).quota(&access).await?)
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

            /// Rename a custom CSR
            ///
            /// Changes `name` and `description`, and nothing else: the key and the CSR stay.
            #[oai(path = $one, method = "patch", operation_id = $edit)]
            async fn edit(
                &self,
                state: Data<&Arc<AppState>>,
                access: Access,
                #[oai(name = "scope_id")] _scope_id: Path<String>,
                #[oai(name = "custom_csr_id")] id: Path<String>,
                body: Body<CustomCsrEditInput>,
            ) -> Result<Json<CustomCsrResponse>, Failure<EditErrors>> {
                Ok(CustomCsrs::new(state.0).edit(&access, &id, &body).await?)
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

            /// Rekey a custom CSR
            ///
            /// Makes a new custom CSR with the same subject and names and a new key; `replaces` names the old one, which stays until it is deleted.
            /// It counts against the quota. A body is needed only for another `key_type`, `name` or `description` than the old one's.
            #[oai(path = $rekey_path, method = "post", operation_id = $rekey)]
            async fn rekey(
                &self,
                state: Data<&Arc<AppState>>,
                access: Access,
                #[oai(name = "scope_id")] _scope_id: Path<String>,
                #[oai(name = "custom_csr_id")] id: Path<String>,
                body: OptionalBody<CustomCsrRekeyInput>,
                headers: &HeaderMap,
            ) -> Result<Created, Failure<RekeyErrors>> {
                Ok(CustomCsrs::new(state.0).rekey(&access, &id, &body, headers).await?)
            }
        }
    };
}

resource!(
    /// The custom CSRs of a zone.
    ZoneCustomCsrs, "/zones/:scope_id/custom_csrs", "/zones/:scope_id/custom_csrs/:custom_csr_id",
    "/zones/:scope_id/custom_csrs/:custom_csr_id/rekey", "/zones/:scope_id/custom_csrs/quota";
    "zone-custom-csrs-create", "zone-custom-csrs-list", "zone-custom-csrs-get", "zone-custom-csrs-edit", "zone-custom-csrs-delete",
    "zone-custom-csrs-rekey", "zone-custom-csrs-quota"
);
resource!(
    /// The custom CSRs of an account.
    AccountCustomCsrs, "/accounts/:scope_id/custom_csrs", "/accounts/:scope_id/custom_csrs/:custom_csr_id",
    "/accounts/:scope_id/custom_csrs/:custom_csr_id/rekey", "/accounts/:scope_id/custom_csrs/quota";
    "account-custom-csrs-create", "account-custom-csrs-list", "account-custom-csrs-get", "account-custom-csrs-edit",
    "account-custom-csrs-delete", "account-custom-csrs-rekey", "account-custom-csrs-quota"
);
