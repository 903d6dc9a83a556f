//! The rows that the statements of [`super::accept`] are given.

use std::collections::{BTreeSet, HashMap};

use super::{accept_request::AcceptRequest, list::search_text};
use crate::{
    custom_csr::{CustomCsr, KeyType},
    storage::{
        StoreError,
        engine::hex,
        jobs::{self, NewJob},
    },
};

#[derive(serde::Serialize)]
pub(super) struct ScopeRow {
    scope: String,
}

#[derive(serde::Serialize)]
pub(super) struct KeyRow {
    pub scope: String,
    pub key_sha256: String,
}

#[derive(serde::Serialize)]
pub(super) struct ClaimRow {
    scope: String,
    key_sha256: String,
    body_sha256: String,
    custom_csr_id: String,
    custom_csr_ids: Option<String>,
    created_at: i64,
}

#[derive(serde::Serialize)]
pub(super) struct QuotaRow {
    pub scope: String,
    pub accepted: i64,
}

#[derive(serde::Serialize)]
pub(super) struct CsrRow<'a> {
    id: String,
    scope: String,
    account_id: Option<String>,
    created_at: i64,
    country: &'a str,
    state: &'a str,
    locality: &'a str,
    organization: &'a str,
    organizational_unit: Option<&'a str>,
    common_name: &'a str,
    name: Option<&'a str>,
    description: Option<&'a str>,
    sans: String,
    key_type: &'static str,
    search_text: String,
    job_id: String,
    replaces: Option<String>,
    set_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
}

impl<'a> CsrRow<'a> {
    fn new(csr: &'a CustomCsr, job_id: String, traceparent: Option<&'a str>) -> Result<Self, StoreError> {
        let (request, subject) = (&csr.request, &csr.request.subject);
        Ok(Self {
            id: csr.id.to_string(),
            scope: csr.scope.to_string(),
            account_id: csr.account.as_ref().map(ToString::to_string),
            created_at: csr.created_at.micros(),
            country: &subject.country,
            state: &subject.state,
            locality: &subject.locality,
            organization: &subject.organization,
            organizational_unit: subject.organizational_unit.as_deref(),
            common_name: &subject.common_name,
            name: request.name.as_deref(),
            description: request.description.as_deref(),
            sans: serde_json::to_string(&request.sans).map_err(|error| StoreError::Internal(error.to_string()))?,
            key_type: request.key_type.as_str(),
            search_text: search_text(request.name.as_deref(), request),
            job_id,
            replaces: csr.replaces.map(|id| id.to_string()),
            set_id: csr.set_id.map(|id| id.to_string()),
            traceparent,
        })
    }
}

/// The idempotency record of what was accepted with a key.
pub(super) fn claim(request: &AcceptRequest) -> Option<ClaimRow> {
    let (new, key) = (&request.first, request.first.idempotency_key.as_ref()?);
    let all: Vec<_> = request.all().map(|new| new.id.to_string()).collect();
    Some(ClaimRow {
        scope: new.scope.to_string(),
        key_sha256: hex(&key.key_sha256),
        body_sha256: hex(&key.body_sha256),
        custom_csr_id: new.id.to_string(),
        custom_csr_ids: (all.len() > 1).then(|| all.join(",")),
        created_at: request.now.micros(),
    })
}

/// The rows, and the jobs that wake workers for them. Keys that are made in no time share a job: enqueuing one costs more than such a key.
pub(super) fn jobs_and_rows<'a>(accepted: &[(&'a CustomCsr, &'a AcceptRequest)]) -> Result<(Vec<NewJob>, Vec<CsrRow<'a>>), StoreError> {
    let (mut jobs, mut rows, mut shared) = (Vec::<NewJob>::new(), Vec::new(), HashMap::<KeyType, String>::new());
    for (csr, request) in accepted {
        let key_type = csr.request.key_type;
        let job_id = if let Some(job_id) = shared.get(&key_type) {
            job_id.clone()
        } else {
            let job = NewJob::new(csr.id)?;
            let id = job.id.clone();
            jobs.push(job);
            if jobs::are_shared(key_type) {
                shared.insert(key_type, id.clone());
            }
            id
        };
        rows.push(CsrRow::new(csr, job_id, request.traceparent.as_deref())?);
    }
    Ok((jobs, rows))
}

/// Each scope once, in order.
pub(super) fn scope_rows<'a>(requests: impl IntoIterator<Item = &'a AcceptRequest>) -> Vec<ScopeRow> {
    let names: BTreeSet<_> = requests.into_iter().map(|request| request.first.scope.to_string()).collect();
    names.into_iter().map(|scope| ScopeRow { scope }).collect()
}
