//! What the workers do.

pub mod generate_csr;
pub mod maintain;
