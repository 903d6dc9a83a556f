//! The certificates that tenants bring, judged: X.509 and nothing else.

mod algorithm;
mod algorithm_name;
pub mod certificate;
pub mod chain;
mod constraints;
mod der;
mod distinguished_name;
pub mod formats;
pub mod issues;
pub mod judge;
mod keys;
mod leaf_names;
mod parsed;
mod path;
pub mod pem;
pub mod provenance;
mod pss;
mod readings;
mod signature;
mod text;
pub mod trust_anchors;
mod usage;
mod warnings;
