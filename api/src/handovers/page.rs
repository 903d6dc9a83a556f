//! `/handover/{secret}`: the page of a hand-over link. It is for people, in HTML without scripts.

use std::sync::Arc;

use poem::{
    Body, Request, RequestBody, Response, Route, get, handler,
    http::{HeaderValue, StatusCode, header},
    web::Data,
};
use shared::{
    audit::{Actor, Via},
    bodies::upload::Upload,
    clock::Timestamp,
    codes::{ErrorCode, WarningCode},
    custom_certificate::{BundleMethod, CertificateType},
    custom_csr::CustomCsr,
    handover::{Handover, Secret},
    ids::{CustomCertificateId, Scope},
    issue::{Issue, Warning},
    storage::{CertificateChange, CertificateRefusal, NewCertificate, Replacement},
    x509::{formats::has_private_key, issues::private_key_refused},
};

use super::{
    answers::{NOTHING, day, discreet, failed, page, sentences},
    certificate::{Stored, store},
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

/// The pages of all links, below [`shared::handover::PATH`]. Unknown links have the page of a link that has ended.
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
    let Received { bytes, is_whole, room: _room } = receive(request, &mut RequestBody::new(body)).await?;
    let form = Form::read(request.content_type().unwrap_or_default(), bytes).await.filter(|_| is_whole);
    form.ok_or_else(|| Issue::new(ErrorCode::BodyUndecodable).hinting("The form did not arrive whole: send it again.").into())
}

/// A certificate that was stored.
struct Stored {
    /// When it expires.
    expires: Timestamp,
    /// What clients may not like about it.
    warnings: Vec<String>,
}

/// Stores the certificate that was brought, in place of the one that the link renews if there is one, and ends the link; `None` if the link has
/// ended meanwhile.
async fn store(state: &Arc<AppState>, deadline: Deadline, found: &Found, form: &Form) -> Result<Option<Stored>, ApiError> {
    if has_private_key(&form.certificate) {
        return Err(private_key_refused().into());
    }
    let now = state.clock.now();
    let present = match found.handover.replaces {
        Some(id) => deadline.read(state.store.find_certificate(&found.scope, id)).await?,
        None => None,
    };
    let zone = present.as_ref().map_or(&found.scope, |present| &present.zone);
    // An account has no certificates of its own.
    let Scope::Zone(_) = zone else { return Err(csr_not_found()) };
    let matcher = Matcher::new(state, deadline, now);
    let present_id = present.as_ref().map(|present| present.id);
    let csr = matcher.find_csr(zone, &found.csr.id.to_string(), present_id).await?.ok_or_else(csr_not_found)?;
    let sent = Upload { certificate: Some(form.certificate.clone()), ..Upload::default() };
    let certificates = matcher.read(&sent).await?;
    let bundle_method = present.as_ref().map_or(BundleMethod::Ubiquitous, |present| present.bundle_method);
    let (chain, warnings) = matcher.check(csr, certificates, bundle_method, &sent).await?;
    // What was put right is nobody's concern here.
    let remarkable =
        warnings.iter().filter(|warning| !matches!(warning.code, WarningCode::OrderChanged | WarningCode::CertificatesLeftOut));
    let stored = Stored { expires: chain.chain.not_after, warnings: remarkable.map(Warning::message).collect() };
    let handover = Some(found.handover.id);
    let refusal = if let Some(id) = present_id {
        let change = CertificateChange { chain: Some(chain), handover, ..CertificateChange::default() };
        match deadline.write(state.store.replace_certificate(zone, id, &change, &found.actor, now)).await? {
            Replacement::Replaced(_) => None,
            Replacement::Refused(refusal) => Some(refusal),
            // Deleted this moment: the next try stores a new one.
            Replacement::NotFound => return Err(ErrorCode::CustomCertificateNotFound.into()),
        }
    } else {
        let new = NewCertificate {
            id: CustomCertificateId::new(now),
            zone: zone.clone(),
            chain,
            bundle_method,
            certificate_type: CertificateType::SniCustom,
            priority: 0,
            idempotency_key: None,
            handover,
        };
        deadline.write(state.store.accept_certificate(&new, &found.actor, now)).await?
    };
    match refusal {
        None => Ok(Some(stored)),
        Some(CertificateRefusal::HandoverOver) => Ok(None),
        Some(refusal) => Err(refused(refusal, csr_not_found)),
    }
}

/// 1431, in the words of somebody who has nothing but the link.
fn csr_not_found() -> ApiError {
    let reason = "of this link cannot be used now: ask whoever sent you the link";
    Issue::at(ErrorCode::CertificateCsrNotFound, "/certificate").because(reason).into()
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
    response
}

/// A page, which may load nothing, be in no other page, and tell no other site where its visitor came from.
fn page(state: &AppState, status: StatusCode, values: &Values<'_>) -> Response {
    let mut octets = [0; 16];
    if aws_lc_rs::rand::fill(&mut octets).is_err() {
        return failed(state, &ErrorCode::Internal.into());
    }
    let nonce = URL_SAFE_NO_PAD.encode(octets);
    match state.handovers.template.render(&Values { nonce: &nonce, ..*values }) {
        Ok(html) => {
            let policy = format!(
                "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
            );
            Response::builder()
                .status(status)
                .content_type("text/html; charset=utf-8")
                .header(header::CONTENT_SECURITY_POLICY, policy)
                .header(header::REFERRER_POLICY, "no-referrer")
                .header(HeaderName::from_static("x-robots-tag"), "noindex")
                .body(html)
                .into_response()
        }
        Err(error) => {
            tracing::error!(error, "the page of a hand-over link cannot be made");
            failed(state, &ErrorCode::Internal.into())
        }
    }
}

/// A day, for people: `2026-12-31 23:59 UTC`.
fn day(at: Timestamp) -> String {
    let text = at.rfc3339();
    format!("{} {} UTC", text.get(..10).unwrap_or_default(), text.get(11..16).unwrap_or_default())
}
