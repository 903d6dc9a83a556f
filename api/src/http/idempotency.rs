//! `Idempotency-Key`: a POST that may be repeated without making anything twice.

use aws_lc_rs::digest;
use poem::http::{HeaderMap, HeaderName};
use poem_openapi::registry::MetaSchema;
use shared::{
    codes::ErrorCode,
    issue::{Input, Issue},
    storage::IdempotencyKey,
};

use super::header::HeaderParameter;

/// The header.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key.
const KEY_MAX_CHARS: usize = 255;

/// The key of a request, if it has one. Whether it is valid is reported with the faults of the body.
pub struct IdempotencyHeader(Result<Option<Vec<u8>>, Issue>);

impl IdempotencyHeader {
    /// What is remembered of the key, for this token subject and this body; `None` if the request has no key.
    ///
    /// # Errors
    ///
    /// 1464 if it is not 1 to 255 visible ASCII characters, or there are several.
    pub fn of(&self, subject: &str, body: &[u8]) -> Result<Option<IdempotencyKey>, Issue> {
        let Some(key) = self.0.as_ref().map_err(Issue::clone)? else { return Ok(None) };
        // With its length before it, so that no other subject and key give the same bytes.
        let subject_length = (subject.len() as u64).to_be_bytes();
        Ok(Some(IdempotencyKey { key_sha256: sha256(&[&subject_length, subject.as_bytes(), key]), body_sha256: sha256(&[body]) }))
    }
}

impl HeaderParameter for IdempotencyHeader {
    fn schema() -> MetaSchema {
        let description = "Makes the request safe to repeat for 24 hours: the same key with the same body makes nothing new, and answers with what it made before.";
        MetaSchema {
            description: Some(description),
            min_length: Some(1),
            max_length: Some(KEY_MAX_CHARS),
            pattern: Some("^[!-~]+$".to_owned()),
            ..MetaSchema::new("string")
        }
    }

    fn read(headers: &HeaderMap) -> Self {
        let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(key) = keys.next() else { return Self(Ok(None)) };
        let key = key.as_bytes();
        if !(1..=KEY_MAX_CHARS).contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic) || keys.next().is_some() {
            let reason = format!("header Idempotency-Key must be one of 1 to {KEY_MAX_CHARS} visible ASCII characters");
            let hint = "Idempotency-Key may be sent once, with 1 to 255 characters from ! to ~.";
            return Self(Err(Issue::of(ErrorCode::ParameterOutOfRange, Input::Header("Idempotency-Key")).because(reason).hinting(hint)));
        }
        Self(Ok(Some(key.to_vec())))
    }
}

fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    fn key(value: &[u8], subject: &str, body: &[u8]) -> Result<Option<IdempotencyKey>, u16> {
        let mut headers = HeaderMap::new();
        headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
        IdempotencyHeader::read(&headers).of(subject, body).map_err(|issue| issue.code.number())
    }

    #[test]
    fn a_key_is_1_to_255_visible_ascii_characters() {
        assert_eq!(IdempotencyHeader::read(&HeaderMap::new()).of("me", b""), Ok(None));
        assert!(key(&[b'~'; 255], "me", b"").is_ok());
        for bad in [&b""[..], b"a b", b"\xc3\xbc", &[b'x'; 256]] {
            assert_eq!(key(bad, "me", b""), Err(1464));
        }
        let mut twice = HeaderMap::new();
        twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        assert!(IdempotencyHeader::read(&twice).of("me", b"").is_err());
    }

    #[test]
    fn subjects_do_not_share_keys() {
        let one = key(b"bc", "a", b"x").unwrap().unwrap();
        assert_ne!(one.key_sha256, key(b"c", "ab", b"x").unwrap().unwrap().key_sha256);
        assert_eq!(one.body_sha256, key(b"y", "z", b"x").unwrap().unwrap().body_sha256);
    }
}
