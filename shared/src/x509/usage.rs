//! Whether TLS clients would accept a path for a server: usages, constraints, and unknown critical extensions.

use x509_parser::{
    extensions::ExtendedKeyUsage,
    oid_registry::{Oid, asn1_rs::oid},
};

use super::{constraints, keys::rsa_numbers, parsed::Parsed, text};

/// Extensions that clients know, as the last number under id-ce (2.5.29).
const KNOWN_OF_ID_CE: [u64; 15] = [9, 14, 15, 17, 18, 19, 30, 31, 32, 33, 35, 36, 37, 46, 54];
/// Others that clients know: access descriptions, the TLS feature, no check of OCSP, Netscape's certificate type, and signed timestamps.
const KNOWN_ELSEWHERE: [Oid<'static>; 6] = [
    oid!(1.3.6.1.5.5.7.1.1),
    oid!(1.3.6.1.5.5.7.1.11),
    oid!(1.3.6.1.5.5.7.1.24),
    oid!(1.3.6.1.5.5.7.48.1.5),
    oid!(2.16.840.1.113730.1.1),
    oid!(1.3.6.1.4.1.11129.2.4.2),
];
/// The poison of precertificates (RFC 6962, 3.1).
const POISON: Oid<'static> = oid!(1.3.6.1.4.1.11129.2.4.3);

/// Why no client would accept the path, the leaf first.
#[must_use]
pub fn fault(path: &[&Parsed<'_>]) -> Option<String> {
    let (leaf, issuers) = path.split_first()?;
    let of_leaf = || leaf_fault(leaf).map(|what| format!("the certificate {what}"));
    let of_issuer = |(index, issuer): (usize, &&Parsed<'_>)| {
        issuer_fault(issuer, &path[..=index]).map(|what| format!("the CA certificate {} {what}", issuer.name()))
    };
    of_leaf().or_else(|| issuers.iter().enumerate().find_map(of_issuer))
}

fn leaf_fault(leaf: &Parsed<'_>) -> Option<String> {
    if let Some(what) = critical(leaf) {
        return Some(what);
    }
    if let Some(usage) = leaf.key_usage() {
        let is_rsa = rsa_numbers(leaf.spki()).is_some();
        if !(usage.digital_signature() || is_rsa && usage.key_encipherment()) {
            let wanted = if is_rsa { "digital signature or key encipherment" } else { "digital signature" };
            return Some(format!("has a key usage without {wanted}"));
        }
    }
    foreign_purpose(leaf)
}

/// What is wrong with an issuer of the certificates `under` it, the leaf first.
fn issuer_fault(issuer: &Parsed<'_>, under: &[&Parsed<'_>]) -> Option<String> {
    if !issuer.is_ca() {
        return Some("may not sign certificates: its basic constraints do not say that it is a CA".to_owned());
    }
    if issuer.key_usage().is_some_and(|usage| !usage.key_cert_sign()) {
        return Some("may not sign certificates: its key usage does not say so".to_owned());
    }
    let between = under.iter().skip(1).filter(|certificate| !certificate.is_self_issued()).count();
    if let Some(most) = issuer.basic_constraints().and_then(|constraints| constraints.path_len_constraint)
        && between > usize::try_from(most).unwrap_or(usize::MAX)
    {
        return Some(format!("has {between} CAs between it and the leaf, and its path length allows {most}"));
    }
    critical(issuer).or_else(|| foreign_purpose(issuer)).or_else(|| forbidden_name(issuer, under))
}

/// A critical extension that clients do not know.
fn critical(certificate: &Parsed<'_>) -> Option<String> {
    let is_known = |oid: &Oid<'_>| {
        let arcs: Option<Vec<u64>> = oid.iter().map(Iterator::collect);
        matches!(arcs.as_deref(), Some([2, 5, 29, last]) if KNOWN_OF_ID_CE.contains(last)) || KNOWN_ELSEWHERE.contains(oid)
    };
    let extensions = certificate.certificate.extensions().iter().filter(|extension| extension.critical);
    let unknown = extensions.map(|extension| &extension.oid).find(|oid| !is_known(oid))?;
    Some(if *unknown == POISON {
        "is a precertificate, which a CA makes for the logs of Certificate Transparency alone".to_owned()
    } else {
        format!("has a critical extension that clients do not know ({})", text::dotted(unknown))
    })
}

/// An extended key usage without servers.
fn foreign_purpose(certificate: &Parsed<'_>) -> Option<String> {
    let usage = certificate.extended_key_usage().filter(|usage| !usage.any && !usage.server_auth)?;
    Some(format!("has an extended key usage without TLS servers in it (it is for {})", purposes(usage)))
}

fn purposes(usage: &ExtendedKeyUsage<'_>) -> String {
    let named = [
        (usage.client_auth, "TLS clients"),
        (usage.code_signing, "code signing"),
        (usage.email_protection, "mail"),
        (usage.time_stamping, "time stamps"),
        (usage.ocsp_signing, "OCSP answers"),
    ];
    let mut words: Vec<String> = named.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name.to_owned()).collect();
    if !usage.other.is_empty() {
        words.push("something else".to_owned());
    }
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

/// A name under an issuer that its name constraints forbid.
fn forbidden_name(issuer: &Parsed<'_>, under: &[&Parsed<'_>]) -> Option<String> {
    let constraints = issuer.name_constraints()?;
    let (leaf, others) = under.split_first()?;
    // RFC 5280, 6.1.4: a CA's rollover certificates are not held against it.
    let mut bound = std::iter::once(leaf).chain(others.iter().filter(|certificate| !certificate.is_self_issued()));
    let name = bound.find_map(|certificate| constraints::violation(constraints, certificate))?;
    Some(format!("has name constraints that forbid {name}"))
}
