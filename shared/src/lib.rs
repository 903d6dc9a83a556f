//! The domain of csrd without HTTP: the table of codes, the validator, sealing and storage.

pub mod audit;
pub mod clock;
pub mod error;
pub mod ids;
pub mod job;
pub mod model;
pub mod printable;
pub mod seal;
pub mod storage;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod x509;
