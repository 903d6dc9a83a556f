//! Bodies of requests: what is accepted is accepted again after it was written out, and a fault names a place in the body.

use std::cell::OnceCell;

use serde_json::{Map, Value, json};
use shared::{
    bodies::{
        create::{Accepted, Validator},
        edit::{Change, Edit},
        json::Json,
        undecodable::explained,
        upload::Upload,
    },
    codes::{ErrorCode, WarningCode},
    custom_csr::{CustomCsrRequest, KeyType, Subject},
    issue::{Issue, Warning},
    names::{public_suffix::SuffixList, san::SanPolicy},
};

use super::{assert_is_one_line, assert_is_told, with};

thread_local! {
    static VALIDATOR: OnceCell<Validator> = const { OnceCell::new() };
}

fn validator() -> Validator {
    Validator::new(SanPolicy { allow_wildcards: false, suffixes: SuffixList::embedded() })
}

/// Each kind of body, of these bytes.
pub fn check(body: &[u8]) {
    let json = Json::parse(body);
    if let Some(json) = &json {
        assert_eq!(Json::parse(written(json).to_string().as_bytes()).as_ref(), Some(json), "what was read is not what is written");
    }
    let body = Body { bytes: body, json };
    with(&VALIDATOR, validator, |validator| {
        body.check_create(validator);
        body.check_rekey(validator);
    });
    body.check_edit();
    body.check_upload();
}

/// JSON that reads as this: of a number that is not small and whole, only the kind is known.
fn written(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Whole(number) => json!(number),
        Json::Bool(value) => json!(value),
        Json::Other => json!(-1),
        Json::String(text) => json!(text),
        Json::Array(items) => items.iter().map(written).collect(),
        Json::Object(members) => Value::Object(members.iter().map(|(name, value)| (name.clone(), written(value))).collect()),
    }
}

struct Body<'a> {
    bytes: &'a [u8],
    json: Option<Json>,
}

impl Body<'_> {
    fn check_create(&self, validator: &Validator) {
        let Accepted { request, set, warnings } = match validator.parse(self.bytes) {
            Ok(accepted) => accepted,
            Err(issues) => return self.check_issues(issues),
        };
        self.check_warnings(&warnings);
        assert!(matches!(set.len(), 0 | 2..=4) && set.iter().all(|key_type| validator.key_types().contains(*key_type)), "{set:?}");
        let again = validator.parse(body_of(&request).to_string().as_bytes()).expect("what was accepted is accepted again");
        assert_eq!(again.request, request);
        let of_values = |warning: &Warning| !matches!(warning.code, WarningCode::UnknownMember | WarningCode::NoEffect);
        assert_eq!(again.warnings, warnings.into_iter().filter(of_values).collect::<Vec<_>>());
        for rekey in [None, Some(&b"{}"[..])] {
            assert_eq!(validator.parse_rekey(request.clone(), rekey), Ok(again.clone()), "a rekey without members copies all");
        }
    }

    fn check_rekey(&self, validator: &Validator) {
        let old = old_request();
        match validator.parse_rekey(old.clone(), Some(self.bytes)) {
            Ok(Accepted { request, warnings, .. }) => {
                self.check_warnings(&warnings);
                assert_eq!((&request.subject, &request.sans), (&old.subject, &old.sans), "a rekey keeps subject and names");
                assert!(validator.key_types().contains(request.key_type));
                let body = json!({
                    "key_type": request.key_type.as_str(),
                    "name": request.name.as_deref().unwrap_or_default(),
                    "description": request.description.as_deref().unwrap_or_default(),
                });
                let again = validator.parse_rekey(old, Some(body.to_string().as_bytes())).expect("accepted again");
                assert_eq!(again.request, request);
            }
            Err(issues) => self.check_issues(issues),
        }
    }

    fn check_edit(&self) {
        match Edit::parse(self.bytes) {
            Ok((edit, warnings)) => {
                self.check_warnings(&warnings);
                let mut body = Map::new();
                let mut member = |name: &str, change: &Change| {
                    if let Some(value) = change {
                        body.insert(name.to_owned(), json!(value));
                    }
                };
                member("name", &edit.name);
                member("description", &edit.description);
                assert_eq!(Edit::parse(Value::Object(body).to_string().as_bytes()), Ok((edit, Vec::new())));
            }
            Err(issues) => self.check_issues(issues),
        }
    }

    fn check_upload(&self) {
        match Upload::parse(self.bytes) {
            Ok(upload) => {
                self.check_warnings(&upload.warnings);
                if let Some(refused) = &upload.private_key {
                    assert_eq!(refused.code, ErrorCode::PrivateKeyRefused);
                    assert_is_told(refused);
                    self.check_place(refused);
                }
                let body = json!({
                    "certificate": upload.certificate,
                    "custom_csr_id": upload.custom_csr_id,
                    "bundle_method": upload.bundle_method.map(shared::custom_certificate::BundleMethod::as_str),
                    "type": upload.certificate_type.map(shared::custom_certificate::CertificateType::as_str),
                    "priority": upload.priority,
                });
                let again = Upload::parse(body.to_string().as_bytes()).expect("what was accepted is accepted again");
                let known = |upload: Upload| Upload { private_key: None, warnings: Vec::new(), ..upload };
                assert_eq!(known(again), known(upload));
            }
            Err(issues) => self.check_issues(issues),
        }
    }

    fn check_issues(&self, issues: Vec<Issue>) {
        assert!(!issues.is_empty(), "a body was refused without a fault");
        assert!(issues.is_sorted_by_key(|issue| issue.code), "faults are not in the order of their codes");
        let is_object = matches!(self.json, Some(Json::Object(_)));
        assert_eq!(issues.iter().all(|issue| issue.pointer.is_some()), is_object, "{issues:?}");
        assert!(is_object || issues.len() == 1, "no object has one fault: {issues:?}");
        for issue in explained(self.bytes, issues) {
            assert_is_told(&issue);
            assert!(issue.code != ErrorCode::BodyUndecodable || issue.hint.is_some(), "1400 without a hint");
            self.check_place(&issue);
        }
    }

    /// A fault lies at a value that is there, or at a member that is missing, null, or has its default.
    fn check_place(&self, issue: &Issue) {
        let (Some(pointer), Some(json)) = (&issue.pointer, &self.json) else { return };
        let steps: Vec<_> = pointer.split('/').skip(1).collect();
        let found = steps.iter().try_fold(json, |json, step| match json {
            Json::Object(members) => members.iter().find(|(name, _)| name == step).map(|(_, value)| value),
            Json::Array(items) => items.get(step.parse::<usize>().ok()?),
            Json::Null | Json::Whole(_) | Json::Bool(_) | Json::Other | Json::String(_) => None,
        });
        let may_be_missing = matches!(
            issue.code,
            ErrorCode::CountryMissing
                | ErrorCode::StateMissing
                | ErrorCode::LocalityMissing
                | ErrorCode::OrganizationMissing
                | ErrorCode::CommonNameMissing
                | ErrorCode::SansMissing
        );
        assert!(found.is_some() || (may_be_missing && steps.len() == 1), "{pointer} is not in the body: {issue:?}");
    }

    fn check_warnings(&self, warnings: &[Warning]) {
        assert!(matches!(self.json, Some(Json::Object(_))), "something else than an object was accepted");
        assert!(warnings.is_sorted_by_key(|warning| warning.code), "warnings are not in the order of their codes");
        for warning in warnings {
            assert_is_one_line(&warning.message());
            assert!(warning.pointer.starts_with('/'), "{warning:?}");
        }
    }
}

fn old_request() -> CustomCsrRequest {
    let text = |text: &str| text.to_owned();
    CustomCsrRequest {
        subject: Subject {
            country: text("us"),
            state: text("California"),
            locality: text("San Francisco"),
            organization: text("Müller"),
            organizational_unit: None,
            common_name: text("www.foo.com"),
        },
        name: Some(text("shop")),
        description: None,
        sans: vec![text("www.foo.com")],
        key_type: KeyType::P256v1,
    }
}

fn body_of(request: &CustomCsrRequest) -> Value {
    let CustomCsrRequest { subject, name, description, sans, key_type } = request;
    json!({
        "country": subject.country,
        "state": subject.state,
        "locality": subject.locality,
        "organization": subject.organization,
        "organizational_unit": subject.organizational_unit,
        "common_name": subject.common_name,
        "name": name,
        "description": description,
        "sans": sans,
        "key_type": key_type.as_str(),
    })
}
