//! `csrd certificate`: what the operator does with certificates that came back.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use shared::{
    clock::{Clock, SystemClock},
    ids::CustomCertificateId,
    model::{CertificateStatus, CustomCertificate},
    seal::{Binding, Sealer},
    storage::Export,
};
use zeroize::Zeroizing;

use super::{actor, database::DatabaseArgs, export::Directory, keys, settings::Output};

/// Certificates that are read at once.
const BATCH: u32 = 500;

/// `csrd certificate …`
#[derive(Subcommand)]
pub enum CertificateAction {
    /// List the certificates of all zones: ID, zone, custom CSR, status, expiry, hosts
    List(DatabaseArgs),
    /// Write a certificate and its private key for a TLS terminator; needs the master key
    Export(ExportArgs),
}

/// What to export, and where to.
#[derive(Args)]
pub struct ExportArgs {
    /// The custom certificate's ID
    #[arg(value_parser = certificate_id)]
    id: CustomCertificateId,
    /// The directory that gets fullchain.pem and privkey.pem; it is made where it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Write even where the directory belongs to another certificate, or has PEM files of somebody else
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

fn certificate_id(text: &str) -> Result<CustomCertificateId, String> {
    CustomCertificateId::parse(text).ok_or_else(|| "a custom certificate's ID has 32 hexadecimal digits".to_owned())
}

/// Runs `csrd certificate …`.
pub async fn run(action: CertificateAction) -> anyhow::Result<ExitCode> {
    match action {
        CertificateAction::List(args) => list(&args).await,
        CertificateAction::Export(args) => export(&args).await,
    }
}

async fn list(args: &DatabaseArgs) -> anyhow::Result<ExitCode> {
    let database = args.open().await?;
    let (mut after, mut output, now) = (None, Output::new(), SystemClock.now());
    loop {
        let page = database.store.list_all_certificates(after, BATCH).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for certificate in &page {
            let CustomCertificate { id, zone, custom_csr_id, chain, .. } = certificate;
            let (status, expires, hosts) = (certificate.status(now).as_str(), chain.not_after.rfc3339(), chain.hosts.join(","));
            output.line(&format!(
                "{id}\tzone={}\tcustom_csr={custom_csr_id}\tstatus={status}\texpires={expires}\thosts={hosts}",
                zone.id()
            ))?;
        }
        if output.is_closed() {
            break;
        }
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

/// The audit entry is committed before the private key is unsealed; nothing is recorded of what is refused before.
async fn export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let sealer = keys::opener(&args.database.data_dir)?;
    let database = args.database.open().await?;
    let id = args.id.to_string();
    let directory = Directory::claim(&args.out, &id, args.force)?;
    let Some(Export { certificate, sealed }) = database.store.start_export(args.id, &actor::local(), SystemClock.now()).await? else {
        bail!("there is no custom certificate {id}: see csrd certificate list");
    };
    if certificate.status(SystemClock.now()) == CertificateStatus::Expired {
        eprintln!("csrd: the certificate expired at {}: it is written all the same", certificate.chain.not_after.rfc3339());
    }
    let (row_id, scope) = (sealed.id.to_string(), sealed.scope.to_string());
    let private_key = open(&sealer, &Binding::custom_csr(&row_id, &scope, &sealed.spki_sha256), &sealed.sealed_private_key)?;
    directory.write(&id, &private_key, certificate.chain.pem.as_bytes())?;
    database.close().await;
    println!("wrote fullchain.pem and privkey.pem to {}", args.out.display());
    Ok(ExitCode::SUCCESS)
}

/// The private key as PEM (RFC 7468, 10).
fn open(sealer: &Sealer, binding: &Binding<'_>, record: &[u8]) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let master_key = sealer.current_id();
    let der = sealer.open(binding, record).with_context(|| format!("master.key is master key {master_key}"))?;
    let base64 = Zeroizing::new(STANDARD.encode(&*der));
    // Large enough from the start: a buffer that grows leaves copies behind.
    let mut pem = Zeroizing::new(Vec::with_capacity(base64.len() * 2 + 128));
    pem.extend_from_slice(b"-----BEGIN PRIVATE KEY-----\n");
    for line in base64.as_bytes().chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(b"-----END PRIVATE KEY-----\n");
    Ok(pem)
}
