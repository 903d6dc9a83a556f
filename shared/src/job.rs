//! What a job says: which row to look at, and nothing else.

use serde::{Deserialize, Serialize};

use crate::ids::{CustomCsrId, IncidentId, WebhookId};

/// The queue of key generations. The name is stored with every job: never change it.
pub const GENERATE_CSR_QUEUE: &str = "generate-csr";

/// Wakes a worker for one pending custom CSR.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GenerateCsrJob {
    custom_csr_id: String,
}

impl GenerateCsrJob {
    /// A job for this custom CSR.
    #[must_use]
    pub fn new(id: CustomCsrId) -> Self {
        Self { custom_csr_id: id.to_string() }
    }

    /// The ID of the custom CSR, or `None` if the payload holds something else.
    #[must_use]
    pub fn custom_csr_id(&self) -> Option<CustomCsrId> {
        CustomCsrId::parse(&self.custom_csr_id)
    }
}

/// The queue of deliveries to webhooks. The name is stored with every job: never change it.
pub const DELIVER_QUEUE: &str = "deliver-webhook";

/// Wakes a worker for the deliveries of one webhook.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeliverJob {
    webhook_id: String,
}

impl DeliverJob {
    /// A job for this webhook.
    #[must_use]
    pub fn new(id: WebhookId) -> Self {
        Self { webhook_id: id.to_string() }
    }

    /// The ID of the webhook, or `None` if the payload holds something else.
    #[must_use]
    pub fn webhook_id(&self) -> Option<WebhookId> {
        WebhookId::parse(&self.webhook_id)
    }
}

/// The queue of rekeys that plans make. The name is stored with every job: never change it.
pub const INCIDENT_QUEUE: &str = "incident-rekey";

/// Wakes a worker for one running plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IncidentJob {
    incident_id: String,
}

impl IncidentJob {
    /// A job for this plan.
    #[must_use]
    pub fn new(id: IncidentId) -> Self {
        Self { incident_id: id.to_string() }
    }

    /// The ID of the plan, or `None` if the payload holds something else.
    #[must_use]
    pub fn incident_id(&self) -> Option<IncidentId> {
        IncidentId::parse(&self.incident_id)
    }
}
