//! What a token says of itself, for the log: read, not trusted.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::DeserializeOwned};
use shared::printable::excerpt;

use super::authenticator::{TOKEN_MAX_BYTES, bearer};

/// The most characters of a name that the log shows.
const SHOWN_CHARS: usize = 64;

/// What a token says of itself. Nobody has verified it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Presented {
    /// Its `sub`.
    pub subject: Option<String>,
    /// Its `kid`.
    pub key_id: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    kid: Option<String>,
}

#[derive(Deserialize)]
struct Payload {
    sub: Option<String>,
}

impl Presented {
    /// Reads the value of an Authorization header as far as it can be read.
    #[must_use]
    pub fn read(authorization: &[u8]) -> Self {
        let Some(token) = bearer(authorization).filter(|token| token.len() <= TOKEN_MAX_BYTES) else { return Self::default() };
        let mut parts = token.split('.');
        let (header, payload) = (parts.next().and_then(decode::<Header>), parts.next().and_then(decode::<Payload>));
        Self {
            subject: payload.and_then(|payload| payload.sub).as_deref().map(shown),
            key_id: header.and_then(|header| header.kid).as_deref().map(shown),
        }
    }
}

fn decode<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn shown(name: &str) -> String {
    excerpt(name, SHOWN_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str, payload: &str) -> (Option<String>, Option<String>) {
        let token = format!("Bearer {}.{}.x", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let Presented { subject, key_id } = Presented::read(token.as_bytes());
        (subject, key_id)
    }

    #[test]
    fn each_name_is_read_without_the_other() {
        assert_eq!(read(r#"{"kid":"k"}"#, r#"{"sub":"me","zones":[]}"#), (Some("me".into()), Some("k".into())));
        assert_eq!(read("?", r#"{"sub":"me"}"#), (Some("me".into()), None));
        assert_eq!(read(r#"{"kid":"k"}"#, r#"{"sub":5}"#), (None, Some("k".into())));
        assert_eq!(Presented::read(b"Bearer \xff"), Presented::default());
        assert_eq!(Presented::read(b"Basic dTpw"), Presented::default());
    }

    #[test]
    fn what_is_shown_is_cut_and_harmless() {
        let (subject, key_id) = read(r#"{"kid":"\u001b[31m\n"}"#, &format!(r#"{{"sub":"{}"}}"#, "ü".repeat(65)));
        assert_eq!(subject, Some(format!("{}…", "ü".repeat(64))));
        assert_eq!(key_id.as_deref(), Some("\\u001b[31m\\u000a"));
    }
}
