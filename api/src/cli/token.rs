//! `csrd token`.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use api::auth::{
    Permission,
    signing::{TokenRequest, issue, load_demo_secret},
};
use clap::{Args, Subcommand};
use shared::{
    audit::{Action, AuditScope, NewEntry},
    clock::{Clock, SystemClock},
    ids::{Scope, TenantId},
    storage::Store,
};

use super::{
    actor, bad_setting,
    data_dir::signing_key_path,
    database::DatabaseArgs,
    jwt::JwtArgs,
    scopes::tenant_id,
    settings::{complain, duration, say},
};

/// A token cannot be taken back: one that is valid for longer than this is most likely a slip.
const TTL_USUAL: Duration = Duration::from_hours(366 * 24);
const TTL_MAX: Duration = Duration::from_hours(1_000 * 366 * 24);

/// `csrd token …`
#[derive(Subcommand)]
pub enum TokenAction {
    /// Issue a token, signed with the shared secret or with the demo identity's key; print it alone
    Issue(Box<IssueArgs>),
}

/// What the token is to say.
#[derive(Args)]
pub struct IssueArgs {
    /// A zone that the token reaches, or `*` for all; may be repeated
    #[arg(long = "zone", value_name = "ID", num_args = 1.., value_parser = tenant_id_or_all)]
    zones: Vec<String>,
    /// An account that the token reaches, or `*` for all; may be repeated
    #[arg(long = "account", value_name = "ID", num_args = 1.., value_parser = tenant_id_or_all)]
    accounts: Vec<String>,
    /// The permissions, space-separated, such as `custom_csrs:read`; without it the token has all
    #[arg(long, value_parser = scope)]
    scope: Option<String>,
    /// Whom the token names
    #[arg(long, default_value = "csrd-token-issue")]
    subject: String,
    /// How long the token is valid
    #[arg(long, value_parser = ttl, default_value = "1h")]
    ttl: Duration,
    #[command(flatten)]
    jwt: JwtArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

fn tenant_id_or_all(text: &str) -> Result<String, String> {
    if text == "*" { Ok(text.to_owned()) } else { tenant_id(text).map(|id| id.to_string()) }
}

/// Words that are no permission here may be another service's, as `openid` is. One with a colon is written like a permission, and is a slip.
fn scope(text: &str) -> Result<String, String> {
    let slip = text.split(' ').find(|word| word.contains(':') && !Permission::WORDS.contains(word));
    match slip {
        Some(word) => Err(format!("{word} is no permission: they are {}", Permission::WORDS.join(", "))),
        None => Ok(text.to_owned()),
    }
}

/// Tokens count in whole seconds; of a number that is too large, nobody can tell what was meant.
fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if ttl < Duration::from_secs(1) {
        return Err("the token would never be valid; give 1s at least, such as 1h".to_owned());
    }
    if ttl > TTL_MAX {
        return Err("that is over 1000 years; give a shorter time, such as 1h".to_owned());
    }
    Ok(ttl)
}

/// Runs `csrd token …`.
pub async fn run(action: TokenAction) -> anyhow::Result<ExitCode> {
    let TokenAction::Issue(args) = action;
    if args.zones.is_empty() && args.accounts.is_empty() {
        return Err(bad_setting("--zone or --account: a token must reach at least one"));
    }
    let settings = if let Some(source) = args.jwt.source()? {
        args.jwt.with(source)
    } else {
        let path = signing_key_path(&args.database.data_dir);
        match load_demo_secret(&path)? {
            Some(secret) => args.jwt.with_demo(secret),
            None => {
                bail!("nothing to sign with: neither --jwt-secret-file is given nor is there the demo identity's {}", path.display())
            }
        }
    };
    let request = TokenRequest { zones: args.zones, accounts: args.accounts, scope: args.scope, subject: args.subject, ttl: args.ttl };
    let token = issue(&settings, &request, SystemClock.now())?;
    if request.scope.as_ref().is_some_and(|scope| !scope.split(' ').any(|word| Permission::WORDS.contains(&word))) {
        complain(&format!(
            "--scope has no permission of csrd, so the token allows nothing here: they are {}",
            Permission::WORDS.join(", ")
        ));
    }
    if request.ttl > TTL_USUAL {
        complain("--ttl: the token is valid for over a year, and cannot be taken back alone: only other keys for tokens end it before");
    }
    match args.database.open_existing().await? {
        Some(database) => {
            warn_of_missing_grants(&*database.store, &request).await?;
            record(&*database.store, &request).await?;
            database.close().await;
        }
        // Whoever has the secret can sign without us: a database is not made for the sake of its audit table.
        None => complain("there is no database at --data-dir or --database-url: no audit entry is written of this token"),
    }
    say(&token)?;
    Ok(ExitCode::SUCCESS)
}

/// A token may be issued before the grant, but a slip in an ID looks the same.
async fn warn_of_missing_grants(store: &dyn Store, request: &TokenRequest) -> anyhow::Result<()> {
    let scopes = |ids: &[String], one: fn(TenantId) -> Scope| ids.iter().filter_map(|id| TenantId::parse(id)).map(one).collect::<Vec<_>>();
    for scope in scopes(&request.zones, Scope::Zone).into_iter().chain(scopes(&request.accounts, Scope::Account)) {
        if store.find_scope(&scope).await?.is_none_or(|grant| !grant.granted) {
            let (kind, id) = (scope.kind(), scope.id());
            complain(&format!("{kind} {id} has no grant, so the token makes nothing there: run `csrd {kind} grant {id} --quota N`"));
        }
    }
    Ok(())
}

/// Records that a token was issued, once for each zone and account that it reaches.
pub async fn record(store: &dyn Store, request: &TokenRequest) -> anyhow::Result<()> {
    let scopes = |ids: &[String], all: AuditScope, one: fn(TenantId) -> Scope| -> Vec<AuditScope> {
        let scope = |id: &String| TenantId::parse(id).map_or_else(|| all.clone(), |id| (&one(id)).into());
        ids.iter().map(scope).collect()
    };
    let mut reached = scopes(&request.zones, AuditScope::all_zones(), Scope::Zone);
    reached.extend(scopes(&request.accounts, AuditScope::all_accounts(), Scope::Account));
    let entries: Vec<_> = reached.into_iter().map(|scope| NewEntry::scope(Action::TokenIssue, scope)).collect();
    Ok(store.record_entries(&entries, &actor::local(), SystemClock.now()).await?)
}
