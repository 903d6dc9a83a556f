//! The certificates that tenants bring, judged: X.509 and nothing else.

pub mod certificate;
mod constraints;
mod der;
mod distinguished_name;
mod formats;
mod keys;
mod parsed;
mod path;
pub mod pem;
mod signature;
mod text;
mod usage;
