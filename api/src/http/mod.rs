//! HTTP: connections, what every request meets, and what requests and responses are made of.

pub mod body;
pub mod connection;
pub mod deadline;
pub mod envelope;
pub mod middleware;
pub mod patient_stream;
pub mod payload;
pub mod prefix;
pub mod query;
pub mod server;
