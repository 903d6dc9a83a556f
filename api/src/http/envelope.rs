//! The one envelope that every response has, and the one way from any error into it.

use std::{fmt, marker::PhantomData};

use poem::{
    IntoResponse, Response,
    error::ResponseError,
    http::{HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiResponse, Object,
    registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
    types::{ParseFromJSON, ParseResult, ToJSON, Type},
};
use serde::Serialize;
use shared::{
    codes::ErrorCode,
    issue::{Issue, Warning},
    storage::StoreError,
};

/// The header that tells the official clients whether to repeat a request.
pub const SHOULD_RETRY: &str = "x-should-retry";

/// Seconds that a client is asked to wait while the service is not ready.
const RETRY_AFTER_SECS: HeaderValue = HeaderValue::from_static("1");

/// Which member of the request body is meant.
#[derive(Debug, Clone, Object, Serialize)]
pub struct Source {
    /// A JSON pointer (RFC 6901) into the request body.
    pub pointer: String,
}

/// One error or one warning.
#[derive(Debug, Clone, Object, Serialize)]
pub struct Message {
    /// The number; the table of codes says what it means.
    pub code: u16,
    /// What is wrong and what to do.
    pub message: String,
    /// Which member of the request body is meant; absent where it is the request as a whole.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

impl From<&Issue> for Message {
    fn from(issue: &Issue) -> Self {
        let source = issue.pointer.clone().map(|pointer| Source { pointer });
        Self { code: issue.code.number(), message: issue.message(), source }
    }
}

impl From<&Warning> for Message {
    fn from(warning: &Warning) -> Self {
        let source = Some(Source { pointer: warning.pointer.clone() });
        Self { code: warning.code.number(), message: warning.message(), source }
    }
}

/// What every error response looks like.
#[derive(Debug, Clone, Object)]
pub struct ErrorResponse {
    /// Always false.
    pub success: bool,
    /// Everything that is wrong, in the order of the codes.
    pub errors: Vec<Message>,
    /// Warnings.
    pub messages: Vec<Message>,
    /// Always null.
    pub result: Null,
}

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
        let away = || Issue::new(ErrorCode::NotReady).because("the database cannot be reached");
        match &error {
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "answered 1471");
                away().into()
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

/// The statuses that an operation's errors can have, for the document.
pub trait Statuses: Send + Sync + 'static {
    /// Status and description.
    const LIST: &'static [(u16, &'static str)];
}

/// An error of an operation that documents `S`.
pub struct Failure<S>(ApiError, PhantomData<S>);

impl<S, E: Into<ApiError>> From<E> for Failure<S> {
    fn from(error: E) -> Self {
        Self(error.into(), PhantomData)
    }
}

impl<S: Send> IntoResponse for Failure<S> {
    fn into_response(self) -> Response {
        self.0.as_response()
    }
}

impl<S> From<Failure<S>> for poem::Error {
    fn from(failure: Failure<S>) -> Self {
        failure.0.into()
    }
}

impl<S: Statuses> ApiResponse for Failure<S> {
    fn meta() -> MetaResponses {
        let response = |(status, description): &(u16, &'static str)| MetaResponse {
            description,
            status: Some(*status),
            status_range: None,
            content: vec![MetaMediaType { content_type: "application/json", schema: ErrorResponse::schema_ref() }],
            headers: Vec::new(),
        };
        MetaResponses { responses: S::LIST.iter().map(response).collect() }
    }

    fn register(registry: &mut Registry) {
        ErrorResponse::register(registry);
    }
}

/// The `null` of a response without a result.
#[derive(Debug, Clone, Copy)]
pub struct Null;

impl Type for Null {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> std::borrow::Cow<'static, str> {
        "null".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema { nullable: true, ..MetaSchema::new("object") }))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ToJSON for Null {
    fn to_json(&self) -> Option<serde_json::Value> {
        Some(serde_json::Value::Null)
    }
}

impl ParseFromJSON for Null {
    fn parse_from_json(_: Option<serde_json::Value>) -> ParseResult<Self> {
        Ok(Self)
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
