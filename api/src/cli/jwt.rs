//! Settings of tokens.

use std::{path::PathBuf, time::Duration};

use api::auth::{JwtSettings, KeySource, jwks_url, signing::Secret};
use clap::{Args, builder::NonEmptyStringValueParser};
use shared::outbound::Url;

use super::{bad_setting, settings::duration};

/// How tokens are judged, and signed.
#[derive(Args, Clone)]
#[expect(clippy::struct_field_names, reason = "the names of the options, as the contract has them")]
pub struct JwtArgs {
    /// Verify tokens with the keys of this JWK set
    #[arg(long, env = "CSRD_JWT_JWKS_FILE", hide_env_values = true, value_name = "FILE")]
    jwt_jwks_file: Option<PathBuf>,
    /// Verify tokens with the JWK set at this URL: https, or http on a loopback address
    #[arg(long, env = "CSRD_JWT_JWKS_URL", hide_env_values = true, value_name = "URL", value_parser = jwks_url)]
    jwt_jwks_url: Option<Url>,
    /// Between two fetches of that JWK set; it is also fetched when a token names an unknown `kid`, at most once in 30 s, and on SIGHUP
    #[arg(long, env = "CSRD_JWT_JWKS_REFRESH", hide_env_values = true, value_name = "DURATION", value_parser = refresh, default_value = "5m")]
    pub jwt_jwks_refresh: Duration,
    /// Verify tokens with this public key (PEM): RS256, ES256 or `EdDSA`, detected from the key
    #[arg(long, env = "CSRD_JWT_PUBLIC_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    jwt_public_key_file: Option<PathBuf>,
    /// Verify tokens with this shared secret (HS256): raw bytes, at least 32
    #[arg(long, env = "CSRD_JWT_SECRET_FILE", hide_env_values = true, value_name = "FILE")]
    jwt_secret_file: Option<PathBuf>,
    /// Demand this `iss` in tokens
    #[arg(long, env = "CSRD_JWT_ISSUER", hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    jwt_issuer: Option<String>,
    /// Demand this `aud` in tokens
    #[arg(long, env = "CSRD_JWT_AUDIENCE", hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    jwt_audience: Option<String>,
    /// The claim with the zones that a token reaches
    #[arg(long, env = "CSRD_JWT_ZONES_CLAIM", hide_env_values = true, value_parser = NonEmptyStringValueParser::new(), default_value = "zones")]
    jwt_zones_claim: String,
    /// The claim with the accounts that a token reaches
    #[arg(long, env = "CSRD_JWT_ACCOUNTS_CLAIM", hide_env_values = true, value_parser = NonEmptyStringValueParser::new(), default_value = "accounts")]
    jwt_accounts_claim: String,
    /// The claim with the permissions: a string of words, or an array of strings; without `scope` a token's `scp` counts
    #[arg(long, env = "CSRD_JWT_SCOPE_CLAIM", hide_env_values = true, value_parser = NonEmptyStringValueParser::new(), default_value = "scope")]
    jwt_scope_claim: String,
    /// How far the clocks of issuer and service may differ
    #[arg(long, env = "CSRD_JWT_LEEWAY", hide_env_values = true, value_parser = duration, default_value = "60s")]
    jwt_leeway: Duration,
}

/// A provider is not to be asked without end.
fn refresh(text: &str) -> Result<Duration, String> {
    let refresh = duration(text)?;
    if refresh < Duration::from_secs(1) { Err("give 1s at least, such as 5m".to_owned()) } else { Ok(refresh) }
}

impl JwtArgs {
    /// The key source that is set; none where it is left to the demo identity.
    pub fn source(&self) -> anyhow::Result<Option<KeySource>> {
        let sources = [
            self.jwt_jwks_file.clone().map(KeySource::JwksFile),
            self.jwt_jwks_url.clone().map(KeySource::JwksUrl),
            self.jwt_public_key_file.clone().map(KeySource::PublicKeyFile),
            self.jwt_secret_file.clone().map(KeySource::SecretFile),
        ];
        let mut given = sources.into_iter().flatten();
        let source = given.next();
        if given.next().is_some() {
            let text = "--jwt-jwks-file, --jwt-jwks-url, --jwt-public-key-file and --jwt-secret-file exclude each other: give one of them";
            return Err(bad_setting(text));
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
        let file = sources.iter().find_map(|(setting, file)| file.as_ref().map(|file| format!("{setting} {}", file.display())));
        let url = self.jwt_jwks_url.as_ref().map(|url| format!("--jwt-jwks-url {url}"));
        file.or(url).unwrap_or_else(|| "the demo identity".to_owned())
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
        (self.jwt_jwks_file.is_some() || self.jwt_jwks_url.is_some()) && self.jwt_audience.is_none()
    }
}
