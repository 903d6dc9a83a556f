//! `csrd zone` and `csrd account`: who may have custom CSRs, and how many.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;
use shared::{
    clock::{Clock, SystemClock},
    ids::{Scope, TenantId},
    storage::ScopeGrant,
};

use super::{
    actor,
    database::DatabaseArgs,
    listing::{ListArgs, Listing},
    settings::{complain, say},
};

/// `csrd zone …`
#[derive(Subcommand)]
pub enum ZoneAction {
    /// Grant custom CSRs to a zone, or change what was granted
    Grant {
        /// The zone's ID
        #[arg(value_parser = tenant_id)]
        id: TenantId,
        /// The account that the zone belongs to
        #[arg(long, value_parser = tenant_id)]
        account: Option<TenantId>,
        /// How many custom CSRs it may have; without it access is granted, but no quota
        #[arg(long, allow_negative_numbers = true)]
        quota: Option<u32>,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Take the grant back; what exists stays readable and deletable
    Revoke(IdArgs),
    /// List the granted zones: ID, account, quota, used
    List(ListArgs),
}

/// `csrd account …`
#[derive(Subcommand)]
pub enum AccountAction {
    /// Grant custom CSRs to an account, or change what was granted
    Grant {
        /// The account's ID
        #[arg(value_parser = tenant_id)]
        id: TenantId,
        /// How many custom CSRs it may have; without it access is granted, but no quota
        #[arg(long, allow_negative_numbers = true)]
        quota: Option<u32>,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Take the grant back; what exists stays readable and deletable
    Revoke(IdArgs),
    /// List the granted accounts: ID, quota, used
    List(ListArgs),
}

/// Which one is meant.
#[derive(Args)]
pub struct IdArgs {
    /// The ID
    #[arg(value_parser = tenant_id)]
    id: TenantId,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// An ID from the command line.
pub fn tenant_id(text: &str) -> Result<TenantId, String> {
    TenantId::parse(text).ok_or_else(|| "an ID is 1 to 64 of A-Z a-z 0-9 . _ -, but not . or ..".to_owned())
}

/// Runs `csrd zone …`.
pub async fn zone(action: ZoneAction) -> anyhow::Result<ExitCode> {
    match action {
        ZoneAction::Grant { id, account, quota, database } => grant(&Scope::Zone(id), account.as_ref(), quota, &database).await,
        ZoneAction::Revoke(IdArgs { id, database }) => revoke(&Scope::Zone(id), &database).await,
        ZoneAction::List(args) => list_zones(&args).await,
    }
}

/// Runs `csrd account …`.
pub async fn account(action: AccountAction) -> anyhow::Result<ExitCode> {
    match action {
        AccountAction::Grant { id, quota, database } => grant(&Scope::Account(id), None, quota, &database).await,
        AccountAction::Revoke(IdArgs { id, database }) => revoke(&Scope::Account(id), &database).await,
        AccountAction::List(args) => list_accounts(&args).await,
    }
}

async fn grant(scope: &Scope, account: Option<&TenantId>, quota: Option<u32>, database: &DatabaseArgs) -> anyhow::Result<ExitCode> {
    let opened = database.open().await?;
    opened.store.grant_scope(scope, account, quota, &actor::local(), SystemClock.now()).await?;
    opened.close().await;
    let quota =
        quota.map_or_else(|| "without a quota: give --quota to let it make any".to_owned(), |quota| format!("with a quota of {quota}"));
    say(&format!("granted custom CSRs to {} {} {quota}, in {}", scope.kind(), scope.id(), database.place()?))?;
    Ok(ExitCode::SUCCESS)
}

async fn revoke(scope: &Scope, database: &DatabaseArgs) -> anyhow::Result<ExitCode> {
    let opened = database.open().await?;
    let revoked = opened.store.revoke_scope(scope, &actor::local(), SystemClock.now()).await?;
    opened.close().await;
    if revoked {
        say(&format!("revoked the grant of {} {}: what it has stays readable and deletable", scope.kind(), scope.id()))?;
        return Ok(ExitCode::SUCCESS);
    }
    complain(&format!("{} {} has no grant", scope.kind(), scope.id()));
    Ok(ExitCode::FAILURE)
}

async fn list_zones(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let row = |ScopeGrant { scope, account, quota, used, .. }| {
        [json!(scope.id().to_string()), json!(account.map(|id| id.to_string())), json!(quota), json!(used)]
    };
    Listing::new(args, ["id", "account", "quota", "used"]).page(grants("zone", args).await?.into_iter().map(row).collect())?;
    Ok(ExitCode::SUCCESS)
}

async fn list_accounts(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let row = |ScopeGrant { scope, quota, used, .. }| [json!(scope.id().to_string()), json!(quota), json!(used)];
    Listing::new(args, ["id", "quota", "used"]).page(grants("account", args).await?.into_iter().map(row).collect())?;
    Ok(ExitCode::SUCCESS)
}

async fn grants(kind: &str, args: &ListArgs) -> anyhow::Result<Vec<ScopeGrant>> {
    let opened = args.database.open().await?;
    let grants = opened.store.list_scopes(kind).await?;
    opened.close().await;
    Ok(grants)
}
