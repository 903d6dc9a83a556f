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

use super::{
    authenticator::Authenticator,
    caller::{Caller, Permission},
};
use crate::http::{
    error::ApiError,
    middleware::{BODY_LIMIT_BYTES, RequestId},
    mounted::{Account, Parent, Zone},
    prefix::Prefix,
};

/// The name of the security scheme in the document.
pub const SECURITY_SCHEME: &str = "bearerAuth";

/// An authenticated caller and the scope in the path: steps 1 and 2 of the order of checks.
pub struct Access {
    caller: Arc<Caller>,
    prefix: Prefix,
    scope: Scope,
    actor: Actor,
}

impl Access {
    /// The scope, if the token reaches it with this permission: step 3.
    ///
    /// # Errors
    ///
    /// 1404 if it does not.
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

    /// The absolute path of something in the scope, with the prefix of the request.
    #[must_use]
    pub fn location(&self, path: &str) -> String {
        format!("{}/{}/{path}", self.prefix.0, self.scope)
    }

    fn check(req: &Request) -> Result<Self, ApiError> {
        let scope = scope_of::<Zone>(req).or_else(|| scope_of::<Account>(req)).ok_or(ErrorCode::Internal)??;
        let prefix = *req.data::<Prefix>().ok_or(ErrorCode::Internal)?;
        let authenticator = req.data::<Arc<Authenticator>>().ok_or(ErrorCode::Internal)?;
        let headers: Vec<_> = req.headers().get_all(header::AUTHORIZATION).iter().map(poem::http::HeaderValue::as_bytes).collect();
        let caller = authenticator.authenticate(&headers)?;
        // A body without a length is measured while it is read.
        let length = req.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > BODY_LIMIT_BYTES as u64) {
            return Err(ErrorCode::BodyTooLarge.into());
        }
        let peer = req.remote_addr().as_socket_addr().map_or_else(|| "unknown".to_owned(), |peer| peer.ip().to_string());
        let request_id = req.extensions().get().map(|RequestId(id)| id.clone());
        let actor = Actor { who: caller.subject().to_owned(), via: Via::Api, from: peer, request_id };
        Ok(Self { caller, prefix, scope, actor })
    }
}

/// The scope below which an operation was called, if it is one of this kind.
fn scope_of<P: Parent>(req: &Request) -> Option<Result<Scope, ErrorCode>> {
    let id = req.raw_path_param(P::ID)?;
    if id.is_empty() {
        return Some(Err(ErrorCode::ZoneIdMissing));
    }
    Some(TenantId::parse(id).map(P::SCOPE).ok_or(ErrorCode::RouteNotFound))
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
