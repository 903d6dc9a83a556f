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
    General(Comparable<'a>),
    Subject(&'a Parsed<'a>),
    Mail(String),
}

/// A name of a certificate or the base of a subtree. A directory name is made comparable once: there may be hundreds of each.
struct Comparable<'a> {
    name: &'a GeneralName<'a>,
    directory: Option<ComparableName>,
}

impl<'a> Comparable<'a> {
    fn new(name: &'a GeneralName<'a>) -> Self {
        let directory = if let GeneralName::DirectoryName(directory) = name { Some(ComparableName::new(directory)) } else { None };
        Self { name, directory }
    }
}

impl Name<'_> {
    fn kind(&self) -> Kind {
        match self {
            Self::General(name) => kind(name.name),
            Self::Subject(_) => Kind::Directory,
            Self::Mail(_) => Kind::Mail,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::General(name) => text::general_name(name.name),
            Self::Subject(certificate) => certificate.name(),
            Self::Mail(address) => text::printable(address),
        }
    }

    /// Whether it lies in a subtree of its kind, or `None` if it cannot be compared.
    fn is_under(&self, base: &Comparable<'_>) -> Option<bool> {
        let name = match self {
            Self::Subject(certificate) => return Some(base.directory.as_ref()?.contains(&certificate.subject)),
            Self::Mail(address) => {
                let GeneralName::RFC822Name(base) = base.name else { return None };
                return Some(is_mail_under(address, base));
            }
            Self::General(name) => name,
        };
        match (name.name, base.name) {
            (GeneralName::DNSName(name), GeneralName::DNSName(base)) => Some(is_domain_under(name, base)),
            (GeneralName::RFC822Name(address), GeneralName::RFC822Name(base)) => Some(is_mail_under(address, base)),
            (GeneralName::URI(uri), GeneralName::URI(base)) => host(uri).map(|host| is_host_under(host, base)),
            (GeneralName::IPAddress(address), GeneralName::IPAddress(base)) => Some(is_address_under(address, base)),
            _ => Some(base.directory.as_ref()?.contains(name.directory.as_ref()?)),
        }
    }

    /// Whether it, or a name that it stands for, lies in a subtree of its kind, or `None` if it cannot be compared.
    fn meets(&self, base: &Comparable<'_>) -> Option<bool> {
        if let (Self::General(Comparable { name: GeneralName::DNSName(name), .. }), GeneralName::DNSName(base)) = (self, base.name)
            && is_covered(base, name)
        {
            return Some(true);
        }
        self.is_under(base)
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
    let alternative =
        alternative.iter().flat_map(|extension| &extension.value.general_names).map(|name| Name::General(Comparable::new(name)));
    let subject = (!certificate.subject.is_empty()).then_some(Name::Subject(certificate));
    let mail = text::strings(&certificate.certificate.subject, OID_PKCS9_EMAIL_ADDRESS).map(Name::Mail);
    let bases =
        |trees: &'a Option<Vec<GeneralSubtree<'a>>>| trees.iter().flatten().map(|tree| Comparable::new(&tree.base)).collect::<Vec<_>>();
    let (permitted, excluded) = (bases(&constraints.permitted_subtrees), bases(&constraints.excluded_subtrees));
    alternative.chain(subject).chain(mail).find_map(|name| {
        let said = |why: &str| Some(format!("{}, {why}", name.text()));
        let kind_of_name = name.kind();
        let is_of_its_kind = |base: &&Comparable<'_>| kind(base.name) == kind_of_name;
        if excluded.iter().filter(is_of_its_kind).any(|base| name.meets(base) != Some(false)) {
            return said("which is excluded");
        }
        let mut permitted = permitted.iter().filter(is_of_its_kind).peekable();
        let is_permitted = permitted.peek().is_none() || permitted.any(|base| name.is_under(base) == Some(true));
        if is_permitted { None } else { said("which is not among the permitted ones") }
    })
}

/// A DNS name under a domain; one with a leading dot has only names below it. A wildcard is under it if all names that it stands for are.
fn is_domain_under(name: &str, base: &str) -> bool {
    let is_above = |rest: &[u8]| base.is_empty() || base.starts_with('.') || rest.is_empty() || rest.ends_with(b".");
    before(name, base).is_some_and(is_above)
}

/// What stands before the end of a name, or `None` if it has another end, in whatever case. Nothing is allocated: there may be hundreds of
/// thousands of pairs to compare.
fn before<'a>(name: &'a str, end: &str) -> Option<&'a [u8]> {
    let (before, last) = name.as_bytes().split_at(name.len().checked_sub(end.len())?);
    last.eq_ignore_ascii_case(end.as_bytes()).then_some(before)
}

/// Whether a wildcard stands for this name, among others: it has one label in place of the asterisk.
fn is_covered(name: &str, wildcard: &str) -> bool {
    let parents = name.split_once('.').zip(wildcard.strip_prefix("*."));
    parents.is_some_and(|((label, parent), of_wildcard)| !label.is_empty() && parent.eq_ignore_ascii_case(of_wildcard))
}

/// A host name as constraints of mail addresses and URIs mean it: exactly this one, unless a leading dot says below it.
fn is_host_under(host: &str, base: &str) -> bool {
    base.is_empty() || host.eq_ignore_ascii_case(base) || (base.starts_with('.') && before(host, base).is_some())
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
