//! The labels of metrics, and the words that they may have.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;

use crate::{custom_csr, words::words};

words! {
    /// How a generation ended.
    GenerationOutcome {
        /// The custom CSR is active.
        Active = "active",
        /// It is given up, and the custom CSR failed.
        Failed = "failed",
        /// It failed, and is tried again.
        Retried = "retried",
        /// It was in vain: the custom CSR is gone, or another worker was faster.
        Discarded = "discarded",
    }
    /// Where a key comes from.
    KeySource {
        /// It was made for its custom CSR.
        Fresh = "fresh",
        /// It was made ahead.
        Pool = "pool",
    }
    /// How an attempt to deliver an event to a webhook ended.
    WebhookOutcome {
        /// The receiver took it.
        Delivered = "delivered",
        /// It did not, and gets it again later.
        Retried = "retried",
        /// It did not, and it was the last attempt.
        Failed = "failed",
    }
}

/// Declares sets of labels.
macro_rules! labels {
    ($($name:ident { $($label:ident: $kind:ty),* })+) => { $(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub $label: $kind),* }
    )+ };
}

labels! {
    Request { route: Arc<str>, method: &'static str }
    Requests { route: Arc<str>, method: &'static str, status: u16 }
    Code { code: u16 }
    KeyType { key_type: &'static str }
    Generation { key_type: &'static str, outcome: &'static str }
    Generated { key_type: &'static str, source: &'static str }
    State { state: &'static str }
    Check { check: &'static str }
    Operation { operation: &'static str }
    StoreFailure { operation: &'static str, kind: &'static str }
    Connections { pool: &'static str, state: &'static str }
    Within { within: &'static str }
    Webhook { outcome: &'static str }
}

/// What a csrd was built from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Build {
    /// Its version.
    pub version: &'static str,
    /// The version of the compiler.
    pub rustc: &'static str,
    /// The library that makes RSA keys.
    pub rsa: &'static str,
}

impl From<custom_csr::KeyType> for KeyType {
    fn from(key_type: custom_csr::KeyType) -> Self {
        Self { key_type: key_type.as_str() }
    }
}
