//! What request bodies say: each is parsed whole, and all of its faults are told.

pub mod create;
pub mod edit;
pub mod json;
mod unknown;
pub mod upload;
