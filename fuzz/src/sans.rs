//! Subject alternative names: a name that is accepted is a host name, and its normal form is its own normal form.

use std::{cell::OnceCell, net::IpAddr};

use serde_json::json;
use shared::{
    bodies::create::Validator,
    codes::ErrorCode,
    names::{
        public_suffix::SuffixList,
        san::{SAN_MAX_CHARS, SanFault, SanPolicy, dns_names, reserved_label},
    },
};

use super::{assert_is_one_line, with};

struct Policies {
    plain: SanPolicy,
    wildcard: SanPolicy,
    bodies: Validator,
}

thread_local! {
    static POLICIES: OnceCell<Policies> = const { OnceCell::new() };
}

fn policies() -> Policies {
    let policy = |allow_wildcards| SanPolicy { allow_wildcards, suffixes: SuffixList::embedded() };
    Policies { plain: policy(false), wildcard: policy(true), bodies: Validator::new(policy(false)) }
}

/// One name.
pub fn check(data: &[u8]) {
    let Ok(san) = std::str::from_utf8(data) else { return };
    with(&POLICIES, policies, |Policies { plain, wildcard, bodies }| {
        let judged = plain.judge(san);
        check_one(plain, san, &judged);
        check_one(wildcard, san, &wildcard.judge(san));
        if !san.contains('*') {
            assert_eq!(wildcard.judge(san), judged, "only names with a * are judged otherwise");
        }
        check_in_body(bodies, san, judged.map_err(|(code, _)| code));
    });
}

fn check_one(policy: &SanPolicy, san: &str, judged: &Result<(), SanFault>) {
    match judged {
        Ok(()) => {
            check_accepted(policy, san);
        }
        Err((code, reason)) => {
            let codes = [
                ErrorCode::SanInvalid,
                ErrorCode::SanNotAscii,
                ErrorCode::SanReserved,
                ErrorCode::SanNotRegistrable,
                ErrorCode::SanExampleDomain,
            ];
            assert!(codes.contains(code), "{code:?}");
            assert_eq!(reason.is_some(), *code == ErrorCode::SanNotRegistrable, "1415 alone has a reason");
            assert_is_one_line(&policy.broken_rule(*code, san));
        }
    }
    // Case does not matter, and the reason quotes the name in lower case.
    for other in [san.to_ascii_lowercase(), san.to_ascii_uppercase()] {
        assert_eq!(&policy.judge(&other), judged, "{other} is judged otherwise");
    }
}

fn check_accepted(policy: &SanPolicy, san: &str) {
    assert!(san.is_ascii() && san.len() <= SAN_MAX_CHARS && san.parse::<IpAddr>().is_err());
    let names = dns_names(&[san.to_owned(), san.to_ascii_uppercase()]);
    let [name] = names.as_slice() else { panic!("one name became {names:?}") };
    assert_eq!(dns_names(&names), names, "the normal form has another one");
    assert_eq!(policy.judge(name), Ok(()), "the normal form is not accepted");
    let host = name.strip_prefix("*.").filter(|_| policy.allow_wildcards).unwrap_or(name);
    assert!(host.split('.').all(|label| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')), "{host}");
    let domain = policy.suffixes.registrable_domain(host).expect("a registrable domain");
    assert!(host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')), "{domain} is not in {host}");
    assert_eq!(policy.suffixes.registrable_domain(domain), Ok(domain));
    assert_eq!(policy.judge(domain), Ok(()), "a name is accepted, and not the domain that it is in");
    if let Some(warning) = reserved_label(san) {
        assert_is_one_line(&warning);
    }
}

/// A body with this name has the fault of the name, and no other.
fn check_in_body(bodies: &Validator, san: &str, judged: Result<(), ErrorCode>) {
    let body = json!({
        "country": "US", "state": "California", "locality": "San Francisco", "organization": "Foo", "common_name": "www.foo.com", "sans": [san],
    });
    match bodies.parse(body.to_string().as_bytes()) {
        Ok(accepted) => assert_eq!((judged, accepted.request.sans.as_slice()), (Ok(()), &[san.to_owned()][..])),
        Err(issues) => {
            let [issue] = issues.as_slice() else { panic!("one name has {issues:?}") };
            assert_eq!((Err(issue.code), issue.pointer.as_deref()), (judged, Some("/sans/0")));
        }
    }
}
