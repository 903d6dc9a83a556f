//! HTTP: connections, what every request meets, and what requests and responses are made of.

pub mod accept;
pub mod activity;
pub mod allow;
pub mod body;
pub mod client;
pub mod connection;
pub mod deadline;
pub mod envelope;
pub mod error;
pub mod failure;
pub mod idempotency;
pub mod middleware;
pub mod mounted;
pub mod paced;
pub mod pages;
pub mod path;
pub mod patient_stream;
pub mod payload;
pub mod prefix;
pub mod query;
pub mod rate_limit;
pub mod server;
pub mod tls;
pub mod types;
pub mod worded;
pub mod words;
