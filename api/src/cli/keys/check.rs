//! `csrd keys check`: damage to a record is not seen before it is needed otherwise.

use std::process::ExitCode;

use shared::{
    ids::CustomCsrId,
    seal::{Binding, SealError, Sealer},
};

use crate::cli::{data_dir::master_key_path, database::DatabaseArgs, master_keys, settings::Output};

/// Sealed records that are read at once.
const BATCH: u32 = 500;
/// Custom CSRs that are named of those whose record does not open.
const NAMED_MAX: usize = 10;

/// Opens every record.
pub async fn check(args: &DatabaseArgs) -> anyhow::Result<ExitCode> {
    let database = args.open().await?;
    let loaded: Vec<_> = master_keys::load(&args.data_dir)?.into_iter().map(|file| file.key).collect();
    let has_none = loaded.is_empty();
    // Nothing is sealed here.
    let sealer = Sealer::of(String::new(), loaded);
    let problem = |master_key_id: &str, opens: Result<(), SealError>| {
        if sealer.holds(master_key_id) {
            opens.err().map(|_| "was changed, or belongs to another row".to_owned())
        } else if has_none {
            Some(format!("needs the master key {master_key_id}"))
        } else {
            Some(format!("needs the master key {master_key_id}, which is not in {}", args.data_dir.display()))
        }
    };
    let (mut opened, mut broken, mut named) = (0_u64, 0_u64, Vec::new());
    let mut after: Option<CustomCsrId> = None;
    loop {
        let records = database.store.list_sealed(after, BATCH).await?;
        let Some(last) = records.last() else { break };
        after = Some(last.id);
        for record in &records {
            let (id, scope) = (record.id.to_string(), record.scope.to_string());
            let binding = Binding::custom_csr(&id, &scope, &record.spki_sha256);
            match problem(&record.master_key_id, sealer.open(&binding, &record.sealed_private_key).map(drop)) {
                None => opened += 1,
                Some(problem) => {
                    broken += 1;
                    if named.len() < NAMED_MAX {
                        named.push(format!("{scope}: the private key of custom CSR {id} {problem}"));
                    }
                }
            }
        }
    }
    // Secrets of webhooks, and links in events, are worth nothing without it.
    let webhook_key = database.store.find_webhook_key().await?;
    let webhook_problem = webhook_key.and_then(|key| problem(&key.master_key_id, key.check(&sealer)));
    let is_webhook_key_broken = webhook_problem.is_some();
    named.extend(webhook_problem.map(|problem| format!("the key pair for the secrets of webhooks {problem}")));
    let (mut output, registered) = (Output::new(), database.store.list_master_keys().await?);
    database.close().await;
    for row in &registered {
        output.line(&format!("master key {}{}", row.id, if row.current { ", current" } else { "" }))?;
    }
    let is_missing = has_none && !registered.is_empty();
    if is_missing {
        let path = master_key_path(&args.data_dir);
        output
            .line(&format!("there is no {}: restore the master key from its backup, or give the --data-dir that has it", path.display()))?;
    }
    // The first of its records may be beyond those that are named.
    let mut lacks = is_missing;
    for row in registered.iter().filter(|row| !has_none && (row.current || row.in_use) && !sealer.holds(&row.id)) {
        lacks = true;
        output.line(&format!("the master key {} is not in {}: restore it from its backup", row.id, args.data_dir.display()))?;
    }
    for line in &named {
        output.line(line)?;
    }
    match (opened, broken) {
        (_, 0) if is_webhook_key_broken => output.line(&format!("private keys of custom CSRs: {opened}, all were opened"))?,
        (0, 0) => output.line("no sealed record yet")?,
        (_, 0) => output.line(&format!("ok, all {opened} sealed records were opened"))?,
        _ => output.line(&format!("{broken} of {} sealed records do not open", opened + broken))?,
    }
    Ok(if broken > 0 || is_webhook_key_broken || lacks { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
