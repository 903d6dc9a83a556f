//! One parsed certificate, with everything that the other modules need of it.

use std::collections::HashSet;

use x509_parser::{
    asn1_rs::{Any, FromBer, Tag},
    certificate::X509Certificate,
    extensions::{BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints},
    oid_registry::{
        OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE, OID_X509_EXT_NAME_CONSTRAINTS,
        OID_X509_EXT_SUBJECT_ALT_NAME,
    },
    prelude::FromDer,
    time::ASN1Time,
    x509::{SubjectPublicKeyInfo, X509Version},
};

use super::{der, distinguished_name::ComparableName, keys::Key, text};
use crate::{clock::Timestamp, custom_certificate::LAST_SECOND};

/// A certificate whose structure, times and known extensions are sound.
#[derive(Debug)]
pub struct Parsed<'a> {
    /// Its place among those that were sent, from 1.
    pub place: usize,
    /// The whole of it in DER.
    pub der: &'a [u8],
    /// The parsed certificate.
    pub certificate: X509Certificate<'a>,
    /// Its subject.
    pub subject: ComparableName,
    /// Its issuer.
    pub issuer: ComparableName,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// The last second in which it is valid.
    pub not_after: Timestamp,
    /// Its public key.
    pub key: Key,
}

impl<'a> Parsed<'a> {
    /// Reads a certificate.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as the rest of a sentence that begins with its place.
    pub fn read(place: usize, der: &'a [u8]) -> Result<Self, String> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| unreadable(der).to_owned())?;
        if !rest.is_empty() {
            return Err("has bytes after the certificate's end".to_owned());
        }
        if !der::is_strict(der) {
            return Err(NOT_DER.to_owned());
        }
        if certificate.signature_algorithm != certificate.tbs_certificate.signature {
            return Err("names two different signature algorithms (RFC 5280, 4.1.1.2)".to_owned());
        }
        if times_are_strict(der) != Some(true) {
            return Err(TIMES_NOT_STRICT.to_owned());
        }
        check_version(&certificate)?;
        check_extensions(&certificate)?;
        Ok(Self {
            place,
            der,
            subject: ComparableName::new(&certificate.subject),
            issuer: ComparableName::new(&certificate.issuer),
            not_before: timestamp(certificate.validity.not_before),
            not_after: timestamp(certificate.validity.not_after),
            key: Key::of(certificate.public_key()),
            certificate,
        })
    }

    /// The subject, for a message.
    #[must_use]
    pub fn name(&self) -> String {
        text::name(&self.certificate.subject)
    }

    /// Its place and subject, for a message.
    #[must_use]
    pub fn label(&self) -> String {
        format!("certificate {} ({})", self.place, self.name())
    }

    /// Whether its dates allow it to be used at this time.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after.plus(LAST_SECOND)
    }

    /// Why it is not valid at this time, as the rest of a sentence.
    #[must_use]
    pub fn invalidity(&self, now: Timestamp) -> String {
        if now < self.not_before {
            format!("is not valid before {}", self.not_before.rfc3339())
        } else {
            format!("expired at {}", self.not_after.rfc3339())
        }
    }

    /// The public key in the certificate's encoding.
    #[must_use]
    pub fn spki(&self) -> &SubjectPublicKeyInfo<'a> {
        &self.certificate.tbs_certificate.subject_pki
    }

    /// Whether issuer and subject are one name.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether both certificates are for one CA: the same name and the same key.
    #[must_use]
    pub fn is_same_authority(&self, other: &Self) -> bool {
        self.key.sha256 == other.key.sha256 && self.subject == other.subject
    }

    /// basicConstraints.
    #[must_use]
    pub fn basic_constraints(&self) -> Option<&BasicConstraints> {
        self.certificate.basic_constraints().ok().flatten().map(|extension| extension.value)
    }

    /// keyUsage.
    #[must_use]
    pub fn key_usage(&self) -> Option<&KeyUsage> {
        self.certificate.key_usage().ok().flatten().map(|extension| extension.value)
    }

    /// extKeyUsage.
    #[must_use]
    pub fn extended_key_usage(&self) -> Option<&ExtendedKeyUsage<'_>> {
        self.certificate.extended_key_usage().ok().flatten().map(|extension| extension.value)
    }

    /// nameConstraints.
    #[must_use]
    pub fn name_constraints(&self) -> Option<&NameConstraints<'_>> {
        self.certificate.name_constraints().ok().flatten().map(|extension| extension.value)
    }

    /// Whether it may be an issuer: it says so, or it is self-issued and has no basicConstraints, as before they existed.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.basic_constraints().map_or_else(|| self.is_self_issued(), |constraints| constraints.ca)
    }
}

/// A time of a certificate.
#[must_use]
pub fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp::from_micros(time.timestamp().saturating_mul(1_000_000))
}

/// The extensions whose contents decide something here, with what people call them.
const KNOWN: [(x509_parser::oid_registry::Oid<'static>, &str); 5] = [
    (OID_X509_EXT_BASIC_CONSTRAINTS, "basic constraints"),
    (OID_X509_EXT_KEY_USAGE, "key usage"),
    (OID_X509_EXT_EXTENDED_KEY_USAGE, "extended key usage"),
    (OID_X509_EXT_SUBJECT_ALT_NAME, "subject alternative names"),
    (OID_X509_EXT_NAME_CONSTRAINTS, "name constraints"),
];

/// The arcs of id-ce (2.5.29) and of id-pe (1.3.6.1.5.5.7.1), in DER.
const STANDARD_EXTENSIONS: [&[u8]; 2] = [b"\x55\x1d", b"\x2b\x06\x01\x05\x05\x07\x01"];

const NOT_DER: &str = "is not written in DER (a length, a number or bits), so TLS libraries refuse it: get it from the CA again, \
                       and send it unchanged";

const TIMES_NOT_STRICT: &str = "has a validity that is not written as DER wants it (with seconds, without fractions, and with Z)";

/// Why bytes cannot be read as a certificate, which is a SEQUENCE of three values, and known by its two times.
fn unreadable(bytes: &[u8]) -> &'static str {
    let outer = Any::from_ber(bytes).ok().filter(|(_, outer)| outer.tag() == Tag::Sequence);
    if outer.and_then(|(_, outer)| der::values(outer.data)).is_none_or(|parts| parts.len() != 3) {
        return "holds no X.509 certificate";
    }
    if !der::is_strict(bytes) {
        return NOT_DER;
    }
    match times_are_strict(bytes) {
        Some(true) => "has a value that cannot be read, such as a date that does not exist",
        Some(false) => TIMES_NOT_STRICT,
        None => "holds no X.509 certificate",
    }
}

/// Each version has what it may have (RFC 5280, 4.1.2.1): libraries refuse others.
fn check_version(certificate: &X509Certificate<'_>) -> Result<(), String> {
    let (version, tbs) = (certificate.version, &certificate.tbs_certificate);
    let has_ids = tbs.issuer_uid.is_some() || tbs.subject_uid.is_some();
    if version.0 > X509Version::V3.0 {
        return Err(format!("is of version {}, and X.509 has three versions", u64::from(version.0) + 1));
    }
    if version != X509Version::V3 && !certificate.extensions().is_empty() {
        return Err(format!("has extensions, which version {} does not have", version.0 + 1));
    }
    if version == X509Version::V1 && has_ids {
        return Err("has unique identifiers, which version 1 does not have".to_owned());
    }
    Ok(())
}

/// No extension is there twice (RFC 5280, 4.2), and those that decide something can be read.
fn check_extensions(certificate: &X509Certificate<'_>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for extension in certificate.extensions() {
        let known = KNOWN.iter().find(|(oid, _)| *oid == extension.oid).map(|(_, name)| *name);
        if !seen.insert(&extension.oid) {
            let name = known.map_or_else(|| text::dotted(&extension.oid), str::to_owned);
            return Err(format!("has an extension twice ({name})"));
        }
        // What others made up need not be ASN.1.
        let is_standard = STANDARD_EXTENSIONS.iter().any(|arc| extension.oid.as_bytes().starts_with(arc));
        if is_standard && !der::is_strict(extension.value) {
            return Err(NOT_DER.to_owned());
        }
        if let Some(name) = known.filter(|_| extension.parsed_extension().error().is_some()) {
            return Err(format!("has an extension that cannot be read ({name})"));
        }
    }
    Ok(())
}

/// Whether both times of a certificate are written as RFC 5280, 4.1.2.5 says, or `None` if it has no two times. The parser reads other forms too.
fn times_are_strict(der: &[u8]) -> Option<bool> {
    let (_, tbs) = Any::from_der(der::one(der)?.data).ok()?;
    let fields = der::values(tbs.data)?;
    // version, which version 1 leaves out; serialNumber, signature, issuer, validity.
    let at = if fields.first()?.tag() == Tag(0) { 4 } else { 3 };
    let times = der::values(fields.get(at)?.data)?;
    let digits = |time: &Any<'_>| match time.tag() {
        Tag::UtcTime => Some(12),
        Tag::GeneralizedTime => Some(14),
        _ => None,
    };
    let digits: Vec<usize> = times.iter().map(digits).collect::<Option<_>>()?;
    let is_strict = |(time, digits): (&Any<'_>, usize)| {
        time.data.len() == digits + 1 && time.data.ends_with(b"Z") && time.data[..digits].iter().all(u8::is_ascii_digit)
    };
    (digits.len() == 2).then(|| times.iter().zip(digits).all(is_strict))
}
