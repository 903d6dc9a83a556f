//! The API over HTTP, against a real server on a real database.

mod access;
mod codes;
mod document;
mod listing;
mod outage;
mod robustness;
mod support;
