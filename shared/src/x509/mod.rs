//! What a tenant asks for, and the certificates that tenants bring, judged.

pub mod certificate;
mod constraints;
mod der;
pub mod edit;
mod formats;
pub mod json;
mod keys;
mod names;
mod parsed;
mod path;
pub mod pem;
pub mod public_suffix;
pub mod request;
pub mod san;
mod signature;
mod text;
pub mod upload;
mod usage;
