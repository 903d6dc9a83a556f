//! The commands.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{
    CommandFactory, Parser, Subcommand,
    error::{ContextKind, ErrorKind},
};
use clap_complete::Shell;

use crate::{
    client::Client,
    commands::{certificates, custom_csrs, handover, login, quota, renewal, sets, shell, watch, webhooks},
    failure::{Class, Failure},
    output::{Form, complain},
    scope::Scope,
    session::Session,
};

/// Makes custom CSRs at a csrd and brings certificates back
///
/// `csrctl login` stores the service's URL and a token. `CSRD_URL` and `CSRD_TOKEN`, where they are set, win. The zone or account is that of
/// --zone or --account, of `CSRD_ZONE` or `CSRD_ACCOUNT`, of the login, or the only one that the token is for.
#[derive(Parser)]
#[command(name = "csrctl", version, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    action: Action,
    /// The zone that the command is about
    #[arg(long, global = true, value_name = "ID", conflicts_with = "account")]
    zone: Option<String>,
    /// The account that the command is about
    #[arg(long, global = true, value_name = "ID")]
    account: Option<String>,
    /// Print JSON, an object on each line
    #[arg(long, global = true)]
    json: bool,
}

const AFTER: &str = "Exit status: 0 done; 1 refused by the service; 2 wrong use; 3 the service was not reached, or has a fault (5xx); \
                     4 the token is not accepted or does not allow this; 5 the custom CSR failed, or the wait was over.";

#[derive(Subcommand)]
enum Action {
    /// Store the service's URL and a token for the commands after this one
    Login(login::LoginArgs),
    /// Make a key and a CSR
    Create(Box<custom_csrs::CreateArgs>),
    /// Show one custom CSR
    Get(custom_csrs::GetArgs),
    /// List custom CSRs, newest first
    List(custom_csrs::ListArgs),
    /// Delete custom CSRs and destroy their private keys, at once or after the time in which the service can restore them
    Delete(custom_csrs::DeleteCsrsArgs),
    /// Restore deleted custom CSRs, as long as the service keeps them
    Restore(custom_csrs::RestoreArgs),
    /// Change a custom CSR's name
    Rename(custom_csrs::RenameArgs),
    /// Make another custom CSR with the same names and a new key
    Rekey(custom_csrs::RekeyArgs),
    /// Wait until custom CSRs are no longer pending, and print each then
    Watch(watch::WatchArgs),
    /// Make custom CSRs with keys of several types for the same names, or show or rekey such a set
    Set(sets::SetArgs),
    /// Upload the certificate that the CA issued
    Upload(certificates::UploadArgs),
    /// List certificates, or show or delete some
    Certificates(certificates::CertificatesArgs),
    /// Make a link that hands a custom CSR to people without an account, or list or revoke such links
    Handover(handover::HandoverArgs),
    /// List webhooks, which are told of events, or make, change, try or delete some
    Webhooks(webhooks::WebhooksArgs),
    /// Show, set or delete the policy for renewing the zone's certificates
    Renewal(renewal::RenewalArgs),
    /// Show how many custom CSRs there may be, and are
    Quota,
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write manual pages, one for each command
    Man {
        /// The directory that gets the pages; it is made where it is missing
        dir: PathBuf,
    },
}

/// Parses the command line and runs what it says.
pub fn run() -> ExitCode {
    let done = parse().and_then(|cli| cli.map_or(Ok(()), execute));
    let Err(failure) = done else { return ExitCode::SUCCESS };
    failure.lines.iter().for_each(|line| complain(line));
    ExitCode::from(failure.class as u8)
}

/// The command line, or `None` if it asked for help, which was printed.
fn parse() -> Result<Option<Cli>, Failure> {
    match Cli::try_parse() {
        Ok(cli) => Ok(Some(cli)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            let _ = error.print().and_then(|()| io::stdout().flush());
            Ok(None)
        }
        Err(error) => Err(Failure::usage(refusal(&error))),
    }
}

/// clap's own words on one line, with what it takes for meant, and without its hints at usage.
fn refusal(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing: see --help".to_owned();
    }
    let text = error.render().to_string();
    let message = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let meant = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    match meant.iter().find_map(|kind| error.get(*kind)) {
        Some(meant) => format!("{message}: did you mean {meant}?"),
        None => message.to_owned(),
    }
}

fn execute(cli: Cli) -> Result<(), Failure> {
    let scope = Scope::of(cli.zone, cli.account, "--zone and --account")?;
    let form = if cli.json { Form::Json } else { Form::Table };
    match cli.action {
        Action::Login(args) => login::login(args, scope),
        Action::Completions { shell } => shell::completions(Cli::command(), shell),
        Action::Man { dir } => shell::man(Cli::command(), &dir),
        action => {
            let client = Client::new(Session::open(scope)?)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Failure::new(Class::Unreachable, format!("no request can be sent: {error}")))?;
            let done = runtime.block_on(ask(&client, form, action));
            // A name server that hangs keeps no process.
            runtime.shutdown_background();
            done
        }
    }
}

/// Runs a command that asks the service.
async fn ask(client: &Client, form: Form, action: Action) -> Result<(), Failure> {
    match action {
        Action::Create(args) => custom_csrs::create(client, form, *args).await,
        Action::Get(args) => custom_csrs::get(client, form, args).await,
        Action::List(args) => custom_csrs::list(client, form, args).await,
        Action::Delete(args) => custom_csrs::delete(client, form, args).await,
        Action::Restore(args) => custom_csrs::restore(client, form, args).await,
        Action::Rename(args) => custom_csrs::rename(client, form, args).await,
        Action::Rekey(args) => custom_csrs::rekey(client, form, args).await,
        Action::Watch(args) => watch::watch(client, form, args).await,
        Action::Set(args) => sets::run(client, form, args).await,
        Action::Upload(args) => certificates::upload(client, form, args).await,
        Action::Certificates(args) => certificates::run(client, form, args).await,
        Action::Handover(args) => handover::run(client, form, args).await,
        Action::Webhooks(args) => webhooks::run(client, form, args).await,
        Action::Renewal(args) => renewal::run(client, form, args).await,
        Action::Quota => quota::quota(client, form).await,
        Action::Login(_) | Action::Completions { .. } | Action::Man { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
