//! The certificates of a text, each parsed once and kept with what was read of it.

use rustls_pki_types::CertificateDer;
use self_cell::self_cell;

use super::{
    formats::{self, Fault},
    parsed::Parsed,
};

type AllParsed<'a> = Vec<Parsed<'a>>;

self_cell!(
    /// Different certificates in DER, and what the parser made of them, which borrows from the DER.
    struct Cell {
        owner: Vec<CertificateDer<'static>>,
        #[covariant]
        dependent: AllParsed,
    }

    impl {Debug}
);

/// The certificates of a text.
#[derive(Debug)]
pub struct Readings {
    cell: Cell,
    order: Vec<usize>,
}

impl Readings {
    /// Reads the certificates of a text, in any form in which they are accepted. There is at least one.
    ///
    /// # Errors
    ///
    /// What else the text holds, or what is wrong with one of them.
    pub fn of(text: &str) -> Result<Self, Fault> {
        // Where each different certificate is: in words, and among all, from 1.
        let (mut places, mut different, mut order) = (Vec::new(), Vec::new(), Vec::new());
        for (number, found) in (1..).zip(formats::certificates(text)?) {
            let known = different.iter().position(|known| *known == found.der);
            order.push(known.unwrap_or(different.len()));
            if known.is_none() {
                different.push(found.der);
                places.push((number, found.place));
            }
        }
        let cell = Cell::try_new(different, |different| different.iter().zip(&places).map(read).collect::<Result<_, _>>())?;
        Ok(Self { cell, order })
    }

    /// The certificates, each once, in the order in which they first come.
    #[must_use]
    pub fn different(&self) -> &[Parsed<'_>] {
        self.cell.borrow_dependent()
    }

    /// All of them, those that repeat too, as indexes of the different ones.
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }
}

/// Reads a certificate with its place among all, from 1, and in words.
fn read<'a>((der, (number, place)): (&'a CertificateDer<'static>, &(usize, String))) -> Result<Parsed<'a>, String> {
    Parsed::read(*number, der).map_err(|what| format!("{place} {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use x509_parser::asn1_rs::{Oid, oid};

    use super::*;
    use crate::x509::{der, pem};

    const OID_SIGNED_DATA: Oid<'static> = oid!(1.2.840.113549.1.7.2);

    fn unreadable(text: &str) -> String {
        match Readings::of(text) {
            Err(Fault::Unreadable(reason)) => reason,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_is_no_certificate_is_named_with_what_to_do() {
        for (label, words) in [
            ("CERTIFICATE REQUEST", ["CERTIFICATE REQUEST", "the request"]),
            ("EC PARAMETERS", ["EC PARAMETERS", "sed -n"]),
            ("X509 CRL", ["X509 CRL", "sed -n"]),
            ("PKCS12", ["PKCS12", "openssl pkcs12"]),
            ("PKCS #7 SIGNED DATA", ["PKCS #7 SIGNED DATA", "openssl pkcs7"]),
        ] {
            let reason = unreadable(&pem::encode(label, &[0x30, 0]));
            assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
        }
        let signed_data = der::sequence(&[der::object_identifier(&OID_SIGNED_DATA)]);
        for (bytes, words) in [
            (der::sequence(&[]), "no X.509 certificate"),
            (signed_data, "cannot be read"),
            (der::sequence(&[der::object_identifier(&oid!(1.2.840.113549.1.7.3))]), "another kind"),
            (der::sequence(&[der::integer(&3_u8.into()), der::sequence(&[])]), "openssl pkcs12"),
        ] {
            let base64 = pem::encode("CERTIFICATE", &bytes);
            let reason = unreadable(&base64);
            assert!(reason.starts_with("PEM block 1 (CERTIFICATE)") && reason.contains(words), "{reason}");
            let bare: String = base64.lines().filter(|line| !line.starts_with('-')).collect();
            assert!(unreadable(&bare).contains(words), "{bare}");
        }
        assert!(unreadable("certificate").contains("no PEM block"));
        assert!(unreadable("MAA=\n-----END CERTIFICATE-----").contains("without its BEGIN line"));
    }

    #[test]
    fn a_private_key_is_seen_whatever_its_label() {
        let (zero, octets) = (|| der::integer(&0_u8.into()), vec![4, 1, 0]);
        for key in [
            der::sequence(&[zero(), der::sequence(&[]), octets.clone()]),
            der::sequence(&[der::sequence(&[]), octets.clone()]),
            der::sequence(&[zero(), zero(), zero(), zero(), zero(), zero(), zero(), zero(), zero()]),
            der::sequence(&[der::integer(&1_u8.into()), octets.clone(), octets]),
        ] {
            assert_eq!(Readings::of(&pem::encode("CERTIFICATE", &key)).unwrap_err(), Fault::PrivateKey);
        }
        assert_eq!(Readings::of("-----BEGIN EC PRIVATE KEY-----\nAAAA").unwrap_err(), Fault::PrivateKey);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, label in "(TRUSTED )?CERTIFICATE|PKCS7") {
            let _ = Readings::of(&pem::encode(&label, &bytes));
            let wrapped = der::sequence(&[der::object_identifier(&OID_SIGNED_DATA), [vec![0xa0, u8::try_from(bytes.len() % 100).unwrap()], bytes].concat()]);
            let _ = Readings::of(&pem::encode(&label, &wrapped));
        }
    }
}
