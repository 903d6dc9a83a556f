//! The methods of the routes, for `Allow`.

use std::collections::HashMap;

use poem::{
    PathPattern,
    http::{HeaderValue, Method},
};
use poem_openapi::OpenApi;

/// In the order in which they are named. HEAD comes with GET.
const METHODS: [(Method, &str); 5] =
    [(Method::GET, "GET, HEAD"), (Method::POST, "POST"), (Method::PUT, "PUT"), (Method::PATCH, "PATCH"), (Method::DELETE, "DELETE")];

/// The routes of the API, each as the router names it, and their methods. All other routes can only be read.
#[derive(Default)]
pub struct Allow(HashMap<String, HeaderValue>);

impl Allow {
    /// Of these operations, below each of these prefixes.
    pub fn of(operations: impl OpenApi, prefixes: &[&str]) -> Self {
        let mut routes = HashMap::new();
        operations.add_routes(&mut routes);
        let allow = routes.iter().flat_map(|(route, endpoints)| {
            let names: Vec<&str> = METHODS.iter().filter(|(method, _)| endpoints.contains_key(method)).map(|(_, name)| *name).collect();
            let names = HeaderValue::from_str(&names.join(", ")).ok();
            prefixes.iter().filter_map(move |prefix| Some((format!("{prefix}{route}"), names.clone()?)))
        });
        Self(allow.collect())
    }

    /// The methods of the route that refused a request with this error.
    #[must_use]
    pub fn methods(&self, error: &poem::Error) -> HeaderValue {
        let route = error.data::<PathPattern>();
        route.and_then(|PathPattern(route)| self.0.get(&**route)).cloned().unwrap_or(HeaderValue::from_static("GET, HEAD"))
    }
}
