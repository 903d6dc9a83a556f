//! `/handover/{secret}`: the page of a hand-over link. It is for people, in HTML without scripts.

use std::sync::Arc;

use poem::{
    Body, Request, RequestBody, Response, Route, get, handler,
    http::{HeaderName, HeaderValue, StatusCode, header},
    web::Data,
};
use shared::{
    audit::{Actor, Via},
    clock::Timestamp,
    codes::ErrorCode,
    custom_csr::CustomCsr,
    handover::{Handover, Secret},
    ids::Scope,
    issue::Issue,
    x509::pem,
};

use super::{
    bring::{Stored, store},
    form::Form,
    link::{Absent, Found},
    template::{State, Values},
};
use crate::{
    http::{
        body::{Received, receive},
        deadline::Deadline,
        error::ApiError,
    },
    state::AppState,
};

/// What the policy of every answer says beside that of its own: it is shown in no other page, and loads nothing.
const NOTHING: &str = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'";

/// The pages of all links, below [`shared::handover::PATH`]. What is no link has the page of one that is over.
#[must_use]
pub fn routes() -> Route {
    Route::new().at("/:secret", get(show).post(hand_over)).at("/:secret/csr", get(download)).at("/*rest", get(unknown).post(unknown))
}

#[handler]
fn unknown(Data(state): Data<&Arc<AppState>>) -> Response {
    Absent::Unknown.response(state)
}

#[handler]
async fn show(Data(state): Data<&Arc<AppState>>, request: &Request) -> Response {
    let deadline = Deadline::default();
    let found = match Found::of(state, deadline, request).await {
        Ok(found) => found,
        Err(absent) => return absent.response(state),
    };
    if let Err(error) = opened(state, deadline, &found).await {
        return failed(state, &error);
    }
    found.page(state, StatusCode::OK, &[], "")
}

#[handler]
async fn download(Data(state): Data<&Arc<AppState>>, request: &Request) -> Response {
    let deadline = Deadline::default();
    let found = match Found::of(state, deadline, request).await {
        Ok(found) => found,
        Err(absent) => return absent.response(state),
    };
    if let Err(error) = opened(state, deadline, &found).await {
        return failed(state, &error);
    }
    let disposition = format!("attachment; filename=\"{}\"", found.file());
    let response = Response::builder().content_type("application/pkcs10").header(header::CONTENT_DISPOSITION, disposition);
    discreet(response.body(found.pem), HeaderValue::from_static(NOTHING))
}

/// Records the first time that a link was opened.
async fn opened(state: &AppState, deadline: Deadline, found: &Found) -> Result<(), ApiError> {
    if found.handover.opened_at.is_some() {
        return Ok(());
    }
    let opening = state.store.open_handover(found.handover.id, &found.scope, &found.actor, state.clock.now());
    Ok(deadline.write(opening).await?)
}

#[handler]
async fn hand_over(Data(state): Data<&Arc<AppState>>, request: &Request, body: Body) -> Response {
    let deadline = Deadline::default();
    let found = match Found::of(state, deadline, request).await {
        Ok(found) => found,
        Err(absent) => return absent.response(state),
    };
    let form = match form(request, body).await {
        Ok(form) => form,
        Err(error) => return found.refusal(state, &error, &sentences(state, &error), ""),
    };
    match store(state, deadline, (&found.handover, &found.scope), &found.actor, &form.certificate).await {
        Ok(Some(Stored { expires, warnings })) => {
            let until = day(expires);
            let values = Values { state: State::Stored, names: &found.names, warnings: &warnings, until: &until, ..Values::default() };
            page(state, StatusCode::CREATED, &values)
        }
        Ok(None) => Absent::Ended.response(state),
        Err(error) => {
            let mut sentences = sentences(state, &error);
            if error.code() == ErrorCode::CertificateKeyMismatch {
                sentences.push("Have the CA sign the CSR of step 1: any other CSR, an older one too, has another key.".to_owned());
            }
            if form.is_of_file && !form.text.trim().is_empty() {
                sentences.push("This is about the file: the text was not looked at.".to_owned());
            }
            // A private key is not shown again.
            let text = if pem::has_private_key(&form.text) { "" } else { &form.text };
            found.refusal(state, &error, &sentences, text)
        }
    }
}

async fn form(request: &Request, body: Body) -> Result<Form, ApiError> {
    let Received { bytes, is_whole, room: _room } = receive(request, &mut RequestBody::new(body)).await?;
    let form = Form::read(request.content_type().unwrap_or_default(), bytes).await.filter(|_| is_whole);
    form.ok_or_else(|| Issue::new(ErrorCode::BodyUndecodable).hinting("The form did not arrive whole: send it again.").into())
}

/// 422 for a certificate that was refused; what is no fault of the certificate keeps its own status.
fn error_status(error: &ApiError) -> StatusCode {
    let status = poem::error::ResponseError::status(error);
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS { StatusCode::UNPROCESSABLE_ENTITY } else { status }
}

/// The errors and hints, for people.
fn sentences(state: &AppState, error: &ApiError) -> Vec<String> {
    let body = error.body(state.contact_url.as_deref());
    body.errors.into_iter().chain(body.messages).map(|message| message.message).collect()
}

/// The page of a link that cannot be looked at now.
fn failed(state: &AppState, error: &ApiError) -> Response {
    let status = poem::error::ResponseError::status(error);
    let text = sentences(state, error).join("\n");
    let mut response = error.response(None);
    response.set_body(text);
    response.set_status(status);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    discreet(response, HeaderValue::from_static(NOTHING))
}

/// An answer with this policy, which tells no other site where its visitor came from, and which no search engine keeps.
fn discreet(mut response: Response, policy: HeaderValue) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex"));
    response
}

/// A page, which loads nothing but its own style, and sends its form nowhere else.
fn page(state: &AppState, status: StatusCode, values: &Values<'_>) -> Response {
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

/// A day, for people: `2026-12-31 23:59 UTC`.
fn day(at: Timestamp) -> String {
    let text = at.rfc3339();
    format!("{} {} UTC", text.get(..10).unwrap_or_default(), text.get(11..16).unwrap_or_default())
}
