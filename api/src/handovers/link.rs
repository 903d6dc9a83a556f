//! The hand-over link of a request: who follows it, and what it shows.

use poem::Request;
use shared::{
    audit::{Actor, Via},
    custom_csr::CustomCsr,
    handover::{Handover, Secret},
    ids::Scope,
};

use crate::{
    http::{client::Client, deadline::Deadline, error::ApiError, middleware::RequestId},
    state::AppState,
};

/// An open link, with what it shows.
pub struct Found {
    pub secret: String,
    pub handover: Handover,
    pub scope: Scope,
    pub csr: CustomCsr,
    /// The names that the certificate is for.
    pub names: Vec<String>,
    pub pem: String,
    pub actor: Actor,
}

/// Why nothing is shown.
pub enum Absent {
    /// There is no such link.
    Unknown,
    /// It was used or revoked, or has expired.
    Ended,
    /// It cannot be read now.
    Failed(ApiError),
}

impl<E: Into<ApiError>> From<E> for Absent {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Found {
    /// The open link of a request.
    pub async fn of(state: &AppState, deadline: Deadline, request: &Request) -> Result<Self, Absent> {
        let client = request.extensions().get().copied().unwrap_or(Client(None));
        state.rate_limits.check_failures(client)?;
        let text = request.raw_path_param("secret").unwrap_or_default();
        let Some(secret) = Secret::parse(text) else { return Err(Absent::Unknown) };
        let found = deadline.read(state.store.find_handover(&secret)).await?;
        let Some((handover, scope)) = found else {
            state.rate_limits.count_unknown_link(client);
            return Err(Absent::Unknown);
        };
        let who = format!("handover:{}", handover.id);
        state.rate_limits.count_request(&who)?;
        if !handover.is_open(state.clock.now()) {
            return Err(Absent::Ended);
        }
        // Deleting a custom CSR deletes its links, too.
        let csr = deadline.read(state.store.find_custom_csr(&scope, handover.custom_csr_id)).await?.ok_or(Absent::Unknown)?;
        let pem = csr.csr_pem.clone().ok_or(Absent::Ended)?;
        let request_id = request.extensions().get().map(|RequestId(id)| id.clone());
        let actor = Actor { who, via: Via::Handover, from: client.name(), request_id };
        Ok(Self { secret: text.to_owned(), handover, scope, names: names(&csr), csr, pem, actor })
    }

    /// The name of the CSR's file.
    pub fn file(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
        format!("{}.csr", self.csr.request.subject.common_name.chars().map(plain).collect::<String>())
    }
}

/// All names in the CSR, as they were requested: the common name need not be among the SANs.
fn names(csr: &CustomCsr) -> Vec<String> {
    let (sans, common_name) = (&csr.request.sans, &csr.request.subject.common_name);
    let beside = Some(common_name).filter(|name| !sans.iter().any(|san| san.eq_ignore_ascii_case(name)));
    beside.into_iter().chain(sans).cloned().collect()
}
