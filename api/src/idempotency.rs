//! `Idempotency-Key`: a POST that may be repeated without making a second custom CSR.

use aws_lc_rs::digest;
use poem::http::{HeaderMap, HeaderName};
use shared::{codes::ErrorCode, issue::Issue, storage::IdempotencyKey};

/// The header.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key.
pub const KEY_MAX_CHARS: usize = 255;

/// The key of a request, for this token subject and this body; none where it has none.
///
/// # Errors
///
/// 1464 where it is not 1 to 255 visible ASCII characters, or there are several.
pub fn parse(headers: &HeaderMap, subject: &str, body: &[u8]) -> Result<Option<IdempotencyKey>, Issue> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let key = key.as_bytes();
    if !(1..=KEY_MAX_CHARS).contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic) || keys.next().is_some() {
        let reason = format!("header Idempotency-Key must be one of 1 to {KEY_MAX_CHARS} visible ASCII characters");
        return Err(Issue::new(ErrorCode::ParameterOutOfRange).because(reason));
    }
    // With its length before it, so that no other subject and key give the same bytes.
    let subject_length = (subject.len() as u64).to_be_bytes();
    Ok(Some(IdempotencyKey { key_sha256: sha256(&[&subject_length, subject.as_bytes(), key]), body_sha256: sha256(&[body]) }))
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
        parse(&headers, subject, body).map_err(|issue| issue.code.number())
    }

    #[test]
    fn a_key_is_1_to_255_visible_ascii_characters() {
        assert_eq!(parse(&HeaderMap::new(), "me", b""), Ok(None));
        assert!(key(&[b'~'; 255], "me", b"").is_ok());
        for bad in [&b""[..], b"a b", b"\xc3\xbc", &[b'x'; 256]] {
            assert_eq!(key(bad, "me", b""), Err(1464));
        }
        let mut twice = HeaderMap::new();
        twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        assert!(parse(&twice, "me", b"").is_err());
    }

    #[test]
    fn subjects_do_not_share_keys() {
        let one = key(b"bc", "a", b"x").unwrap().unwrap();
        assert_ne!(one.key_sha256, key(b"c", "ab", b"x").unwrap().unwrap().key_sha256);
        assert_eq!(one.body_sha256, key(b"y", "z", b"x").unwrap().unwrap().body_sha256);
    }
}
