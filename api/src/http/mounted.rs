//! Operations below zones or accounts: each is declared once, without its scope, and mounted where it is served.

use std::{collections::HashMap, marker::PhantomData};

use poem::{endpoint::BoxEndpoint, http::Method};
use poem_openapi::{
    OpenApi, Tags,
    registry::{MetaApi, MetaOperation, MetaOperationParam, MetaParamIn, MetaPath, MetaSchema, MetaSchemaRef, Registry},
};
use shared::ids::{Scope, TenantId};

type RouteTable = HashMap<String, HashMap<Method, BoxEndpoint<'static>>>;

/// A kind of scope in paths.
pub trait Parent: Send + Sync + 'static {
    /// Its name in operation IDs and tags.
    const NAME: &'static str;
    /// What stands before the ID in a path.
    const COLLECTION: &'static str;
    /// The name of the ID's path parameter.
    const ID: &'static str;
    /// What the document says of the ID.
    const DESCRIPTION: &'static str;
    /// The scope with an ID.
    const SCOPE: fn(TenantId) -> Scope;
}

/// `/zones/{zone_id}`
pub struct Zone;

impl Parent for Zone {
    const NAME: &'static str = "zone";
    const COLLECTION: &'static str = "zones";
    const ID: &'static str = "zone_id";
    const DESCRIPTION: &'static str = "The zone's ID.";
    const SCOPE: fn(TenantId) -> Scope = Scope::Zone;
}

/// `/accounts/{account_id}`
pub struct Account;

impl Parent for Account {
    const NAME: &'static str = "account";
    const COLLECTION: &'static str = "accounts";
    const ID: &'static str = "account_id";
    const DESCRIPTION: &'static str = "The account's ID.";
    const SCOPE: fn(TenantId) -> Scope = Scope::Account;
}

/// What operations are about, for the document.
pub struct Tag(pub &'static str);

impl Tags for Tag {
    /// The document lists them itself: their names differ by where an operation is mounted.
    fn register(&self, _: &mut Registry) {}

    fn name(&self) -> &'static str {
        self.0
    }
}

/// The operations `O` below a `P`.
pub struct Mounted<P, O>(O, PhantomData<P>);

/// Mounts operations below a kind of scope. Their tags and IDs get its name in front, their paths and parameters its ID.
#[must_use]
pub const fn mount<P: Parent, O: OpenApi>(operations: O) -> Mounted<P, O> {
    Mounted(operations, PhantomData)
}

impl<P: Parent, O: OpenApi> OpenApi for Mounted<P, O> {
    fn meta() -> Vec<MetaApi> {
        let mut paths: Vec<MetaPath> = Vec::new();
        for MetaPath { path, operations } in O::meta().into_iter().flat_map(|api| api.paths) {
            let path = format!("/{}/{{{}}}{path}", P::COLLECTION, P::ID);
            let operations = operations.into_iter().map(mounted::<P>);
            // The document would have a path twice, and readers of JSON take the last.
            match paths.iter_mut().find(|known| known.path == path) {
                Some(known) => known.operations.extend(operations),
                None => paths.push(MetaPath { path, operations: operations.collect() }),
            }
        }
        vec![MetaApi { paths }]
    }

    fn register(registry: &mut Registry) {
        O::register(registry);
    }

    fn add_routes(self, route_table: &mut RouteTable) {
        let mut routes = RouteTable::new();
        self.0.add_routes(&mut routes);
        route_table.extend(routes.into_iter().map(|(path, methods)| (format!("/{}/:{}{path}", P::COLLECTION, P::ID), methods)));
    }
}

fn mounted<P: Parent>(mut operation: MetaOperation) -> MetaOperation {
    operation.operation_id = operation.operation_id.map(|id| lasting(format!("{}-{id}", P::NAME)));
    operation.tags = operation.tags.into_iter().map(|tag| lasting(format!("{}-{tag}", P::NAME))).collect();
    operation.params.insert(0, id_parameter::<P>());
    for parameter in &mut operation.params {
        // An extractor describes itself in its schema: poem-openapi has no other place for it.
        if let MetaSchemaRef::Inline(schema) = &mut parameter.schema {
            let description = schema.description.take().map(str::to_owned);
            parameter.description = parameter.description.take().or(description);
        }
    }
    operation
}

/// A text for the document, which poem-openapi takes only if it lives as long as the process. It asks for them at the start.
fn lasting(text: String) -> &'static str {
    text.leak()
}

fn id_parameter<P: Parent>() -> MetaOperationParam {
    let schema = MetaSchema {
        min_length: Some(1),
        max_length: Some(64),
        pattern: Some("^[A-Za-z0-9._-]+$".to_owned()),
        ..MetaSchema::new("string")
    };
    MetaOperationParam {
        name: P::ID.to_owned(),
        schema: MetaSchemaRef::Inline(Box::new(schema)),
        in_type: MetaParamIn::Path,
        description: Some(P::DESCRIPTION.to_owned()),
        required: true,
        deprecated: false,
        explode: true,
        style: None,
    }
}
