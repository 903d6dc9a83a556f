//! The operations.

pub mod custom_certificates;
pub mod custom_csrs;
pub mod statuses;
