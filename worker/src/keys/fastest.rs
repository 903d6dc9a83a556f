//! The fastest key generation of this build: OpenSSL for RSA if the feature `openssl-rsa` is on, otherwise aws-lc-rs.

use std::sync::Arc;

#[cfg(not(feature = "openssl-rsa"))]
use super::aws_lc::AwsLc;
#[cfg(feature = "openssl-rsa")]
use super::openssl_rsa::{self, OpenSslRsa};
use super::{KeyGenerator, KeygenError};

/// The library that makes RSA keys in this build.
pub const RSA_LIBRARY: &str = if cfg!(feature = "openssl-rsa") { "openssl" } else { "aws-lc" };

/// Returns the fastest key generator of this build.
#[must_use]
pub fn key_generator() -> Arc<dyn KeyGenerator> {
    #[cfg(feature = "openssl-rsa")]
    return Arc::new(OpenSslRsa);
    #[cfg(not(feature = "openssl-rsa"))]
    return Arc::new(AwsLc);
}

/// Makes an RSA-2048 key as [`key_generator`] does and drops it. A benchmark measures with it what the library alone can do.
///
/// # Errors
///
/// [`KeygenError`] if the library fails.
pub fn rsa_by_library() -> Result<(), KeygenError> {
    #[cfg(feature = "openssl-rsa")]
    return openssl_rsa::rsa(2048).map(drop);
    #[cfg(not(feature = "openssl-rsa"))]
    return AwsLc.generate(shared::custom_csr::KeyType::Rsa2048).map(drop);
}
