//! What goes into commands and comes out of them; the one place that reads the environment.

use std::{
    collections::HashSet,
    ffi::OsString,
    io::{BufWriter, ErrorKind, Stdout, Write, stdout},
};

use clap::Command;

/// A `CSRD_…` variable that no command knows.
#[expect(clippy::disallowed_methods, reason = "settings are read here")]
pub fn unknown_variable(command: &Command) -> Option<String> {
    let known: HashSet<OsString> = super::arguments(command).into_iter().filter_map(|arg| arg.get_env().map(ToOwned::to_owned)).collect();
    let mut unknown: Vec<_> = std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_string_lossy().starts_with("CSRD_") && !known.contains(name))
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    unknown.sort();
    unknown.into_iter().next()
}

/// A `CSRD_…` variable whose value is not UTF-8.
#[expect(clippy::disallowed_methods, reason = "settings are read here")]
pub fn variable_without_text() -> Option<String> {
    let mut names = std::env::vars_os().filter(|(_, value)| value.to_str().is_none()).map(|(name, _)| name.to_string_lossy().into_owned());
    names.find(|name| name.starts_with("CSRD_"))
}

/// Reads a duration such as `30s`, `5m` or `1h`.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write a duration such as 30s, 5m or 1h"))
}

/// Many lines on standard output. Whoever reads them may stop at any time, as `head` does.
pub struct Output(Option<BufWriter<Stdout>>);

impl Output {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(Some(BufWriter::new(stdout())))
    }

    /// Prints a line, if anyone still reads.
    pub fn line(&mut self, line: &str) -> std::io::Result<()> {
        let Some(output) = &mut self.0 else { return Ok(()) };
        match writeln!(output, "{line}") {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.0 = None;
                Ok(())
            }
            written => written,
        }
    }

    /// Whether nobody reads any more.
    pub const fn is_closed(&self) -> bool {
        self.0.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        assert_eq!(super::duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(super::duration("1h"), Ok(Duration::from_hours(1)));
        assert!(super::duration("10").is_err() && super::duration("fast").is_err());
    }
}
