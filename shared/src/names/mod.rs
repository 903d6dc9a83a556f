//! Which names are accepted.

pub mod public_suffix;
pub mod san;
