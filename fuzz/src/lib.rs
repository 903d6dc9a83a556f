//! What must hold for any input, one function `check` for each fuzz target: it panics where it does not hold.

#![forbid(unsafe_code)]

use std::{cell::OnceCell, thread::LocalKey};

use shared::{
    clock::{Clock, Timestamp},
    codes::ErrorCode,
    issue::Issue,
    printable::is_printable,
};

pub mod bodies;
pub mod certificates;
pub mod jwks;
pub mod requests;
pub mod sans;
pub mod sealed_records;
pub mod tokens;

/// The time of every run, so that an input means the same tomorrow: 2026-11-28.
const NOW: Timestamp = Timestamp::from_micros(1_795_824_000_000_000);

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        NOW
    }
}

/// Text for people is one line, and ends.
fn assert_is_one_line(text: &str) {
    assert!(!text.is_empty() && text.chars().all(is_printable), "not one printable line: {text:?}");
    assert!(text.chars().count() < 2_000, "far too long: {text}");
}

fn assert_is_told(issue: &Issue) {
    assert_is_one_line(&issue.message());
    assert!(ErrorCode::ALL.contains(&issue.code));
    if let Some(hint) = &issue.hint {
        assert_is_one_line(hint);
    }
}

/// Calls with a value that is made once: an input a second is no fuzzing.
fn with<T, R>(key: &'static LocalKey<OnceCell<T>>, make: impl FnOnce() -> T, call: impl FnOnce(&T) -> R) -> R {
    key.with(|cell| call(cell.get_or_init(make)))
}
