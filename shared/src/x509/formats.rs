//! The forms in which certificates arrive: PEM, PKCS#7 in PEM, and the base64 of either without a label.
//!
//! PKCS#7 is parsed with the BER reader of x509-parser, which is a dependency anyway: files from Windows and Java have indefinite lengths, which
//! the DER reader under `cms`, that of `RustCrypto`, refuses.

use rustls_pki_types::CertificateDer;
use x509_parser::{
    asn1_rs::{Any, Class, FromBer, Oid, Tag, oid},
    certification_request::X509CertificationRequest,
    prelude::FromDer,
};

use super::{
    der,
    pem::{self, Block},
};

/// Why a text holds no certificates that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It holds a private key.
    PrivateKey,
    /// It cannot be read: what is wrong, and what to do.
    Unreadable(String),
}

/// One certificate of a text, not read yet.
#[derive(Debug)]
pub struct Found {
    /// Where it is, as the beginning of a sentence: `PEM block 2 (CERTIFICATE)`.
    pub place: String,
    /// What probably is the DER of a certificate.
    pub der: CertificateDer<'static>,
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Unreadable(reason)
    }
}

/// signedData (RFC 5652, 5.1).
const OID_SIGNED_DATA: Oid<'static> = oid!(1.2.840.113549.1.7.2);

/// Whole numbers in an RSA private key (RFC 8017, A.1.2), its version among them.
const RSA_NUMBERS: usize = 9;

/// Prints the certificates of a file and nothing else.
const CERTIFICATES_ALONE: &str = "sed -n '/-BEGIN CERTIFICATE-/,/-END CERTIFICATE-/p' FILE";

/// The certificates in a text, at least one, in their order.
///
/// # Errors
///
/// What else the text holds, or which block is broken and why.
pub fn certificates(text: &str) -> Result<Vec<Found>, Fault> {
    if pem::has_private_key(text) {
        return Err(Fault::PrivateKey);
    }
    let text = pem::normalized(text);
    let mut blocks = pem::blocks(&text)?;
    let labels: Vec<_> = blocks.iter().enumerate().map(|(index, block)| format!("PEM block {} ({})", index + 1, block.label)).collect();
    if blocks.is_empty() {
        blocks.push(Block { label: "CERTIFICATE".to_owned(), der: bare(&text)? });
    }
    if blocks.iter().any(|block| matches!(content(&block.der), Content::PrivateKey)) {
        return Err(Fault::PrivateKey);
    }
    let mut certificates = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        let place = labels.get(index).map_or("the base64", String::as_str);
        certificates.extend(certificates_of(block, place)?);
    }
    Ok(certificates)
}

/// Whether a text has a private key in it, labelled as one or not.
#[must_use]
pub fn has_private_key(text: &str) -> bool {
    certificates(text).is_err_and(|fault| fault == Fault::PrivateKey)
}

/// The base64 of a text without a label.
fn bare(text: &str) -> Result<Vec<u8>, Fault> {
    let decoded = pem::decode(text.trim().trim_matches(['"', '\'']));
    // A word is base64 too: what is meant begins with a SEQUENCE.
    if let Some(der) = decoded.as_ref().filter(|der| der.first() == Some(&0x30)) {
        return Ok(der.clone());
    }
    let upper = text.to_ascii_uppercase();
    let of_pem = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|text| text.contains("-----BEGIN"));
    Err(match of_pem {
        Some(pem) if pem::has_private_key(&pem) => Fault::PrivateKey,
        Some(_) => Fault::Unreadable("it is the base64 of PEM: decode it once".to_owned()),
        None if upper.contains("BEGIN") && upper.contains("CERTIFICATE") => Fault::Unreadable(
            "its lines around the base64 were changed: they have to be -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----"
                .to_owned(),
        ),
        None => Fault::Unreadable("it has no PEM block, and is not the base64 of a certificate".to_owned()),
    })
}

fn certificates_of(block: &Block, place: &str) -> Result<Vec<Found>, Fault> {
    let der = match block.label.as_str() {
        "TRUSTED CERTIFICATE" => without_trust(&block.der),
        "CERTIFICATE" | "X509 CERTIFICATE" | "PKCS7" | "CMS" => &block.der,
        label => return Err(Fault::Unreadable(format!("{place} is no certificate: {}", advice(label)))),
    };
    let all = match content(der) {
        Content::SignedData => {
            let found = certificates_of_signed_data(der).ok_or_else(|| format!("{place} is PKCS#7 that cannot be read"))?;
            if found.is_empty() {
                return Err(Fault::Unreadable(format!("{place} is PKCS#7 without certificates")));
            }
            found
        }
        Content::PrivateKey => return Err(Fault::PrivateKey),
        Content::Other(what) => return Err(Fault::Unreadable(format!("{place} holds {what}"))),
        Content::Broken => return Err(Fault::Unreadable(format!("{place} is cut off, or was changed on its way: send what the CA sent"))),
        Content::Certificate => vec![der],
    };
    let found = |der: &[u8]| Found { place: place.to_owned(), der: CertificateDer::from(der.to_vec()) };
    Ok(all.into_iter().map(found).collect())
}

/// What to do about a block with another label.
fn advice(label: &str) -> String {
    match label {
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => "it is the request; send what the CA made of it".to_owned(),
        "PKCS12" => "convert the file with: openssl pkcs12 -in FILE -nokeys".to_owned(),
        "PKCS #7 SIGNED DATA" => "convert the file with: openssl pkcs7 -in FILE -print_certs".to_owned(),
        _ => format!("leave it out, for example with: {CERTIFICATES_ALONE}"),
    }
}

/// A certificate without the trust settings that `openssl x509 -trustout` writes after it.
fn without_trust(der: &[u8]) -> &[u8] {
    Any::from_der(der).map_or(der, |(rest, _)| &der[..der.len() - rest.len()])
}

/// What DER or BER holds, judged by its first values.
enum Content {
    /// Probably.
    Certificate,
    SignedData,
    PrivateKey,
    /// Something else, and what to do about it.
    Other(&'static str),
    /// No whole value.
    Broken,
}

fn content(bytes: &[u8]) -> Content {
    let Ok((_, Any { data, .. })) = Any::from_ber(bytes) else { return Content::Broken };
    // Of RSA's nine numbers and what may follow them, one more would show.
    let tags: Vec<Tag> = der::values(data).unwrap_or_default().iter().map(Any::tag).take(RSA_NUMBERS + 2).collect();
    let is_pkcs1 = || tags.iter().take_while(|tag| **tag == Tag::Integer).count() == RSA_NUMBERS && tags.len() <= RSA_NUMBERS + 1;
    match tags.as_slice() {
        [Tag::Oid, ..] if is_signed_data(data) => Content::SignedData,
        [Tag::Oid, ..] => Content::Other("PKCS#7 of another kind than signed data"),
        // PKCS#8, sealed PKCS#8, and SEC 1.
        [Tag::Integer, Tag::Sequence, Tag::OctetString, ..] | [Tag::Sequence, Tag::OctetString] | [Tag::Integer, Tag::OctetString, ..] => {
            Content::PrivateKey
        }
        [Tag::Integer, ..] if is_pkcs1() => Content::PrivateKey,
        [Tag::Integer, Tag::Sequence, ..] => Content::Other(
            "PKCS#12, which may have a private key in it that must not be sent; convert the file with: openssl pkcs12 -in FILE -nokeys",
        ),
        _ if X509CertificationRequest::from_der(bytes).is_ok() => Content::Other("a certificate request; send what the CA made of it"),
        _ => Content::Certificate,
    }
}

fn is_signed_data(content_info: &[u8]) -> bool {
    Any::from_ber(content_info).is_ok_and(|(_, first)| first.as_oid().is_ok_and(|oid| oid == OID_SIGNED_DATA))
}

/// The certificates of a `ContentInfo` with signed data (RFC 5652, 5.1), in their order.
fn certificates_of_signed_data(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let (_, content_info) = Any::from_ber(bytes).ok()?;
    let explicit = der::values(content_info.data)?.into_iter().nth(1)?;
    let (_, signed_data) = Any::from_ber(explicit.data).ok()?;
    let fields = der::values(signed_data.data)?;
    let is_certificates = |field: &&Any<'_>| field.class() == Class::ContextSpecific && field.tag() == Tag(0);
    let Some(set) = fields.iter().find(is_certificates) else { return Some(Vec::new()) };
    let (mut rest, mut certificates) = (set.data, Vec::new());
    while !rest.is_empty() {
        let (after, choice) = Any::from_ber(rest).ok()?;
        // The other choices are attribute certificates and the like.
        if choice.class() == Class::Universal && choice.tag() == Tag::Sequence {
            certificates.push(&rest[..rest.len() - after.len()]);
        }
        rest = after;
    }
    Some(certificates)
}
