//! What a tenant asks for, and the certificates that tenants bring, judged.

pub mod certificate;
pub mod edit;
pub mod json;
pub mod public_suffix;
pub mod request;
pub mod san;
mod signature;
pub mod upload;
