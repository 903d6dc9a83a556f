//! Lengths of time in arguments.

use std::time::Duration;

/// Reads a time such as `30s`.
pub fn time(text: &str) -> Result<Duration, String> {
    // What no clock counts up to is a slip.
    const MAX: Duration = Duration::from_hours(365 * 24);
    let parsed = humantime::parse_duration(text).map_err(|error| format!("{error}; write a time such as 30s, 5m or 1h"))?;
    if parsed <= MAX { Ok(parsed) } else { Err("this is over a year".to_owned()) }
}
