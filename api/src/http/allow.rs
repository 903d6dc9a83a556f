//! The methods of the routes, for `Allow`.

use std::collections::HashMap;

use poem::{
    PathPattern,
    http::{HeaderValue, Method},
};
use poem_openapi::OpenApi;
use shared::{handover, ids::TenantId};

use super::mounted::{Account, Parent, Zone};

/// In the order in which they are named. HEAD comes with GET.
const METHODS: [(Method, &str); 5] =
    [(Method::GET, "GET, HEAD"), (Method::POST, "POST"), (Method::PUT, "PUT"), (Method::PATCH, "PATCH"), (Method::DELETE, "DELETE")];

/// Those of a route that can only be read.
const READ_ONLY: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// Routes beside the API.
const READABLE: [&str; 5] = ["/health/live", "/health/ready", "/openapi.json", "/openapi.yaml", "/docs/codes"];

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
        // The one page that takes a form.
        let page = (format!("{}/:secret", handover::PATH), HeaderValue::from_static("GET, HEAD, POST"));
        Self(allow.chain([page]).collect())
    }

    /// Whether a path is that of a route.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        READABLE.contains(&path) || self.0.keys().any(|route| is_of(path, route))
    }

    /// The methods of the route that refused a request for this path with this error, or `None` if the path has something else in the place
    /// of a zone's or an account's ID: then it is no route.
    #[must_use]
    pub fn methods(&self, error: &poem::Error, path: &str) -> Option<HeaderValue> {
        let Some(PathPattern(route)) = error.data::<PathPattern>() else { return Some(READ_ONLY) };
        (!has_other_scope(path, route)).then(|| self.0.get(&**route).cloned().unwrap_or(READ_ONLY))
    }
}

/// Whether a path of this route has a zone or an account that is neither an ID nor empty.
fn has_other_scope(path: &str, route: &str) -> bool {
    let is_other = |(segment, pattern): (&str, &str)| {
        let is_scope = pattern.strip_prefix(':').is_some_and(|name| [Zone::ID, Account::ID].contains(&name));
        is_scope && !segment.is_empty() && TenantId::parse(segment).is_none()
    };
    path.split('/').zip(route.split('/')).any(is_other)
}

/// Whether a path fits a route, in which `:` begins an ID.
fn is_of(path: &str, route: &str) -> bool {
    let fits =
        |(segment, pattern): (&str, &str)| if pattern.starts_with(':') { TenantId::parse(segment).is_some() } else { segment == pattern };
    path.split('/').count() == route.split('/').count() && path.split('/').zip(route.split('/')).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_fits_the_route_with_its_segments_and_no_other() {
        assert!(is_of("/zones/z/custom_csrs", "/zones/:zone_id/custom_csrs"));
        assert!(is_of("/zones/z/custom_csrs/x", "/zones/:zone_id/custom_csrs/:custom_csr_id"));
        for other in ["/zones/z/custom_csrs/x", "/zones/z", "/zones/z/custom_csr", "/zones//custom_csrs", "/zones/~/custom_csrs", ""] {
            assert!(!is_of(other, "/zones/:zone_id/custom_csrs"), "{other}");
        }
    }
}
