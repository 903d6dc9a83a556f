//! `GET /custom_certificates`: a page of custom certificates.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{
    Object, OpenApi,
    registry::{MetaSchema, MetaSchemaRef},
};
use serde::Serialize;
use shared::{clock::Timestamp, custom_certificate, ids::CustomCsrId, storage::CertificateQuery};

use super::dto::{CertificateStatus, CustomCertificateDto, TAG};
use crate::{
    auth::{access::Access, caller::Permission::CustomCertificatesRead},
    grants::hint_on_list,
    http::{
        deadline::Deadline,
        envelope::{Message, envelopes},
        failure::{Failure, Operation},
        pages::{Page, PerPage, ResultInfo},
        payload::Json,
        query::{Faults, Parameter, Query, SEARCH_MAX_CHARS, inline, schema},
        worded::AccountWords,
        words::enum_parameter,
    },
    state::AppState,
};

envelopes! {
    /// A page of custom certificates.
    CustomCertificateListResponse(Vec<CustomCertificateDto>) {
        /// Where this page stands.
        result_info: ResultInfo
    }
}

/// The operation.
pub struct List;

impl Operation for List {
    const ERRORS: &'static [(u16, &'static str)] =
        &[(400, "The request is wrong: 1401, 1402, 1464."), (403, "No access: 1404."), (404, "No such route: 7000.")];
}

impl AccountWords for List {
    const SUMMARY: &'static str = "List the custom certificates that use the account's custom CSRs";
    const DESCRIPTION: Option<&'static str> =
        Some("In whatever zone they lie: `zone_id` names it. Newest first. Past the last page: an empty array.");
}

#[OpenApi(tag = "TAG")]
impl List {
    /// List custom certificates
    ///
    /// Newest first. Past the last page: an empty array.
    #[oai(path = "/custom_certificates", method = "get", operation_id = "custom-certificates-list")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the query")]
    async fn list(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        page: Query<Page>,
        per_page: Query<PerPage>,
        /// Only those with this status.
        status: Query<CertificateStatus>,
        custom_csr_id: Query<OfCsr>,
        host: Query<Host>,
        expires_before: Query<ExpiresBefore>,
    ) -> Result<Json<CustomCertificateListResponse>, Failure<List>> {
        let (deadline, now) = (Deadline::default(), state.clock.now());
        let scope = access.scope(CustomCertificatesRead)?;
        let mut faults = Faults::default();
        let query = CertificateQuery {
            page: faults.take(page).unwrap_or(1),
            per_page: faults.take(per_page).unwrap_or(PerPage::DEFAULT),
            status: faults.take(status),
            custom_csr_id: faults.take(custom_csr_id),
            expires_before: faults.take(expires_before),
            host: faults.take(host),
            now,
        };
        let query = faults.none_or(query)?;
        let page = deadline.read(state.store.list_certificates(scope, &query)).await?;
        let info = ResultInfo::new(query.page, query.per_page, page.rows.len(), page.total);
        let messages = hint_on_list(&state, deadline, scope, page.total).await;
        let rows = page.rows.into_iter().map(|row| CustomCertificateDto::listed(row, now)).collect();
        Ok(Json(CustomCertificateListResponse::new(rows, messages, info)))
    }
}

enum_parameter!(CertificateStatus, custom_certificate::CertificateStatus);

/// `custom_csr_id`
pub struct OfCsr;

impl Parameter for OfCsr {
    type Value = CustomCsrId;

    fn schema() -> MetaSchemaRef {
        inline(MetaSchema { format: Some("uuid"), ..schema("string", "Only those that use this custom CSR.") })
    }

    fn parse(text: &str) -> Option<CustomCsrId> {
        CustomCsrId::parse(text)
    }

    fn must() -> String {
        "be a UUID".to_owned()
    }
}

/// `host`
pub struct Host;

impl Parameter for Host {
    type Value = String;

    fn schema() -> MetaSchemaRef {
        inline(MetaSchema { max_length: Some(SEARCH_MAX_CHARS), ..schema("string", "Only those with this host among theirs.") })
    }

    fn parse(text: &str) -> Option<String> {
        Some(text.to_lowercase()).filter(|host| host.chars().count() <= SEARCH_MAX_CHARS)
    }

    fn must() -> String {
        format!("have at most {SEARCH_MAX_CHARS} characters")
    }
}

/// `expires_before`
pub struct ExpiresBefore;

impl Parameter for ExpiresBefore {
    type Value = Timestamp;

    fn schema() -> MetaSchemaRef {
        inline(MetaSchema { format: Some("date-time"), ..schema("string", "Only those that expire before this time.") })
    }

    fn parse(text: &str) -> Option<Timestamp> {
        Timestamp::parse_rfc3339(text)
    }

    fn must() -> String {
        "be a time as in RFC 3339, such as 2027-01-31T12:00:00Z; a + in it is written %2B".to_owned()
    }
}
