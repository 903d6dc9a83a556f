//! What the page's form sends (`multipart/form-data`, RFC 7578), or one of another page that has a text field alone
//! (`application/x-www-form-urlencoded`).

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::stream;
use url::form_urlencoded;

/// The certificate that was brought: the file, or, without one, the text. Somebody who comes back to a text that was refused, and picks a
/// file instead, means the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    /// In the form of an upload: text as it was sent, other bytes as base64.
    pub certificate: String,
    /// Whether it comes from the file.
    pub is_of_file: bool,
    /// The text, to show it again.
    pub text: String,
}

impl Form {
    /// Parses a body, or returns `None` if it is not such a form.
    pub async fn read(content_type: &str, body: Vec<u8>) -> Option<Self> {
        if is_urlencoded(content_type) {
            let text = form_urlencoded::parse(&body).filter(|(name, _)| name == "certificate").last();
            let text = text.map(|(_, text)| text.into_owned()).unwrap_or_default();
            return Some(Self { certificate: text.clone(), is_of_file: false, text });
        }
        let boundary = multer::parse_boundary(content_type).ok()?;
        let mut parts = multer::Multipart::new(stream::iter([Ok::<_, std::io::Error>(Bytes::from(body))]), boundary);
        let (mut text, mut file) = (String::new(), Bytes::new());
        while let Some(part) = parts.next_field().await.ok()? {
            match part.name() {
                Some("certificate") => text = as_text(&part.bytes().await.ok()?),
                Some("file") => file = part.bytes().await.ok()?,
                _ => {}
            }
        }
        let is_of_file = !file.is_empty();
        let certificate = if is_of_file { as_text(&file) } else { text.clone() };
        Some(Self { certificate, is_of_file, text })
    }
}

fn is_urlencoded(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// What a block of PEM begins with.
const PEM_BEGIN: &[u8] = b"-----BEGIN ";

/// A file as uploads take it. Windows writes text in UTF-16, too, and says so in the first two bytes; and what stands around the blocks of PEM
/// may be in any encoding of its own.
fn as_text(file: &[u8]) -> String {
    let units = |of: fn([u8; 2]) -> u16| file[2..].as_chunks().0.iter().map(|pair| of(*pair)).collect::<Vec<_>>();
    match file {
        [0xff, 0xfe, ..] => return String::from_utf16_lossy(&units(u16::from_le_bytes)),
        [0xfe, 0xff, ..] => return String::from_utf16_lossy(&units(u16::from_be_bytes)),
        _ => {}
    }
    let text = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    match std::str::from_utf8(text) {
        Ok(text) if !text.contains('\0') => text.to_owned(),
        _ if text.windows(PEM_BEGIN.len()).any(|part| part == PEM_BEGIN) => String::from_utf8_lossy(text).into_owned(),
        _ => STANDARD.encode(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=x";

    fn body(text: &str, file: &[u8]) -> Vec<u8> {
        let head =
            "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.crt\"\r\nContent-Type: application/x-x509-ca-cert\r\n\r\n";
        let next = "\r\n--x\r\nContent-Disposition: form-data; name=\"certificate\"\r\n\r\n";
        [head.as_bytes(), file, next.as_bytes(), text.as_bytes(), b"\r\n--x--\r\n"].concat()
    }

    #[tokio::test]
    async fn the_file_counts_and_without_it_the_text() {
        let form = Form::read(TYPE, body("text", b"file")).await.unwrap();
        assert_eq!(form, Form { certificate: "file".into(), is_of_file: true, text: "text".into() });
        let form = Form::read(TYPE, body("text", b"")).await.unwrap();
        assert_eq!(form, Form { certificate: "text".into(), is_of_file: false, text: "text".into() });
        assert_eq!(Form::read(TYPE, body("", b"")).await.unwrap(), Form::default());
    }

    #[tokio::test]
    async fn a_binary_file_becomes_base64() {
        assert_eq!(Form::read(TYPE, body("", b"\x30\x82\x01\x00\xff")).await.unwrap().certificate, "MIIBAP8=");
    }

    #[test]
    fn a_file_of_text_is_read_in_whatever_form_of_unicode_it_says_it_is() {
        for file in [&b"caf\xc3\xa9"[..], b"\xef\xbb\xbfcaf\xc3\xa9", b"\xff\xfec\0a\0f\0\xe9\0", b"\xfe\xff\0c\0a\0f\0\xe9"] {
            assert_eq!(as_text(file), "caf\u{e9}");
        }
        assert_eq!(
            as_text(b"friendlyName: caf\xe9\n-----BEGIN CERTIFICATE-----"),
            "friendlyName: caf\u{fffd}\n-----BEGIN CERTIFICATE-----"
        );
    }

    #[tokio::test]
    async fn a_form_without_a_file_may_be_sent_as_a_query_is() {
        let text = Form { certificate: "a b+\n".into(), is_of_file: false, text: "a b+\n".into() };
        for content_type in ["application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded; charset=UTF-8"] {
            assert_eq!(Form::read(content_type, b"x=1&certificate=a+b%2B%0A".to_vec()).await, Some(text.clone()));
        }
        assert_eq!(Form::read("application/x-www-form-urlencoded", b"x=1".to_vec()).await, Some(Form::default()));
    }

    #[tokio::test]
    async fn what_is_no_form_is_none() {
        assert_eq!(Form::read("application/json", b"{}".to_vec()).await, None);
        assert_eq!(Form::read("multipart/form-data", body("a", b"")).await, None);
        assert_eq!(Form::read(TYPE, b"--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nabc".to_vec()).await, None);
    }
}
