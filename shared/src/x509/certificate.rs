//! The details of a certificate that are stored and shown.

use aws_lc_rs::digest;
use num_bigint::BigUint;
use x509_parser::{
    certificate::X509Certificate,
    extensions::ParsedExtension,
    oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME},
    prelude::FromDer,
};

use super::{parsed::timestamp, pem, text};
use crate::{ari::IssuedBy, custom_certificate::LeafDetails, printable::hex};

/// The details of a leaf, which was parsed from this DER.
#[must_use]
pub(super) fn details(leaf: &X509Certificate<'_>, der: &[u8]) -> LeafDetails {
    LeafDetails {
        not_before: timestamp(leaf.validity.not_before),
        serial_number: serial_number(leaf.raw_serial()),
        fingerprint_sha256: hex(digest::digest(&digest::SHA256, der).as_ref()),
    }
}

/// The details of the leaf of a stored chain, or `None` if it cannot be parsed. It is not judged again.
#[must_use]
pub fn leaf_details(chain_pem: &str) -> Option<LeafDetails> {
    let blocks = pem::blocks(chain_pem).ok()?;
    let der = &blocks.first()?.der;
    X509Certificate::from_der(der).ok().map(|(_, leaf)| details(&leaf, der))
}

/// What the leaf of a stored chain says about its issuer, or `None` if it cannot be parsed or has no key identifier of the issuer.
#[must_use]
pub fn issued_by(chain_pem: &str) -> Option<IssuedBy> {
    let blocks = pem::blocks(chain_pem).ok()?;
    let (_, leaf) = X509Certificate::from_der(&blocks.first()?.der).ok()?;
    let key_identifier = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => identifier.key_identifier.as_ref().map(|key| key.0.to_vec()),
        _ => None,
    })?;
    let strings = |oid| text::strings(&leaf.issuer, oid);
    let names = strings(OID_X509_ORGANIZATION_NAME).chain(strings(OID_X509_COMMON_NAME)).collect();
    Some(IssuedBy { names, key_identifier, serial_number: leaf.raw_serial().to_vec() })
}

/// A serial number in hexadecimal. RFC 5280 forbids negative ones, and some CAs write them.
fn serial_number(octets: &[u8]) -> String {
    let is_negative = octets.first().is_some_and(|first| first & 0x80 != 0);
    let number = BigUint::from_bytes_be(octets);
    let magnitude = if is_negative { (BigUint::from(1_u8) << (8 * octets.len())) - number } else { number };
    format!("{}{}", if is_negative { "-" } else { "" }, hex(&magnitude.to_bytes_be()))
}
