//! Settings of tokens.

use std::{path::PathBuf, time::Duration};

use api::auth::{JwtSettings, KeySource, signing::Secret};
use clap::Args;

use super::{bad_setting, settings::duration};

/// How tokens are judged, and signed.
#[derive(Args, Clone)]
#[expect(clippy::struct_field_names, reason = "the names of the options, as the contract has them")]
pub struct JwtArgs {
    /// Verify tokens with the keys of this JWK set
    #[arg(long, env = "CSRD_JWT_JWKS_FILE", hide_env_values = true, value_name = "FILE")]
    jwt_jwks_file: Option<PathBuf>,
    /// Verify tokens with this public key (PEM): RS256, ES256 or `EdDSA`, detected from the key
    #[arg(long, env = "CSRD_JWT_PUBLIC_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    jwt_public_key_file: Option<PathBuf>,
    /// Verify tokens with this shared secret (HS256): raw bytes, at least 32
    #[arg(long, env = "CSRD_JWT_SECRET_FILE", hide_env_values = true, value_name = "FILE")]
    jwt_secret_file: Option<PathBuf>,
    /// Demand this `iss` in tokens
    #[arg(long, env = "CSRD_JWT_ISSUER", hide_env_values = true)]
    jwt_issuer: Option<String>,
    /// Demand this `aud` in tokens
    #[arg(long, env = "CSRD_JWT_AUDIENCE", hide_env_values = true)]
    jwt_audience: Option<String>,
    /// The claim with the zones that a token reaches
    #[arg(long, env = "CSRD_JWT_ZONES_CLAIM", hide_env_values = true, default_value = "zones")]
    jwt_zones_claim: String,
    /// The claim with the accounts that a token reaches
    #[arg(long, env = "CSRD_JWT_ACCOUNTS_CLAIM", hide_env_values = true, default_value = "accounts")]
    jwt_accounts_claim: String,
    /// The claim with the permissions: a string of words, or an array of strings; without `scope` a token's `scp` counts
    #[arg(long, env = "CSRD_JWT_SCOPE_CLAIM", hide_env_values = true, default_value = "scope")]
    jwt_scope_claim: String,
    /// How far the clocks of issuer and service may differ
    #[arg(long, env = "CSRD_JWT_LEEWAY", hide_env_values = true, value_parser = duration, default_value = "60s")]
    jwt_leeway: Duration,
}

impl JwtArgs {
    /// The key source that is set; none where it is left to the demo identity.
    pub fn source(&self) -> anyhow::Result<Option<KeySource>> {
        let sources = [
            self.jwt_jwks_file.clone().map(KeySource::JwksFile),
            self.jwt_public_key_file.clone().map(KeySource::PublicKeyFile),
            self.jwt_secret_file.clone().map(KeySource::SecretFile),
        ];
        let mut given = sources.into_iter().flatten();
        let source = given.next();
        if given.next().is_some() {
            return Err(bad_setting("--jwt-jwks-file, --jwt-public-key-file and --jwt-secret-file exclude each other: give one of them"));
        }
        Ok(source)
    }

    /// What verifies tokens, for the log.
    pub fn verified_by(&self) -> String {
        let sources = [
            ("--jwt-jwks-file", &self.jwt_jwks_file),
            ("--jwt-public-key-file", &self.jwt_public_key_file),
            ("--jwt-secret-file", &self.jwt_secret_file),
        ];
        let named = sources.iter().find_map(|(setting, file)| file.as_ref().map(|file| format!("{setting} {}", file.display())));
        named.unwrap_or_else(|| "the demo identity".to_owned())
    }

    /// All settings with this source.
    pub fn with(&self, source: KeySource) -> JwtSettings {
        JwtSettings {
            source,
            issuer: self.jwt_issuer.clone(),
            audience: self.jwt_audience.clone(),
            zones_claim: self.jwt_zones_claim.clone(),
            accounts_claim: self.jwt_accounts_claim.clone(),
            scope_claim: self.jwt_scope_claim.clone(),
            leeway: self.jwt_leeway,
        }
    }

    /// All settings with the demo identity's secret.
    pub fn with_demo(&self, secret: Secret) -> JwtSettings {
        self.with(KeySource::Demo(secret))
    }

    /// Whether any token of the right issuer would do, whoever it was issued for.
    pub fn lacks_audience(&self) -> bool {
        self.jwt_jwks_file.is_some() && self.jwt_audience.is_none()
    }
}
