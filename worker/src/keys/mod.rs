//! Private keys: the trait that makes them, its implementations, and the threads that they run on.

pub mod aws_lc;
mod backlog;
pub mod blocked;
pub mod fastest;
#[cfg(feature = "openssl-rsa")]
mod openssl_rsa;
pub mod private_key;
pub mod quality;
pub(crate) mod threads;

use private_key::PrivateKey;
use shared::custom_csr::KeyType;

/// Key generation failed. The error has no details, because they could be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key pair could not be generated")]
pub struct KeygenError;

/// Makes private keys. Another library, or a test that needs a failure, implements this trait.
pub trait KeyGenerator: Send + Sync + 'static {
    /// Makes a fresh private key of this type.
    ///
    /// # Errors
    ///
    /// [`KeygenError`] if the library fails.
    fn generate(&self, key_type: KeyType) -> Result<PrivateKey, KeygenError>;
}
