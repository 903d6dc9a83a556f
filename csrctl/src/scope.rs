//! The zone or the account that a command is about.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::failure::Failure;

/// A zone or an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    Zone(String),
    Account(String),
}

impl Scope {
    /// The one that is named, if one is; both are too many.
    pub fn of(zone: Option<String>, account: Option<String>, names: &str) -> Result<Option<Self>, Failure> {
        match (zone, account) {
            (Some(_), Some(_)) => Err(Failure::usage(format!("{names} exclude each other: give one of them"))),
            (Some(id), None) => checked(id).map(Self::Zone).map(Some),
            (None, Some(id)) => checked(id).map(Self::Account).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The only one that a token is for, by its claims: its one zone, or its one account if it has no zones. The service checks the
    /// token; this only spares its user an option. Claims whose names are URLs that end so count too.
    pub fn of_token(token: &str) -> Option<Self> {
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        let claims: Value = serde_json::from_slice(&payload).ok()?;
        let listed = |name: &str| -> Vec<String> {
            let claim = claims.as_object().and_then(|claims| claims.iter().find(|(key, _)| key.rsplit(['/', ':']).next() == Some(name)));
            let ids = claim.and_then(|(_, ids)| ids.as_array()).into_iter().flatten();
            ids.filter_map(|id| id.as_str().map(ToOwned::to_owned)).collect()
        };
        let (zones, accounts) = (listed("zones"), listed("accounts"));
        match (&zones[..], &accounts[..]) {
            ([zone], _) => checked(zone.clone()).ok().map(Self::Zone),
            ([], [account]) => checked(account.clone()).ok().map(Self::Account),
            _ => None,
        }
    }

    /// What stands before the rest of a path.
    pub fn segments(&self) -> [&str; 2] {
        match self {
            Self::Zone(id) => ["zones", id],
            Self::Account(id) => ["accounts", id],
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zone(id) => write!(f, "zone {id}"),
            Self::Account(id) => write!(f, "account {id}"),
        }
    }
}

/// An ID of a zone or an account. `*` in a token is no ID.
fn checked(id: String) -> Result<String, Failure> {
    let is_valid = (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && !matches!(id.as_str(), "." | "..");
    if is_valid {
        Ok(id)
    } else {
        Err(Failure::usage(format!("{id:?} is no ID of a zone or an account: one is 1 to 64 of A-Z a-z 0-9 . _ -, but not . or ..")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_for_one_zone_or_one_account_says_which() {
        let zone = Some(Scope::Zone("z".to_owned()));
        for (claims, scope) in [
            (r#"{"zones": ["z"]}"#, zone.clone()),
            (r#"{"zones": ["z"], "accounts": ["a"]}"#, zone.clone()),
            (r#"{"https://platform.example/zones": ["z"]}"#, zone),
            (r#"{"accounts": ["a"]}"#, Some(Scope::Account("a".to_owned()))),
            (r#"{"zones": [], "accounts": ["a"]}"#, Some(Scope::Account("a".to_owned()))),
            (r#"{"zones": ["z", "y"], "accounts": ["a"]}"#, None),
            (r#"{"zones": ["*"]}"#, None),
            (r#"{"zones": [".."]}"#, None),
            (r#"{"zones": "z"}"#, None),
            ("[]", None),
            ("no JSON", None),
        ] {
            assert_eq!(Scope::of_token(&token(claims)), scope, "{claims}");
        }
        for broken in ["", "a", "a.b", "a.!.c"] {
            assert_eq!(Scope::of_token(broken), None);
        }
    }
}
