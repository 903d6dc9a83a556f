//! The SAN rules against their vectors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use serde::Deserialize;
use shared::{
    bodies::create::Validator,
    codes::ErrorCode,
    names::{public_suffix::SuffixList, san::SanPolicy},
};

#[derive(Deserialize)]
struct Vector {
    san: String,
    expect_code: u16,
    reason: Option<String>,
    etld1: Option<String>,
    why: String,
}

#[test]
fn every_vector_is_judged_as_it_says() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("data/san-vectors.json")).unwrap();
    assert_eq!(vectors.len(), 454);
    let validator = Validator::new(SanPolicy { allow_wildcards: false, suffixes: SuffixList::embedded() });
    let list = SuffixList::embedded();
    for Vector { san, expect_code, reason, etld1, why } in vectors {
        let body = serde_json::json!({
            "country": "US", "state": "s", "locality": "l", "organization": "o", "common_name": "foo.com", "sans": ["a.com", san],
        });
        match validator.parse(body.to_string().as_bytes()) {
            Ok(accepted) => {
                assert_eq!(expect_code, 0, "{san:?}: {why}");
                assert_eq!(accepted.request.sans[1], san);
                assert_eq!(list.registrable_domain(&san.to_ascii_lowercase()).unwrap(), etld1.unwrap(), "{san:?}");
            }
            Err(issues) => {
                let [issue] = issues.as_slice() else { panic!("{san:?}: {issues:?}") };
                assert_eq!((issue.code.number(), issue.pointer.as_deref()), (expect_code, Some("/sans/1")), "{san:?}: {why}");
                assert_eq!(issue.reason, reason, "{san:?}");
                if issue.code == ErrorCode::SanNotRegistrable {
                    assert!(issue.message().contains(&reason.unwrap()), "{san:?}");
                }
            }
        }
    }
}
