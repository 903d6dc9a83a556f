//! The validator of request bodies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use shared::{
    bodies::create::{Accepted, Validator},
    codes::ErrorCode,
    custom_csr::{CustomCsrRequest, KeyType, KeyTypes},
    issue::Issue,
    names::{public_suffix::SuffixList, san::SanPolicy},
};

static VALIDATOR: LazyLock<Validator> =
    LazyLock::new(|| Validator::new(SanPolicy { allow_wildcards: false, suffixes: SuffixList::embedded() }));

fn parse(body: &str) -> Result<Accepted, Vec<Issue>> {
    VALIDATOR.parse(body.as_bytes())
}

fn valid() -> Value {
    json!({
        "country": "us", "state": "California", "locality": "San Francisco", "organization": "Foo", "common_name": "foo.com",
        "sans": ["foo.com"],
    })
}

/// The valid body with one member replaced.
fn with(name: &str, value: Value) -> String {
    let mut body = valid();
    body[name] = value;
    body.to_string()
}

/// Codes and pointers of what is wrong with a body.
fn faults(body: &str) -> Vec<(u16, String)> {
    parse(body).unwrap_err().into_iter().map(|issue| (issue.code.number(), issue.pointer.unwrap_or_default())).collect()
}

fn fault(code: u16, pointer: &str) -> (u16, String) {
    (code, pointer.to_owned())
}

#[test]
fn values_come_back_as_given_and_blank_optional_ones_as_absent() {
    let mut body = valid();
    body["state"] = json!("  Ünïcode  ");
    body["name"] = json!(" \u{a0}\t");
    body["organizational_unit"] = json!(null);
    body["description"] = json!("two\nlines\tof it");
    body["key_type"] = json!("P256V1");
    body["unknown"] = json!({"a": [1, 2.5e3, true, null]});
    let request = parse(&body.to_string()).unwrap().request;
    assert_eq!(request.subject.state, "  Ünïcode  ");
    assert_eq!((request.name, request.subject.organizational_unit), (None, None));
    assert_eq!(request.description.unwrap(), "two\nlines\tof it");
    assert_eq!(request.key_type, KeyType::P256v1);
    for default in [json!(""), json!("  "), json!(null)] {
        assert_eq!(parse(&with("key_type", default)).unwrap().request.key_type, KeyType::Rsa2048);
    }
}

#[test]
fn a_body_that_is_no_json_object_or_repeats_a_member_is_1400_alone() {
    for body in ["", "[]", "5", "null", "\"x\"", "{", r#"{"country":"US","country":"US"}"#, r#"{"x":{"a":1,"a":2}}"#] {
        assert_eq!(faults(body), [fault(1400, "")], "{body}");
    }
}

#[test]
fn a_number_that_no_float_holds_is_ignored_in_an_unknown_member_and_of_a_wrong_type_in_a_known_one() {
    let body = with("unknown", json!([{"a": "HERE"}])).replace("\"HERE\"", "-1e999");
    assert!(parse(&body).is_ok(), "{body}");
    let body = with("sans", json!(["foo.com", "HERE", "a b"])).replace("\"HERE\"", "1e999");
    assert_eq!(faults(&body), [fault(1400, "/sans/1"), fault(1412, "/sans/2")]);
}

#[test]
fn every_message_of_1462_names_its_member() {
    for name in ["country", "state", "locality", "organization", "organizational_unit", "common_name", "name", "description"] {
        let issues = parse(&with(name, json!("a\u{1}"))).unwrap_err();
        assert_eq!(issues.last().unwrap().message(), format!("The field {name} has control characters. Check your input and try again."));
    }
}

#[test]
fn one_member_may_have_several_faults() {
    let state = format!("{}\u{0}", "x".repeat(128));
    assert_eq!(faults(&with("state", json!(state))), [fault(1461, "/state"), fault(1462, "/state")]);
    let common_name = format!("{}\u{0}", "x".repeat(64));
    assert_eq!(faults(&with("common_name", json!(common_name))), [fault(1410, "/common_name"), fault(1462, "/common_name")]);
    assert_eq!(faults(&with("country", json!("x".repeat(300)))), [fault(1460, "/country")]);
}

#[test]
fn a_key_type_is_neither_trimmed_nor_folded_beyond_ascii() {
    for bad in ["rsa", " rsa2048", "rsa2048\n", "rsa4096", "ſ256v1", "\u{0}"] {
        assert_eq!(faults(&with("key_type", json!(bad))), [fault(1417, "/key_type")], "{bad:?}");
    }
}

#[test]
fn key_types_that_the_service_does_not_accept_are_refused_with_those_that_it_accepts() {
    let accepting = |key_types: &[KeyType]| {
        Validator::new(SanPolicy { allow_wildcards: false, suffixes: SuffixList::embedded() })
            .accepting(KeyTypes::new(key_types.iter().copied()))
    };
    let said = |validator: &Validator, key_type: Value| match validator.parse(with("key_type", key_type).as_bytes()) {
        Ok(accepted) => Ok(accepted.request.key_type),
        Err(issues) => Err(issues.iter().map(|issue| (issue.code.number(), issue.pointer.clone(), issue.message())).collect::<Vec<_>>()),
    };
    let refused = |accepted: &str| {
        let message = format!("Invalid key type. Only {accepted} is accepted. Check your input and try again.");
        Err(vec![(1417, Some("/key_type".to_owned()), message)])
    };
    for bad in ["rsa3072", "rsa4096", "p384", "ed25519", "dsa"] {
        assert_eq!(said(&VALIDATOR, json!(bad)), refused("‘rsa2048’ or ‘p256v1’"), "{bad}");
    }
    let some = accepting(&[KeyType::P384, KeyType::P256v1, KeyType::Rsa2048, KeyType::P384]);
    assert_eq!(said(&some, json!("P384")), Ok(KeyType::P384));
    assert_eq!(said(&some, json!("ed25519")), refused("‘rsa2048’, ‘p256v1’ or ‘p384’"));
    let all = accepting(KeyType::ALL);
    for key_type in KeyType::ALL {
        assert_eq!(said(&all, json!(key_type.as_str())), Ok(*key_type));
    }
    // The default is a key type like the others.
    let one = accepting(&[KeyType::Ed25519]);
    for absent in [json!("rsa2048"), json!(""), json!(null)] {
        assert_eq!(said(&one, absent), refused("‘ed25519’"));
    }
    assert_eq!(said(&one, json!(5)).unwrap_err()[0].0, 1400, "one fault for one member");
    assert_eq!(said(&one, json!(5)).unwrap_err().len(), 1);
}

#[test]
fn a_rekey_copies_a_key_type_only_while_it_is_accepted() {
    let old = CustomCsrRequest { key_type: KeyType::P384, ..parse(&valid().to_string()).unwrap().request };
    let issues = VALIDATOR.parse_rekey(old.clone(), None).unwrap_err();
    assert_eq!((issues.len(), issues[0].code.number(), issues[0].pointer.as_deref()), (1, 1417, Some("/key_type")));
    let new = VALIDATOR.parse_rekey(old, Some(br#"{"key_type":"p256v1"}"#)).unwrap().request;
    assert_eq!(new.key_type, KeyType::P256v1);
}

#[test]
fn every_missing_member_is_reported_at_once() {
    let missing =
        [(1405, "/country"), (1406, "/state"), (1407, "/locality"), (1408, "/organization"), (1409, "/common_name"), (1411, "/sans")]
            .map(|(code, pointer)| fault(code, pointer));
    assert_eq!(faults("{}"), missing);
    let blank = json!({"country": "", "state": " ", "locality": "\n", "organization": null, "common_name": "\u{3000}", "sans": []});
    assert_eq!(faults(&blank.to_string()), missing);
}

#[test]
fn a_wrong_type_is_1400_at_its_member_and_that_member_has_no_other_fault() {
    for name in
        ["country", "state", "locality", "organization", "organizational_unit", "common_name", "name", "description", "key_type", "sans"]
    {
        for value in [json!(5), json!(true), json!({})] {
            assert_eq!(faults(&with(name, value)), [fault(1400, &format!("/{name}"))]);
        }
    }
    assert_eq!(faults(&with("sans", json!("foo.com"))), [fault(1400, "/sans")]);
    assert_eq!(faults(&with("country", json!(["US"]))), [fault(1400, "/country")]);
    let sans = json!(["foo.com", "co.uk", null, 5, "a b"]);
    assert_eq!(
        faults(&with("sans", sans)),
        [fault(1400, "/sans/2"), fault(1400, "/sans/3"), fault(1412, "/sans/4"), fault(1415, "/sans/1")]
    );
}

#[test]
fn upper_bounds_count_characters() {
    for (name, most, code) in [
        ("common_name", 64, 1410),
        ("organization", 64, 1461),
        ("organizational_unit", 64, 1461),
        ("state", 128, 1461),
        ("locality", 128, 1461),
        ("name", 255, 1461),
        ("description", 1024, 1461),
    ] {
        assert!(parse(&with(name, json!("ü".repeat(most)))).is_ok(), "{name}");
        let issues = parse(&with(name, json!("ü".repeat(most + 1)))).unwrap_err();
        assert_eq!((issues.len(), issues[0].code.number()), (1, code));
        if code == 1461 {
            assert!(issues[0].message().contains(&format!("{name} is longer than {most} characters")), "{}", issues[0].message());
        }
    }
}

#[test]
fn control_characters_are_refused_wherever_they_stand() {
    for name in ["state", "locality", "organization", "organizational_unit", "common_name", "name", "description"] {
        for control in ["a\u{0}b", "a\u{7f}", "\u{85}a", "a\u{1b}[0m", "a\rb"] {
            assert_eq!(faults(&with(name, json!(control))), [fault(1462, &format!("/{name}"))], "{control:?}");
        }
    }
    assert_eq!(faults(&with("name", json!("a\nb"))), [fault(1462, "/name")]);
    assert_eq!(faults(&with("country", json!("U\u{0}"))), [fault(1460, "/country"), fault(1462, "/country")]);
}

#[test]
fn a_country_is_an_assigned_code_or_xx() {
    for good in ["US", "gb", "De", "XX", "xx", "AQ"] {
        assert!(parse(&with("country", json!(good))).is_ok(), "{good}");
    }
    for bad in ["UK", "EU", "ZZ", "XK", "AA", "SU", "USA", "U", "U ", "ÜS", "99"] {
        assert_eq!(faults(&with("country", json!(bad))), [fault(1460, "/country")], "{bad}");
    }
    assert_eq!(rust_iso3166::ALL_ALPHA2.len(), 249);
}

#[test]
fn over_a_hundred_sans_are_1463_and_are_not_judged() {
    let sans = |count: usize| Value::from(vec!["foo.com"; count]);
    assert!(parse(&with("sans", sans(100))).is_ok());
    let mut many = sans(101);
    many[0] = json!(null);
    many[1] = json!("a b");
    assert_eq!(faults(&with("sans", many)), [fault(1463, "/sans")]);
}

#[test]
fn faults_stand_in_the_order_of_their_codes_and_then_of_the_body() {
    let long = "x".repeat(129);
    let body = format!(
        r#"{{"key_type":"dsa","sans":["co.uk","a b","é.com","x.test"],"organization":"{long}","locality":"{long}","state":"{long}","country":"UK"}}"#
    );
    let expected = [
        (1409, "/common_name"),
        (1412, "/sans/1"),
        (1413, "/sans/2"),
        (1414, "/sans/3"),
        (1415, "/sans/0"),
        (1417, "/key_type"),
        (1460, "/country"),
        (1461, "/organization"),
        (1461, "/locality"),
        (1461, "/state"),
    ];
    assert_eq!(faults(&body), expected.map(|(code, pointer)| fault(code, pointer)));
}

#[test]
fn warnings_tell_what_public_cas_refuse() {
    let mut body = valid();
    assert_eq!(parse(&body.to_string()).unwrap().warnings, []);
    body["common_name"] = json!("FOO.com");
    assert_eq!(parse(&body.to_string()).unwrap().warnings, []);
    let long = format!("{}.com", ["a".repeat(62).as_str(); 4].join("."));
    body["common_name"] = json!("bar.com");
    body["sans"] = json!(["foo.com", "a_b.com", long]);
    let warnings: Vec<_> =
        parse(&body.to_string()).unwrap().warnings.into_iter().map(|warning| (warning.code.number(), warning.pointer)).collect();
    assert_eq!(warnings, [fault(2000, "/common_name"), fault(2001, "/sans/1"), fault(2006, "/sans/2")]);
    body["sans"] = json!(["bar.com", "printer.local", "SVC.acme.Internal"]);
    let warnings = parse(&body.to_string()).unwrap().warnings;
    let told: Vec<_> = warnings.iter().map(|warning| (warning.code.number(), warning.pointer.as_str())).collect();
    assert_eq!(told, [(2013, "/sans/1"), (2013, "/sans/2")]);
    assert!(warnings[0].message().contains("‘.local’") && warnings[1].message().contains("‘.internal’"), "{warnings:?}");
}

#[test]
fn unknown_members_are_warned_of_where_the_body_is_refused_too() {
    let mut body = valid();
    body["comon_name"] = body["common_name"].take();
    body["country"] = json!("UK");
    body["sans"] = json!(["a_b.com"]);
    let issues = parse(&body.to_string()).unwrap_err();
    let told: Vec<_> =
        issues.iter().map(|issue| issue.unknown_members.iter().map(|member| member.pointer.as_str()).collect::<Vec<_>>()).collect();
    let expected: [Vec<&str>; 2] = [vec!["/comon_name"], vec![]];
    assert_eq!(told, expected);
}

#[test]
fn names_that_only_look_internationalized_and_unknown_members_are_warned_of() {
    let mut body = valid();
    body["sans"] = json!(["foo.com", "www.XN--Mnchen-3ya.de", "a.xn--zzzzzz99.com", "a_b.ab--cd.com"]);
    body["comon_name"] = json!("foo.com");
    body["csr"] = json!(null);
    let warnings = parse(&body.to_string()).unwrap().warnings;
    let places: Vec<_> = warnings.iter().map(|warning| (warning.code.number(), warning.pointer.clone())).collect();
    let expected = [(2001, "/sans/3"), (2011, "/sans/2"), (2011, "/sans/3"), (2012, "/comon_name")];
    assert_eq!(places, expected.map(|(code, pointer)| fault(code, pointer)));
    assert!(warnings[1].message().contains("‘xn--zzzzzz99’") && warnings[3].message().contains("‘comon_name’"));
}

/// Any JSON, with the members that the validator knows on top more often than not.
fn any_body() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-z0-9.*_-]{0,20}".prop_map(Value::from),
        Just(Value::from("US")),
        Just(Value::from("foo.com")),
    ];
    let value = scalar.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(".{0,5}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    });
    let name = prop_oneof![
        9 => prop::sample::select(vec![
            "country", "state", "locality", "organization", "organizational_unit", "common_name", "name", "description", "sans", "key_type",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop_oneof![9 => prop::collection::hash_map(name, value.clone(), 0..12).prop_map(|map| map.into_iter().collect()), 1 => value]
}

proptest! {
    #[test]
    fn any_json_is_accepted_or_has_faults_in_the_order_of_codes_each_at_a_known_member(body in any_body()) {
        match parse(&body.to_string()) {
            Ok(accepted) => prop_assert!(!accepted.request.sans.is_empty()),
            Err(issues) if !body.is_object() => prop_assert_eq!(issues, [Issue::new(ErrorCode::BodyUndecodable)]),
            Err(issues) => {
                prop_assert!(!issues.is_empty() && issues.is_sorted_by_key(|issue| issue.code));
                for issue in issues {
                    let pointer = issue.pointer.unwrap();
                    // 1417 names the key types that are accepted, whatever its template says.
                    let has_reason = issue.code.template().contains(":reason") || issue.code == ErrorCode::KeyTypeInvalid;
                    prop_assert_eq!(issue.reason.is_some(), has_reason);
                    prop_assert!(body.pointer(&pointer).is_some() || (1405..=1411).contains(&issue.code.number()), "{}", pointer);
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(body: Vec<u8>) {
        let _ = VALIDATOR.parse(&body);
    }

    #[test]
    fn no_texts_make_it_panic_and_accepted_ones_come_back(texts in prop::array::uniform8("\\PC{0,70}"), sans in prop::collection::vec("[a-z.*_-]{0,20}|\\PC{0,10}", 0..5)) {
        let [country, state, locality, organization, unit, common_name, name, description] = &texts;
        let body = json!({
            "country": country, "state": state, "locality": locality, "organization": organization, "organizational_unit": unit,
            "common_name": common_name, "name": name, "description": description, "sans": sans,
        });
        if let Ok(accepted) = parse(&body.to_string()) {
            prop_assert_eq!(&accepted.request.subject.state, state);
            prop_assert_eq!(&accepted.request.sans, &sans);
        }
    }
}

#[test]
fn a_rekey_copies_what_its_body_does_not_give() {
    let old = parse(&with("name", json!("shop"))).unwrap().request;
    for body in [None, Some(&b"{}"[..]), Some(br#"{"name":null,"key_type":" ","description":null,"sans":5,"country":"XY","x":[]}"#)] {
        assert_eq!(VALIDATOR.parse_rekey(old.clone(), body).unwrap().request, old);
    }
    let body = br#"{"x":[],"sans":5,"country":"XY","y":null}"#;
    let warnings = VALIDATOR.parse_rekey(old.clone(), Some(body)).unwrap().warnings;
    let warnings: Vec<_> = warnings.into_iter().map(|warning| (warning.code.number(), warning.pointer)).collect();
    assert_eq!(warnings, [fault(2005, "/sans"), fault(2005, "/country"), fault(2012, "/x")]);
    let body = br#"{"name":"","description":" its\twords","key_type":"P256V1"}"#;
    let new = VALIDATOR.parse_rekey(old.clone(), Some(body)).unwrap().request;
    assert_eq!((&new.name, new.description.as_deref(), new.key_type), (&None, Some(" its\twords"), KeyType::P256v1));
    assert_eq!((new.subject, new.sans), (old.subject, old.sans));
}

#[test]
fn a_rekey_names_every_fault_of_its_body_and_of_the_names_that_it_copies() {
    let mut old = parse(&valid().to_string()).unwrap().request;
    old.sans.push("localhost".to_owned());
    let rekey_faults = |body: &str| -> Vec<(u16, String)> {
        let issues = VALIDATOR.parse_rekey(old.clone(), Some(body.as_bytes())).unwrap_err();
        issues.into_iter().map(|issue| (issue.code.number(), issue.pointer.unwrap_or_default())).collect()
    };
    let of_san = rekey_faults("{}");
    assert_eq!(of_san.len(), 1);
    assert_eq!(of_san[0].1, "/sans/1");
    let body = json!({"description": "a\u{0}", "key_type": "x", "name": 5}).to_string();
    assert_eq!(rekey_faults(&body), [fault(1400, "/name"), of_san[0].clone(), fault(1417, "/key_type"), fault(1462, "/description")]);
    for body in ["", "[]", "null", r#"{"name":"a","name":"b"}"#] {
        assert_eq!(rekey_faults(body), [fault(1400, "")], "{body}");
    }
}
