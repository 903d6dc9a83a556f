//! The operations.

pub mod custom_csrs;
pub mod health;
