//! `csrd certificate`: what the operator does with certificates that came back.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde_json::json;
use shared::{
    clock::{Clock, SystemClock},
    custom_certificate::CustomCertificate,
    ids::{CustomCertificateId, CustomCsrId, TenantId},
};

use super::{
    database::DatabaseArgs,
    export::Options,
    listing::{ListArgs, Listing},
    order::{Order, check_master_key},
    scopes::tenant_id,
    settings::duration,
    sync::{self, SyncArgs},
};

/// Certificates that are read at once.
const BATCH: u32 = 500;

/// `csrd certificate …`
#[derive(Subcommand)]
pub enum CertificateAction {
    /// List the certificates of all zones: ID, zone, custom CSR, status, expiry, hosts
    List(CertificateListArgs),
    /// Write a certificate and its private key for a TLS terminator; needs the master key
    Export(ExportArgs),
    /// Export every certificate into a directory of its own, and again whenever it changes; needs the master key and keeps running
    Sync(SyncArgs),
}

/// Which certificates to list: those that fit all of this.
#[derive(Args)]
pub struct CertificateListArgs {
    /// Only those of this zone
    #[arg(long, value_name = "ID", value_parser = tenant_id)]
    zone: Option<TenantId>,
    /// Only those that expire within this time, such as `30d`, and those that have expired
    #[arg(long, value_name = "TIME", value_parser = duration)]
    expiring: Option<Duration>,
    #[command(flatten)]
    list: ListArgs,
}

/// What to export, and where to.
#[derive(Args)]
pub struct ExportArgs {
    /// The custom certificate's ID
    #[arg(value_parser = certificate_id)]
    id: CustomCertificateId,
    /// The directory that gets fullchain.pem and privkey.pem; it is made where it is missing. None on the way to it may be one that
    /// others can change
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Take a directory of another certificate over; replace fullchain.pem, privkey.pem, combined.pem, site.pem.rsa and site.pem.ecdsa that no
    /// export wrote, and leave other files; follow DIR where it is a link
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    database: DatabaseArgs,
}

fn certificate_id(text: &str) -> Result<CustomCertificateId, String> {
    CustomCertificateId::parse(text).ok_or_else(|| match CustomCsrId::parse(text) {
        Some(_) => "that is a custom CSR's ID: csrd certificate list has the IDs of the certificates".to_owned(),
        None => "a custom certificate's ID has 32 hexadecimal digits".to_owned(),
    })
}

/// Runs `csrd certificate …`.
pub async fn run(action: CertificateAction) -> anyhow::Result<ExitCode> {
    match action {
        CertificateAction::List(args) => list(&args).await,
        CertificateAction::Export(args) => export(&args).await,
        CertificateAction::Sync(args) => sync::run(&args).await,
    }
}

async fn list(args: &CertificateListArgs) -> anyhow::Result<ExitCode> {
    let database = args.list.database.open().await?;
    let (mut after, now) = (None, SystemClock.now());
    let mut listing = Listing::new(&args.list, ["id", "zone", "custom_csr", "status", "expires", "hosts"]);
    let is_wanted = |certificate: &CustomCertificate| {
        args.zone.as_ref().is_none_or(|zone| certificate.zone.id() == zone)
            && args.expiring.is_none_or(|time| certificate.chain.not_after <= now.plus(time))
    };
    let row = |certificate: &CustomCertificate| {
        let CustomCertificate { id, zone, custom_csr_id, chain, .. } = certificate;
        let status = certificate.status(now).as_str();
        let (id, csr) = (id.to_string(), custom_csr_id.to_string());
        [json!(id), json!(zone.id().to_string()), json!(csr), json!(status), json!(chain.not_after.rfc3339()), json!(chain.hosts)]
    };
    loop {
        let page = database.store.list_all_certificates(after, BATCH).await?;
        listing.page(page.iter().filter(|certificate| is_wanted(certificate)).map(row).collect())?;
        match page.last() {
            Some(last) if !listing.is_closed() => after = Some(last.id),
            _ => break,
        }
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let database = args.database.open().await?;
    let order = Order { id: args.id, out: &args.out, options: &args.options, force: args.force };
    let exported = match check_master_key(&args.database) {
        Ok(()) => order.run(&args.database, &*database.store).await,
        refused => refused,
    };
    database.close().await;
    exported?;
    Ok(ExitCode::SUCCESS)
}
