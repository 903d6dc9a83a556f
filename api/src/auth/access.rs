//! Who asks, for what, and whether they may: the checks that come before everything else of a request.

use std::sync::Arc;

use poem::{Request, RequestBody, http::header};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaSecurityScheme, Registry},
};
use shared::{
    audit::{Actor, Via},
    codes::ErrorCode,
    ids::{Scope, TenantId},
};

use crate::{
    auth::{Caller, Permission},
    http::envelope::ApiError,
    http::middleware::{BODY_LIMIT_BYTES, PlainPath, RequestId},
    state::AppState,
};

/// The name of the security scheme in the document.
pub const SECURITY_SCHEME: &str = "bearerAuth";

/// An authenticated caller and the scope in the path: steps 1 and 2 of the order of checks.
pub struct Access {
    caller: Arc<Caller>,
    scope: Scope,
    path: String,
    actor: Actor,
}

impl Access {
    /// The scope, if the token reaches it with this permission: step 3.
    ///
    /// # Errors
    ///
    /// 1404 where it does not.
    pub fn scope(&self, permission: Permission) -> Result<&Scope, ApiError> {
        if self.caller.may(&self.scope, permission) { Ok(&self.scope) } else { Err(ErrorCode::AccessNotGranted.into()) }
    }

    /// Whom the token names.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.caller.subject()
    }

    /// Who acts, for the audit table.
    #[must_use]
    pub const fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The path of the request, with its prefix.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    fn check(req: &Request) -> Result<Self, ApiError> {
        let PlainPath(path) = req.extensions().get().cloned().ok_or(ErrorCode::Internal)?;
        let scope = scope_of_path(&path)?;
        let state = req.data::<Arc<AppState>>().ok_or(ErrorCode::Internal)?;
        let headers: Vec<_> = req.headers().get_all(header::AUTHORIZATION).iter().map(poem::http::HeaderValue::as_bytes).collect();
        let caller = state.authenticator.authenticate(&headers)?;
        // A body without a length is measured while it is read.
        let length = req.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > BODY_LIMIT_BYTES as u64) {
            return Err(ErrorCode::BodyTooLarge.into());
        }
        let peer = req.remote_addr().as_socket_addr().map_or_else(|| "unknown".to_owned(), |peer| peer.ip().to_string());
        let request_id = req.extensions().get().map(|RequestId(id)| id.clone());
        let actor = Actor { who: caller.subject().to_owned(), via: Via::Api, from: peer, request_id };
        Ok(Self { caller, scope, path, actor })
    }
}

/// The scope in `…/zones/ID/…` or `…/accounts/ID/…`.
fn scope_of_path(path: &str) -> Result<Scope, ApiError> {
    let mut segments = path.split('/').skip_while(|segment| !matches!(*segment, "zones" | "accounts"));
    let (Some(kind), Some(id)) = (segments.next(), segments.next()) else { return Err(ErrorCode::RouteNotFound.into()) };
    if id.is_empty() {
        return Err(ErrorCode::ZoneIdMissing.into());
    }
    let id = TenantId::parse(id).ok_or(ErrorCode::RouteNotFound)?;
    Ok(if kind == "zones" { Scope::Zone(id) } else { Scope::Account(id) })
}

impl<'a> ApiExtractor<'a> for Access {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        let scheme = MetaSecurityScheme {
            ty: "http",
            description: Some("A JWT with the claims `exp`, `sub` and `zones` or `accounts`. In Swagger UI: paste the token alone."),
            name: None,
            key_in: None,
            scheme: Some("bearer"),
            bearer_format: Some("JWT"),
            flows: None,
            openid_connect_url: None,
        };
        registry.create_security_scheme(SECURITY_SCHEME, scheme);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SECURITY_SCHEME]
    }

    async fn from_request(req: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        Ok(Self::check(req)?)
    }
}
