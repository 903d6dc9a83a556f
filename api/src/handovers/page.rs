//! `/handover/{secret}`: the page of a hand-over link. It is for people, in HTML without scripts.

use std::sync::Arc;

use poem::{
    Body, Request, RequestBody, Response, Route, get, handler,
    http::{HeaderValue, StatusCode, header},
    web::Data,
};
use shared::{codes::ErrorCode, x509::formats::has_private_key};

use super::{
    answers::{NOTHING, day, discreet, page, sentences},
    certificate::{Stored, store},
    form::Form,
    link::{Absent, Found},
    template::{State, Values},
};
use crate::{
    http::{
        body::{Received, check_not_encoded, receive},
        deadline::Deadline,
        error::ApiError,
    },
    state::AppState,
};

/// The pages of all links, below [`shared::handover::PATH`]. Unknown links have the page of a link that has ended.
///
/// HEAD, by which programs check links, opens none.
#[must_use]
pub fn routes() -> Route {
    Route::new()
        .at("/:secret", get(show).head(check).post(hand_over))
        .at("/:secret/csr", get(download).head(check_download))
        .at("/*rest", get(unknown).post(unknown))
}

#[handler]
fn unknown(Data(state): Data<&Arc<AppState>>) -> Response {
    Absent::Unknown.response(state)
}

#[handler]
async fn show(Data(state): Data<&Arc<AppState>>, request: &Request) -> Response {
    opened(state, request).await.map_or_else(|absent| absent.response(state), |found| found.page(state, StatusCode::OK, &[], ""))
}

#[handler]
async fn check(Data(state): Data<&Arc<AppState>>, request: &Request) -> Response {
    let found = Found::of(state, Deadline::default(), request).await;
    found.map_or_else(|absent| absent.response(state), |found| found.page(state, StatusCode::OK, &[], ""))
}

#[handler]
async fn download(Data(state): Data<&Arc<AppState>>, request: &Request) -> Response {
    opened(state, request).await.map_or_else(|absent| absent.response(state), file)
}

#[handler]
async fn check_download(Data(state): Data<&Arc<AppState>>, request: &Request) -> Response {
    Found::of(state, Deadline::default(), request).await.map_or_else(|absent| absent.response(state), file)
}

/// The CSR as a file.
fn file(found: Found) -> Response {
    let disposition = format!("attachment; filename=\"{}\"", found.file());
    let response = Response::builder().content_type("application/pkcs10").header(header::CONTENT_DISPOSITION, disposition);
    discreet(response.body(found.pem), HeaderValue::from_static(NOTHING))
}

/// The link of a request. The first time that somebody opens it is recorded.
async fn opened(state: &AppState, request: &Request) -> Result<Found, Absent> {
    let deadline = Deadline::default();
    let found = Found::of(state, deadline, request).await?;
    if found.handover.opened_at.is_none() {
        let opening = state.store.open_handover(found.handover.id, &found.scope, &found.actor, state.clock.now());
        deadline.write(opening).await?;
    }
    Ok(found)
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
        // The text of this error is about JSON.
        Err(error) if error.code() == ErrorCode::BodyUndecodable => {
            let sentence = "The form did not arrive as this page sends it. Send it again from here.".to_owned();
            return found.refusal(state, &error, &[sentence], "");
        }
        Err(error) => return found.refusal(state, &error, &sentences(state, &error), ""),
    };
    match store(state, deadline, &found, &form).await {
        Ok(Some(Stored { expires, warnings })) => {
            let until = day(expires);
            let values = Values { state: State::Stored, names: &found.names, warnings: &warnings, until: &until, ..Values::default() };
            page(state, StatusCode::CREATED, &values)
        }
        Ok(None) => Absent::Ended.response(state),
        Err(error) => {
            let mut sentences = sentences(state, &error);
            if error.code() == ErrorCode::CertificateKeyMismatch {
                // The hint is about the ID of another custom CSR, which has no field here.
                sentences.truncate(1);
                sentences.push("Have the CA sign the CSR of step 1: any other CSR, an older one too, has another key.".to_owned());
            }
            if form.is_of_file && !form.text.trim().is_empty() {
                sentences.push("This is about the file: the text was not looked at.".to_owned());
            }
            // A private key is not shown again.
            let text = if has_private_key(&form.text) { "" } else { &form.text };
            found.refusal(state, &error, &sentences, text)
        }
    }
}

async fn form(request: &Request, body: Body) -> Result<Form, ApiError> {
    check_not_encoded(request.headers())?;
    let Received { bytes, is_whole, room: _room } = receive(request, &mut RequestBody::new(body)).await?;
    let form = Form::read(request.content_type().unwrap_or_default(), bytes).await.filter(|_| is_whole);
    form.ok_or_else(|| ErrorCode::BodyUndecodable.into())
}
