//! What certificates say, as text that people can read.

use std::borrow::Cow;

use num_bigint::BigUint;
use x509_parser::{
    asn1_rs::{Any, Tag},
    extensions::GeneralName,
    oid_registry::{
        OID_X509_COMMON_NAME, OID_X509_COUNTRY_NAME, OID_X509_LOCALITY_NAME, OID_X509_ORGANIZATION_NAME, OID_X509_ORGANIZATIONAL_UNIT,
        OID_X509_STATE_OR_PROVINCE_NAME, Oid,
    },
    x509::{AttributeTypeAndValue, X509Name},
};

use crate::printable::{hex, is_printable};

/// The most characters of a name in a message.
const NAME_MAX_CHARS: usize = 120;

/// Text from a certificate as it is stored and shown: nothing that a database, a terminal or a line reader would act on.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// The text of a string of any type, or `None` if the value is no string. A `T61String` is read as Latin-1, which is what CAs put into it.
#[must_use]
pub fn string<'a>(value: &Any<'a>) -> Option<Cow<'a, str>> {
    let bytes = value.data;
    let text = match value.tag() {
        Tag::Utf8String => String::from_utf8_lossy(bytes),
        Tag::T61String => latin_1(bytes).into(),
        Tag::BmpString => {
            let units: Vec<u16> = bytes.chunks(2).map(|pair| pair.iter().fold(0, |unit, byte| unit << 8 | u16::from(*byte))).collect();
            String::from_utf16_lossy(&units).into()
        }
        Tag::UniversalString => {
            let number = |four: &[u8]| four.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
            let character = |four| char::from_u32(number(four)).unwrap_or(char::REPLACEMENT_CHARACTER);
            bytes.chunks(4).map(character).collect::<String>().into()
        }
        Tag::PrintableString | Tag::NumericString | Tag::Ia5String | Tag::VisibleString | Tag::GraphicString | Tag::GeneralString => {
            std::str::from_utf8(bytes).map_or_else(|_| latin_1(bytes).into(), Cow::Borrowed)
        }
        _ => return None,
    };
    Some(text)
}

/// An attribute's value, printable: a string as it reads, anything else in hexadecimal as in RFC 4514.
fn value(attribute: &AttributeTypeAndValue<'_>) -> String {
    let value = attribute.attr_value();
    string(value).map_or_else(|| format!("#{}", hex(value.data)), |text| printable(&text))
}

/// The strings of a name's attributes of one type that are not blank.
pub fn strings<'a>(name: &'a X509Name<'_>, oid: Oid<'static>) -> impl Iterator<Item = String> + 'a {
    let attributes = name.iter_attributes().filter(move |attribute| *attribute.attr_type() == oid);
    attributes.map(value).filter(|text| !text.trim().is_empty())
}

/// What people know an issuer by: the organization, else the common name, else the whole name.
#[must_use]
pub fn issuer(name: &X509Name<'_>) -> String {
    let mut known = strings(name, OID_X509_ORGANIZATION_NAME).chain(strings(name, OID_X509_COMMON_NAME));
    known.next().unwrap_or_else(|| whole(name))
}

/// A name in the order in which it was written.
#[must_use]
pub fn whole(name: &X509Name<'_>) -> String {
    let word = |attribute: &AttributeTypeAndValue<'_>| format!("{}={}", attribute_type(attribute.attr_type()), value(attribute));
    name.iter_attributes().map(word).collect::<Vec<_>>().join(", ")
}

fn attribute_type(oid: &Oid<'_>) -> String {
    let known = [
        (&OID_X509_COMMON_NAME, "CN"),
        (&OID_X509_ORGANIZATION_NAME, "O"),
        (&OID_X509_ORGANIZATIONAL_UNIT, "OU"),
        (&OID_X509_COUNTRY_NAME, "C"),
        (&OID_X509_STATE_OR_PROVINCE_NAME, "ST"),
        (&OID_X509_LOCALITY_NAME, "L"),
    ];
    known.into_iter().find(|(known, _)| *known == oid).map_or_else(|| dotted(oid), |(_, name)| name.to_owned())
}

/// The most octets of an object identifier that are shown: real ones have fewer, and long numbers take long to write.
const OID_OCTETS_SHOWN: usize = 64;

/// An object identifier with its numbers and dots, cut to a bound. The parser writes one with a number of over 64 bits, such as those that UUIDs make, in hexadecimal.
#[must_use]
pub fn dotted(oid: &Oid<'_>) -> String {
    let mut numbers: Vec<String> = Vec::new();
    let mut number = BigUint::default();
    let octets = oid.as_bytes();
    for octet in octets.iter().take(OID_OCTETS_SHOWN) {
        number = (number << 7_u32) | BigUint::from(octet & 0x7f);
        if octet & 0x80 == 0 {
            let whole = std::mem::take(&mut number);
            if numbers.is_empty() {
                // The first two numbers are one (X.690, 8.19.4).
                let first = (&whole / 40_u8).min(BigUint::from(2_u8));
                numbers.push(first.to_string());
                numbers.push((whole - first * 40_u8).to_string());
            } else {
                numbers.push(whole.to_string());
            }
        }
    }
    if octets.len() > OID_OCTETS_SHOWN {
        numbers.push("…".to_owned());
    }
    numbers.join(".")
}

/// A name for a message, cut to a bound.
#[must_use]
pub fn name(name: &X509Name<'_>) -> String {
    let text = whole(name);
    if text.is_empty() {
        return "without a name".to_owned();
    }
    let short: String = text.chars().take(NAME_MAX_CHARS).collect();
    if short.len() < text.len() { short + "…" } else { short }
}

/// An IP address, as it is written.
#[must_use]
pub fn ip_address(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return std::net::Ipv4Addr::from(v4).to_string();
    }
    <[u8; 16]>::try_from(bytes).map_or_else(|_| format!("IP address #{}", hex(bytes)), |v6| std::net::Ipv6Addr::from(v6).to_string())
}

/// One of a certificate's alternative names.
#[must_use]
pub fn general_name(general_name: &GeneralName<'_>) -> String {
    match general_name {
        GeneralName::DNSName(text) => printable(text),
        GeneralName::RFC822Name(text) => format!("email address {}", printable(text)),
        GeneralName::URI(text) => format!("URI {}", printable(text)),
        GeneralName::IPAddress(bytes) => ip_address(bytes),
        GeneralName::DirectoryName(directory) => format!("directory name {}", name(directory)),
        GeneralName::OtherName(oid, _) => format!("other name {}", dotted(oid)),
        GeneralName::RegisteredID(oid) => format!("registered ID {}", dotted(oid)),
        GeneralName::X400Address(_) => "X.400 address".to_owned(),
        GeneralName::EDIPartyName(_) => "EDI party name".to_owned(),
        GeneralName::Invalid(_, bytes) => printable(&latin_1(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use x509_parser::asn1_rs::FromDer;

    use super::*;

    #[test]
    fn a_string_of_any_type_is_read() {
        let read = |tag: u8, bytes: &[u8]| {
            let der = [&[tag, u8::try_from(bytes.len()).unwrap()], bytes].concat();
            let (_, value) = Any::from_der(&der).unwrap();
            string(&value).map(Cow::into_owned)
        };
        assert_eq!(read(0x0c, "Müller".as_bytes()).as_deref(), Some("Müller"));
        assert_eq!(read(0x14, b"M\xfcller").as_deref(), Some("Müller"));
        assert_eq!(read(0x1e, b"\0M\0\xfc\xd8\x3d\xdd\x11").as_deref(), Some("Mü🔑"));
        assert_eq!(read(0x1e, b"\0M\0").as_deref(), Some("M\0"));
        assert_eq!(read(0x1c, b"\0\0\0M\0\x01\xf5\x11\0\x11\0\0").as_deref(), Some("M🔑\u{fffd}"));
        assert_eq!(read(0x13, b"M\xfcller").as_deref(), Some("Müller"));
        assert_eq!(read(0x03, b"\0\x12"), None);
    }

    #[test]
    fn an_object_identifier_of_any_size_has_its_numbers_and_dots() {
        for (der, expected) in [
            (b"\x55\x1d\x13".as_slice(), "2.5.29.19"),
            (b"\x2a\x86\x48", "1.2.840"),
            (b"\x00\x00", "0.0.0"),
            (b"\x88\x37\x03", "2.999.3"),
            (
                b"\x69\x83\xf0\x9d\xa7\xeb\xcf\xde\xe0\xc7\xa1\xa7\xb2\xc0\x94\x8c\xc8\xf9\xd7\x76",
                "2.25.329800735698586629295641978511506172918",
            ),
            (b"", ""),
            (&[0x81; 100], "…"),
        ] {
            assert_eq!(dotted(&Oid::new(der.into())), expected);
        }
    }

    proptest! {
        #[test]
        fn no_string_panics(tag in 0_u8..31, bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let der = [&[tag, u8::try_from(bytes.len()).unwrap()], bytes.as_slice()].concat();
            if let Ok((_, value)) = Any::from_der(&der) {
                let _ = string(&value);
            }
        }
    }
}
