//! Uploaded certificates: what a chain is, and whether it fits a custom CSR.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use aws_lc_rs::digest;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    oid_registry::OID_PKCS1_RSASSAPSS,
    prelude::FromDer,
    public_key::{PublicKey, RSAPublicKey},
    x509::{SubjectPublicKeyInfo, X509Name},
};

use super::{
    san::dns_names,
    signature::{SignatureAlgorithm, is_signed_by},
};
use crate::{
    clock::Timestamp,
    error::{ErrorCode, Issue, Warning, WarningCode},
    model::{CertificateChain, LAST_SECOND},
    printable::is_printable,
};

/// The fewest bits of an RSA modulus.
const RSA_MIN_BITS: usize = 2048;
/// The most certificates of an upload: each costs a signature to verify.
const MAX_CERTIFICATES: usize = 10;
/// A certificate with less time left gets a warning.
const SOON: Duration = Duration::from_hours(14 * 24);

/// The member of the request body that everything here is about.
const POINTER: &str = "/certificate";

/// Certificates in PEM, not judged yet.
#[derive(Debug, Clone)]
pub struct PemChain(Vec<CertificateDer<'static>>);

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
pub struct TrustAnchors(Vec<TrustAnchor<'static>>);

/// Why a file holds no trust anchors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TrustAnchorsError(String);

impl TrustAnchors {
    /// Reads root certificates in PEM.
    ///
    /// # Errors
    ///
    /// Where there are none, or one of them cannot be read.
    pub fn parse(pem: &[u8]) -> Result<Self, TrustAnchorsError> {
        let certificates = certificates(pem).map_err(TrustAnchorsError)?;
        let anchor = |der: &CertificateDer<'static>| anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned());
        let anchors = certificates.iter().map(anchor).collect::<Result<_, _>>();
        anchors.map(Self).map_err(|error| TrustAnchorsError(format!("a certificate cannot be a trust anchor: {error}")))
    }
}

/// The certificates in a text, at least one, and nothing else in PEM.
fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let begun = text.windows(BEGIN.len()).filter(|window| *window == BEGIN).count();
    if begun == 0 {
        return Err("it has no PEM block".to_owned());
    }
    let blocks = pem::parse_many(text).map_err(|_| "a PEM block is broken".to_owned())?;
    if blocks.len() != begun {
        return Err("a PEM block is cut off".to_owned());
    }
    let der = |block: pem::Pem| match block.tag() {
        "CERTIFICATE" | "X509 CERTIFICATE" => {
            let der = CertificateDer::from(block.into_contents());
            parse(&der).map_or_else(|| Err("a PEM block holds no X.509 certificate".to_owned()), |_| Ok(der.clone()))
        }
        tag if tag.contains("PRIVATE KEY") => Err("it holds a private key, which is never uploaded".to_owned()),
        _ => Err("it holds something else than certificates".to_owned()),
    };
    blocks.into_iter().map(der).collect()
}

const BEGIN: &[u8] = b"-----BEGIN ";

/// The certificate, with nothing after it, and with the same signature algorithm at both its places (RFC 5280, 4.1.1.2).
fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    (rest.is_empty() && certificate.signature_algorithm == certificate.tbs_certificate.signature).then_some(certificate)
}

/// Text from a certificate as it is stored and shown: nothing that a database, a terminal or a line reader would act on.
fn printable(text: &str) -> String {
    text.chars().map(|c| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

fn issue(code: ErrorCode, reason: impl Into<String>) -> Issue {
    Issue::at(code, POINTER).because(reason)
}

impl PemChain {
    /// Reads certificates in PEM. Text around them is passed over.
    ///
    /// # Errors
    ///
    /// 1426.
    pub fn parse(pem: &str) -> Result<Self, Issue> {
        certificates(pem.as_bytes()).map(Self).map_err(|reason| issue(ErrorCode::CertificateUnparsable, reason))
    }

    /// The chain as an upload may have it: at most ten certificates, where one that repeats counts once. A root at the end that is sent
    /// several times is kept once; other repeats are left for [`PemChain::judge`] to refuse.
    ///
    /// # Errors
    ///
    /// 1426.
    pub fn bounded(mut self) -> Result<Self, Issue> {
        let is_root = |der: &CertificateDer<'_>| parse(der).is_some_and(|root| is_ca(&root) && is_self_issued(&root));
        self.0.dedup_by(|again, der| again == der && is_root(der));
        let different = self.0.iter().collect::<HashSet<_>>().len();
        if different > MAX_CERTIFICATES {
            let reason = format!("it holds {different} certificates, and at most {MAX_CERTIFICATES} are accepted");
            return Err(issue(ErrorCode::CertificateUnparsable, reason));
        }
        Ok(self)
    }

    /// Judges the certificates, in the order of the contract's table.
    ///
    /// # Errors
    ///
    /// The first of 1476, 1445, 1444, 1429, 1447, 1478, 1475, 1477 and 1479 that applies.
    pub fn judge(
        &self,
        expected: Expected<'_>,
        anchors: Option<&TrustAnchors>,
        now: Timestamp,
    ) -> Result<(CertificateChain, Vec<Warning>), Issue> {
        let chain: Vec<X509Certificate<'_>> = self.0.iter().filter_map(parse).collect();
        let leaf = leaf(&chain, expected.spki_sha256)?;
        let signature = signature_algorithms(&chain, leaf)?;
        rsa_sizes(&chain)?;
        let not_after = validity(leaf, now)?;
        links(&chain)?;
        if let Some(TrustAnchors(anchors)) = anchors {
            self.path(anchors, now)?;
        }
        let names = Names::of(leaf);
        let soon = now.plus(SOON) > not_after;
        let is_alone = chain.len() == 1 && anchors.is_none() && !is_self_issued(leaf);
        let warnings = [
            names.difference(expected.sans),
            is_alone.then(|| Warning::at(WarningCode::LeafAlone, POINTER)),
            soon.then(|| Warning::at(WarningCode::ExpiresSoon, POINTER)),
        ];
        let stored = CertificateChain {
            pem: self.pem(),
            hosts: names.hosts(leaf),
            issuer: issuer(&leaf.issuer),
            signature: signature.name(),
            not_after,
        };
        Ok((stored, warnings.into_iter().flatten().collect()))
    }

    /// SHA-256 of the first certificate's SubjectPublicKeyInfo.
    #[must_use]
    pub fn first_spki_sha256(&self) -> Option<[u8; 32]> {
        self.0.first().and_then(parse).and_then(|first| spki_sha256(&first))
    }

    /// The same certificates in the same order, without the text around them.
    #[must_use]
    pub fn pem(&self) -> String {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let blocks: Vec<_> = self.0.iter().map(|der| pem::Pem::new("CERTIFICATE", der.to_vec())).collect();
        blocks.iter().map(|block| pem::encode_config(block, config)).collect()
    }

    /// A path from the leaf to a trust anchor (RFC 5280, section 6).
    fn path(&self, anchors: &[TrustAnchor<'_>], now: Timestamp) -> Result<(), Issue> {
        let Some((leaf, others)) = self.0.split_first() else { return Err(Issue::at(ErrorCode::NoLeaf, POINTER)) };
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.secs()).unwrap_or_default()));
        let verified = EndEntityCert::try_from(leaf).and_then(|leaf| {
            leaf.verify_for_usage(ALL_VERIFICATION_ALGS, anchors, others, time, KeyUsage::server_auth(), None, None).map(drop)
        });
        verified.map_err(|error| issue(ErrorCode::NoTrustedPath, error.to_string()))
    }
}

fn subject(certificate: &X509Certificate<'_>) -> String {
    printable(&certificate.subject.to_string())
}

fn is_ca(certificate: &X509Certificate<'_>) -> bool {
    certificate.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca)
}

fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject.as_raw() == certificate.issuer.as_raw()
}

fn spki_sha256(certificate: &X509Certificate<'_>) -> Option<[u8; 32]> {
    digest::digest(&digest::SHA256, certificate.public_key().raw).as_ref().try_into().ok()
}

/// The one leaf, which is for the expected key.
fn leaf<'a, 'b>(chain: &'a [X509Certificate<'b>], expected: &[u8; 32]) -> Result<&'a X509Certificate<'b>, Issue> {
    let (cas, leaves): (Vec<_>, Vec<_>) = chain.iter().partition(|certificate| is_ca(certificate));
    let is_expected = |certificate: &&X509Certificate<'_>| spki_sha256(certificate).as_ref() == Some(expected);
    if cas.iter().any(is_expected) && !leaves.iter().any(is_expected) {
        return Err(Issue::at(ErrorCode::CaForKey, POINTER));
    }
    match leaves.as_slice() {
        [] => Err(Issue::at(ErrorCode::NoLeaf, POINTER)),
        [leaf] if is_expected(leaf) => Ok(leaf),
        [_] => Err(Issue::at(ErrorCode::CertificateKeyMismatch, POINTER)),
        _ => Err(Issue::at(ErrorCode::SeveralLeaves, POINTER)),
    }
}

/// The leaf's algorithm, if all are supported. That of a root at the end is not looked at: nobody verifies its own signature.
fn signature_algorithms(chain: &[X509Certificate<'_>], leaf: &X509Certificate<'_>) -> Result<SignatureAlgorithm, Issue> {
    let is_root =
        |index: usize, certificate: &X509Certificate<'_>| index + 1 == chain.len() && is_ca(certificate) && is_self_issued(certificate);
    let unsupported = |name| issue(ErrorCode::SignatureUnsupported, name);
    for (_, certificate) in chain.iter().enumerate().filter(|(index, certificate)| !is_root(*index, certificate)) {
        SignatureAlgorithm::of(certificate).map_err(unsupported)?;
    }
    SignatureAlgorithm::of(leaf).map_err(unsupported)
}

fn rsa_sizes(chain: &[X509Certificate<'_>]) -> Result<(), Issue> {
    for certificate in chain {
        if let Some(bits) = rsa_bits(certificate.public_key()).filter(|bits| *bits < RSA_MIN_BITS) {
            return Err(issue(ErrorCode::RsaKeyTooSmall, format!("that of {} has {bits} bits", subject(certificate))));
        }
    }
    Ok(())
}

/// The bits of an RSA modulus; none where the key is of another kind. An RSA key may be one for RSASSA-PSS alone.
fn rsa_bits(key: &SubjectPublicKeyInfo<'_>) -> Option<usize> {
    let modulus = match key.parsed() {
        Ok(PublicKey::RSA(key)) => key.modulus,
        _ if key.algorithm.algorithm == OID_PKCS1_RSASSAPSS => RSAPublicKey::from_der(&key.subject_public_key.data).ok()?.1.modulus,
        _ => return None,
    };
    let significant = &modulus[modulus.iter().take_while(|byte| **byte == 0).count()..];
    Some(significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize))
}

/// The leaf's notAfter, if it is valid now.
fn validity(leaf: &X509Certificate<'_>, now: Timestamp) -> Result<Timestamp, Issue> {
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_micros(time.timestamp().saturating_mul(1_000_000));
    let (not_before, not_after) = (at(leaf.validity.not_before), at(leaf.validity.not_after));
    if now < not_before {
        return Err(issue(ErrorCode::LeafNotValid, format!("is not valid before {}", not_before.rfc3339())));
    }
    if now >= not_after.plus(LAST_SECOND) {
        return Err(issue(ErrorCode::LeafNotValid, format!("expired at {}", not_after.rfc3339())));
    }
    Ok(not_after)
}

/// Each certificate is signed by the next, and none is there twice: what is verified here is bounded by the different ones.
fn links(chain: &[X509Certificate<'_>]) -> Result<(), Issue> {
    let mut first = HashMap::new();
    for (index, certificate) in chain.iter().enumerate() {
        if let Some(earlier) = first.insert(certificate.as_ref(), index) {
            let reason = format!("certificate {} ({}) is certificate {} again", index + 1, subject(certificate), earlier + 1);
            return Err(issue(ErrorCode::ChainBroken, reason));
        }
    }
    for (index, pair) in chain.windows(2).enumerate() {
        let [certificate, next] = pair else { continue };
        let place = || {
            format!("certificate {} ({}) was not issued by certificate {} ({})", index + 1, subject(certificate), index + 2, subject(next))
        };
        if !is_ca(next) || certificate.issuer.as_raw() != next.subject.as_raw() || !is_signed_by(certificate, next.public_key()) {
            return Err(issue(ErrorCode::ChainBroken, place()));
        }
    }
    Ok(())
}

/// What people know an issuer by.
fn issuer(name: &X509Name<'_>) -> String {
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(printable);
    let known = name.iter_organization().chain(name.iter_common_name()).find_map(text);
    known.unwrap_or_else(|| printable(&name.to_string()))
}

/// A leaf's subject alternative names.
struct Names {
    /// In lower case.
    dns: Vec<String>,
    /// IP addresses and the like.
    others: Vec<String>,
}

impl Names {
    fn of(leaf: &X509Certificate<'_>) -> Self {
        let (mut dns, mut others) = (Vec::new(), Vec::new());
        let names = leaf.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => dns.push(printable(&name.to_ascii_lowercase())),
                GeneralName::IPAddress(bytes) => others.push(ip_address(bytes)),
                other => others.push(printable(&other.to_string())),
            }
        }
        Self { dns, others }
    }

    /// DNS names, as TLS clients match them; without any, the common name.
    fn hosts(self, leaf: &X509Certificate<'_>) -> Vec<String> {
        if !self.dns.is_empty() {
            return self.dns;
        }
        leaf.subject.iter_common_name().filter_map(|name| name.as_str().ok()).map(printable).collect()
    }

    /// What was added to the CSR's names, and what is missing of them.
    fn difference(&self, sans: &[String]) -> Option<Warning> {
        let here: BTreeSet<&String> = self.dns.iter().chain(&self.others).collect();
        let wanted = dns_names(sans);
        let wanted: BTreeSet<&String> = wanted.iter().collect();
        let list = |word: &str, names: Vec<&&String>| {
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            (!names.is_empty()).then(|| format!("{word} {}", names.join(", ")))
        };
        let parts = [list("added", here.difference(&wanted).collect()), list("missing", wanted.difference(&here).collect())];
        let reason = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
        (!reason.is_empty()).then(|| Warning { reason: Some(reason), ..Warning::at(WarningCode::CertificateSansDiffer, POINTER) })
    }
}

fn ip_address(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return std::net::Ipv4Addr::from(v4).to_string();
    }
    <[u8; 16]>::try_from(bytes).map_or_else(|_| "an IP address".to_owned(), |v6| std::net::Ipv6Addr::from(v6).to_string())
}
