//! The answers of a hand-over link: the page in each of its states, and errors in plain text.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use poem::{
    Response,
    http::{HeaderName, HeaderValue, StatusCode, header},
};
use shared::{clock::Timestamp, codes::ErrorCode};

use super::{
    link::{Absent, Found},
    template::{State, Values},
};
use crate::{http::error::ApiError, state::AppState};

/// The policy that all answers have: they load nothing, and cannot be framed.
pub const NOTHING: &str = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'";

impl Absent {
    /// The page of a link that shows nothing.
    pub fn response(&self, state: &AppState) -> Response {
        match self {
            Self::Unknown => page(state, StatusCode::NOT_FOUND, &Values::default()),
            Self::Ended => page(state, StatusCode::GONE, &Values::default()),
            Self::Failed(error) => failed(state, error),
        }
    }
}

impl Found {
    /// The page of the open link, with what is wrong with the certificate.
    pub fn page(&self, state: &AppState, status: StatusCode, errors: &[String], certificate: &str) -> Response {
        let values = Values {
            state: State::Open,
            names: &self.names,
            note: self.handover.note.as_deref().unwrap_or_default(),
            csr: &self.pem,
            // Relative to the page: a proxy may have the service below a path of its own.
            csr_url: &format!("{}/csr", self.secret),
            csr_file: &self.file(),
            post_url: &self.secret,
            errors,
            certificate,
            until: &day(self.handover.expires_at),
            ..Values::default()
        };
        page(state, status, &values)
    }

    /// The page with what is wrong with the certificate. The log shows it like an error of the API.
    pub fn refusal(&self, state: &AppState, error: &ApiError, sentences: &[String], certificate: &str) -> Response {
        let mut response = self.page(state, error_status(error), sentences, certificate);
        response.extensions_mut().insert(error.told());
        response
    }
}

/// 422 for a certificate that was refused. Errors that are not about the certificate keep their status.
fn error_status(error: &ApiError) -> StatusCode {
    let status = poem::error::ResponseError::status(error);
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS { StatusCode::UNPROCESSABLE_ENTITY } else { status }
}

/// The errors and hints, for people.
pub fn sentences(state: &AppState, error: &ApiError) -> Vec<String> {
    let body = error.body(state.contact_url.as_deref());
    body.errors.into_iter().chain(body.messages).map(|message| message.message).collect()
}

/// The answer if a link cannot be read now.
pub fn failed(state: &AppState, error: &ApiError) -> Response {
    let status = poem::error::ResponseError::status(error);
    let text = sentences(state, error).join("\n");
    let mut response = error.response(None);
    response.set_body(text);
    response.set_status(status);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    discreet(response, HeaderValue::from_static(NOTHING))
}

/// An answer with this policy, which sends no referrer, and which search engines do not index.
pub fn discreet(mut response: Response, policy: HeaderValue) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex"));
    response
}

/// A page that loads nothing but its own style, and sends its form nowhere else.
pub fn page(state: &AppState, status: StatusCode, values: &Values<'_>) -> Response {
    let mut octets = [0; 16];
    if aws_lc_rs::rand::fill(&mut octets).is_err() {
        return failed(state, &ErrorCode::Internal.into());
    }
    let nonce = URL_SAFE_NO_PAD.encode(octets);
    let html = match state.handovers.template.render(&Values { nonce: &nonce, ..*values }) {
        Ok(html) => html,
        Err(error) => {
            tracing::error!(error, "the page of a hand-over link cannot be made");
            return failed(state, &ErrorCode::Internal.into());
        }
    };
    let policy = format!("{NOTHING}; style-src 'nonce-{nonce}'; img-src data:; form-action 'self'");
    let Ok(policy) = HeaderValue::try_from(policy) else { return failed(state, &ErrorCode::Internal.into()) };
    discreet(Response::builder().status(status).content_type("text/html; charset=utf-8").body(html), policy)
}

/// A time, for people: `2026-12-31 23:59 UTC`.
pub fn day(at: Timestamp) -> String {
    let text = at.rfc3339();
    format!("{} {} UTC", text.get(..10).unwrap_or_default(), text.get(11..16).unwrap_or_default())
}
