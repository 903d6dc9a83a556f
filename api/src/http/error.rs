//! Errors on their way to the client: whatever goes wrong becomes an [`ApiError`], and that the envelope.

use std::fmt;

use poem::{
    IntoResponse, Response,
    error::ResponseError,
    http::{HeaderValue, StatusCode, header},
};
use poem_openapi::types::ToJSON;
use shared::{codes::ErrorCode, issue::Issue, storage::StoreError};

use super::envelope::{ErrorResponse, Message, Null};

/// The header that tells the official clients whether to repeat a request.
pub const SHOULD_RETRY: &str = "x-should-retry";

/// Seconds that a client is asked to wait while the service is not ready.
const RETRY_AFTER_SECS: HeaderValue = HeaderValue::from_static("1");

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct ApiError {
    issues: Vec<Issue>,
    /// Whether the request may have taken effect all the same.
    is_unknown: bool,
    allow: Option<HeaderValue>,
}

impl ApiError {
    /// Everything that is wrong; sorts by code.
    #[must_use]
    pub fn new(mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|issue| issue.code);
        Self { issues, is_unknown: false, allow: None }
    }

    /// The route exists, the method does not: `allow` lists those that do.
    #[must_use]
    pub fn method_not_allowed(allow: HeaderValue) -> Self {
        Self { allow: Some(allow), ..Self::from(ErrorCode::MethodNotAllowed) }
    }

    fn code(&self) -> ErrorCode {
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
        let errors = self.issues.iter().map(Message::from).collect();
        let body = ErrorResponse { success: false, errors, messages: Vec::new(), result: Null };
        let mut response = Response::builder().status(self.status()).content_type("application/json").body(body.to_json_string());
        let headers = response.headers_mut();
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.code(), ErrorCode::NotReady | ErrorCode::TooManyRequests) {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECS);
        }
        // A conflict does not go away by itself, and the official clients repeat a 409.
        if self.is_unknown || self.status() == StatusCode::CONFLICT {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if let Some(allow) = &self.allow {
            headers.insert(header::ALLOW, allow.clone());
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.as_response()
    }
}

/// The one table from the framework's errors into the envelope.
#[must_use]
pub fn from_framework(error: &poem::Error, allow: impl FnOnce() -> HeaderValue) -> Response {
    if let Some(error) = error.downcast_ref::<ApiError>() {
        return error.as_response();
    }
    let answer = match error.status() {
        StatusCode::NOT_FOUND => ErrorCode::RouteNotFound.into(),
        StatusCode::METHOD_NOT_ALLOWED => ApiError::method_not_allowed(allow()),
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::BodyTooLarge.into(),
        status if status.is_client_error() => ErrorCode::BodyUndecodable.into(),
        _ => {
            tracing::error!(%error, "answered 1500");
            ErrorCode::Internal.into()
        }
    };
    answer.as_response()
}
