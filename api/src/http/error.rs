//! Errors on their way to the client: whatever goes wrong becomes an [`ApiError`], which becomes an envelope.

use std::fmt;

use poem::{
    IntoResponse, Response,
    error::ResponseError,
    http::{HeaderName, HeaderValue, StatusCode, header},
};
use poem_openapi::types::ToJSON;
use shared::{codes::ErrorCode, issue::Issue, storage::StoreError};

use super::{
    allow::Allow,
    envelope::{ErrorResponse, Message, Null, Source},
    types::Always,
};

/// The header that tells the official clients whether to repeat a request.
pub const SHOULD_RETRY: &str = "x-should-retry";

/// Seconds that a client is asked to wait while the service is not ready.
const RETRY_AFTER_SECS: HeaderValue = HeaderValue::from_static("1");

/// The most hints of a response.
const HINTS_MAX: usize = 20;
/// The most characters of a cause in the log.
const CAUSE_MAX_CHARS: usize = 300;

/// What the log says of an error. It travels with the response.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// The codes, with commas between them; `None` if there is no error.
    pub codes: Option<String>,
    /// The cause, if the codes do not say everything.
    pub cause: Option<String>,
}

/// What an answer needs to know of the whole service.
#[derive(Default)]
pub struct Site {
    /// The methods of the routes.
    pub allow: Allow,
    /// Where tenants ask for more: the hints on access and quotas end with it.
    pub contact_url: Option<String>,
}

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct ApiError {
    issues: Vec<Issue>,
    /// Whether the request may have taken effect all the same.
    is_unknown: bool,
    /// `Allow` or `WWW-Authenticate`. Boxed, since most errors have neither, and results carry errors.
    header: Option<Box<(HeaderName, HeaderValue)>>,
    /// For the log, where the hints do not say it.
    cause: Option<String>,
}

impl ApiError {
    /// Everything that is wrong; sorts by code.
    #[must_use]
    pub fn new(mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|issue| issue.code);
        Self { issues, is_unknown: false, header: None, cause: None }
    }

    /// The route exists, the method does not: `allow` lists those that do.
    #[must_use]
    pub fn method_not_allowed(allow: HeaderValue) -> Self {
        Self { header: Some(Box::new((header::ALLOW, allow))), ..Self::from(ErrorCode::MethodNotAllowed) }
    }

    /// With this value of `WWW-Authenticate`.
    #[must_use]
    pub fn with_challenge(self, challenge: &str) -> Self {
        let challenge = HeaderValue::from_str(challenge).ok();
        Self { header: challenge.map(|challenge| Box::new((header::WWW_AUTHENTICATE, challenge))), ..self }
    }

    /// With this cause in the log.
    #[must_use]
    pub fn with_cause(self, cause: &str) -> Self {
        Self { cause: Some(cause.to_owned()), ..self }
    }

    /// What the log says about it.
    #[must_use]
    pub fn told(&self) -> Told {
        let mut codes: Vec<_> = self.issues.iter().map(|issue| issue.code.number().to_string()).collect();
        codes.dedup();
        let cause = self.cause.clone().or_else(|| {
            let causes: Vec<_> = self.issues.iter().filter_map(|issue| issue.hint.as_deref().or(issue.reason.as_deref())).take(3).collect();
            (!causes.is_empty()).then(|| causes.join(" ").chars().take(CAUSE_MAX_CHARS).collect())
        });
        Told { codes: Some(codes.join(",")), cause }
    }

    fn hints(&self, contact_url: Option<&str>) -> Vec<Message> {
        let hint = |issue: &Issue| {
            let asks = matches!(issue.code, ErrorCode::QuotaNotAllocated | ErrorCode::AccessNotGranted | ErrorCode::QuotaUsedUp);
            let text = match (issue.hint.as_deref()?, contact_url) {
                (hint, Some(url)) if asks => format!("{hint} Contact: {url}"),
                (hint, _) => hint.to_owned(),
            };
            Some(Message::hint(text, Source::of(issue)))
        };
        self.issues.iter().filter_map(hint).take(HINTS_MAX).collect()
    }

    /// The body of the response, whose hints on access and quotas end with the contact URL.
    #[must_use]
    pub fn body(&self, contact_url: Option<&str>) -> ErrorResponse {
        let errors = self.issues.iter().map(Message::from).collect();
        let unknown_members = self.issues.iter().flat_map(|issue| &issue.unknown_members).map(Message::from);
        ErrorResponse { success: Always, errors, messages: unknown_members.chain(self.hints(contact_url)).collect(), result: Null }
    }

    /// The response with that body.
    #[must_use]
    pub fn response(&self, contact_url: Option<&str>) -> Response {
        let body = self.body(contact_url).to_json_string();
        let mut response = Response::builder().status(self.status()).content_type("application/json").body(body);
        response.extensions_mut().insert(self.told());
        let headers = response.headers_mut();
        if let Some((name, value)) = self.header.as_deref() {
            headers.insert(name, value.clone());
        }
        if matches!(self.code(), ErrorCode::NotReady | ErrorCode::TooManyRequests) {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECS);
        }
        if self.code() == ErrorCode::BodyEncoded {
            // RFC 9110, 12.5.3: what a body may be encoded in.
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        // A conflict does not go away by itself, and the official clients repeat a 409.
        if self.is_unknown || self.status() == StatusCode::CONFLICT {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }

    /// The code that decides the status.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.issues.first().map_or(ErrorCode::Internal, |issue| issue.code)
    }
}

impl From<Issue> for ApiError {
    fn from(issue: Issue) -> Self {
        Self::new(vec![issue])
    }
}

impl From<Vec<Issue>> for ApiError {
    fn from(issues: Vec<Issue>) -> Self {
        Self::new(issues)
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Issue::new(code).into()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let unreachable = || Issue::new(ErrorCode::NotReady).because("the database cannot be reached");
        match &error {
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "answered 1471");
                unreachable().into()
            }
            StoreError::Ambiguous(_) => {
                tracing::warn!(%error, "answered 1471, not to be repeated blindly");
                let issue =
                    Issue::new(ErrorCode::NotReady).because("whether the request took effect is not known, so look before you repeat it");
                Self { is_unknown: true, ..Self::from(issue) }
            }
            StoreError::Corrupt(_) | StoreError::Internal(_) => {
                tracing::error!(%error, "answered 1500");
                ErrorCode::Internal.into()
            }
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code().number(), self.code().template())
    }
}

impl std::error::Error for ApiError {}

impl ResponseError for ApiError {
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn as_response(&self) -> Response {
        self.response(None)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.as_response()
    }
}

/// The one table from the framework's errors into the envelope. `path` is that of the request.
#[must_use]
pub fn from_framework(error: &poem::Error, path: &str, site: &Site) -> Response {
    let contact_url = site.contact_url.as_deref();
    if let Some(error) = error.downcast_ref::<ApiError>() {
        return error.response(contact_url);
    }
    let answer = match error.status() {
        StatusCode::NOT_FOUND => no_route(path, &site.allow),
        StatusCode::METHOD_NOT_ALLOWED => {
            site.allow.methods(error, path).map_or_else(|| ErrorCode::RouteNotFound.into(), ApiError::method_not_allowed)
        }
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::BodyTooLarge.into(),
        status if status.is_client_error() => ErrorCode::BodyUndecodable.into(),
        _ => {
            tracing::error!(%error, "answered 1500");
            ErrorCode::Internal.into()
        }
    };
    answer.response(contact_url)
}

/// 7000, with the route that was probably meant.
fn no_route(path: &str, allow: &Allow) -> ApiError {
    let issue = Issue::new(ErrorCode::RouteNotFound);
    let Some(meant) = path.strip_suffix('/').filter(|path| allow.has(path)) else { return issue.into() };
    issue.hinting(format!("There is a route without the trailing slash: {meant}.")).into()
}
