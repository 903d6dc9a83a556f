//! The commands and their settings.

mod actor;
mod audit;
mod backup;
mod certificate;
mod completions;
mod data_dir;
mod database;
mod demo;
mod erase;
mod export;
mod handover;
mod incident;
mod jwt;
mod keys;
mod limits;
mod listing;
mod log;
mod man;
mod master_keys;
mod metrics;
mod names;
mod openapi;
mod order;
mod outbound;
mod process;
mod reload;
mod scopes;
mod serve;
mod settings;
mod signals;
mod sync;
mod tls;
mod token;
mod traces;
mod work;

use std::{
    fmt,
    future::Future,
    io::{self, Write},
    process::ExitCode,
};

use clap::{
    Command, CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ErrorKind},
};
use settings::complain;

/// Makes private keys and certificate signing requests (CSRs) for the tenants of a platform
///
/// Without a command: serve. Every setting of `serve`, `worker` and `migrate` has an environment variable, named in its help.
#[derive(Parser)]
#[command(name = "csrd", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Serve the API and, unless --workers is 0, make the keys
    Serve(Box<serve::ServeArgs>),
    /// Make keys for API processes elsewhere, on one PostgreSQL
    Worker(Box<work::WorkerArgs>),
    /// Run pending migrations
    Migrate(database::MigrateArgs),
    /// Copy a live SQLite database to a file
    Backup(backup::BackupArgs),
    /// Destroy everything of a zone or an account for ever, and print a receipt
    Erase(erase::EraseArgs),
    /// Print the OpenAPI document (YAML)
    Openapi,
    /// Make, check or change the master key, which seals the private keys
    #[command(subcommand)]
    Keys(keys::KeysAction),
    /// Grant custom CSRs to zones
    #[command(subcommand)]
    Zone(scopes::ZoneAction),
    /// Grant custom CSRs to accounts
    #[command(subcommand)]
    Account(scopes::AccountAction),
    /// Issue tokens
    #[command(subcommand)]
    Token(token::TokenAction),
    /// List certificates that came back, or export one with its private key
    #[command(subcommand)]
    Certificate(certificate::CertificateAction),
    /// Rekey many custom CSRs at once, as when a CA is distrusted
    #[command(subcommand)]
    Incident(incident::IncidentAction),
    /// Print who did what, as lines of JSON
    Audit(audit::AuditArgs),
    /// Print a shell's completion script
    Completions(completions::CompletionsArgs),
    /// Write manual pages, one for each command
    Man(man::ManArgs),
}

/// A setting is wrong: exit status 2. The text names the setting.
#[derive(Debug)]
struct BadSetting(String);

impl fmt::Display for BadSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadSetting {}

/// A setting is wrong.
fn bad_setting(text: impl Into<String>) -> anyhow::Error {
    BadSetting(text.into()).into()
}

const BAD_SETTING: u8 = 2;

/// Parses the command line and runs what it says.
pub fn run() -> ExitCode {
    signals::hold();
    let cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match execute(cli) {
        Ok(code) => code,
        Err(error) => {
            complain(&one_line(&format!("{error:#}")));
            ExitCode::from(if error.is::<BadSetting>() { BAD_SETTING } else { 1 })
        }
    }
}

/// The command line. Only `token issue` signs: there, what can only verify is not shown, though its variables may be set.
fn command() -> Command {
    let issue = |issue: Command| {
        let hidden = ["jwt_jwks_file", "jwt_jwks_url", "jwt_jwks_refresh", "jwt_public_key_file", "jwt_leeway"];
        let issue = hidden.into_iter().fold(issue, |issue, id| issue.mut_arg(id, |argument| argument.hide(true)));
        let names = [
            ("jwt_secret_file", "Sign with this shared secret (HS256): raw bytes, at least 32; without it, with the demo identity's key"),
            ("jwt_issuer", "Write this `iss` into the token"),
            ("jwt_audience", "Write this `aud` into the token"),
            ("jwt_scope_claim", "The claim with the permissions"),
        ];
        names.into_iter().fold(issue, |issue, (id, help)| issue.mut_arg(id, |argument| argument.help(help)))
    };
    Cli::command().mut_subcommand("token", |token| token.mut_subcommand("issue", issue))
}

fn parse() -> Result<Cli, ExitCode> {
    let command = command();
    // Before anything else: what is printed needs no settings, and those in the environment may be wrong, or somebody else's.
    let bare = command.clone().mut_args(|argument| argument.env(None)).try_get_matches();
    let bare = bare.and_then(|matches| Cli::from_arg_matches(&matches));
    if let Ok(cli @ Cli { action: Some(Action::Openapi | Action::Completions(_) | Action::Man(_)), .. }) = bare {
        return Ok(cli);
    }
    let is_help = bare.is_err_and(|error| matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion));
    if !is_help && let Some(unknown) = settings::unknown_variable(&command) {
        complain(&format!("{unknown} is set in the environment, but no command has such a setting"));
        return Err(ExitCode::from(BAD_SETTING));
    }
    let parsed = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print().and_then(|()| io::stdout().flush());
            ExitCode::SUCCESS
        }
        _ => {
            complain(&refusal(&error));
            ExitCode::from(BAD_SETTING)
        }
    })
}

/// clap's own words on one line, with what it takes for meant, and without its hints at usage.
fn refusal(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing: see --help".to_owned();
    }
    // clap does not say which.
    if let (ErrorKind::InvalidUtf8, Some(name)) = (error.kind(), settings::variable_without_text()) {
        return format!("{name} is set to something that is not UTF-8");
    }
    let text = error.render().to_string();
    let message = text.split("\n\n").next().unwrap_or_default();
    let message = one_line(message.trim_start_matches("error: "));
    let meant = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    match meant.iter().find_map(|kind| error.get(*kind)) {
        Some(meant) => format!("{message}: did you mean {meant}?"),
        None => message,
    }
}

fn one_line(text: &str) -> String {
    without_passwords(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The same with `…` for the user and the password of each URL. A password may hold a slash that it should not: all before the last @ goes.
fn without_passwords(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let authority = part.split([' ', '\'']).next().unwrap_or_default();
        let rest = authority.rfind('@').map_or(part, |at| &part[at..]);
        shown.push_str(if rest.len() < part.len() { "://…" } else { "://" });
        shown.push_str(rest);
    }
    shown
}

fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    let action = cli.action.unwrap_or_else(|| Action::Serve(Box::new(cli.serve)));
    // These two take the signals themselves.
    if !matches!(action, Action::Serve(_) | Action::Worker(_)) {
        signals::release();
    }
    match action {
        Action::Openapi => openapi::print(),
        Action::Completions(args) => completions::print(&args),
        Action::Man(args) => man::write(&args),
        Action::Serve(args) => run_async(serve::serve(*args)),
        Action::Worker(args) => run_async(work::work(*args)),
        Action::Backup(args) => run_async(backup::backup(args)),
        Action::Migrate(args) => run_async(database::migrate(&args)),
        Action::Keys(action) => run_async(keys::run(action)),
        Action::Zone(action) => run_async(scopes::zone(action)),
        Action::Account(action) => run_async(scopes::account(action)),
        Action::Token(action) => run_async(token::run(action)),
        Action::Certificate(action) => run_async(certificate::run(action)),
        Action::Incident(action) => run_async(incident::run(action)),
        Action::Audit(args) => run_async(audit::audit(args)),
        Action::Erase(args) => run_async(erase::erase(args)),
    }
}

/// Runs a command to its end, and leaves behind what does not end: a name server or a database that hangs keeps no process.
fn run_async(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(command);
    runtime.shutdown_background();
    done
}

/// Every argument of a command and of those below it.
fn arguments(command: &Command) -> Vec<&clap::Arg> {
    let below = command.get_subcommands().flat_map(arguments);
    command.get_arguments().chain(below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_no_user_and_no_password_of_a_url() {
        for (text, shown) in [
            ("invalid value 'https://u:p@a.example/x' for '--a'", "invalid value 'https://…@a.example/x' for '--a'"),
            ("'A=https://u:p/q@a.example' and http://b.example/c", "'A=https://…@a.example' and http://b.example/c"),
            ("https://p@a.example, http://u:@b.example", "https://…@a.example, http://…@b.example"),
            ("no URL, a@b", "no URL, a@b"),
        ] {
            assert_eq!(one_line(text), shown);
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn no_help_shows_a_value_from_the_environment() {
        for argument in arguments(&command()) {
            assert!(argument.get_env().is_none() || argument.is_hide_env_values_set(), "{argument}");
        }
    }

    #[test]
    fn every_setting_of_serve_worker_and_migrate_has_an_environment_variable_of_its_name() {
        let command = command();
        for name in ["serve", "worker", "migrate"] {
            for argument in command.find_subcommand(name).unwrap().get_arguments() {
                let id = argument.get_id().as_str();
                if id == "help" {
                    continue;
                }
                let variable = argument.get_env().unwrap_or_else(|| panic!("{id} has none")).to_str().unwrap();
                assert_eq!(variable, format!("CSRD_{}", id.to_uppercase()));
            }
        }
    }
}
