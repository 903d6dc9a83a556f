//! Whether the process lives, and whether it is ready to serve.

use std::{sync::Arc, time::Duration};

use poem::{Response, handler, web::Data};
use serde_json::json;
use shared::{
    error::{ErrorCode, Issue, StoreError},
    storage::Store,
};

use tokio::sync::watch;

use crate::envelope::ApiError;

/// What readiness depends on.
pub struct Health {
    /// The storage.
    pub store: Arc<dyn Store>,
    /// Whether a worker takes jobs; none where this process has no workers.
    pub worker_alive: Option<watch::Receiver<bool>>,
}

/// How long the database may take to answer.
const PING_TIME: Duration = Duration::from_secs(3);

/// The process answers.
#[handler]
pub fn live() -> Response {
    ok("live")
}

/// The database answers and is migrated, and a worker takes jobs where this process is to have one.
#[handler]
pub async fn ready(Data(health): Data<&Arc<Health>>) -> Result<Response, ApiError> {
    let not_ready = |part: &str| ApiError::from(Issue::new(ErrorCode::NotReady).because(part));
    match tokio::time::timeout(PING_TIME, health.store.ping()).await {
        Ok(Ok(())) => {}
        Ok(Err(StoreError::Internal(error) | StoreError::Corrupt(error))) => {
            tracing::warn!(error, "not ready: migrations");
            return Err(not_ready("the database lacks migrations"));
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready: database");
            return Err(not_ready("the database cannot be reached"));
        }
        Err(_) => return Err(not_ready("the database does not answer")),
    }
    if health.worker_alive.as_ref().is_some_and(|alive| !*alive.borrow()) {
        return Err(not_ready("the worker is not running"));
    }
    Ok(ok("ready"))
}

fn ok(status: &str) -> Response {
    let body = json!({ "success": true, "errors": [], "messages": [], "result": { "status": status } });
    Response::builder().content_type("application/json").body(body.to_string())
}
