//! `csrctl login`.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    path::PathBuf,
};

use clap::Args;

use crate::{
    failure::Failure,
    login::Login,
    output::{complain, print_lines},
    scope::Scope,
    session::{checked_token, login_path, service_url},
};

/// The largest token that is read, in bytes.
const TOKEN_MAX_BYTES: u64 = 64 * 1024;

/// Where to log in.
#[derive(Args)]
pub struct LoginArgs {
    /// The service's URL, such as `https://csr.platform.example`
    #[arg(long)]
    url: String,
    /// The file that holds the token; without it, the token is read from standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Stores URL and token, for this user alone. The service is not asked: a token may be stored before it is valid.
pub fn login(args: LoginArgs, scope: Option<Scope>) -> Result<(), Failure> {
    let url = service_url(&args.url)?;
    let token = checked_token(&read_token(args.token_file)?)?;
    let known = scope.clone().or_else(|| Scope::of_token(&token));
    let (zone, account) = match scope {
        Some(Scope::Zone(id)) => (Some(id), None),
        Some(Scope::Account(id)) => (None, Some(id)),
        None => (None, None),
    };
    let path = login_path()?;
    Login { url: url.to_string(), token, zone, account }.store(&path)?;
    if url.scheme() == "http" && !is_loopback(&url) {
        complain("warning: whoever is between here and the service can read the token: use https");
    }
    let of = known.map_or_else(|| "give each command --zone ID or --account ID".to_owned(), |scope| format!("commands are about {scope}"));
    print_lines(&format!("stored the login for {url} in {}; {of}", path.display()))
}

fn read_token(file: Option<PathBuf>) -> Result<String, Failure> {
    let mut text = String::new();
    let (read, from) = match file {
        Some(path) => {
            let from = path.display().to_string();
            (File::open(path).and_then(|file| file.take(TOKEN_MAX_BYTES).read_to_string(&mut text)), from)
        }
        None if io::stdin().is_terminal() => {
            let _ = write!(io::stderr(), "token: ");
            (io::stdin().read_line(&mut text), "standard input".to_owned())
        }
        None => (io::stdin().take(TOKEN_MAX_BYTES).read_to_string(&mut text), "standard input".to_owned()),
    };
    read.map_err(|error| Failure::usage(format!("the token cannot be read from {from}: {error}")))?;
    Ok(text)
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}
