//! The domain of csrd without HTTP: the table of codes, the validator, sealing and storage.

pub mod clock;
pub mod error;
pub mod ids;
pub mod model;
