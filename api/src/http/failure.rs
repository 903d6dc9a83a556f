//! The errors of an operation, with the statuses that the document gives them.

use std::marker::PhantomData;

use poem::{IntoResponse, Response, error::ResponseError};
use poem_openapi::{
    ApiResponse,
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::Type,
};

use super::{envelope::ErrorResponse, error::ApiError};

/// What every operation can answer.
const EVERYWHERE: [(u16, &str); 6] = [
    (401, "The token is not accepted: 1000 to 1005."),
    (405, "Method not allowed: 7001."),
    (413, "The body is larger than 64 KiB: 1467."),
    (429, "Too many requests: 1470."),
    (500, "A fault of the service: 1500."),
    (503, "The database cannot be reached, or a part of the service is not ready: 1471."),
];

/// An operation and the statuses of its errors.
pub trait Operation: Send + Sync + 'static {
    /// Status and description of those that not every operation has.
    const ERRORS: &'static [(u16, &'static str)];
}

/// An error of the operation `O`.
pub struct Failure<O>(ApiError, PhantomData<O>);

impl<O, E: Into<ApiError>> From<E> for Failure<O> {
    fn from(error: E) -> Self {
        Self(error.into(), PhantomData)
    }
}

impl<O: Send> IntoResponse for Failure<O> {
    fn into_response(self) -> Response {
        self.0.as_response()
    }
}

impl<O> From<Failure<O>> for poem::Error {
    fn from(failure: Failure<O>) -> Self {
        failure.0.into()
    }
}

impl<O: Operation> ApiResponse for Failure<O> {
    fn meta() -> MetaResponses {
        let response = |(status, description): &(u16, &'static str)| MetaResponse {
            description,
            status: Some(*status),
            status_range: None,
            content: vec![MetaMediaType { content_type: "application/json", schema: ErrorResponse::schema_ref() }],
            headers: Vec::new(),
        };
        MetaResponses { responses: O::ERRORS.iter().chain(&EVERYWHERE).map(response).collect() }
    }

    fn register(registry: &mut Registry) {
        ErrorResponse::register(registry);
    }
}
