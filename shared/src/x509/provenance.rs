//! Where a chain comes from: who issued its certificates, and with which keys. For searches over stored chains; nothing is validated here.

use x509_parser::{certificate::X509Certificate, prelude::FromDer, x509::SubjectPublicKeyInfo};

use super::{
    keys::Key,
    parsed::timestamp,
    pem::{self, Block},
    signature::{Verdict, is_signed_by},
    text,
};
use crate::{clock::Timestamp, printable::hex};

/// The origin of a chain.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// The full name of each certificate's issuer.
    pub issuers: Vec<String>,
    /// The leaf's notBefore.
    pub not_before: Timestamp,
    certificates: Vec<Block>,
}

impl Provenance {
    /// Parses a stored chain, the leaf first, or returns `None`.
    #[must_use]
    pub fn of(chain_pem: &str) -> Option<Self> {
        let certificates = pem::blocks(chain_pem).ok()?;
        let parsed = certificates.iter().map(parsed).collect::<Option<Vec<_>>>()?;
        let issuers = parsed.iter().map(|certificate| text::whole(&certificate.issuer)).collect();
        let not_before = timestamp(parsed.first()?.validity.not_before);
        Some(Self { issuers, not_before, certificates })
    }

    /// Whether a certificate of the chain is for this key, or was signed with it. It checks the signatures, since names and key identifiers of
    /// issuers may be missing, and the root need not be in the chain.
    #[must_use]
    pub fn involves(&self, key: &KnownKey) -> bool {
        let Ok((_, spki)) = SubjectPublicKeyInfo::from_der(&key.spki) else { return false };
        let mut parsed = self.certificates.iter().filter_map(parsed);
        parsed.any(|certificate| {
            Key::of(certificate.public_key()).sha256 == key.sha256 || is_signed_by(&certificate, &spki) == Verdict::Signed
        })
    }
}

fn parsed(block: &Block) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(&block.der).ok().map(|(_, parsed)| parsed)
}

/// A public key to search for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// SHA-256 of the SubjectPublicKeyInfo in the encoding that CSRs made here have.
    sha256: [u8; 32],
    /// The SubjectPublicKeyInfo, DER.
    spki: Vec<u8>,
}

impl KnownKey {
    /// The key of a file: a public key, or a certificate for it, in PEM or DER.
    ///
    /// # Errors
    ///
    /// What is wrong with the file: the end of a sentence that begins with its name.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let expected = || "holds neither a public key nor a certificate, in PEM or DER".to_owned();
        let text = String::from_utf8_lossy(bytes);
        if pem::has_private_key(&text) {
            return Err("holds a private key: give the public key, or a certificate for it".to_owned());
        }
        let blocks = pem::blocks(&pem::normalized(&text))?;
        match blocks.as_slice() {
            [] => Self::of_certificate(bytes).or_else(|| Self::of_spki(bytes)).ok_or_else(expected),
            [block] if block.label == "PUBLIC KEY" => Self::of_spki(&block.der).ok_or_else(expected),
            [block] if block.label.ends_with("CERTIFICATE") => Self::of_certificate(&block.der).ok_or_else(expected),
            [block] => Err(format!("holds {}, where PUBLIC KEY or CERTIFICATE is expected", block.label)),
            blocks => Err(format!("holds {} PEM blocks: leave the one whose key is meant", blocks.len())),
        }
    }

    fn of_spki(der: &[u8]) -> Option<Self> {
        let (rest, spki) = SubjectPublicKeyInfo::from_der(der).ok()?;
        rest.is_empty().then(|| Self::of(&spki))
    }

    fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Self::of(certificate.public_key()))
    }

    fn of(spki: &SubjectPublicKeyInfo<'_>) -> Self {
        Self { sha256: Key::of(spki).sha256, spki: spki.raw.to_vec() }
    }

    /// SHA-256 of the SubjectPublicKeyInfo, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        hex(&self.sha256)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData};

    use super::*;

    fn root(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_chain_involves_its_own_key_and_those_of_its_issuers_in_whatever_form_they_are_given() {
        let (root, other, leaf_key) = (root("Distrusted Trust"), root("Other"), KeyPair::generate().unwrap());
        // It names no key of its issuer.
        let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let leaf = params.signed_by(&leaf_key, &root).unwrap();
        let found = Provenance::of(&leaf.pem()).unwrap();
        assert!(found.issuers[0].contains("O=Distrusted Trust"), "{:?}", found.issuers);
        let files = |key: &KeyPair, pem: &str, der: &[u8]| {
            [key.public_key_pem().into_bytes(), key.subject_public_key_info(), pem.as_bytes().to_vec(), der.to_vec()]
        };
        for file in files(root.key(), &root.pem(), root.der()).iter().chain(&files(&leaf_key, &leaf.pem(), leaf.der())) {
            assert!(found.involves(&KnownKey::parse(file).unwrap()), "{file:?}");
        }
        for file in files(other.key(), &other.pem(), other.der()) {
            assert!(!found.involves(&KnownKey::parse(&file).unwrap()), "{file:?}");
        }
        assert!(Provenance::of("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n").is_none() && Provenance::of("").is_none());
    }

    #[test]
    fn a_file_that_says_no_key_is_refused_with_what_it_holds() {
        let root = root("A");
        for (file, why) in [
            (root.key().serialize_pem(), "private key"),
            (format!("{}{}", root.pem(), root.key().public_key_pem()), "2 PEM blocks"),
            (root.pem().replace("CERTIFICATE", "CERTIFICATE REQUEST"), "CERTIFICATE REQUEST"),
            ("no key".to_owned(), "neither"),
            (String::new(), "neither"),
            ("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n".to_owned(), "neither"),
        ] {
            let said = KnownKey::parse(file.as_bytes()).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
