//! The key type that a body asks for, or those of a set.

use std::ops::RangeInclusive;

use super::{
    create::{Draft, Validator, is_blank},
    json::Json,
};
use crate::{codes::ErrorCode, custom_csr::KeyType, issue::Issue};

/// Where a key type stands.
const KEY_TYPE: &str = "/key_type";
/// Where those of a set stand.
const KEY_TYPES: &str = "/key_types";

/// How many custom CSRs make a set.
const SET: RangeInclusive<usize> = 2..=4;

impl Validator {
    pub(super) fn take_key_type(&self, value: Json, draft: &mut Draft) {
        match value {
            Json::Null => {}
            Json::String(word) if is_blank(&word) => {}
            Json::String(word) => {
                draft.is_key_type_given = true;
                match KeyType::parse(&word) {
                    Some(key_type) => draft.key_type = key_type,
                    None => draft.issues.push(self.not_accepted(KEY_TYPE)),
                }
            }
            Json::Whole(_) | Json::Bool(_) | Json::Other | Json::Array(_) | Json::Object(_) => {
                draft.issues.push(Issue::at(ErrorCode::BodyUndecodable, KEY_TYPE));
            }
        }
    }

    pub(super) fn take_key_types(&self, value: Json, draft: &mut Draft) {
        let items = match value {
            Json::Null => return,
            Json::Array(items) => items,
            Json::Whole(_) | Json::Bool(_) | Json::Other | Json::String(_) | Json::Object(_) => {
                draft.set = Some(Vec::new());
                draft.issues.push(Issue::at(ErrorCode::BodyUndecodable, KEY_TYPES));
                return;
            }
        };
        let set = draft.set.insert(Vec::new());
        if !SET.contains(&items.len()) {
            let reason = format!("has {} key type{}", items.len(), if items.len() == 1 { "" } else { "s" });
            draft.issues.push(Issue::at(ErrorCode::KeyTypesInvalid, KEY_TYPES).because(reason));
            return;
        }
        for (index, item) in items.into_iter().enumerate() {
            let pointer = format!("{KEY_TYPES}/{index}");
            let Json::String(word) = item else {
                draft.issues.push(Issue::at(ErrorCode::BodyUndecodable, pointer));
                continue;
            };
            match KeyType::parse(&word).filter(|key_type| self.key_types.contains(*key_type)) {
                None => draft.issues.push(self.not_accepted(&pointer)),
                Some(key_type) if set.contains(&key_type) => {
                    let reason = format!("has ‘{}’ twice", key_type.as_str());
                    draft.issues.push(Issue::at(ErrorCode::KeyTypesInvalid, pointer).because(reason));
                }
                Some(key_type) => set.push(key_type),
            }
        }
    }

    /// Judges the key type that is asked for, be it given, the default or the old custom CSR's. A set has none beside its own.
    pub(super) fn judge_key_type(&self, draft: &mut Draft) {
        if draft.set.is_some() {
            if draft.is_key_type_given {
                draft.issues.push(Issue::at(ErrorCode::KeyTypesInvalid, KEY_TYPE).because("stands beside a key_type"));
            }
            return;
        }
        let has_issue = draft.issues.iter().any(|issue| issue.pointer.as_deref() == Some(KEY_TYPE));
        if !has_issue && !self.key_types.contains(draft.key_type) {
            draft.issues.push(self.not_accepted(KEY_TYPE));
        }
    }

    fn not_accepted(&self, pointer: &str) -> Issue {
        Issue::at(ErrorCode::KeyTypeInvalid, pointer).because(self.key_types.quoted())
    }
}
