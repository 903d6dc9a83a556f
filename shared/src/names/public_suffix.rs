//! The public suffix list: which name a name is registered under.
//!
//! The reference is `EffectiveTLDPlusOne` of Go's `golang.org/x/net/publicsuffix`; the errors are its strings.

use std::collections::HashSet;

use publicsuffix::{List, Psl};

/// The list of 2026-10-22, under the Mozilla Public License 2.0.
const EMBEDDED: &str = include_str!("../../data/public_suffix_list.dat");

/// A list with fewer rules is not the whole list: the embedded one has about 10,000.
const FEWEST_RULES: usize = 5_000;

/// How a section begins.
const SECTIONS: [&str; 2] = ["BEGIN ICANN DOMAINS", "BEGIN PRIVATE DOMAINS"];

/// Why no registrable name can be derived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuffixError {
    /// The name is a public suffix itself.
    #[error("publicsuffix: cannot derive eTLD+1 for domain \"{0}\"")]
    CannotDerive(String),
    /// The list gave a suffix that is not the name's end. It cannot happen to a name that got this far.
    #[error("publicsuffix: invalid public suffix \"{suffix}\" for domain \"{name}\"")]
    InvalidSuffix {
        /// What the list gave.
        suffix: String,
        /// For this name.
        name: String,
    },
}

/// Why a list from a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum SuffixListError {
    /// It is no list.
    #[error("is not a public suffix list: {0}")]
    Unparsable(String),
    /// It is a part of one.
    #[error("has only {0} rules, so it is not the whole list")]
    TooSmall(usize),
    /// It lacks what every list has.
    #[error("lacks the rule `com`, so it is not the list")]
    WithoutCom,
}

/// A public suffix list, both sections.
pub struct SuffixList {
    list: List,
    /// What stands after `*.` in the rules.
    wildcards: HashSet<String>,
    /// What stands after `!` in the rules.
    exceptions: HashSet<String>,
}

impl SuffixList {
    /// The embedded list.
    ///
    /// # Panics
    ///
    /// Never: a test loads it.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the list is part of the program, and a test loads it")]
    pub fn embedded() -> Self {
        Self::parse(EMBEDDED).expect("the embedded list is one")
    }

    /// Reads a list, a newer one than the embedded one.
    ///
    /// # Errors
    ///
    /// [`SuffixListError`] if the text is not a whole list.
    pub fn parse(text: &str) -> Result<Self, SuffixListError> {
        let list: List = text.parse().map_err(|error: publicsuffix::Error| SuffixListError::Unparsable(error.to_string()))?;
        let (mut wildcards, mut exceptions, mut rules, mut com) = (HashSet::new(), HashSet::new(), 0, false);
        for rule in rules_of(text) {
            rules += 1;
            com |= rule == "com";
            if let Some(base) = rule.strip_prefix("*.") {
                wildcards.insert(ascii(base));
            } else if let Some(name) = rule.strip_prefix('!') {
                exceptions.insert(ascii(name));
            }
        }
        if rules < FEWEST_RULES {
            return Err(SuffixListError::TooSmall(rules));
        }
        if !com {
            return Err(SuffixListError::WithoutCom);
        }
        Ok(Self { list, wildcards, exceptions })
    }

    /// The public suffix and one label more. `name` has lower-case ASCII labels, and none of them is empty.
    ///
    /// # Errors
    ///
    /// [`SuffixError`] if the name is a public suffix itself.
    pub fn registrable_domain<'a>(&self, name: &'a str) -> Result<&'a str, SuffixError> {
        let start = self.suffix_start(name)?;
        match name[..start].strip_suffix('.') {
            None => Err(SuffixError::CannotDerive(name.to_owned())),
            Some(before) => Ok(&name[before.rfind('.').map_or(0, |dot| dot + 1)..]),
        }
    }

    /// Whether no rule is about a name's top domain: it is not in the public DNS. `name` is as above.
    #[must_use]
    pub fn is_unlisted(&self, name: &str) -> bool {
        !self.list.suffix(name.as_bytes()).is_some_and(|suffix| suffix.is_known())
    }

    /// Where the public suffix begins.
    fn suffix_start(&self, name: &str) -> Result<usize, SuffixError> {
        let suffix = self.list.suffix(name.as_bytes());
        let suffix = suffix.as_ref().map_or(&[][..], |suffix| suffix.as_bytes());
        let Some(start) = name.len().checked_sub(suffix.len()).filter(|start| &name.as_bytes()[*start..] == suffix) else {
            return Err(SuffixError::InvalidSuffix { suffix: String::from_utf8_lossy(suffix).into_owned(), name: name.to_owned() });
        };
        Ok(start.min(self.wildcard_start(name).unwrap_or(start)))
    }

    /// Where the longest suffix by a `*.` rule begins. The crate misses it where a longer rule below the same name shadows the wildcard.
    fn wildcard_start(&self, name: &str) -> Option<usize> {
        let mut label = 0;
        let mut found = None;
        for (dot, _) in name.match_indices('.') {
            if self.exceptions.contains(&name[label..]) {
                return None;
            }
            if found.is_none() && self.wildcards.contains(&name[dot + 1..]) {
                found = Some(label);
            }
            label = dot + 1;
        }
        found
    }
}

/// The rules of both sections. Text before the first section is skipped, as the crate skips it.
fn rules_of(text: &str) -> impl Iterator<Item = &str> {
    let sections = text.lines().skip_while(|line| !SECTIONS.iter().any(|section| line.contains(section)));
    let first_words = sections.filter_map(|line| line.split_whitespace().next());
    first_words.filter(|word| !word.starts_with("//"))
}

fn ascii(name: &str) -> String {
    idna::domain_to_ascii(name).unwrap_or_else(|_| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::LazyLock};

    use proptest::prelude::*;

    use super::*;

    /// The algorithm of publicsuffix.org, word for word: all rules that match, an exception first, else the longest.
    struct Reference(HashMap<Vec<String>, bool>);

    impl Reference {
        fn new() -> Self {
            Self(rules_of(EMBEDDED).map(|rule| (labels(&ascii_rule(rule.trim_start_matches('!'))), rule.starts_with('!'))).collect())
        }

        fn registrable(&self, name: &str) -> Option<String> {
            let name = labels(name);
            let mut length = 1;
            for n in 1..=name.len() {
                let tail = &name[name.len() - n..];
                let mut wild = tail.to_vec();
                wild[0] = "*".into();
                if self.0.get(tail) == Some(&true) {
                    length = n - 1;
                    break;
                }
                if self.0.get(tail) == Some(&false) || self.0.contains_key(&wild) {
                    length = n;
                }
            }
            (name.len() > length).then(|| name[name.len() - length - 1..].join("."))
        }
    }

    fn labels(name: &str) -> Vec<String> {
        name.split('.').map(str::to_owned).collect()
    }

    fn ascii_rule(rule: &str) -> String {
        rule.strip_prefix("*.").map_or_else(|| ascii(rule), |base| format!("*.{}", ascii(base)))
    }

    #[test]
    fn names_made_from_every_rule_of_the_list_agree_with_the_reference() {
        let (list, reference) = (SuffixList::embedded(), Reference::new());
        let mut names = 0;
        for rule in rules_of(EMBEDDED) {
            let base = ascii_rule(rule.trim_start_matches('!'));
            for base in [base.replace('*', "w"), base.replace("*.", "")] {
                for name in [base.clone(), format!("a.{base}"), format!("b.a.{base}"), format!("c.b.a.{base}")] {
                    assert_eq!(list.registrable_domain(&name).ok().map(str::to_owned), reference.registrable(&name), "{name}");
                    names += 1;
                }
            }
        }
        assert!(names > 50_000, "{names}");
    }

    #[test]
    fn shadowed_wildcards_are_found_beside_the_crate_that_misses_them() {
        let list = SuffixList::embedded();
        for name in ["oci.customer-oci.com", "svc.firenet.ch", "mtls.run.app"] {
            assert_eq!(list.registrable_domain(name), Err(SuffixError::CannotDerive(name.into())), "{name}");
        }
    }

    #[test]
    fn a_list_that_is_cut_or_lacks_com_is_refused() {
        let lines: Vec<_> = EMBEDDED.lines().collect();
        assert!(matches!(SuffixList::parse(&lines[..2_000].join("\n")), Err(SuffixListError::TooSmall(_))));
        let without: Vec<_> = lines.iter().filter(|line| **line != "com").copied().collect();
        assert!(matches!(SuffixList::parse(&without.join("\n")), Err(SuffixListError::WithoutCom)));
        assert!(SuffixList::parse("").is_err());
        assert!(SuffixList::parse("<!DOCTYPE html>\n<title>Not found</title>\n").is_err());
    }

    #[test]
    fn rules_outside_the_sections_do_not_count() {
        let headless = EMBEDDED.replace("BEGIN ICANN DOMAINS", "");
        assert!(SuffixList::parse(&headless).is_err(), "only the private section is left");
        let behind = format!("{}\n// ===BEGIN ICANN DOMAINS===\ncom\n", EMBEDDED.replace("===BEGIN", ""));
        assert!(matches!(SuffixList::parse(&behind), Err(SuffixListError::TooSmall(1))));
    }

    #[test]
    fn a_newer_list_counts_and_leaves_the_embedded_one_as_it_is() {
        let newer = SuffixList::parse(&format!("{EMBEDDED}\nnew-suffix.com\r\n")).unwrap();
        assert_eq!(newer.registrable_domain("a.new-suffix.com"), Ok("a.new-suffix.com"));
        assert_eq!(SuffixList::embedded().registrable_domain("a.new-suffix.com"), Ok("new-suffix.com"));
    }

    /// The list, the reference, and the labels of every rule.
    static ALL: LazyLock<(SuffixList, Reference, Vec<Vec<String>>)> = LazyLock::new(|| {
        let rules = rules_of(EMBEDDED).map(|rule| labels(&ascii_rule(rule.trim_start_matches('!')).replace('*', "w"))).collect();
        (SuffixList::embedded(), Reference::new(), rules)
    });

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Labels of one rule before any tail of another, so that names turn off beside the rules at every depth.
        #[test]
        fn names_mixed_from_any_two_rules_agree_with_the_reference(
            one: prop::sample::Index, other: prop::sample::Index, cut in 0..4_usize, more in prop::collection::vec("[a-z0-9_]{1,3}", 0..3),
        ) {
            let (list, reference, rules) = &*ALL;
            let (one, other) = (one.get(rules), other.get(rules));
            let tail = &other[cut.min(other.len() - 1)..];
            let name = [more.as_slice(), one.as_slice(), tail].concat().join(".");
            prop_assert_eq!(list.registrable_domain(&name).ok().map(str::to_owned), reference.registrable(&name), "{}", name);
        }
    }
}
