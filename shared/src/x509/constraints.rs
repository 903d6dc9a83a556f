//! Name constraints of CAs (RFC 5280, 4.2.1.10): which names a certificate under them may have.

use x509_parser::{
    extensions::{GeneralName, GeneralSubtree, NameConstraints},
    oid_registry::OID_PKCS9_EMAIL_ADDRESS,
};

use super::{distinguished_name::ComparableName, parsed::Parsed, text};

/// What kind of name a constraint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dns,
    Mail,
    Uri,
    Ip,
    Directory,
    /// One that is not compared here, with its number in ASN.1.
    Other(u8),
}

/// A name of a certificate.
enum Name<'a> {
    General(&'a GeneralName<'a>),
    Subject(&'a Parsed<'a>),
    Mail(String),
}

impl Name<'_> {
    fn kind(&self) -> Kind {
        match self {
            Self::General(name) => kind(name),
            Self::Subject(_) => Kind::Directory,
            Self::Mail(_) => Kind::Mail,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::General(name) => text::general_name(name),
            Self::Subject(certificate) => certificate.name(),
            Self::Mail(address) => text::printable(address),
        }
    }

    /// Whether it lies in a subtree of its kind, or `None` if it cannot be compared.
    fn is_under(&self, base: &GeneralName<'_>) -> Option<bool> {
        match (self, base) {
            (Self::General(GeneralName::DNSName(name)), GeneralName::DNSName(base)) => Some(is_domain_under(name, base)),
            (Self::General(GeneralName::RFC822Name(address)), GeneralName::RFC822Name(base)) => Some(is_mail_under(address, base)),
            (Self::Mail(address), GeneralName::RFC822Name(base)) => Some(is_mail_under(address, base)),
            (Self::General(GeneralName::URI(uri)), GeneralName::URI(base)) => host(uri).map(|host| is_host_under(host, base)),
            (Self::General(GeneralName::IPAddress(address)), GeneralName::IPAddress(base)) => Some(is_address_under(address, base)),
            (Self::General(GeneralName::DirectoryName(name)), GeneralName::DirectoryName(base)) => {
                Some(ComparableName::new(base).contains(&ComparableName::new(name)))
            }
            (Self::Subject(certificate), GeneralName::DirectoryName(base)) => {
                Some(ComparableName::new(base).contains(&certificate.subject))
            }
            _ => None,
        }
    }

    /// Whether it, or a name that it stands for, lies in a subtree of its kind, or `None` if it cannot be compared.
    fn meets(&self, base: &GeneralName<'_>) -> Option<bool> {
        match (self, base) {
            (Self::General(GeneralName::DNSName(name)), GeneralName::DNSName(base)) if is_covered(base, name) => Some(true),
            _ => self.is_under(base),
        }
    }
}

fn kind(name: &GeneralName<'_>) -> Kind {
    match name {
        GeneralName::DNSName(_) => Kind::Dns,
        GeneralName::RFC822Name(_) => Kind::Mail,
        GeneralName::URI(_) => Kind::Uri,
        GeneralName::IPAddress(_) => Kind::Ip,
        GeneralName::DirectoryName(_) => Kind::Directory,
        GeneralName::OtherName(..) => Kind::Other(0),
        GeneralName::X400Address(_) => Kind::Other(3),
        GeneralName::EDIPartyName(_) => Kind::Other(5),
        GeneralName::RegisteredID(_) => Kind::Other(8),
        GeneralName::Invalid(tag, _) => match tag.0 {
            1 => Kind::Mail,
            2 => Kind::Dns,
            4 => Kind::Directory,
            6 => Kind::Uri,
            number => Kind::Other(u8::try_from(number).unwrap_or(u8::MAX)),
        },
    }
}

/// A name of `certificate` that `constraints` do not allow, with the reason.
#[must_use]
pub fn violation<'a>(constraints: &'a NameConstraints<'a>, certificate: &Parsed<'_>) -> Option<String> {
    let alternative = certificate.certificate.subject_alternative_name().ok().flatten();
    let alternative = alternative.iter().flat_map(|extension| &extension.value.general_names).map(Name::General);
    let subject = (!certificate.subject.is_empty()).then_some(Name::Subject(certificate));
    let mail = text::strings(&certificate.certificate.subject, OID_PKCS9_EMAIL_ADDRESS).map(Name::Mail);
    alternative.chain(subject).chain(mail).find_map(|name| {
        let said = |why: &str| Some(format!("{}, {why}", name.text()));
        let of_its_kind = |trees: &'a Option<Vec<GeneralSubtree<'a>>>| {
            trees.iter().flatten().map(|tree| &tree.base).filter(|base| kind(base) == name.kind())
        };
        if of_its_kind(&constraints.excluded_subtrees).any(|base| name.meets(base) != Some(false)) {
            return said("which is excluded");
        }
        let mut permitted = of_its_kind(&constraints.permitted_subtrees).peekable();
        let is_permitted = permitted.peek().is_none() || permitted.any(|base| name.is_under(base) == Some(true));
        if is_permitted { None } else { said("which is not among the permitted ones") }
    })
}

/// A DNS name under a domain; one with a leading dot has only names below it. A wildcard is under it if all names that it stands for are.
fn is_domain_under(name: &str, base: &str) -> bool {
    let (name, base) = (name.to_ascii_lowercase(), base.to_ascii_lowercase());
    if base.is_empty() {
        return true;
    }
    if base.starts_with('.') {
        return name.ends_with(&base);
    }
    name.strip_suffix(&base).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether a wildcard stands for this name, among others: it has one label in place of the asterisk.
fn is_covered(name: &str, wildcard: &str) -> bool {
    let (name, wildcard) = (name.to_ascii_lowercase(), wildcard.to_ascii_lowercase());
    let parents = name.split_once('.').zip(wildcard.strip_prefix("*."));
    parents.is_some_and(|((label, parent), of_wildcard)| !label.is_empty() && parent == of_wildcard)
}

/// A host name as constraints of mail addresses and URIs mean it: exactly this one, unless a leading dot says below it.
fn is_host_under(host: &str, base: &str) -> bool {
    let (host, base) = (host.to_ascii_lowercase(), base.to_ascii_lowercase());
    base.is_empty() || host == base || (base.starts_with('.') && host.ends_with(&base))
}

fn is_mail_under(address: &str, base: &str) -> bool {
    let Some((local, host)) = address.rsplit_once('@') else { return false };
    base.rsplit_once('@')
        .map_or_else(|| is_host_under(host, base), |(base_local, base_host)| local == base_local && host.eq_ignore_ascii_case(base_host))
}

/// The host of a URI, or `None` if it has no authority.
fn host(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    (!host.is_empty() && !host.starts_with('[')).then_some(host)
}

/// An address in a network, which is an address followed by its mask.
fn is_address_under(address: &[u8], base: &[u8]) -> bool {
    if base.len() != 2 * address.len() {
        return false;
    }
    let (network, mask) = base.split_at(address.len());
    address.iter().zip(network).zip(mask).all(|((address, network), mask)| address & mask == network & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lie_under_their_domains() {
        for (name, base, expected) in [
            ("www.acme.com", "acme.com", true),
            ("ACME.com", "Acme.COM", true),
            ("notacme.com", "acme.com", false),
            ("acme.com", ".acme.com", false),
            ("www.acme.com", ".acme.com", true),
            ("anything", "", true),
            ("*.acme.com", "acme.com", true),
            ("*.acme.com", ".acme.com", true),
            ("*.acme.com", "www.acme.com", false),
            ("*.acme.com", "other.com", false),
            ("acme.com", "www.acme.com", false),
        ] {
            assert_eq!(is_domain_under(name, base), expected, "{name} under {base}");
        }
        for (name, wildcard, expected) in [
            ("www.acme.com", "*.acme.com", true),
            ("WWW.acme.com", "*.Acme.com", true),
            ("a.www.acme.com", "*.acme.com", false),
            (".www.acme.com", "*.acme.com", false),
            (".acme.com", "*.acme.com", false),
            ("acme.com", "*.acme.com", false),
            ("www.acme.com", "www.acme.com", false),
            ("", "*.acme.com", false),
        ] {
            assert_eq!(is_covered(name, wildcard), expected, "{name} covered by {wildcard}");
        }
        for (address, base, expected) in [
            ("a@acme.com", "acme.com", true),
            ("a@mail.acme.com", "acme.com", false),
            ("a@mail.acme.com", ".acme.com", true),
            ("a@Acme.com", "a@acme.com", true),
            ("A@acme.com", "a@acme.com", false),
            ("acme.com", "acme.com", false),
        ] {
            assert_eq!(is_mail_under(address, base), expected, "{address} under {base}");
        }
        assert_eq!(host("https://user@www.acme.com:8443/path?x"), Some("www.acme.com"));
        assert_eq!(host("spiffe://acme/web"), Some("acme"));
        assert_eq!(host("urn:x"), None);
        assert!(is_address_under(&[192, 0, 2, 7], &[192, 0, 2, 0, 255, 255, 255, 0]));
        assert!(!is_address_under(&[192, 0, 3, 7], &[192, 0, 2, 0, 255, 255, 255, 0]));
        assert!(!is_address_under(&[0; 16], &[192, 0, 2, 0, 255, 255, 255, 0]));
    }
}
