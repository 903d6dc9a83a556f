//! The domain of csrd without HTTP: the table of codes, the validator, sealing and storage.

pub mod ari;
pub mod audit;
pub mod bodies;
pub mod clock;
pub mod codes;
pub mod custom_certificate;
pub mod custom_csr;
pub mod events;
pub mod handover;
pub mod ids;
pub mod incident;
pub mod issue;
pub mod job;
pub mod metrics;
pub mod names;
pub mod outbound;
pub mod printable;
pub mod renewal;
pub mod seal;
pub mod storage;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trace;
pub mod webhook;
pub mod webhook_secret;
mod words;
pub mod x509;
