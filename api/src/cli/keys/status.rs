//! `csrd keys status`.

use std::process::ExitCode;

use serde_json::json;
use shared::storage::MasterKeyUse;

use crate::cli::{
    listing::{ListArgs, Listing},
    master_keys,
};

/// Lists the master keys that the database knows, and those that lie here or that a live worker has; not those that were retired.
pub async fn status(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let database = args.database.open().await?;
    let (mut known, holders) = (database.store.count_sealed().await?, database.store.list_key_holders().await?);
    let retired = database.store.list_retired().await?;
    database.close().await;
    let here = master_keys::load(&args.database.data_dir)?.into_iter().map(|file| file.key.id());
    for id in here.chain(holders.iter().flat_map(|holder| holder.master_key_ids.clone())) {
        if !known.iter().any(|key| key.id == id) && !retired.contains(&id) {
            known.push(MasterKeyUse { id, current: false, sealed: 0, pool_keys: 0 });
        }
    }
    let rows = known.into_iter().map(|key| {
        let workers: Vec<_> = holders.iter().filter(|holder| holder.master_key_ids.contains(&key.id)).map(|holder| &holder.name).collect();
        [json!(key.id), json!(key.current), json!(key.sealed), json!(key.pool_keys), json!(workers)]
    });
    Listing::new(args, ["id", "current", "sealed_records", "pool_keys", "workers"]).page(rows.collect())?;
    Ok(ExitCode::SUCCESS)
}
