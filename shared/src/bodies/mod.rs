//! Request bodies: each is parsed whole, and all of its faults are reported.

pub mod create;
pub mod edit;
pub mod handover;
pub mod json;
mod key_types;
pub mod renewal;
mod unchanging;
pub mod undecodable;
mod unknown;
pub mod upload;
pub mod webhook;
