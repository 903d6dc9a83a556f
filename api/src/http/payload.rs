//! The payload of every success.

use poem::{
    IntoResponse, Response,
    http::{HeaderValue, header},
};
use poem_openapi::{
    ApiResponse,
    payload::{self, Payload},
    registry::{MetaResponses, MetaSchemaRef, Registry},
    types::{ToJSON, Type},
};
use serde::Serialize;
use shared::codes::ErrorCode;

use super::error::ApiError;

/// What most responses fit in, in bytes.
const USUAL_BYTES: usize = 2 * 1024;

/// JSON as the framework's own payload documents it, but written without a tree of values in between. Tests compare the two.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: Type> Payload for Json<T> {
    const CONTENT_TYPE: &'static str = <payload::Json<T> as Payload>::CONTENT_TYPE;

    fn schema_ref() -> MetaSchemaRef {
        <payload::Json<T> as Payload>::schema_ref()
    }

    fn register(registry: &mut Registry) {
        <payload::Json<T> as Payload>::register(registry);
    }
}

impl<T: Serialize + Type> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(USUAL_BYTES);
        if let Err(error) = serde_json::to_writer(&mut body, &self.0) {
            tracing::error!(%error, "answered 1500");
            return ApiError::from(ErrorCode::Internal).into_response();
        }
        let mut response = Response::from(body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(Self::CONTENT_TYPE));
        response
    }
}

impl<T: Serialize + ToJSON> ApiResponse for Json<T> {
    fn meta() -> MetaResponses {
        <payload::Json<T> as ApiResponse>::meta()
    }

    fn register(registry: &mut Registry) {
        <payload::Json<T> as ApiResponse>::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use poem_openapi::Object;

    use super::*;

    #[derive(Object, Serialize)]
    struct Answer {
        yes: bool,
    }

    #[tokio::test]
    async fn the_response_has_the_documented_body_and_content_type() {
        let documented = payload::Json(Answer { yes: true }).into_response();
        let written = Json(Answer { yes: true }).into_response();
        assert_eq!(written.status(), documented.status());
        assert_eq!(written.headers(), documented.headers());
        assert_eq!(written.headers()["content-type"], Json::<Answer>::CONTENT_TYPE);
        assert_eq!(written.into_body().into_string().await.unwrap(), documented.into_body().into_string().await.unwrap());
    }
}
