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

/// The values in a structure's content, in BER or DER, or `None` if one of them cannot be parsed.
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

/// How deep values may lie within each other. No certificate comes near it.
const MAX_DEPTH: usize = 32;

/// Whether these values are written in the one way that DER allows (X.690, 8 and 10): lengths, numbers and bits. The parser reads
/// other ways too, which the TLS libraries that are to load a certificate refuse.
///
/// What those libraries let pass is not looked at: TRUE as another octet than FF, bits that are not used, the order within a SET, values that
/// are the default.
#[must_use]
pub fn is_strict(content: &[u8]) -> bool {
    are_strict(content, MAX_DEPTH)
}

fn are_strict(mut content: &[u8], depth: usize) -> bool {
    while !content.is_empty() {
        let Some((Split { is_constructed, tag, content: value }, rest)) = split(content) else { return false };
        let is_value_strict = match tag {
            // SEQUENCE and SET.
            Some(16 | 17) => is_constructed && depth > 0 && are_strict(value, depth - 1),
            Some(tag) => !is_constructed && is_primitive_strict(tag, value),
            // Tagged by its context: a structure or a primitive value.
            None => !is_constructed || (depth > 0 && are_strict(value, depth - 1)),
        };
        if !is_value_strict {
            return false;
        }
        content = rest;
    }
    true
}

/// One value.
struct Split<'a> {
    is_constructed: bool,
    /// Its number, where its tag is universal.
    tag: Option<u8>,
    content: &'a [u8],
}

/// The first value, and what follows it.
fn split(bytes: &[u8]) -> Option<(Split<'_>, &[u8])> {
    let (&identifier, mut rest) = bytes.split_first()?;
    let mut tag = Some(identifier & 0x1f).filter(|_| identifier & 0xc0 == 0);
    if identifier & 0x1f == 0x1f {
        // In base 128, over 30, without leading zeros.
        let end = rest.iter().position(|octet| octet & 0x80 == 0)?;
        if rest[0] == 0x80 || (end == 0 && rest[0] < 0x1f) {
            return None;
        }
        (tag, rest) = (None, &rest[end + 1..]);
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
            if octets[0] == 0 || length < 0x80 {
                return None;
            }
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((Split { is_constructed: identifier & 0x20 != 0, tag, content }, rest))
}

fn is_primitive_strict(tag: u8, content: &[u8]) -> bool {
    match (tag, content) {
        // BOOLEAN
        (1, content) => content.len() == 1,
        // INTEGER, ENUMERATED
        (2 | 10, content) => !matches!(content, [] | [0, 0..=0x7f, ..] | [0xff, 0x80..=0xff, ..]),
        // BIT STRING
        (3, [unused, bits @ ..]) => *unused == 0 || (*unused < 8 && !bits.is_empty()),
        // NULL
        (5, content) => content.is_empty(),
        // OBJECT IDENTIFIER: each number without leading zeros, and the last one whole.
        (6, content) => {
            let starts = std::iter::once(true).chain(content.iter().map(|octet| octet & 0x80 == 0));
            content.last().is_some_and(|last| last & 0x80 == 0)
                && content.iter().zip(starts).all(|(octet, starts)| !starts || *octet != 0x80)
        }
        // BIT STRING without a first octet, and the end of an indefinite length.
        (0 | 3, _) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_in_the_one_way_that_der_allows_is_strict() {
        let long = [&[0x04, 0x81, 0x80], [7; 0x80].as_slice()].concat();
        let all: [&[u8]; 13] = [
            b"",
            b"\x01\x01\xff",
            b"\x01\x01\x00",
            b"\x02\x01\x00",
            b"\x02\x02\x00\x80",
            b"\x02\x01\xff",
            b"\x03\x02\x05\xa0",
            b"\x03\x01\x00",
            b"\x05\x00",
            b"\x06\x03\x55\x1d\x13",
            b"\x30\x03\x01\x01\xff\x05\x00",
            b"\xa0\x03\x02\x01\x02",
            &long,
        ];
        for der in all {
            assert!(is_strict(der), "{der:02x?}");
        }
    }

    #[test]
    fn what_a_lax_parser_reads_all_the_same_is_not_strict() {
        let long = [&[0x04, 0x82, 0, 0x80], [7; 0x80].as_slice()].concat();
        let all: [&[u8]; 17] = [
            b"\x01\x02\xff\xff",
            b"\x02\x02\x00\x05",
            b"\x02\x02\xff\x80",
            b"\x02\x00",
            b"\x03\x02\x08\x00",
            b"\x03\x00",
            b"\x03\x01\x01",
            b"\x05\x01\x00",
            b"\x06\x03\x55\x80\x13",
            b"\x06\x02\x55\x9d",
            b"\x30\x03\x02\x01",
            b"\x30\x80\x05\x00\x00\x00",
            b"\x24\x03\x04\x01\x07",
            b"\x10\x00",
            b"\x04\x81\x01\x07",
            b"\x30\x04\x02\x02\x00\x01",
            &long,
        ];
        for der in all {
            assert!(!is_strict(der), "{der:02x?}");
        }
        assert!(!is_strict(&[0x30, 0x80].repeat(10_000)));
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = is_strict(&bytes);
        }
    }
}
