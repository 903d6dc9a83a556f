//! The request bodies that make and change a webhook.

use super::{
    create::{DESCRIPTION, Draft, take_text},
    edit::Change,
    json::Json,
    unchanging::{self, OF_WEBHOOKS},
    unknown,
};
use crate::{
    codes::ErrorCode,
    events::{ALL, TYPES},
    issue::{Issue, Warning},
    outbound::Gate,
    printable::excerpt,
};

/// The most characters of an unknown type of event that an error repeats.
const SHOWN_CHARS: usize = 64;

/// What a body says of a webhook. A new one needs a URL and events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookBody {
    /// Where events are posted to.
    pub url: Option<String>,
    /// The types of events, each once, or `*` alone.
    pub events: Option<Vec<String>>,
    /// The tenant's own description.
    pub description: Change,
    /// Whether it is told of events.
    pub enabled: Option<bool>,
    /// Warnings about unknown members.
    pub warnings: Vec<Warning>,
}

impl WebhookBody {
    /// Reads the body of a new webhook.
    ///
    /// # Errors
    ///
    /// Like [`Self::parse_change`]; a URL and events must be there.
    pub fn parse_new(body: &[u8], gate: &Gate) -> Result<Self, Vec<Issue>> {
        Self::parse(body, gate, true)
    }

    /// Reads the body that changes a webhook: an absent member keeps the value, and so does a `null` one, but for the description, which it
    /// clears.
    ///
    /// # Errors
    ///
    /// 1400, 1461, 1462, 1490 and 1491.
    pub fn parse_change(body: &[u8], gate: &Gate) -> Result<Self, Vec<Issue>> {
        Self::parse(body, gate, false)
    }

    fn parse(body: &[u8], gate: &Gate, is_new: bool) -> Result<Self, Vec<Issue>> {
        let Some(Json::Object(members)) = Json::parse(body) else { return Err(vec![Issue::new(ErrorCode::BodyUndecodable)]) };
        let (mut webhook, mut draft) = (Self::default(), Draft::default());
        let (mut names_url, mut names_events) = (false, false);
        for (name, value) in members {
            let mistyped = || Issue::at(ErrorCode::BodyUndecodable, format!("/{name}"));
            match (name.as_str(), value) {
                ("description", value) => {
                    take_text(DESCRIPTION, value, &mut draft);
                    webhook.description = Some(draft.texts[DESCRIPTION].take());
                }
                ("url" | "events" | "enabled", Json::Null) => {}
                ("url", Json::String(url)) => {
                    names_url = true;
                    match gate.target(&url) {
                        Ok(_) => webhook.url = Some(url),
                        Err(reason) => draft.issues.push(url_refused(reason)),
                    }
                }
                ("events", Json::Array(items)) => {
                    names_events = true;
                    match events(items) {
                        Ok(events) => webhook.events = Some(events),
                        Err(issues) => draft.issues.extend(issues),
                    }
                }
                ("enabled", Json::Bool(enabled)) => webhook.enabled = Some(enabled),
                ("url", _) => {
                    names_url = true;
                    draft.issues.push(mistyped());
                }
                ("events", _) => {
                    names_events = true;
                    draft.issues.push(mistyped());
                }
                ("enabled", _) => draft.issues.push(mistyped()),
                (_, value) => unchanging::warn(if is_new { &[] } else { OF_WEBHOOKS }, &name, &value, &mut webhook.warnings),
            }
        }
        if is_new && !names_url {
            draft.issues.push(url_refused("is missing"));
        }
        if is_new && !names_events {
            draft.issues.push(Issue::at(ErrorCode::WebhookEventsInvalid, "/events").because("are missing"));
        }
        draft.issues.sort_by_key(|issue| issue.code);
        webhook.warnings.sort_by_key(|warning| warning.code);
        if draft.issues.is_empty() { Ok(webhook) } else { Err(unknown::beside(draft.issues, &webhook.warnings)) }
    }
}

/// 1490, for this reason.
pub fn url_refused(reason: impl Into<String>) -> Issue {
    Issue::at(ErrorCode::WebhookUrlInvalid, "/url").because(reason)
}

/// Types of events, each once, or `*` alone; or every fault of theirs.
fn events(items: Vec<Json>) -> Result<Vec<String>, Vec<Issue>> {
    if items.is_empty() {
        return Err(vec![Issue::at(ErrorCode::WebhookEventsInvalid, "/events").because("are missing")]);
    }
    let (mut events, mut issues) = (Vec::new(), Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        let pointer = format!("/events/{index}");
        match item {
            Json::String(event) if event == ALL || TYPES.contains(&event.as_str()) => {
                if !events.contains(&event) {
                    events.push(event);
                }
            }
            Json::String(event) => {
                let reason = format!("have the unknown type ‘{}’", excerpt(&event, SHOWN_CHARS));
                let hint = format!("The types of events are {}.", TYPES.join(", "));
                issues.push(Issue::at(ErrorCode::WebhookEventsInvalid, pointer).because(reason).hinting(hint));
            }
            _ => issues.push(Issue::at(ErrorCode::BodyUndecodable, pointer)),
        }
    }
    if !issues.is_empty() {
        return Err(issues);
    }
    Ok(if events.iter().any(|event| event == ALL) { vec![ALL.to_owned()] } else { events })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::Reach;

    fn parsed(body: &str, is_new: bool) -> Result<WebhookBody, Vec<(u16, Option<String>)>> {
        let parsed = WebhookBody::parse(body.as_bytes(), &Gate::new(Reach::Public), is_new);
        parsed.map_err(|issues| issues.into_iter().map(|issue| (issue.code.number(), issue.pointer)).collect())
    }

    #[test]
    fn a_new_webhook_has_a_url_and_events_each_once() {
        let body =
            r#"{"url":"https://hooks.example/x","events":["custom_csr.active","custom_csr.active"],"enabled":false,"description":" "}"#;
        let webhook = parsed(body, true).unwrap();
        assert_eq!(webhook.events.unwrap(), ["custom_csr.active"]);
        assert_eq!(
            (webhook.enabled, webhook.description, webhook.url.as_deref()),
            (Some(false), Some(None), Some("https://hooks.example/x"))
        );
        assert_eq!(parsed(r#"{"url":"https://a.example","events":["*","custom_csr.stale"]}"#, true).unwrap().events.unwrap(), ["*"]);
    }

    #[test]
    fn a_change_may_name_nothing_and_a_null_changes_nothing_but_the_description() {
        assert_eq!(parsed("{}", false), Ok(WebhookBody::default()));
        let cleared = WebhookBody { description: Some(None), ..WebhookBody::default() };
        assert_eq!(parsed(r#"{"url":null,"events":null,"enabled":null,"description":null}"#, false), Ok(cleared));
    }

    #[test]
    fn a_webhook_that_is_sent_back_as_it_was_read_has_no_member_that_is_unknown() {
        let body = br#"{"id":"x","zone_id":"z","account_id":null,"secret":"s","created_at":1,"enabled":true,"urll":"x"}"#;
        let codes = |parsed: Result<WebhookBody, Vec<Issue>>| {
            parsed.unwrap().warnings.iter().map(|warning| (warning.code.number(), warning.pointer.clone())).collect::<Vec<_>>()
        };
        let changed = codes(WebhookBody::parse_change(body, &Gate::new(Reach::Public)));
        assert_eq!(
            changed,
            [(2005, "/id"), (2005, "/zone_id"), (2005, "/secret"), (2005, "/created_at"), (2012, "/urll")]
                .map(|(code, at)| (code, at.to_owned()))
        );
    }

    #[test]
    fn every_fault_is_named() {
        let at = |code, pointer: &str| (code, Some(pointer.to_owned()));
        for (body, faults) in [
            ("{}", vec![at(1490, "/url"), at(1491, "/events")]),
            (r#"{"url":"","events":[]}"#, vec![at(1490, "/url"), at(1491, "/events")]),
            (r#"{"url":"https://10.0.0.1/","events":["*","custom_csr.gone"]}"#, vec![at(1490, "/url"), at(1491, "/events/1")]),
            (
                r#"{"url":5,"events":"*","enabled":"yes","description":1}"#,
                vec![at(1400, "/url"), at(1400, "/events"), at(1400, "/enabled"), at(1400, "/description")],
            ),
            (
                r#"{"url":"https://a.example","events":[5,"no","*",null,"No"]}"#,
                vec![at(1400, "/events/0"), at(1400, "/events/3"), at(1491, "/events/1"), at(1491, "/events/4")],
            ),
            (r#"{"url":"https://a.example/\u0000","events":["*"]}"#, vec![at(1490, "/url")]),
            (r#"{"url":" https://a.example/x","events":["*"]}"#, vec![at(1490, "/url")]),
        ] {
            assert_eq!(parsed(body, true), Err(faults), "{body}");
        }
        let long = format!(r#"{{"description":"{}\u0000"}}"#, "x".repeat(1024));
        assert_eq!(parsed(&long, false), Err(vec![at(1461, "/description"), at(1462, "/description")]));
        for body in ["", "[]", r#"{"url":"a","url":"b"}"#] {
            assert_eq!(parsed(body, true), Err(vec![(1400, None)]), "{body}");
        }
    }
}
