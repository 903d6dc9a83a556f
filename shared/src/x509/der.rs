//! The few structures that are written in DER here, and steps through structures that are read.

use num_bigint::BigUint;
use x509_parser::{
    asn1_rs::{Any, FromBer, FromDer, Tag},
    oid_registry::Oid,
};

fn tlv(tag: Tag, is_constructed: bool, content: &[u8]) -> Vec<u8> {
    let tag = u8::try_from(tag.0).unwrap_or_default() | if is_constructed { 0x20 } else { 0 };
    let octets = content.len().to_be_bytes();
    let significant: Vec<u8> = octets.iter().copied().skip_while(|octet| *octet == 0).collect();
    let length = match significant.as_slice() {
        [] => vec![0],
        [short @ 0..0x80] => vec![*short],
        long => [&[0x80 | u8::try_from(long.len()).unwrap_or_default()], long].concat(),
    };
    [&[tag], length.as_slice(), content].concat()
}

/// SEQUENCE.
#[must_use]
pub fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(Tag::Sequence, true, &parts.concat())
}

/// INTEGER, which is not negative.
#[must_use]
pub fn integer(number: &BigUint) -> Vec<u8> {
    let octets = number.to_bytes_be();
    let sign: &[u8] = if octets.first().is_some_and(|first| first & 0x80 != 0) { &[0] } else { &[] };
    tlv(Tag::Integer, false, &[sign, &octets].concat())
}

/// BIT STRING of whole octets.
#[must_use]
pub fn bit_string(octets: &[u8]) -> Vec<u8> {
    tlv(Tag::BitString, false, &[&[0], octets].concat())
}

/// OBJECT IDENTIFIER.
#[must_use]
pub fn object_identifier(oid: &Oid<'_>) -> Vec<u8> {
    tlv(Tag::Oid, false, oid.as_bytes())
}

/// NULL.
#[must_use]
pub fn null() -> Vec<u8> {
    tlv(Tag::Null, false, &[])
}

/// The values in a structure's content, in BER or DER; none where one of them cannot be read.
#[must_use]
pub fn values(mut content: &[u8]) -> Option<Vec<Any<'_>>> {
    let mut values = Vec::new();
    while !content.is_empty() {
        let (rest, value) = Any::from_ber(content).ok()?;
        values.push(value);
        content = rest;
    }
    Some(values)
}

/// The one value that `bytes` are, in DER.
#[must_use]
pub fn one(bytes: &[u8]) -> Option<Any<'_>> {
    Any::from_der(bytes).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, value)| value)
}
