//! Certificates in every form in which they come: each form of one certificate reads alike, and what is stored reads as it was stored.

use base64::{Engine, engine::general_purpose::STANDARD};
use shared::{
    codes::{ErrorCode, WarningCode},
    custom_certificate::BundleMethod,
    x509::{
        certificate::leaf_details,
        chain::PemChain,
        judge::Expected,
        pem::{encode, has_private_key},
        trust_anchors::TrustAnchors,
    },
};

use super::{NOW, assert_is_one_line, assert_is_told};

/// signedData and data (RFC 5652).
const OID_SIGNED_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
const OID_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";

/// These bytes as text, and as what one PEM block holds.
pub fn check(data: &[u8]) {
    check_text(&String::from_utf8_lossy(data));
    check_der(data);
}

fn check_text(text: &str) {
    let chain = match PemChain::parse(text) {
        Ok(chain) => chain,
        Err(issue) => {
            assert!(matches!(issue.code, ErrorCode::CertificateUnparsable | ErrorCode::PrivateKeyRefused), "{issue:?}");
            assert_eq!(issue.pointer.as_deref(), Some("/certificate"));
            assert_is_told(&issue);
            assert!(!has_private_key(text) || issue.code == ErrorCode::PrivateKeyRefused, "a private key was passed over");
            return;
        }
    };
    assert!(!has_private_key(text), "a private key was accepted");
    let pem = chain.pem();
    assert!(!has_private_key(&pem));
    let again = PemChain::parse(&pem).expect("what was read is read again");
    assert_eq!((again.pem(), again.leaf_keys(), again.first_spki_sha256()), (pem.clone(), chain.leaf_keys(), chain.first_spki_sha256()));
    assert!(leaf_details(&pem).is_some(), "what was read has no details");
    let anchors = TrustAnchors::parse(text.as_bytes()).expect("anchors are read as certificates are");
    if let Ok(chain) = chain.bounded() {
        check_judged(&chain, &anchors);
    }
}

/// The chain for each of its own keys.
fn check_judged(chain: &PemChain, anchors: &TrustAnchors) {
    let sans = ["www.foo.com".to_owned()];
    let mut keys = chain.leaf_keys();
    keys.extend(chain.first_spki_sha256());
    keys.dedup();
    for spki_sha256 in &keys {
        let expected = Expected { spki_sha256, sans: &sans };
        for method in [BundleMethod::Ubiquitous, BundleMethod::Force] {
            for anchors in [None, Some(anchors)] {
                let (stored, warnings) = match chain.judge(expected, anchors, method, NOW) {
                    Ok(judged) => judged,
                    Err(issue) => {
                        assert_is_told(&issue);
                        continue;
                    }
                };
                for warning in &warnings {
                    assert_is_one_line(&warning.message());
                }
                for text in stored.hosts.iter().chain([&stored.issuer, &stored.signature]) {
                    assert!(!text.contains(['\n', '\0']), "{text:?} is shown");
                }
                assert_eq!(leaf_details(&stored.pem), Some(stored.leaf.clone()));
                // What is stored is in order: whoever brings it again, in whichever way, gets the same.
                for method in [BundleMethod::Ubiquitous, BundleMethod::Force] {
                    let again = PemChain::parse(&stored.pem).expect("what is stored is read");
                    let (again, warnings) = again.judge(expected, anchors, method, NOW).expect("what is stored is accepted");
                    assert_eq!(again, stored);
                    let mended = |code| matches!(code, WarningCode::OrderChanged | WarningCode::CertificatesLeftOut);
                    assert!(!warnings.iter().any(|warning| mended(warning.code)), "{warnings:?}");
                }
            }
        }
    }
}

/// One value, under each label and without one.
fn check_der(der: &[u8]) {
    let pem = encode("CERTIFICATE", der);
    check_text(&pem);
    check_text(&encode("TRUSTED CERTIFICATE", der));
    let read = PemChain::parse(&pem).map(|chain| chain.pem());
    let pkcs7 = encode("PKCS7", &signed_data(der));
    check_text(&pkcs7);
    let Ok(read) = read else { return };
    let forms = [
        encode("X509 CERTIFICATE", der),
        encode("CMS", der),
        encode("TRUSTED CERTIFICATE", der),
        STANDARD.encode(der),
        STANDARD.encode(der).trim_end_matches('=').to_owned(),
        pem.replace('\n', "\r\n"),
        pem.replace('\n', "\r"),
        pem.replace('\n', "\\n"),
        pem.replace('\n', "\n \n"),
        format!("\u{feff}before\n{pem}after"),
    ];
    for form in forms {
        assert_eq!(PemChain::parse(&form).map(|chain| chain.pem()).as_deref(), Ok(read.as_str()), "in another form: {form}");
    }
    // Unless it is PKCS#7 itself.
    if read == pem {
        assert_eq!(PemChain::parse(&pkcs7).map(|chain| chain.pem()).as_deref(), Ok(read.as_str()));
        assert_eq!(PemChain::parse(&format!("{pem}{pem}")).map(|chain| chain.pem()), Ok(read.repeat(2)));
    }
}

/// PKCS#7 that holds certificates and nothing else.
fn signed_data(certificates: &[u8]) -> Vec<u8> {
    let inner = [tlv(0x02, &[1]), tlv(0x31, &[]), tlv(0x30, OID_DATA), tlv(0xa0, certificates), tlv(0x31, &[])].concat();
    tlv(0x30, &[OID_SIGNED_DATA.to_vec(), tlv(0xa0, &tlv(0x30, &inner))].concat())
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let octets = content.len().to_be_bytes();
    let significant: Vec<u8> = octets.into_iter().skip_while(|octet| *octet == 0).collect();
    let length = match significant.as_slice() {
        [] => vec![0],
        [short @ 0..0x80] => vec![*short],
        long => [&[0x80 | u8::try_from(long.len()).expect("eight at most")], long].concat(),
    };
    [&[tag], length.as_slice(), content].concat()
}
