//! Who asks, and what they may: tokens to callers to access.

pub mod access;
pub mod authenticator;
mod cache;
pub mod caller;
mod claims;
mod key;
pub mod keys;
pub mod presented;
mod public_keys;
pub mod refusal;
mod renewal;
pub mod settings;
pub mod signing;

pub use self::{
    authenticator::Authenticator,
    caller::{Caller, Permission},
    keys::{KeyError, KeySource},
    refusal::Refusal,
    renewal::jwks_url,
    settings::JwtSettings,
};
