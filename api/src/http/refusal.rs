//! What hyper answers by itself to a Transfer-Encoding that it does not know: the same as an error in the envelope.

use poem_openapi::types::ToJSON;
use shared::{codes::ErrorCode, issue::Issue};
use uuid::Uuid;

use super::error::ApiError;

/// What hyper's own answer begins with.
const STATUS_LINE: &[u8] = b"HTTP/1.1 400 Bad Request\r\n";
/// A header that every answer of ours has.
const OURS: &[u8] = b"x-content-type-options";
const TRANSFER_ENCODING: &[u8] = b"\ntransfer-encoding";

/// The answer that stands for hyper's own, or `None` if this is another, or `request` names no Transfer-Encoding: what is not HTTP gets a bare 400.
pub fn in_envelope(answer: &[u8], request: &[u8]) -> Option<Vec<u8>> {
    if !answer.starts_with(STATUS_LINE) || has(answer, OURS) || !has(request, TRANSFER_ENCODING) {
        return None;
    }
    let hint = "The header Transfer-Encoding must be chunked, or absent.";
    let body = ApiError::from(Issue::new(ErrorCode::BodyUndecodable).hinting(hint)).body(None).to_json_string();
    let request_id = Uuid::now_v7();
    tracing::info!(%request_id, status = 400, codes = "1400", cause = hint, "refused what is no request");
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\
         cache-control: no-store\r\nx-content-type-options: nosniff\r\nx-request-id: {request_id}\r\n\r\n",
        body.len()
    );
    Some((head + &body).into_bytes())
}

/// Whether these lower-case words are in a text, in any case.
fn has(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|part| part.eq_ignore_ascii_case(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_hyper_to_an_unknown_encoding_is_given_in_the_envelope_and_others_as_they_are() {
        let (own, request) =
            (b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", b"POST / HTTP/1.1\r\nTRANSFER-encoding: gzip\r\n\r\n");
        let text = String::from_utf8(in_envelope(own, request).unwrap()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n") && head.contains(&format!("content-length: {}\r\n", body.len())));
        assert!(body.contains("\"code\":1400"), "{body}");
        assert_eq!(in_envelope(own, b"nonsense"), None);
        assert_eq!(in_envelope(b"HTTP/1.1 400 Bad Request\r\nx-content-type-options: nosniff\r\n\r\n", request), None);
        assert_eq!(in_envelope(b"{}", request), None);
    }
}
