//! `GET /custom_csrs`: a page of custom CSRs.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{
    Object, OpenApi,
    registry::{MetaSchema, MetaSchemaRef},
};
use serde::Serialize;
use shared::{
    custom_csr,
    ids::SetId,
    storage::{Direction, ListQuery, Order},
};

use super::dto::{CustomCsrDto, KeyType, Status, TAG};
use crate::{
    auth::{access::Access, caller::Permission::CustomCsrsRead},
    grants::hint_on_list,
    http::{
        deadline::Deadline,
        envelope::{Message, envelopes},
        failure::{Failure, Operation},
        pages::{Page, PerPage, ResultInfo},
        payload::Json,
        query::{Faults, Parameter, Query, SEARCH_MAX_CHARS, inline, schema},
        words::{Words, enum_parameter},
    },
    state::AppState,
};

envelopes! {
    /// A page of custom CSRs.
    CustomCsrListResponse(Vec<CustomCsrDto>) {
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

#[OpenApi(tag = "TAG")]
impl List {
    /// List custom CSRs
    ///
    /// Newest first, unless asked otherwise. Past the last page: an empty array.
    #[oai(path = "/custom_csrs", method = "get", operation_id = "custom-csrs-list")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the query")]
    async fn list(
        &self,
        state: Data<&Arc<AppState>>,
        access: Access,
        page: Query<Page>,
        per_page: Query<PerPage>,
        order: Query<Order>,
        direction: Query<Direction>,
        /// Only those with this status.
        status: Query<Status>,
        /// Only those with this key type.
        key_type: Query<KeyType>,
        search: Query<Search>,
        set_id: Query<OfSet>,
    ) -> Result<Json<CustomCsrListResponse>, Failure<List>> {
        let (scope, deadline) = (access.scope(CustomCsrsRead)?, Deadline::default());
        let mut faults = Faults::default();
        let query = ListQuery {
            page: faults.take(page).unwrap_or(1),
            per_page: faults.take(per_page).unwrap_or(PerPage::DEFAULT),
            order: faults.take(order).unwrap_or(Order::CreatedAt),
            direction: faults.take(direction).unwrap_or(Direction::Desc),
            status: faults.take(status),
            key_type: faults.take(key_type),
            search: faults.take(search),
            set_id: faults.take(set_id),
        };
        let query = faults.none_or(query)?;
        let page = deadline.read(state.store.list_custom_csrs(scope, &query)).await?;
        let info = ResultInfo::new(query.page, query.per_page, page.rows.len(), page.total);
        let messages = hint_on_list(&state, deadline, scope, page.total).await;
        Ok(Json(CustomCsrListResponse::new(page.rows.into_iter().map(CustomCsrDto::from).collect(), messages, info)))
    }
}

impl Words for Order {
    const SCHEMA: &'static str = "CustomCsrOrder";
    const WORDS: &'static [(&'static str, Self)] =
        &[("name", Self::Name), ("account_tag", Self::AccountTag), ("created_at", Self::CreatedAt)];
    const DEFAULT: &'static str = "created_at";
    const DESCRIPTION: &'static str = "What to sort by. Text by code point, null last, ties by ID.";

    fn meant_for(text: &str) -> Option<&'static str> {
        is_word_of::<Direction>(text).then_some("direction")
    }
}

impl Words for Direction {
    const SCHEMA: &'static str = "Direction";
    const WORDS: &'static [(&'static str, Self)] = &[("asc", Self::Asc), ("desc", Self::Desc)];
    const DEFAULT: &'static str = "desc";
    const DESCRIPTION: &'static str = "Which way.";

    fn meant_for(text: &str) -> Option<&'static str> {
        is_word_of::<Order>(text).then_some("order")
    }
}

fn is_word_of<T: Words>(text: &str) -> bool {
    T::WORDS.iter().any(|(word, _)| word.eq_ignore_ascii_case(text))
}

enum_parameter!(Status, custom_csr::Status);
enum_parameter!(KeyType, custom_csr::KeyType);

/// `set_id`: a set.
pub struct OfSet;

impl Parameter for OfSet {
    type Value = SetId;

    fn schema() -> MetaSchemaRef {
        inline(MetaSchema { format: Some("uuid"), ..schema("string", "Only those of this set.") })
    }

    fn parse(text: &str) -> Option<SetId> {
        SetId::parse(text)
    }

    fn must() -> String {
        "be a UUID: 36 characters, as in 0190163d-8694-7739-aea5-966c26f8ad91".to_owned()
    }
}

/// `search`: a text to look for.
pub struct Search;

impl Parameter for Search {
    type Value = String;

    fn schema() -> MetaSchemaRef {
        let description = "Only those with this text in name, common name or a SAN, ASCII case ignored.";
        inline(MetaSchema { max_length: Some(SEARCH_MAX_CHARS), ..schema("string", description) })
    }

    fn parse(text: &str) -> Option<String> {
        (text.chars().count() <= SEARCH_MAX_CHARS).then(|| text.to_owned())
    }

    fn must() -> String {
        format!("have at most {SEARCH_MAX_CHARS} characters")
    }
}
