//! Names of issuers and subjects, compared by value (RFC 5280, 7.1): CAs write one name with several types of strings.

use std::collections::BTreeSet;

use unicode_normalization::UnicodeNormalization;
use x509_parser::x509::X509Name;

use super::text;

/// A distinguished name in a form in which equal names are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ComparableName(Vec<BTreeSet<(String, Value)>>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Value {
    /// Of a string of any type.
    Text(String),
    /// Of anything else: its tag and content.
    Raw(u32, Vec<u8>),
}

impl ComparableName {
    /// String types and case do not matter, white space is folded, and the order within a multi-valued part is free.
    #[must_use]
    pub fn new(name: &X509Name<'_>) -> Self {
        let part = |part: &x509_parser::x509::RelativeDistinguishedName<'_>| {
            let attribute = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
                let value = attribute.attr_value();
                let comparable =
                    text::string(value).map_or_else(|| Value::Raw(value.tag().0, value.data.to_vec()), |text| Value::Text(folded(&text)));
                (attribute.attr_type().to_id_string(), comparable)
            };
            part.iter().map(attribute).collect()
        };
        Self(name.iter_rdn().map(part).collect())
    }

    /// Whether it has no part.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `other` is this name or lies under it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

/// In lower case and compatibility form, with single spaces between words.
fn folded(text: &str) -> String {
    let lower: String = text.nfkc().flat_map(char::to_lowercase).collect();
    lower.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::FromDer;

    use super::*;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }

    /// A name of parts; each attribute is the last number of its type, a tag and a content.
    fn name(parts: &[&[(u8, u8, &[u8])]]) -> ComparableName {
        let attribute = |(number, tag, content): &(u8, u8, &[u8])| tlv(0x30, &[tlv(6, &[0x55, 4, *number]), tlv(*tag, content)].concat());
        let part = |part: &&[(u8, u8, &[u8])]| tlv(0x31, &part.iter().map(attribute).collect::<Vec<_>>().concat());
        let der = tlv(0x30, &parts.iter().map(part).collect::<Vec<_>>().concat());
        ComparableName::new(&X509Name::from_der(&der).unwrap().1)
    }

    #[test]
    fn equal_values_are_equal_whatever_their_type_case_and_white_space() {
        let expected = name(&[&[(10, 0x0c, "Müller  AG".as_bytes())], &[(3, 0x0c, b"CA 1")]]);
        for (o, cn) in [
            ((10, 0x14, b"M\xfcller AG".as_slice()), (3, 0x13, b"CA 1".as_slice())),
            ((10, 0x1e, b"\0M\0\xdc\0L\0L\0E\0R\0 \0A\0G"), (3, 0x16, b" ca\t1 ")),
            ((10, 0x0c, "Mu\u{308}ller ag".as_bytes()), (3, 0x1c, b"\0\0\0C\0\0\0A\0\0\0 \0\0\x001")),
        ] {
            assert_eq!(name(&[&[o], &[cn]]), expected);
        }
    }

    #[test]
    fn other_values_types_and_orders_of_parts_differ() {
        let (o, cn) = ((10, 0x0c, b"Acme".as_slice()), (3, 0x0c, b"CA".as_slice()));
        let expected = name(&[&[o], &[cn]]);
        for other in [
            name(&[&[cn], &[o]]),
            name(&[&[o, cn]]),
            name(&[&[o]]),
            name(&[&[o], &[(3, 0x0c, b"C A")]]),
            name(&[&[o], &[(11, 0x0c, b"CA")]]),
            name(&[&[o], &[(3, 0x03, b"\0CA")]]),
        ] {
            assert_ne!(other, expected);
        }
        assert_eq!(name(&[&[o, cn]]), name(&[&[cn, o]]));
        assert_ne!(name(&[&[(45, 3, b"\0\x12")]]), name(&[&[(45, 3, b"\0\x13")]]));
        assert!(name(&[&[o]]).contains(&expected) && name(&[]).contains(&expected) && !expected.contains(&name(&[&[o]])));
        assert!(name(&[]).is_empty());
    }
}
