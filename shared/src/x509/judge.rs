//! Whether certificates make a chain that fits a custom CSR: the checks, in the order of the contract's table.

use super::{
    algorithm::SignatureAlgorithm,
    certificate::details,
    chain::PemChain,
    issues::{POINTER, issue, other_key},
    keys::rsa_numbers,
    leaf_names::Names,
    parsed::Parsed,
    path::{Certificates, End, Path},
    pem,
    signature::RSA_MIN_BITS,
    text,
    trust_anchors::TrustAnchors,
    warnings::warnings,
};
use crate::{
    clock::Timestamp,
    codes::ErrorCode,
    custom_certificate::{BundleMethod, CertificateChain},
    issue::{Issue, Warning},
};

/// The custom CSR that a certificate must fit.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// SHA-256 of the custom CSR's SubjectPublicKeyInfo.
    pub spki_sha256: &'a [u8; 32],
    /// The custom CSR's SANs, as they were given.
    pub sans: &'a [String],
}

impl PemChain {
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
        let sent = self.readings().different();
        let leaf_index = leaf(sent, expected.spki_sha256, now)?;
        let leaf = &sent[leaf_index];
        let found_anchors = anchors.map(|anchors| anchors.of(sent)).unwrap_or_default();
        let certificates = Certificates::new(sent, leaf_index, &found_anchors, now);
        let is_forced = method == BundleMethod::Force;
        let path = if is_forced { certificates.forced(self.readings().order()) } else { certificates.best() };
        let signature = SignatureAlgorithm::of(&leaf.certificate);
        let signature =
            signature.map_err(|what| issue(ErrorCode::SignatureUnsupported, format!("{} is signed with {what}", leaf.label())))?;
        check_algorithms(&certificates, &path)?;
        check_validity(leaf, now)?;
        if let End::Broken(what) = &path.end {
            return Err(issue(ErrorCode::ChainBroken, what));
        }
        if let Some(what) = certificates.fault(&path) {
            return Err(issue(ErrorCode::NotForServers, what));
        }
        if anchors.is_some() {
            check_anchored(&certificates, &path, now)?;
        }
        let stored = if is_forced { path.sent.as_slice() } else { path.stored() };
        let names = Names::of(leaf);
        let warnings = warnings(self.readings(), &path, &names, expected.sans, method, now);
        let chain = CertificateChain {
            pem: stored.iter().map(|index| pem::encode("CERTIFICATE", sent[*index].der)).collect(),
            hosts: names.hosts(leaf),
            issuer: text::issuer(&leaf.certificate.issuer),
            signature: signature.name(),
            not_after: leaf.not_after,
            leaf: details(&leaf.certificate, leaf.der),
        };
        Ok((chain, warnings))
    }
}

/// The one leaf, which is for the expected key.
fn leaf(sent: &[Parsed<'_>], expected: &[u8; 32], now: Timestamp) -> Result<usize, Issue> {
    let is_expected = |index: &usize| sent[*index].key.sha256 == *expected;
    // A certificate for our key is a CA's only if it says so: our subject may equal the issuer's.
    let is_ca = |index: &usize| sent[*index].is_ca() && !(is_expected(index) && sent[*index].basic_constraints().is_none());
    let (cas, others): (Vec<usize>, Vec<usize>) = (0..sent.len()).partition(is_ca);
    if cas.iter().any(is_expected) && !others.iter().any(is_expected) {
        return Err(Issue::at(ErrorCode::CaForKey, POINTER));
    }
    // One that issued another is no leaf, whatever it says. A later check reports what it lacks.
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
                    "is the custom CSR's, but encoded differently than in the CSR: {how}; have the CA copy the key from the CSR as it is"
                ),
            )),
        },
        [_] => Err(other_key()),
        leaves => {
            let names: Vec<_> = leaves.iter().map(|index| sent[*index].label()).collect();
            Err(issue(ErrorCode::SeveralLeaves, names.join(", ")))
        }
    }
}

/// 1447 and 1478.
fn check_algorithms(certificates: &Certificates<'_>, path: &Path) -> Result<(), Issue> {
    if let End::Unsupported(what) = &path.end {
        return Err(issue(ErrorCode::SignatureUnsupported, what));
    }
    for (at, certificate) in certificates.whole(path).into_iter().enumerate() {
        let bits = rsa_numbers(certificate.spki()).map(|(modulus, _)| modulus.bits());
        if let Some(bits) = bits.filter(|bits| *bits < RSA_MIN_BITS) {
            let label = if at < path.sent.len() { certificate.label() } else { format!("the trust anchor {}", certificate.name()) };
            return Err(issue(ErrorCode::RsaKeyTooSmall, format!("that of {label} has {bits} bits")));
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
        leaf.invalidity(now)
    };
    Err(issue(ErrorCode::LeafNotValid, reason))
}

/// 1479.
fn check_anchored(certificates: &Certificates<'_>, path: &Path, now: Timestamp) -> Result<(), Issue> {
    let Some(anchored) = &path.anchored else {
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
    certificates.invalid(path, anchored.among).map_or(Ok(()), |intermediate| {
        let reason = format!("the intermediate {} {}", intermediate.label(), intermediate.invalidity(now));
        Err(issue(ErrorCode::NoTrustedPath, reason))
    })
}
