//! Certificates as they are uploaded: whatever is sent is answered, and nothing panics.

use proptest::prelude::*;
use shared::{
    bodies::{edit::Edit, upload::Upload},
    codes::ErrorCode,
    x509::{chain::PemChain, trust_anchors::TrustAnchors},
};

#[test]
fn what_holds_no_certificates_is_1426_and_says_why() {
    let block = |tag: &str, base64: &str| format!("-----BEGIN {tag}-----\n{base64}\n-----END {tag}-----\n");
    for (pem, why) in [
        ("no PEM".to_owned(), "no PEM block"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned(), "cut off"),
        (block("CERTIFICATE", "AAAA"), "no X.509 certificate"),
        (block("CERTIFICATE", "A*AA"), "broken"),
        (block("CERTIFICATE REQUEST", "AAAA"), "CERTIFICATE REQUEST"),
    ] {
        let issue = PemChain::parse(&pem).unwrap_err();
        assert_eq!((issue.code, issue.pointer.as_deref()), (ErrorCode::CertificateUnparsable, Some("/certificate")));
        assert!(issue.message().contains(why), "{pem}: {}", issue.message());
        assert!(TrustAnchors::parse(pem.as_bytes()).unwrap_err().to_string().contains(why));
    }
    let issue = PemChain::parse(&block("PRIVATE KEY", "AAAA")).unwrap_err();
    assert_eq!((issue.code, issue.pointer.as_deref()), (ErrorCode::PrivateKeyRefused, Some("/certificate")));
}

proptest! {
    #[test]
    fn no_upload_and_no_edit_panics(body: Vec<u8>, text: String) {
        let _ = Upload::parse(&body);
        let _ = Edit::parse(&body);
        let _ = Upload::parse(format!(r#"{{"certificate":{text:?},"type":{text:?}}}"#).as_bytes());
    }

    #[test]
    fn no_certificate_panics(der: Vec<u8>, text: String) {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let base64 = STANDARD.encode(der);
        let pem = format!("{text}\n-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n{text}");
        for text in [pem, base64, text] {
            let _ = PemChain::parse(&text);
            let _ = Upload::parse(format!(r#"{{"certificate":{text:?}}}"#).as_bytes());
        }
    }
}
