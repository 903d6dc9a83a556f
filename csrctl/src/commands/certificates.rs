//! `csrctl upload` and `csrctl certificates`.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    custom_csrs::{DeleteArgs, repeatable},
    id, key,
};
use crate::{
    client::{Client, Request},
    failure::Failure,
    output::{Form, print_lines, print_object},
    scope::Scope,
};

const MEMBERS: [&str; 13] = [
    "id",
    "status",
    "custom_csr_id",
    "hosts",
    "issuer",
    "not_before",
    "expires_on",
    "serial_number",
    "fingerprint_sha256",
    "bundle_method",
    "renewal",
    "uploaded_on",
    "modified_on",
];
const COLUMNS: [&str; 5] = ["id", "status", "expires_on", "custom_csr_id", "hosts"];
/// The largest file that is read, in bytes: far more than the service takes.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// What to upload.
#[derive(Args)]
pub struct UploadArgs {
    /// The file with the certificate and those between it and its root, in PEM, PKCS#7 or DER; `-` is standard input
    file: PathBuf,
    /// The custom CSR that it is for; without it, the one whose key it has
    #[arg(long, value_name = "ID")]
    custom_csr_id: Option<String>,
    /// Replace the certificate with this ID, which stays: a renewal
    #[arg(long, value_name = "ID", value_parser = id)]
    replace: Option<String>,
    /// How the chain is built: ubiquitous, optimal, or force (as it is)
    #[arg(long, value_name = "METHOD")]
    bundle_method: Option<String>,
    /// Check it and store nothing
    #[arg(long)]
    dry_run: bool,
    /// Makes the command safe to repeat for 24 hours: with the same key nothing is stored twice. Without it, one is made up
    #[arg(long, value_name = "KEY", value_parser = key, conflicts_with = "replace")]
    idempotency_key: Option<String>,
}

/// `csrctl certificates …`
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CertificatesArgs {
    #[command(subcommand)]
    action: Option<CertificatesAction>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Subcommand)]
enum CertificatesAction {
    /// Show one certificate
    Get(GetArgs),
    /// Delete certificates; their custom CSRs can be deleted afterwards
    Delete(DeleteArgs),
}

#[derive(Args)]
struct GetArgs {
    /// The certificate's ID
    #[arg(value_parser = id)]
    id: String,
    /// Print the chain (PEM) and nothing else
    #[arg(long)]
    chain: bool,
}

/// Which certificates to list: those that fit all of this.
#[derive(Args)]
struct ListArgs {
    /// Only those that are active or expired
    #[arg(long)]
    status: Option<String>,
    /// Only those of this custom CSR
    #[arg(long, value_name = "ID")]
    custom_csr_id: Option<String>,
    /// Only those for this host
    #[arg(long)]
    host: Option<String>,
    /// Only those that expire before this time, such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires_before: Option<String>,
    /// The first so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// Uploads a certificate, or checks it only.
pub async fn upload(client: &Client, form: Form, args: UploadArgs) -> Result<(), Failure> {
    if matches!(client.scope(), Scope::Account(_)) {
        return Err(Failure::usage("a certificate is uploaded to a zone, also if its custom CSR is an account's: give --zone ID"));
    }
    let certificate = read(&args.file)?;
    let mut body = Map::from_iter([("certificate".to_owned(), json!(certificate))]);
    let members = [("custom_csr_id", args.custom_csr_id), ("bundle_method", args.bundle_method)];
    body.extend(members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::String(value?)))));
    let key = args.idempotency_key.unwrap_or_else(|| Uuid::now_v7().to_string());
    let request = match &args.replace {
        Some(id) => Request::new(Method::PATCH, ["custom_certificates", id.as_str()]),
        None if args.dry_run => Request::new(Method::POST, ["custom_certificates"]),
        None => Request::new(Method::POST, ["custom_certificates"]).idempotent_by(&key),
    };
    let file = args.file.display().to_string();
    let names = [("certificate", file.as_str())];
    let request = request.query("dry_run", args.dry_run.then_some(true)).body(Value::Object(body), &names);
    let may_repeat = args.replace.is_none() && !args.dry_run;
    let sent = client.send(&request).await;
    let stored = sent.map_err(|failure| if may_repeat { repeatable(failure, &key) } else { failure })?;
    show(form, &stored.result)
}

/// Runs `csrctl certificates …`.
pub async fn run(client: &Client, form: Form, args: CertificatesArgs) -> Result<(), Failure> {
    match args.action {
        None => {
            let ListArgs { status, custom_csr_id, host, expires_before, limit } = args.list;
            let request = || {
                let request = Request::new(Method::GET, ["custom_certificates"]);
                let request = request.query("status", status.as_ref()).query("custom_csr_id", custom_csr_id.as_ref());
                request.query("host", host.as_ref()).query("expires_before", expires_before.as_ref())
            };
            super::list(client, form, &COLUMNS, limit, request).await
        }
        Some(CertificatesAction::Get(GetArgs { id, chain })) => {
            let found = client.send(&Request::new(Method::GET, ["custom_certificates", id.as_str()])).await?.result;
            if chain { print_lines(super::text(&found, "chain")) } else { show(form, &found) }
        }
        Some(CertificatesAction::Delete(DeleteArgs { ids })) => super::delete(client, form, "custom_certificates", &ids).await,
    }
}

fn show(form: Form, certificate: &Value) -> Result<(), Failure> {
    let members: Vec<_> = MEMBERS.into_iter().filter(|name| !certificate[*name].is_null()).collect();
    print_object(form, certificate, &members)
}

/// The text of a file with certificates; what is no text is DER, which is sent in base64.
fn read(path: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(Failure::usage(format!("{} has over {FILE_MAX_BYTES} bytes: give the certificates alone", path.display())));
    }
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| STANDARD.encode(error.as_bytes())))
}
