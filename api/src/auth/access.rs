//! Who asks, for what, and whether they may: the checks that come before everything else of a request.

use std::sync::Arc;

use poem::{
    Request, RequestBody,
    http::{HeaderValue, header},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaSecurityScheme, Registry},
};
use shared::{
    audit::{Actor, Via},
    codes::ErrorCode,
    ids::{Scope, TenantId},
    issue::Issue,
    metrics,
};

use super::{
    authenticator::Authenticator,
    caller::{Caller, Lack, Permission},
    refusal::Refusal,
};
use crate::http::{
    body::{declared_length, is_upload, too_large},
    client::Client,
    error::ApiError,
    middleware::{BODY_LIMIT_BYTES, RequestId},
    mounted::{Account, Parent, Zone},
    prefix::Prefix,
    rate_limit::RateLimits,
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
        match self.caller.check(&self.scope, permission) {
            Ok(()) => Ok(&self.scope),
            Err(Lack::Scope) => Err(not_reached(&self.scope)),
            Err(Lack::Permission) => Err(not_permitted(permission)),
        }
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

    async fn check(req: &Request) -> Result<Self, ApiError> {
        let scope = scope_of::<Zone>(req).or_else(|| scope_of::<Account>(req)).ok_or(ErrorCode::Internal)??;
        let prefix = *req.data::<Prefix>().ok_or(ErrorCode::Internal)?;
        let authenticator = req.data::<Arc<Authenticator>>().ok_or(ErrorCode::Internal)?;
        let client = *req.data::<Client>().ok_or(ErrorCode::Internal)?;
        let limits = req.data::<Arc<RateLimits>>().ok_or(ErrorCode::Internal)?;
        limits.check_failures(client)?;
        let headers: Vec<_> = req.headers().get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes).collect();
        let caller = authenticator.authenticate(&headers).await.inspect_err(|refusal| {
            limits.count_failure(client, refusal.code);
            metrics::auth_failed(refusal.code);
        })?;
        limits.count_request(caller.subject())?;
        // A body without a length is measured while it is read.
        if declared_length(req.headers()).is_some_and(|length| length > BODY_LIMIT_BYTES as u64) {
            return Err(too_large(is_upload(req)).into());
        }
        let request_id = req.extensions().get().map(|RequestId(id)| id.clone());
        let actor = Actor { who: caller.subject().to_owned(), via: Via::Api, from: client.name(), request_id };
        Ok(Self { caller, prefix, scope, actor })
    }
}

/// 1404 for a token that does not name the zone or account. It says nothing about whether there is one.
#[must_use]
pub fn not_reached(scope: &Scope) -> ApiError {
    let kind = scope.kind();
    let hint = format!("The token does not reach this {kind}. Ask its issuer for one that names the {kind}.");
    Issue::new(ErrorCode::AccessNotGranted).hinting(hint).into()
}

/// 1404 for a token that does not allow this.
fn not_permitted(permission: Permission) -> ApiError {
    let word = permission.word();
    let hint = format!("The token lacks the permission {word}. Ask its issuer for one with {word} in its scope.");
    let error = ApiError::from(Issue::new(ErrorCode::AccessNotGranted).hinting(hint));
    error.with_challenge(&format!("Bearer error=\"insufficient_scope\", error_description=\"the permission is missing\", scope=\"{word}\""))
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        if refusal.code == ErrorCode::NotReady {
            return Self::from(Issue::new(refusal.code).because(refusal.cause.clone())).with_cause(refusal.detail());
        }
        let challenge = match refusal.code {
            // RFC 6750, 3.1: who sent no token is told of no error.
            ErrorCode::AuthorizationMissing => "Bearer".to_owned(),
            _ => format!("Bearer error=\"invalid_token\", error_description=\"{}\"", quotable(&refusal.cause)),
        };
        Self::from(refusal.code).with_challenge(&challenge).with_cause(refusal.detail())
    }
}

/// The text with `?` for what may not stand in an `error_description` (RFC 6750, 3).
fn quotable(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ' '..='~') && !matches!(c, '"' | '\\') { c } else { '?' }).collect()
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
            description: Some(
                "A JWT with the claims `exp`, `sub` and `zones` or `accounts`. In Swagger UI: paste the token alone. A request without a token is answered with 400 (1402), as Cloudflare's API does; one whose token is not accepted with 401.",
            ),
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
        Ok(Self::check(req).await?)
    }
}
