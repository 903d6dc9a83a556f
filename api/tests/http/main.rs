//! The API over HTTP, against a real server on a real database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod access;
mod codes;
mod cors;
mod document;
mod etag;
mod hints;
mod limits;
mod listing;
mod outage;
mod robustness;
mod sets;
mod support;
mod waiting;
mod webhooks;
