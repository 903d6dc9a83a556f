//! tmp
pub mod san;
