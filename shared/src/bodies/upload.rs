//! The request body of a certificate's upload.

use super::{
    json::Json,
    unchanging::{self, OF_CUSTOM_CERTIFICATES},
    unknown,
};
use crate::{
    codes::{ErrorCode, WarningCode},
    custom_certificate::{BundleMethod, CertificateType},
    issue::{Issue, Warning},
    x509::{formats::has_private_key, issues::private_key_refused},
};

/// The members of an upload's body. The certificates are not parsed yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upload {
    /// 1473 if a private key was sent, as a member of the body or among the certificates.
    pub private_key: Option<Issue>,
    /// `custom_csr_id`, or `None` if absent or blank.
    pub custom_csr_id: Option<String>,
    /// `certificate`: `None` if absent, `Some("")` if empty or blank.
    pub certificate: Option<String>,
    /// `bundle_method`.
    pub bundle_method: Option<BundleMethod>,
    /// `type`.
    pub certificate_type: Option<CertificateType>,
    /// `priority`.
    pub priority: Option<u16>,
    /// Warnings about members without effect and unknown ones, sorted by code.
    pub warnings: Vec<Warning>,
}

/// Members of the Cloudflare v4 API that only concern Cloudflare's own machines.
const WITHOUT_EFFECT: [&str; 4] = ["deploy", "geo_restrictions", "policy", "policy_restrictions"];

impl Upload {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// 1400: alone if the body is no JSON object without repeated members, else for every member of a wrong type or with an unknown word.
    pub fn parse(body: &[u8]) -> Result<Self, Vec<Issue>> {
        Self::read(body, &[])
    }

    /// Reads the body that changes a custom certificate: it may hold what no request changes.
    ///
    /// # Errors
    ///
    /// Like [`Self::parse`].
    pub fn parse_change(body: &[u8]) -> Result<Self, Vec<Issue>> {
        Self::read(body, OF_CUSTOM_CERTIFICATES)
    }

    fn read(body: &[u8], unchanging: &[&str]) -> Result<Self, Vec<Issue>> {
        let Some(Json::Object(members)) = Json::parse(body) else { return Err(vec![Issue::new(ErrorCode::BodyUndecodable)]) };
        let (mut upload, mut issues) = (Self::default(), Vec::new());
        for (name, value) in members {
            if value == Json::Null {
                continue;
            }
            let outcome = match name.as_str() {
                "private_key" => {
                    let sent = string(value);
                    if sent.as_deref() != Ok("") {
                        upload.private_key = Some(private_key_member(sent.is_ok_and(|text| has_private_key(&text))));
                    }
                    Ok(())
                }
                "custom_csr_id" => string(value).map(|id| upload.custom_csr_id = Some(id).filter(|id| !id.is_empty())),
                "certificate" => string(value).map(|pem| upload.certificate = Some(pem)),
                "bundle_method" => word(value, BundleMethod::parse_any_case).map(|method| upload.bundle_method = method),
                "type" => word(value, CertificateType::parse_any_case).map(|word| upload.certificate_type = word),
                "priority" => priority(&value).map(|priority| upload.priority = Some(priority)),
                other if WITHOUT_EFFECT.contains(&other) => {
                    upload.warnings.push(Warning::at(WarningCode::NoEffect, format!("/{other}")));
                    Ok(())
                }
                _ => {
                    unchanging::warn(unchanging, &name, &value, &mut upload.warnings);
                    Ok(())
                }
            };
            if outcome == Err(()) {
                issues.push(Issue::at(ErrorCode::BodyUndecodable, format!("/{name}")));
            }
        }
        if upload.private_key.is_none() && upload.certificate.as_deref().is_some_and(has_private_key) {
            upload.private_key = Some(private_key_refused());
        }
        if upload.certificate_type == Some(CertificateType::LegacyCustom) {
            upload.warnings.push(Warning::at(WarningCode::NoEffect, "/type"));
        }
        upload.warnings.sort_by_key(|warning| warning.code);
        if issues.is_empty() { Ok(upload) } else { Err(unknown::beside(issues, &upload.warnings)) }
    }
}

/// 1473 for the member `private_key`.
fn private_key_member(is_key: bool) -> Issue {
    let exposed = if is_key { " Consider the key that was sent exposed, and do not use it again." } else { "" };
    Issue::at(ErrorCode::PrivateKeyRefused, "/private_key")
        .because(format!("Leave private_key empty; custom_csr_id says which private key the certificate is for.{exposed}"))
}

/// A whole number from 0 to 65535.
fn priority(value: &Json) -> Result<u16, ()> {
    if let Json::Whole(number) = value { u16::try_from(*number).map_err(drop) } else { Err(()) }
}

/// A string. A blank one counts as empty.
fn string(value: Json) -> Result<String, ()> {
    match value {
        Json::String(text) if text.chars().all(char::is_whitespace) => Ok(String::new()),
        Json::String(text) => Ok(text),
        Json::Null | Json::Whole(_) | Json::Bool(_) | Json::Other | Json::Array(_) | Json::Object(_) => Err(()),
    }
}

/// One of a few words, or `None` if blank.
fn word<T>(value: Json, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ()> {
    let text = string(value)?;
    if text.is_empty() { Ok(None) } else { parse(&text).map(Some).ok_or(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(body: &str) -> Vec<Option<String>> {
        Upload::parse(body.as_bytes()).unwrap_err().into_iter().map(|issue| issue.pointer).collect()
    }

    #[test]
    fn an_upload_is_read_with_blank_members_as_empty_and_null_ones_as_absent() {
        let upload = Upload::parse(
            br#"{"certificate":" \n","custom_csr_id":" ","private_key":"","bundle_method":null,"type":"sni_custom","x":null}"#,
        );
        let expected = Upload { certificate: Some(String::new()), certificate_type: Some(CertificateType::SniCustom), ..Upload::default() };
        assert_eq!(upload, Ok(expected));
    }

    #[test]
    fn a_private_key_of_any_type_was_sent() {
        for body in [r#"{"private_key":"x"}"#, r#"{"private_key":5}"#, r#"{"private_key":[]}"#] {
            let issue = Upload::parse(body.as_bytes()).unwrap().private_key.unwrap();
            assert!(issue.message().contains("Leave private_key empty") && !issue.message().contains("exposed"), "{body}");
        }
        for body in [r#"{"private_key":null}"#, r#"{"private_key":"\n"}"#] {
            assert_eq!(Upload::parse(body.as_bytes()).unwrap().private_key, None);
        }
        for (member, pointer) in [("private_key", "/private_key"), ("certificate", "/certificate")] {
            let body = format!(r#"{{"{member}":"-----BEGIN EC PRIVATE KEY-----\n"}}"#);
            let issue = Upload::parse(body.as_bytes()).unwrap().private_key.unwrap();
            assert_eq!(issue.pointer.as_deref(), Some(pointer));
            assert!(issue.message().contains("exposed"), "{}", issue.message());
        }
    }

    #[test]
    fn words_are_read_in_any_case_and_a_priority_is_a_whole_number_from_0_to_65535() {
        let upload = Upload::parse(br#"{"type":"SNI_CUSTOM","bundle_method":"Force","priority":65535}"#).unwrap();
        assert_eq!((upload.certificate_type, upload.bundle_method), (Some(CertificateType::SniCustom), Some(BundleMethod::Force)));
        assert_eq!(upload.priority, Some(65535));
        assert_eq!(Upload::parse(br#"{"priority":null}"#).unwrap().priority, None);
        for wrong in ["65536", "-1", "1.5", "\"5\"", "true", "[]", "1e3"] {
            assert_eq!(pointers(&format!(r#"{{"priority":{wrong}}}"#)), [Some("/priority".to_owned())], "{wrong}");
        }
    }

    #[test]
    fn every_member_of_a_wrong_type_or_with_an_unknown_word_is_named() {
        let body = r#"{"certificate":5,"custom_csr_id":{},"bundle_method":"best","type":[]}"#;
        assert_eq!(pointers(body), ["/certificate", "/custom_csr_id", "/bundle_method", "/type"].map(|pointer| Some(pointer.to_owned())));
        for body in ["", "[]", r#"{"a":1,"a":2}"#] {
            assert_eq!(pointers(body), [None], "{body}");
        }
    }

    #[test]
    fn members_that_do_nothing_here_and_unknown_ones_are_warned_of() {
        let body = br#"{"certificates":[],"deploy":"staging","geo_restrictions":{"label":"us"},"policy":"x","type":"legacy_custom"}"#;
        let upload = Upload::parse(body).unwrap();
        let pointers: Vec<_> = upload.warnings.iter().map(|warning| (warning.code.number(), warning.pointer.as_str())).collect();
        assert_eq!(pointers, [(2005, "/deploy"), (2005, "/geo_restrictions"), (2005, "/policy"), (2005, "/type"), (2012, "/certificates")]);
    }
}
