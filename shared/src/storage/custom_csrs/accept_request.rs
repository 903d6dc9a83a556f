//! What is asked for when custom CSRs are accepted.

use std::iter::once;

use super::NewCustomCsr;
use crate::{audit::Actor, clock::Timestamp};

/// A custom CSR to accept, or all that are accepted with it; for whom, and when.
pub(in crate::storage) struct AcceptRequest {
    pub first: NewCustomCsr,
    /// Of the same scope, with the same key and bound.
    pub others: Vec<NewCustomCsr>,
    pub actor: Actor,
    pub now: Timestamp,
    /// Names the span of the request, if it has one.
    pub traceparent: Option<String>,
}

impl AcceptRequest {
    /// What is accepted, or not, together.
    pub fn all(&self) -> impl Iterator<Item = &NewCustomCsr> {
        once(&self.first).chain(&self.others)
    }
}
