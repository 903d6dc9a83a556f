//! What the handlers share.

use std::sync::Arc;

use shared::{
    clock::Clock,
    storage::Store,
    x509::{certificate::TrustAnchors, request::Validator},
};
use tokio::sync::{Semaphore, watch};

use crate::{auth::Authenticator, routes::health::Health};

/// Requests that may wait at once; over it they are answered at once.
pub const MAX_WAITING: usize = 1_000;

/// What the handlers share.
pub struct AppState {
    /// The storage.
    pub store: Arc<dyn Store>,
    /// Judges bodies.
    pub validator: Validator,
    /// The roots that uploaded certificates have to lead to; none: any will do.
    pub trust_anchors: Option<TrustAnchors>,
    /// Judges tokens.
    pub authenticator: Authenticator,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Whether the process is ready.
    pub health: Arc<Health>,
    /// The seconds that a POST waits which does not say how long.
    pub create_wait_secs: u32,
    /// Places for requests that wait.
    pub waiting: Semaphore,
    /// Whether the process is about to end: nobody waits any longer.
    pub stopping: watch::Receiver<bool>,
}
