//! Uploaded certificates: which of them make a chain, and whether it fits a custom CSR.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use aws_lc_rs::digest;
use num_bigint::BigUint;
use rustls_pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, oid_registry::OID_X509_COMMON_NAME, prelude::FromDer};

use super::{
    distinguished_name::ComparableName,
    formats::{self, Fault},
    keys::rsa_numbers,
    parsed::{Parsed, timestamp},
    path::{Certificates, End, Path},
    pem,
    signature::{RSA_MIN_BITS, SignatureAlgorithm},
    text, usage,
};
use crate::{
    clock::Timestamp,
    codes::{ErrorCode, WarningCode},
    custom_certificate::{BundleMethod, CertificateChain, LeafDetails},
    issue::{Issue, Warning},
    names::san::dns_names,
    printable::hex,
};

/// The most certificates of an upload, each counted once: each costs signatures to verify.
const MAX_CERTIFICATES: usize = 10;
/// A leaf with less time left than this, or than a part of its lifetime, gets a warning.
const SOON: Duration = Duration::from_hours(14 * 24);
/// That part: a fifth.
const SOON_PART: i64 = 5;

/// The member of the request body that everything here is about.
const POINTER: &str = "/certificate";

/// Certificates that were sent and can be read, not judged yet.
#[derive(Debug, Clone)]
pub struct PemChain {
    /// Each of them once, with its place among those that were sent, from 1.
    different: Vec<(usize, CertificateDer<'static>)>,
    /// All of them, as indexes.
    order: Vec<usize>,
}

/// What a certificate has to fit.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// SHA-256 of the custom CSR's SubjectPublicKeyInfo.
    pub spki_sha256: &'a [u8; 32],
    /// The custom CSR's SANs, as they were given.
    pub sans: &'a [String],
}

/// The roots that chains have to lead to.
#[derive(Debug, Clone)]
pub struct TrustAnchors(Vec<(ComparableName, CertificateDer<'static>)>);

/// Why a file holds no trust anchors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TrustAnchorsError(String);

impl TrustAnchors {
    /// Reads root certificates, in any form in which certificates are uploaded.
    ///
    /// # Errors
    ///
    /// Where there are none, or one of them cannot be read.
    pub fn parse(pem: &[u8]) -> Result<Self, TrustAnchorsError> {
        let certificates = formats::certificates(&String::from_utf8_lossy(pem)).map_err(|fault| {
            TrustAnchorsError(match fault {
                Fault::PrivateKey => "it holds a private key".to_owned(),
                Fault::Unreadable(reason) => reason,
            })
        })?;
        let named = |der: CertificateDer<'static>| Ok((Parsed::read(0, &der).map_err(TrustAnchorsError)?.subject, der));
        certificates.into_iter().map(named).collect::<Result<_, _>>().map(Self)
    }

    /// Those that bear the name of an issuer of these certificates.
    fn of<'a>(&'a self, certificates: &[Parsed<'_>]) -> Vec<Parsed<'a>> {
        let issuers: HashSet<_> = certificates.iter().map(|certificate| &certificate.issuer).collect();
        self.0.iter().filter(|(subject, _)| issuers.contains(subject)).filter_map(|(_, der)| Parsed::read(0, der).ok()).collect()
    }
}

fn issue(code: ErrorCode, reason: impl Into<String>) -> Issue {
    Issue::at(code, POINTER).because(reason)
}

fn warning(code: WarningCode, reason: impl Into<String>) -> Warning {
    Warning { reason: Some(reason.into()), ..Warning::at(code, POINTER) }
}

impl PemChain {
    /// Reads certificates in any form in which they are accepted.
    ///
    /// # Errors
    ///
    /// 1473 where there is a private key among them, and 1426.
    pub fn parse(text: &str) -> Result<Self, Issue> {
        let certificates = formats::certificates(text).map_err(|fault| match fault {
            Fault::PrivateKey => private_key_refused(),
            Fault::Unreadable(reason) => issue(ErrorCode::CertificateUnparsable, reason),
        })?;
        let mut chain = Self { different: Vec::new(), order: Vec::new() };
        for (place, der) in (1..).zip(certificates) {
            let known = chain.different.iter().position(|(_, known)| *known == der);
            chain.order.push(known.unwrap_or(chain.different.len()));
            if known.is_none() {
                chain.different.push((place, der));
            }
        }
        Ok(chain)
    }

    /// The same, where an upload may have so many: at most ten, of which one that repeats counts once.
    ///
    /// # Errors
    ///
    /// 1426.
    pub fn bounded(self) -> Result<Self, Issue> {
        let count = self.different.len();
        if count > MAX_CERTIFICATES {
            let reason = format!(
                "it holds {count} certificates, and at most {MAX_CERTIFICATES} are accepted; leave out what is neither the leaf nor an \
                 intermediate"
            );
            return Err(issue(ErrorCode::CertificateUnparsable, reason));
        }
        Ok(self)
    }

    /// The same certificates in the same order, in the encoding in which chains are stored.
    #[must_use]
    pub fn pem(&self) -> String {
        self.order.iter().map(|index| pem::encode("CERTIFICATE", &self.different[*index].1)).collect()
    }

    fn parsed(&self) -> Vec<Parsed<'_>> {
        self.different.iter().filter_map(|(place, der)| Parsed::read(*place, der).ok()).collect()
    }

    /// SHA-256 of the SubjectPublicKeyInfo of each certificate that says that it is no CA's, in the encoding that CSRs made here have.
    #[must_use]
    pub fn leaf_keys(&self) -> Vec<[u8; 32]> {
        let says_ca = |certificate: &Parsed<'_>| certificate.basic_constraints().is_some_and(|constraints| constraints.ca);
        self.parsed().iter().filter(|certificate| !says_ca(certificate)).map(|certificate| certificate.key.sha256).collect()
    }

    /// Judges the certificates, in the order of the contract's table.
    ///
    /// # Errors
    ///
    /// The first of 1476, 1445, 1444, 1429, 1447, 1478, 1475, 1477, 1484 and 1479 that applies.
    pub fn judge(
        &self,
        expected: Expected<'_>,
        anchors: Option<&TrustAnchors>,
        method: BundleMethod,
        now: Timestamp,
    ) -> Result<(CertificateChain, Vec<Warning>), Issue> {
        let sent = self.parsed();
        let leaf_index = leaf(&sent, expected.spki_sha256, now)?;
        let leaf = &sent[leaf_index];
        let found_anchors = anchors.map(|anchors| anchors.of(&sent)).unwrap_or_default();
        let certificates = Certificates::new(&sent, leaf_index, &found_anchors, now);
        let is_forced = method == BundleMethod::Force;
        let path = if is_forced { certificates.forced(&self.order) } else { certificates.best() };
        let signature = SignatureAlgorithm::of(&leaf.certificate);
        let signature =
            signature.map_err(|what| issue(ErrorCode::SignatureUnsupported, format!("{} is signed with {what}", leaf.label())))?;
        check_algorithms(&sent, &path)?;
        check_validity(leaf, now)?;
        if let End::Broken(what) = &path.end {
            return Err(issue(ErrorCode::ChainBroken, what));
        }
        if let Some(what) = usage::fault(&certificates.whole(&path)) {
            return Err(issue(ErrorCode::NotForServers, what));
        }
        if anchors.is_some() {
            check_anchored(&certificates, &path, now)?;
        }
        let stored = if is_forced { path.sent.as_slice() } else { path.stored() };
        let stored: Vec<&Parsed<'_>> = stored.iter().map(|index| &sent[*index]).collect();
        let names = Names::of(leaf);
        let mut warnings = vec![names.difference(expected.sans), names.nothing_for_browsers()];
        if !is_forced {
            warnings.extend([order_changed(&sent, &path), self.left_out(&sent, &path)]);
        }
        let outlived = path.stored().iter().skip(1).map(|index| &sent[*index]);
        warnings.extend([lacks_intermediate(&sent, &path), outlives(leaf, outlived, now), expires_soon(leaf, now)]);
        let chain = CertificateChain {
            pem: stored.iter().map(|certificate| pem::encode("CERTIFICATE", certificate.der)).collect(),
            hosts: names.hosts(leaf),
            issuer: text::issuer(&leaf.certificate.issuer),
            signature: signature.name(),
            not_after: leaf.not_after,
            leaf: details(&leaf.certificate, leaf.der),
        };
        let mut warnings: Vec<Warning> = warnings.into_iter().flatten().collect();
        warnings.sort_by_key(|warning| warning.code);
        Ok((chain, warnings))
    }

    /// What was sent and is not stored, or was sent twice.
    fn left_out(&self, sent: &[Parsed<'_>], path: &Path) -> Option<Warning> {
        let strangers = (0..sent.len()).filter(|index| !path.sent.contains(index)).map(|index| sent[index].label());
        let repeats = (0..sent.len()).filter(|index| self.order.iter().filter(|other| *other == index).count() > 1);
        let repeats = repeats.map(|index| format!("what repeats {}", sent[index].label()));
        let all: Vec<String> = strangers.chain(repeats).collect();
        (!all.is_empty()).then(|| warning(WarningCode::CertificatesLeftOut, all.join("; ")))
    }

    /// SHA-256 of the first certificate's SubjectPublicKeyInfo, in the encoding that CSRs made here have.
    #[must_use]
    pub fn first_spki_sha256(&self) -> Option<[u8; 32]> {
        let (place, der) = self.different.first()?;
        Parsed::read(*place, der).ok().map(|first| first.key.sha256)
    }
}

fn details(leaf: &X509Certificate<'_>, der: &[u8]) -> LeafDetails {
    LeafDetails {
        not_before: timestamp(leaf.validity.not_before),
        serial_number: serial_number(leaf.raw_serial()),
        fingerprint_sha256: hex(digest::digest(&digest::SHA256, der).as_ref()),
    }
}

/// What is shown of the leaf of a chain that is stored; none where it cannot be read. What was accepted once is not judged again.
#[must_use]
pub fn leaf_details(chain_pem: &str) -> Option<LeafDetails> {
    let blocks = pem::blocks(chain_pem).ok()?;
    let der = &blocks.first()?.der;
    X509Certificate::from_der(der).ok().map(|(_, leaf)| details(&leaf, der))
}

/// A serial number in hexadecimal. RFC 5280 forbids negative ones, and some CAs write them.
fn serial_number(octets: &[u8]) -> String {
    let is_negative = octets.first().is_some_and(|first| first & 0x80 != 0);
    let number = BigUint::from_bytes_be(octets);
    let magnitude = if is_negative { (BigUint::from(1_u8) << (8 * octets.len())) - number } else { number };
    format!("{}{}", if is_negative { "-" } else { "" }, hex(&magnitude.to_bytes_be()))
}

/// 1473 for a private key among the certificates.
#[must_use]
pub fn private_key_refused() -> Issue {
    issue(
        ErrorCode::PrivateKeyRefused,
        "Remove it from certificate, and consider this key exposed: do not use it again, and have certificates for it revoked.",
    )
}

/// The one leaf, which is for the expected key.
fn leaf(sent: &[Parsed<'_>], expected: &[u8; 32], now: Timestamp) -> Result<usize, Issue> {
    let is_expected = |index: &usize| sent[*index].key.sha256 == *expected;
    // A certificate for our key is a CA's only where it says so: our subject may well be the issuer's.
    let is_ca = |index: &usize| sent[*index].is_ca() && !(is_expected(index) && sent[*index].basic_constraints().is_none());
    let (cas, others): (Vec<usize>, Vec<usize>) = (0..sent.len()).partition(is_ca);
    if cas.iter().any(is_expected) && !others.iter().any(is_expected) {
        return Err(Issue::at(ErrorCode::CaForKey, POINTER));
    }
    // One that issued another is no leaf, whatever it says: what it lacks is said later.
    let signatures = Certificates::new(sent, 0, &[], now);
    let issued_another = |index: &usize| others.iter().any(|other| other != index && signatures.issued(*index, *other));
    let leaves: Vec<usize> = others.iter().copied().filter(|index| !issued_another(index)).collect();
    match if leaves.is_empty() { &others } else { &leaves }.as_slice() {
        [] => Err(Issue::at(ErrorCode::NoLeaf, POINTER)),
        [leaf] if is_expected(leaf) => match sent[*leaf].key.forbidden {
            None => Ok(*leaf),
            Some(how) => Err(issue(
                ErrorCode::CertificateKeyMismatch,
                format!(
                    "is the custom CSR's, but encoded otherwise than in the CSR: {how}; have the CA copy the key from the CSR as it is"
                ),
            )),
        },
        [_] => Err(issue(
            ErrorCode::CertificateKeyMismatch,
            "is not the custom CSR's; send the certificate that the CA issued for its CSR, or the ID of the custom CSR that it was issued for",
        )),
        leaves => {
            let names: Vec<_> = leaves.iter().map(|index| sent[*index].label()).collect();
            Err(issue(ErrorCode::SeveralLeaves, names.join(", ")))
        }
    }
}

/// 1447 and 1478.
fn check_algorithms(sent: &[Parsed<'_>], path: &Path) -> Result<(), Issue> {
    if let End::Unsupported(what) = &path.end {
        return Err(issue(ErrorCode::SignatureUnsupported, what));
    }
    for certificate in path.sent.iter().map(|index| &sent[*index]) {
        let bits = rsa_numbers(certificate.spki()).map(|(modulus, _)| modulus.bits());
        if let Some(bits) = bits.filter(|bits| *bits < RSA_MIN_BITS) {
            return Err(issue(ErrorCode::RsaKeyTooSmall, format!("that of {} has {bits} bits", certificate.label())));
        }
    }
    Ok(())
}

/// 1475.
fn check_validity(leaf: &Parsed<'_>, now: Timestamp) -> Result<(), Issue> {
    let (not_before, not_after) = (leaf.not_before, leaf.not_after);
    if leaf.is_valid(now) {
        return Ok(());
    }
    let reason = if not_after < not_before {
        format!("is never valid: it ends at {}, before it begins at {}", not_after.rfc3339(), not_before.rfc3339())
    } else {
        invalidity(leaf, now)
    };
    Err(issue(ErrorCode::LeafNotValid, reason))
}

/// Why a certificate is not valid now.
fn invalidity(certificate: &Parsed<'_>, now: Timestamp) -> String {
    if now < certificate.not_before {
        format!("is not valid before {}", certificate.not_before.rfc3339())
    } else {
        format!("expired at {}", certificate.not_after.rfc3339())
    }
}

/// 1479.
fn check_anchored(certificates: &Certificates<'_>, path: &Path, now: Timestamp) -> Result<(), Issue> {
    let Some(anchored) = path.anchored else {
        let whole = certificates.whole(path);
        let Some(last) = whole.last() else { return Ok(()) };
        let reason = if path.end == End::Root && whole.len() > 1 {
            format!("it ends at {}, which is none", last.name())
        } else {
            format!(
                "the issuer of {} is neither among the certificates nor a trust anchor: {}",
                last.label(),
                text::name(&last.certificate.issuer)
            )
        };
        return Err(issue(ErrorCode::NoTrustedPath, reason));
    };
    certificates.invalid(path, anchored).map_or(Ok(()), |intermediate| {
        let reason = format!("the intermediate {} {}", intermediate.label(), invalidity(intermediate, now));
        Err(issue(ErrorCode::NoTrustedPath, reason))
    })
}

/// 2003: nothing follows where something ought to.
fn lacks_intermediate(sent: &[Parsed<'_>], path: &Path) -> Option<Warning> {
    let is_on_path = |certificate: &Parsed<'_>| path.sent.iter().any(|index| sent[*index].subject == certificate.subject);
    // A CA of another name that fits nowhere shows that the path was to go on.
    let goes_on = || sent.iter().any(|certificate| certificate.is_ca() && !is_on_path(certificate));
    let last = &sent[*path.sent.last()?];
    (path.end == End::Open && path.anchored.is_none() && (path.sent.len() == 1 || goes_on()))
        .then(|| warning(WarningCode::IntermediateMissing, text::name(&last.certificate.issuer)))
}

/// 2004.
fn expires_soon(leaf: &Parsed<'_>, now: Timestamp) -> Option<Warning> {
    let micros = |from: Timestamp, to: Timestamp| to.micros().saturating_sub(from.micros());
    let soon = i64::try_from(SOON.as_micros()).unwrap_or(i64::MAX).min(micros(leaf.not_before, leaf.not_after) / SOON_PART);
    (micros(now, leaf.not_after) < soon).then(|| warning(WarningCode::ExpiresSoon, leaf.not_after.rfc3339()))
}

/// 2007.
fn order_changed(sent: &[Parsed<'_>], path: &Path) -> Option<Warning> {
    let places: Vec<usize> = path.sent.iter().map(|index| sent[*index].place).collect();
    let text = || places.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    (!places.is_sorted()).then(|| warning(WarningCode::OrderChanged, text()))
}

/// 2009.
fn outlives<'a>(leaf: &Parsed<'_>, intermediates: impl Iterator<Item = &'a Parsed<'a>>, now: Timestamp) -> Option<Warning> {
    let said = |certificate: &Parsed<'_>| {
        if !certificate.is_valid(now) {
            return Some(format!("{} {}", certificate.label(), invalidity(certificate, now)));
        }
        (certificate.not_after < leaf.not_after)
            .then(|| format!("{} expires at {}, before the leaf", certificate.label(), certificate.not_after.rfc3339()))
    };
    let all: Vec<String> = intermediates.filter_map(said).collect();
    (!all.is_empty()).then(|| warning(WarningCode::LeafOutlives, all.join("; ")))
}

/// A leaf's subject alternative names.
struct Names {
    /// In lower case.
    dns: Vec<String>,
    /// IP addresses, as they are written.
    addresses: Vec<String>,
    /// Mail addresses and the like, with their kind: one that reads like a DNS name is none.
    others: Vec<String>,
}

impl Names {
    fn of(leaf: &Parsed<'_>) -> Self {
        let mut sorted = Self { dns: Vec::new(), addresses: Vec::new(), others: Vec::new() };
        let names = leaf.certificate.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(_) => sorted.dns.push(text::general_name(name).to_ascii_lowercase()),
                GeneralName::IPAddress(_) => sorted.addresses.push(text::general_name(name)),
                _ => sorted.others.push(text::general_name(name)),
            }
        }
        sorted
    }

    /// DNS names, as TLS clients match them; without any, the common name.
    fn hosts(self, leaf: &Parsed<'_>) -> Vec<String> {
        if self.dns.is_empty() { text::strings(&leaf.certificate.subject, OID_X509_COMMON_NAME).collect() } else { self.dns }
    }

    /// 2010.
    fn nothing_for_browsers(&self) -> Option<Warning> {
        let is_plausible = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte));
        (!self.dns.iter().any(is_plausible) && self.addresses.is_empty()).then(|| Warning::at(WarningCode::NoSubjectAltName, POINTER))
    }

    /// 2002: what was added to the CSR's names, and what is missing of them.
    fn difference(&self, sans: &[String]) -> Option<Warning> {
        let here: BTreeSet<&String> = self.dns.iter().collect();
        let wanted = dns_names(sans);
        let wanted: BTreeSet<&String> = wanted.iter().collect();
        let list = |word: &str, names: Vec<&String>| {
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            (!names.is_empty()).then(|| format!("{word} {}", names.join(", ")))
        };
        let parts = [
            list("added", here.difference(&wanted).copied().chain(&self.addresses).chain(&self.others).collect()),
            list("missing", wanted.difference(&here).copied().collect()),
        ];
        let reason = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
        (!reason.is_empty()).then(|| warning(WarningCode::CertificateSansDiffer, reason))
    }
}
