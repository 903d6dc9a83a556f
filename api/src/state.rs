//! What the handlers share.

use std::sync::Arc;

use shared::{clock::Clock, storage::Store, x509::request::Validator};
use tokio::sync::watch;

use crate::auth::Authenticator;

/// What the handlers share.
pub struct AppState {
    /// The storage.
    pub store: Arc<dyn Store>,
    /// Judges bodies.
    pub validator: Validator,
    /// Judges tokens.
    pub authenticator: Authenticator,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Whether a worker takes jobs; none where this process has no workers.
    pub worker_alive: Option<watch::Receiver<bool>>,
}
