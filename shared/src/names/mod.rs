//! Names: which ones are accepted.

mod a_label;
pub mod public_suffix;
pub mod san;
