//! The CA that the tenants use.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use x509_parser::{
    certification_request::X509CertificationRequest, oid_registry::OID_PKCS1_RSAENCRYPTION, pem::parse_x509_pem, prelude::FromDer,
};

/// SHA-256.
pub type Hash = [u8; 32];

/// A root that signs leaves itself.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    serial: AtomicU64,
}

/// A leaf.
pub struct Leaf {
    pub pem: String,
    pub fingerprint: Hash,
}

/// The key of a CSR.
pub struct PublicKey {
    bits: Vec<u8>,
    is_rsa: bool,
    /// Over the SubjectPublicKeyInfo.
    pub spki_sha256: Hash,
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        if self.is_rsa { &PKCS_RSA_SHA256 } else { &PKCS_ECDSA_P256_SHA256 }
    }
}

impl PublicKey {
    pub fn of_csr(pem: &str) -> anyhow::Result<Self> {
        let (_, block) = parse_x509_pem(pem.as_bytes()).context("a CSR that is no PEM")?;
        ensure!(block.label == "CERTIFICATE REQUEST", "a CSR with the label {}", block.label);
        let (_, csr) = X509CertificationRequest::from_der(&block.contents).context("a CSR that is no PKCS#10")?;
        let key = &csr.certification_request_info.subject_pki;
        Ok(Self {
            bits: key.subject_public_key.data.to_vec(),
            is_rsa: key.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION,
            spki_sha256: sha256(key.raw),
        })
    }
}

impl Authority {
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "The soak's root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self { issuer: Issuer::new(params, KeyPair::generate()?), serial: AtomicU64::new(1) })
    }

    /// Signs a leaf for a key; another one each time.
    pub fn issue(&self, key: &PublicKey, names: &[String]) -> anyhow::Result<Leaf> {
        let mut params = CertificateParams::new(names)?;
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2049, 1, 1));
        params.serial_number = Some(self.serial.fetch_add(1, Ordering::Relaxed).into());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(Leaf { pem: certificate.pem(), fingerprint: sha256(certificate.der()) })
    }
}

fn sha256(bytes: &[u8]) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
