//! What a tenant asks for, judged.

mod json;
pub mod public_suffix;
pub mod request;
pub mod san;
