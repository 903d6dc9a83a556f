//! Names: which ones are accepted.

mod a_label;
mod broken_rule;
pub mod public_suffix;
pub mod san;
