//! `csrd erase`: destroys everything of a tenant, and prints a receipt.

use std::{io, process::ExitCode};

use anyhow::bail;
use aws_lc_rs::digest;
use clap::Args;
use serde_json::json;
use shared::{
    audit::Actor,
    clock::{Clock, SystemClock},
    ids::{Scope, TenantId},
    printable::hex,
    storage::{CertificateQuery, Deletion, Direction, ListQuery, Order, Store},
};

use super::{
    actor,
    database::DatabaseArgs,
    scopes::tenant_id,
    settings::{complain, say},
};

/// Rows that are read at once. Each is deleted in a transaction of its own, which keeps nobody else waiting for long.
const BATCH: u32 = 500;
/// How often the rows are looked for again, where others keep coming or are in use.
const ROUNDS: u32 = 20;

/// Whose data is to be destroyed.
#[derive(Args)]
pub struct EraseArgs {
    #[command(flatten)]
    tenant: Tenant,
    /// Do not ask whether it is meant
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// A zone or an account.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Tenant {
    /// The zone with this ID
    #[arg(long, value_name = "ID", value_parser = tenant_id)]
    zone: Option<TenantId>,
    /// The account with this ID; zones that belong to it keep what is theirs
    #[arg(long, value_name = "ID", value_parser = tenant_id)]
    account: Option<TenantId>,
}

impl Tenant {
    fn scope(self) -> anyhow::Result<Scope> {
        match (self.zone, self.account) {
            (Some(zone), None) => Ok(Scope::Zone(zone)),
            (None, Some(account)) => Ok(Scope::Account(account)),
            _ => bail!("either --zone or --account is needed"),
        }
    }
}

/// What was destroyed.
#[derive(Default)]
struct Erased {
    custom_csrs: u64,
    custom_certificates: u64,
    handovers: u64,
    /// All of the IDs.
    ids: Vec<String>,
}

/// Destroys the custom CSRs of a zone or an account with their private keys, hidden ones too, and hand-over links, and the certificates that it has or that use them. The grant is
/// revoked first, so that nothing new comes. Where it is interrupted, a repeat destroys the rest.
pub async fn erase(args: EraseArgs) -> anyhow::Result<ExitCode> {
    let scope = args.tenant.scope()?;
    let opened = args.database.open().await?;
    let (store, actor) = (&*opened.store, actor::local());
    if store.find_scope(&scope).await?.is_none() {
        opened.close().await;
        complain(&format!("{} {} was never granted anything: there is nothing to erase", scope.kind(), scope.id()));
        return Ok(ExitCode::FAILURE);
    }
    if !args.yes && !is_meant(store, &scope).await? {
        opened.close().await;
        complain(&format!("nothing was erased: type {} when asked, or give --yes", scope.id()));
        return Ok(ExitCode::FAILURE);
    }
    store.revoke_scope(&scope, &actor, SystemClock.now()).await?;
    // With what they were told, and before there is more to tell.
    for webhook in store.list_webhooks(&scope).await? {
        store.delete_webhook(&scope, webhook.id, &actor, SystemClock.now()).await?;
    }
    store.delete_renewal_policy(&scope, &actor, SystemClock.now()).await?;
    // Plans rekey nothing without a grant. Their rows about it are deleted.
    store.forget_in_incidents(&scope).await?;
    let mut erased = Erased::default();
    let is_done = erased.all_of(store, &scope, &actor).await;
    // After the rows, whose end makes events too.
    let is_forgotten = store.forget_told(&scope).await;
    opened.close().await;
    // Whatever stopped it: what is gone is gone, and the receipt says so.
    say(&erased.receipt(&scope))?;
    is_forgotten?;
    if is_done? {
        return Ok(ExitCode::SUCCESS);
    }
    complain(&format!("{} {} still has rows that are in use: erase it again", scope.kind(), scope.id()));
    Ok(ExitCode::FAILURE)
}

/// Asks whoever runs the command, on standard error: the receipt alone goes to standard output.
async fn is_meant(store: &dyn Store, scope: &Scope) -> anyhow::Result<bool> {
    let custom_csrs = store.list_custom_csrs(scope, &custom_csrs()).await?.total + store.list_hidden(scope, 0).await?.total;
    let custom_certificates = store.list_certificates(scope, &certificates()).await?.total;
    complain(&format!(
        "this destroys {custom_csrs} custom CSRs with their private keys and {custom_certificates} certificates of {} {} for ever; type the ID \
         to go on",
        scope.kind(),
        scope.id()
    ));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == scope.id().to_string())
}

fn custom_csrs() -> ListQuery {
    ListQuery {
        page: 1,
        per_page: BATCH,
        order: Order::CreatedAt,
        direction: Direction::Asc,
        status: None,
        key_type: None,
        search: None,
        set_id: None,
    }
}

fn certificates() -> CertificateQuery {
    CertificateQuery {
        page: 1,
        per_page: BATCH,
        status: None,
        custom_csr_id: None,
        host: None,
        expires_before: None,
        now: SystemClock.now(),
    }
}

impl Erased {
    /// Whether nothing is left.
    async fn all_of(&mut self, store: &dyn Store, scope: &Scope, actor: &Actor) -> anyhow::Result<bool> {
        let mut idle_rounds = 0;
        while idle_rounds < ROUNDS {
            let before = self.ids.len();
            let certificates = store.list_certificates(scope, &certificates()).await?;
            for certificate in &certificates.rows {
                if store.delete_certificate(scope, certificate.id, actor, SystemClock.now()).await? {
                    self.custom_certificates += 1;
                    self.ids.push(certificate.id.to_string());
                }
            }
            let custom_csrs =
                if certificates.rows.is_empty() { store.list_custom_csrs(scope, &custom_csrs()).await?.rows } else { Vec::new() };
            for custom_csr in &custom_csrs {
                // They are deleted with it.
                let handovers = store.list_handovers(scope, custom_csr.id).await?;
                if store.delete_custom_csr(scope, custom_csr.id, actor, SystemClock.now()).await? == Deletion::Deleted {
                    self.custom_csrs += 1;
                    self.ids.push(custom_csr.id.to_string());
                    self.handovers += handovers.len() as u64;
                    self.ids.extend(handovers.iter().map(|handover| handover.id.to_string()));
                }
            }
            // After the others: those that were just deleted may be hidden.
            let hidden = store.list_hidden(scope, BATCH).await?.ids;
            for id in &hidden {
                if store.destroy_custom_csr(scope, *id, actor, SystemClock.now()).await? == Deletion::Deleted {
                    self.custom_csrs += 1;
                    self.ids.push(id.to_string());
                }
            }
            if certificates.rows.is_empty() && custom_csrs.is_empty() && hidden.is_empty() {
                return Ok(true);
            }
            idle_rounds = if self.ids.len() > before { 0 } else { idle_rounds + 1 };
        }
        Ok(false)
    }

    /// The receipt: a line of JSON. Its hash is over the sorted IDs, a newline after each, so that it can be made again from the audit table.
    fn receipt(mut self, scope: &Scope) -> String {
        self.ids.sort_unstable();
        let ids: String = self.ids.iter().flat_map(|id| [id, "\n"]).collect();
        let receipt = json!({
            scope.kind(): scope.id().to_string(),
            "erased_at": SystemClock.now().rfc3339(),
            "custom_csrs": self.custom_csrs,
            "custom_certificates": self.custom_certificates,
            "handovers": self.handovers,
            "ids_sha256": hex(digest::digest(&digest::SHA256, ids.as_bytes()).as_ref()),
        });
        receipt.to_string()
    }
}
