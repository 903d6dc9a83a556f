//! Validates the bodies of a create and a rekey: reports every fault, each with its place.

use super::{
    json::Json,
    unchanging::{self, OF_CUSTOM_CSRS},
    unknown,
};
use crate::{
    codes::{ErrorCode, WarningCode},
    custom_csr::{CustomCsrRequest, KeyType, KeyTypes, Subject},
    issue::{Issue, Warning},
    names::san::{DNS_MAX_CHARS, SanPolicy, reserved_label},
};

/// The most SANs.
pub const SANS_MAX: usize = 100;

/// A request that passed every check, with its warnings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The request; of a set, that for the first of its key types.
    pub request: CustomCsrRequest,
    /// The key types of a set, or none if one custom CSR is asked for.
    pub set: Vec<KeyType>,
    /// Warnings, by code and then in the order of the body.
    pub warnings: Vec<Warning>,
}

/// A member of the body that holds text, and its rules.
pub(super) struct TextField {
    pub name: &'static str,
    /// The code if the member is missing, or `None` if it is optional.
    missing: Option<ErrorCode>,
    /// The upper bound in characters (RFC 5280, appendix A; our own for name and description).
    max_chars: Option<usize>,
    /// Control characters that are allowed.
    allowed_controls: &'static [char],
}

const fn required(name: &'static str, missing: ErrorCode, max_chars: Option<usize>) -> TextField {
    TextField { name, missing: Some(missing), max_chars, allowed_controls: &[] }
}

const fn optional(name: &'static str, max_chars: usize, allowed_controls: &'static [char]) -> TextField {
    TextField { name, missing: None, max_chars: Some(max_chars), allowed_controls }
}

const COUNTRY: usize = 0;
const STATE: usize = 1;
const LOCALITY: usize = 2;
const ORGANIZATION: usize = 3;
const ORGANIZATIONAL_UNIT: usize = 4;
const COMMON_NAME: usize = 5;
pub(super) const NAME: usize = 6;
pub(super) const DESCRIPTION: usize = 7;

const TEXT_FIELDS: [TextField; 8] = [
    required("country", ErrorCode::CountryMissing, None),
    required("state", ErrorCode::StateMissing, Some(128)),
    required("locality", ErrorCode::LocalityMissing, Some(128)),
    required("organization", ErrorCode::OrganizationMissing, Some(64)),
    optional("organizational_unit", 64, &[]),
    required("common_name", ErrorCode::CommonNameMissing, Some(64)),
    optional("name", 255, &[]),
    optional("description", 1024, &['\n', '\t']),
];

/// Judges request bodies.
pub struct Validator {
    sans: SanPolicy,
    pub(super) key_types: KeyTypes,
}

/// The members and faults found so far.
#[derive(Default)]
pub(super) struct Draft {
    pub texts: [Option<String>; 8],
    /// Members of a wrong type, which are not reported as missing too.
    mistyped: [bool; 8],
    sans: Vec<String>,
    pub key_type: KeyType,
    pub is_key_type_given: bool,
    /// The key types of a set, as far as they are right.
    pub set: Option<Vec<KeyType>>,
    pub issues: Vec<Issue>,
    pub warnings: Vec<Warning>,
}

impl Validator {
    /// A validator with this policy for SANs, and the default key types.
    #[must_use]
    pub fn new(sans: SanPolicy) -> Self {
        Self { sans, key_types: KeyTypes::default() }
    }

    /// With these key types instead.
    #[must_use]
    pub fn accepting(self, key_types: KeyTypes) -> Self {
        Self { key_types, ..self }
    }

    /// The key types that requests may ask for.
    #[must_use]
    pub const fn key_types(&self) -> &KeyTypes {
        &self.key_types
    }

    /// Judges a body.
    ///
    /// # Errors
    ///
    /// Every fault, sorted by code and then in the order of the body. 1400 alone if the body is not a JSON object without repeated members.
    pub fn parse(&self, body: &[u8]) -> Result<Accepted, Vec<Issue>> {
        let Some(Json::Object(members)) = Json::parse(body) else { return Err(vec![Issue::new(ErrorCode::BodyUndecodable)]) };
        let mut draft = Draft::default();
        let mut sans_given = false;
        for (name, value) in members {
            match name.as_str() {
                "sans" => sans_given = self.take_sans(value, &mut draft),
                "key_type" => self.take_key_type(value, &mut draft),
                "key_types" => self.take_key_types(value, &mut draft),
                _ => match text_field(&name) {
                    Some(field) => take_text(field, value, &mut draft),
                    None => unknown::warn(&name, &value, &mut draft.warnings),
                },
            }
        }
        if !sans_given {
            draft.issues.push(Issue::at(ErrorCode::SansMissing, "/sans"));
        }
        self.judge_key_type(&mut draft);
        draft.finish()
    }

    /// Judges a rekey: the old custom CSR's request, with the key type, name and description of the body.
    ///
    /// An absent member keeps the value, and so do `null` and a blank `key_type`; a blank `name` or `description` clears it. The SANs and the
    /// key type are judged again, since what may be asked for changes with the settings and the public suffix list. Members that a rekey does not
    /// change are ignored with a warning.
    ///
    /// # Errors
    ///
    /// 1400, 1412 to 1417, 1461 and 1462, sorted as [`Validator::parse`] does. 1400 alone if there is a body that is not a JSON object
    /// without repeated members.
    pub fn parse_rekey(&self, request: CustomCsrRequest, body: Option<&[u8]>) -> Result<Accepted, Vec<Issue>> {
        self.rekey(request, body, true)
    }

    /// Judges a rekey of one of a set, which keeps its key type: that of the body is ignored with a warning.
    ///
    /// # Errors
    ///
    /// Those of [`Validator::parse_rekey`].
    pub fn parse_rekey_of_set(&self, request: CustomCsrRequest, body: Option<&[u8]>) -> Result<Accepted, Vec<Issue>> {
        self.rekey(request, body, false)
    }

    fn rekey(&self, mut request: CustomCsrRequest, body: Option<&[u8]>, takes_key_type: bool) -> Result<Accepted, Vec<Issue>> {
        let members = match body.map(Json::parse) {
            None => Vec::new(),
            Some(Some(Json::Object(members))) => members,
            Some(_) => return Err(vec![Issue::new(ErrorCode::BodyUndecodable)]),
        };
        let mut draft = Draft { key_type: request.key_type, ..Draft::default() };
        for (name, value) in members {
            match name.as_str() {
                _ if value == Json::Null => {}
                "key_type" if takes_key_type => self.take_key_type(value, &mut draft),
                "name" => request.name = take_optional(NAME, value, &mut draft),
                "description" => request.description = take_optional(DESCRIPTION, value, &mut draft),
                _ => unchanging::warn(OF_CUSTOM_CSRS, &name, &value, &mut draft.warnings),
            }
        }
        self.judge_key_type(&mut draft);
        request.key_type = draft.key_type;
        for (index, san) in request.sans.iter().enumerate() {
            self.judge_san(index, san, &mut draft);
        }
        judged(draft.issues, draft.warnings, Vec::new(), || request)
    }

    fn judge_san(&self, index: usize, san: &str, draft: &mut Draft) {
        if let Err((code, reason)) = self.sans.judge(san) {
            let issue = Issue::at(code, format!("/sans/{index}")).hinting(self.sans.broken_rule(code, san));
            draft.issues.push(Issue { reason, ..issue });
        } else if let Some(top_domain) = self.sans.unlisted_top_domain(san) {
            draft.warnings.push(Warning::at(WarningCode::SanTopDomainUnlisted, format!("/sans/{index}")).because(top_domain));
        }
    }

    /// Judges `sans`. Returns false if there are none.
    fn take_sans(&self, value: Json, draft: &mut Draft) -> bool {
        let items = match value {
            Json::Null => return false,
            Json::Array(items) if items.is_empty() => return false,
            Json::Array(items) => items,
            Json::Whole(_) | Json::Bool(_) | Json::Other | Json::String(_) | Json::Object(_) => {
                draft.issues.push(Issue::at(ErrorCode::BodyUndecodable, "/sans"));
                return true;
            }
        };
        if items.len() > SANS_MAX {
            draft.issues.push(Issue::at(ErrorCode::TooManySans, "/sans"));
            return true;
        }
        for (index, item) in items.into_iter().enumerate() {
            let Json::String(san) = item else {
                draft.issues.push(Issue::at(ErrorCode::BodyUndecodable, format!("/sans/{index}")));
                continue;
            };
            self.judge_san(index, &san, draft);
            draft.sans.push(san);
        }
        true
    }
}

/// The text field of this name.
pub(super) fn text_field(name: &str) -> Option<usize> {
    TEXT_FIELDS.iter().position(|field| field.name == name)
}

pub(super) fn take_text(index: usize, value: Json, draft: &mut Draft) {
    let field = &TEXT_FIELDS[index];
    let pointer = || format!("/{}", field.name);
    match value {
        Json::Null => {}
        Json::String(text) if is_blank(&text) => {}
        Json::String(text) => {
            if field.max_chars.is_some_and(|most| text.chars().count() > most) {
                draft.issues.push(too_long(index, pointer()));
            }
            if index == COUNTRY && !is_country(&text) {
                draft.issues.push(Issue::at(ErrorCode::CountryUnknown, pointer()));
            }
            if text.contains(|c: char| c.is_control() && !field.allowed_controls.contains(&c)) {
                draft
                    .issues
                    .push(Issue::at(ErrorCode::FieldHasControls, pointer()).because(format!("{} has control characters", field.name)));
            }
            draft.texts[index] = Some(text);
        }
        Json::Whole(_) | Json::Bool(_) | Json::Other | Json::Array(_) | Json::Object(_) => {
            draft.mistyped[index] = true;
            draft.issues.push(Issue::at(ErrorCode::BodyUndecodable, pointer()));
        }
    }
}

/// The text of an optional member, or `None` if it is blank or has a fault, which is added to the draft.
fn take_optional(index: usize, value: Json, draft: &mut Draft) -> Option<String> {
    take_text(index, value, draft);
    draft.texts[index].take()
}

fn too_long(index: usize, pointer: String) -> Issue {
    let field = &TEXT_FIELDS[index];
    if index == COMMON_NAME {
        return Issue::at(ErrorCode::CommonNameTooLong, pointer);
    }
    let most = field.max_chars.unwrap_or_default();
    Issue::at(ErrorCode::FieldTooLong, pointer).because(format!("{} is longer than {most} characters", field.name))
}

pub(super) fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

/// An assigned ISO 3166-1 alpha-2 code in any case, or `XX`, which the CA/B Forum keeps for territories without one.
fn is_country(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    upper == "XX" || rust_iso3166::ALL_ALPHA2.contains(&upper.as_str())
}

impl Draft {
    fn finish(mut self) -> Result<Accepted, Vec<Issue>> {
        for (index, field) in TEXT_FIELDS.iter().enumerate() {
            if let (Some(code), None, false) = (field.missing, &self.texts[index], self.mistyped[index]) {
                self.issues.push(Issue::at(code, format!("/{}", field.name)));
            }
        }
        let mut text = |index: usize| self.texts[index].take();
        let set = self.set.unwrap_or_default();
        let key_type = set.first().copied().unwrap_or(self.key_type);
        judged(self.issues, self.warnings, set, || CustomCsrRequest {
            subject: Subject {
                country: text(COUNTRY).unwrap_or_default(),
                state: text(STATE).unwrap_or_default(),
                locality: text(LOCALITY).unwrap_or_default(),
                organization: text(ORGANIZATION).unwrap_or_default(),
                organizational_unit: text(ORGANIZATIONAL_UNIT),
                common_name: text(COMMON_NAME).unwrap_or_default(),
            },
            name: text(NAME),
            description: text(DESCRIPTION),
            sans: self.sans,
            key_type,
        })
    }
}

/// The request, unless it has faults.
fn judged(
    mut issues: Vec<Issue>,
    of_members: Vec<Warning>,
    set: Vec<KeyType>,
    request: impl FnOnce() -> CustomCsrRequest,
) -> Result<Accepted, Vec<Issue>> {
    if !issues.is_empty() {
        // A stable sort: faults of one code stay in the body's order.
        issues.sort_by_key(|issue| issue.code);
        return Err(unknown::beside(issues, &of_members));
    }
    let request = request();
    let mut warnings = warnings(&request);
    warnings.extend(of_members);
    warnings.sort_by_key(|warning| warning.code);
    Ok(Accepted { request, set, warnings })
}

fn warnings(request: &CustomCsrRequest) -> Vec<Warning> {
    let common_name = &request.subject.common_name;
    let absent = !request.sans.iter().any(|san| san.eq_ignore_ascii_case(common_name));
    let absent = absent.then(|| Warning::at(WarningCode::CommonNameNotInSans, "/common_name"));
    let of_sans = |code: WarningCode, remarkable: fn(&str) -> bool| {
        let sans = request.sans.iter().enumerate().filter(move |(_, san)| remarkable(san));
        sans.map(move |(index, _)| Warning::at(code, format!("/sans/{index}")))
    };
    let underscores = of_sans(WarningCode::SanUnderscore, |san| san.contains('_'));
    let overlong = of_sans(WarningCode::SanOverDnsLength, |san| san.chars().count() > DNS_MAX_CHARS);
    let reserved = request.sans.iter().enumerate().filter_map(|(index, san)| {
        Some(Warning::at(WarningCode::SanLabelReserved, format!("/sans/{index}")).because(reserved_label(san)?))
    });
    absent.into_iter().chain(underscores).chain(overlong).chain(reserved).collect()
}
