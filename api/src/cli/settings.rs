//! What goes into commands and comes out of them; the one place that reads the environment.

use std::{
    collections::HashSet,
    ffi::OsString,
    io::{self, ErrorKind, Write},
    path::PathBuf,
    sync::mpsc,
    thread,
    time::Duration,
};

use clap::Command;
use poem::http::{HeaderValue, Uri};
use shared::{ari::AriDirectory, custom_csr::KeyType, printable::escape};
use url::Url;

/// How long the last words of a process wait for their reader.
const READER_TIME: Duration = Duration::from_secs(1);

/// The variables of `csrctl`, which somebody may use in the same shell.
const CSRCTL: [&str; 4] = ["CSRD_URL", "CSRD_TOKEN", "CSRD_ZONE", "CSRD_ACCOUNT"];

/// A `CSRD_…` variable that no command knows.
#[expect(clippy::disallowed_methods, reason = "settings are read here")]
pub fn unknown_variable(command: &Command) -> Option<String> {
    let known: HashSet<OsString> = super::arguments(command).into_iter().filter_map(|arg| arg.get_env().map(ToOwned::to_owned)).collect();
    let mut unknown: Vec<_> = std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| !known.contains(name))
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with("CSRD_") && !CSRCTL.contains(&name.as_str()))
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

/// What a command of the operator's may know of the environment: nothing that could hold a secret.
#[expect(clippy::disallowed_methods, reason = "the environment is read here")]
pub fn harmless_variables() -> impl Iterator<Item = (OsString, OsString)> {
    const NAMES: [&str; 14] = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "TERM",
        "TMPDIR",
        "TZ",
        "LANG",
        "LANGUAGE",
        "LC_ALL",
        "LC_CTYPE",
        "XDG_RUNTIME_DIR",
        "DBUS_SESSION_BUS_ADDRESS",
    ];
    std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| NAMES.contains(&name)))
}

/// Where systemd puts the credentials of a unit, if it has any.
#[expect(clippy::disallowed_methods, reason = "the environment is read here")]
pub fn credentials_dir() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Reads a duration such as `30s`, `5m` or `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write a duration such as 30s, 5m or 1h"))
}

/// Reads a size such as `64MiB`, or a number of bytes.
pub fn size(text: &str) -> Result<usize, String> {
    let size = text.parse::<bytesize::ByteSize>().ok().and_then(|size| usize::try_from(size.as_u64()).ok());
    size.filter(|size| *size > 0).ok_or_else(|| "write a number of bytes, or a size such as 512KiB or 64MiB".to_owned())
}

/// Reads a key type.
pub fn key_type(text: &str) -> Result<KeyType, String> {
    let all: Vec<_> = KeyType::ALL.iter().map(|key_type| key_type.as_str()).collect();
    KeyType::parse(text.trim())
        .ok_or_else(|| format!("there is no such key type; write some of {}, with commas between them", all.join(", ")))
}

/// Reads a URL for people to open in a browser.
pub fn web_url(text: &str) -> Result<String, String> {
    let expected = || "write an http or https URL, such as https://platform.example".to_owned();
    let uri: Uri = text.parse().map_err(|_| expected())?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty());
    // Nobody is to read a password in it.
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("write it without a user and a password".to_owned());
    }
    if is_web { Ok(text.to_owned()) } else { Err(expected()) }
}

/// Parses the URL that links of the service begin with, and removes a slash at its end.
pub fn public_url(text: &str) -> Result<String, String> {
    let url = web_url(text)?;
    if url.contains(['?', '#']) {
        return Err("write where the service is reached and nothing after it, such as https://csrd.platform.example".to_owned());
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// Parses the name of an issuer and the URL of its ACME directory. Both may contain `=`.
pub fn ari_directory(text: &str) -> Result<AriDirectory, String> {
    let expected = || "write NAME=URL, such as \"Acme Trust=https://acme.example/directory\"".to_owned();
    let at = ["=https://", "=http://"].iter().filter_map(|sign| text.find(sign)).min().ok_or_else(expected)?;
    let (issuer, url) = (text[..at].trim(), text[at + 1..].trim());
    if issuer.is_empty() {
        return Err(expected());
    }
    Ok(AriDirectory { issuer: issuer.to_owned(), url: web_url(url)? })
}

/// Reads an origin as browsers send it, so that it equals theirs byte for byte: lower case, without the port that its scheme has anyway.
pub fn origin(text: &str) -> Result<HeaderValue, String> {
    let expected =
        || "write the scheme, host and port of a site and nothing else, such as https://app.example or http://localhost:3000".to_owned();
    if text.trim() == "*" {
        return Err("it allows every site; name those that need the API, such as https://app.example".to_owned());
    }
    let (scheme, rest) = text.trim().split_once("://").ok_or_else(expected)?;
    let url = Url::parse(&format!("{scheme}://{rest}")).map_err(|_| expected())?;
    let is_site = matches!(url.scheme(), "http" | "https") && !rest.contains(['/', '\\', '?', '#', '@', '*']);
    if is_site { HeaderValue::try_from(url.origin().ascii_serialization()).map_err(|_| expected()) } else { Err(expected()) }
}

/// Standard output. Whoever reads it may stop at any time, as `head` does; what cannot be written otherwise is an error.
pub struct Output {
    is_closed: bool,
}

impl Output {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { is_closed: false }
    }

    /// Prints a line, if anyone still reads.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        self.text(&format!("{line}\n"))
    }

    /// Prints text that ends with a newline, if anyone still reads.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        if self.is_closed {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        // Flushed each time: at the end of the process nobody is told what could not be written.
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            written => written.map_err(|error| io::Error::new(error.kind(), format!("standard output cannot be written: {error}"))),
        }
    }

    /// Whether nobody reads any more.
    pub const fn is_closed(&self) -> bool {
        self.is_closed
    }
}

/// Prints a line on standard output. `println!` would panic if its reader left.
pub fn say(line: &str) -> io::Result<()> {
    Output::new().line(line)
}

/// Prints a line on standard error, and shows in it what a terminal would act on. A reader that stopped reading holds it up for a second.
pub fn complain(text: &str) {
    let line = format!("csrd: {}\n", escape(text));
    patiently(move || {
        let _ = io::stderr().write_all(line.as_bytes());
    });
}

/// Waits for what writes to a reader, but not for one that stopped reading.
pub fn patiently(write: impl FnOnce() + Send + 'static) {
    let (done, written) = mpsc::channel();
    let writing = thread::Builder::new().spawn(move || {
        write();
        let _ = done.send(());
    });
    if writing.is_ok() {
        let _ = written.recv_timeout(READER_TIME);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[test]
    fn a_contact_is_a_web_address() {
        for url in ["https://platform.example/help?topic=csr#quota", "http://127.0.0.1:8080"] {
            assert_eq!(super::web_url(url).as_deref(), Ok(url));
        }
        for other in
            ["", "platform.example", "/help", "ftp://a.example", "mailto:a@b.example", "https://", "https://a b", "https://u:p@a.example"]
        {
            assert!(super::web_url(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_public_url_ends_without_a_slash_and_has_nothing_after_the_path() {
        for (text, url) in [
            ("https://csrd.example", "https://csrd.example"),
            ("https://csrd.example/", "https://csrd.example"),
            ("http://127.0.0.1:8080/csrd//", "http://127.0.0.1:8080/csrd"),
        ] {
            assert_eq!(super::public_url(text).as_deref(), Ok(url), "{text}");
        }
        for other in ["", "csrd.example", "https://csrd.example/?a", "https://csrd.example/#a", "https://u@csrd.example"] {
            assert!(super::public_url(other).is_err(), "{other}");
        }
    }

    #[test]
    fn an_acme_directory_has_the_name_of_its_issuer_before_it() {
        for (text, issuer, url) in [
            ("Acme Trust=https://acme.example/directory", "Acme Trust", "https://acme.example/directory"),
            ("O=Acme, Inc.=http://127.0.0.1:1/dir?a=b", "O=Acme, Inc.", "http://127.0.0.1:1/dir?a=b"),
        ] {
            let directory = super::ari_directory(text).unwrap();
            assert_eq!((&*directory.issuer, &*directory.url), (issuer, url));
        }
        for other in ["", "Acme", "=https://acme.example", "Acme=ftp://acme.example", "Acme=https://u@acme.example"] {
            assert!(super::ari_directory(other).is_err(), "{other}");
        }
    }

    #[test]
    fn an_origin_is_read_as_browsers_send_it() {
        for (text, sent) in [
            ("https://app.example", "https://app.example"),
            (" https://app.example", "https://app.example"),
            ("HTTPS://App.Example:443", "https://app.example"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
        ] {
            assert_eq!(super::origin(text).unwrap(), sent, "{text}");
        }
        for other in [
            "",
            "*",
            "null",
            "app.example",
            "https://",
            "https://*.example",
            "https://app.example/",
            "https://app.example/path",
            "https://app.example?q",
            "https://u:p@app.example",
            "ftp://app.example",
            "https://a b",
            "https://a\\b",
            "https://app.example:99999",
        ] {
            assert!(super::origin(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_size_is_a_number_of_bytes_or_has_a_unit() {
        for (text, bytes) in
            [("1", 1), ("65536", 65_536), ("512KiB", 512 << 10), ("64MiB", 64 << 20), ("1GiB", 1 << 30), ("2 MiB", 2 << 20)]
        {
            assert_eq!(super::size(text), Ok(bytes), "{text}");
        }
        for other in ["", "0", "0MiB", "-1", "MiB", "64MiBs", "64 MiB 2", "1e6", "NaN", "inf", "99999999999999999999"] {
            assert!(super::size(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        assert_eq!(super::duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(super::duration("1h"), Ok(Duration::from_hours(1)));
        assert!(super::duration("10").is_err() && super::duration("fast").is_err());
    }
}
