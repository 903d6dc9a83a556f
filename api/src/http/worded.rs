//! Operations whose documentation says something else where they are mounted a second time.

use std::collections::HashMap;

use poem::{endpoint::BoxEndpoint, http::Method};
use poem_openapi::{
    OpenApi,
    registry::{MetaApi, Registry},
};

/// An operation, and what the document says of it below accounts.
pub trait AccountWords {
    /// Its title.
    const SUMMARY: &'static str;
    /// More about it.
    const DESCRIPTION: Option<&'static str>;
}

/// The operation `O` with the words for accounts.
pub struct WithAccountWords<O>(pub O);

impl<O: OpenApi + AccountWords> OpenApi for WithAccountWords<O> {
    fn meta() -> Vec<MetaApi> {
        let mut apis = O::meta();
        for operation in apis.iter_mut().flat_map(|api| &mut api.paths).flat_map(|path| &mut path.operations) {
            (operation.summary, operation.description) = (Some(O::SUMMARY), O::DESCRIPTION);
        }
        apis
    }

    fn register(registry: &mut Registry) {
        O::register(registry);
    }

    fn add_routes(self, route_table: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {
        self.0.add_routes(route_table);
    }
}
