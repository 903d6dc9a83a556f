//! The sealer of a process: the database says which of its master keys seals.

use std::path::Path;

use anyhow::{Context, bail};
use shared::{
    clock::{Clock, SystemClock},
    seal::Sealer,
    storage::{MasterKeyRow, Registration, Store},
};

use super::files::{KeyFile, at_hand, create, keys, load};
use crate::cli::{
    data_dir::{master_key_name_id, master_key_path},
    database::create_private_dir,
};

/// What to do if there is no master key file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// Make one, if none was ever registered.
    Create,
    /// Refuse: it has to be the one that the other processes have.
    Refuse,
}

/// The sealer of a process with workers. It has all master keys that are here, and seals with the one that the database names. If none was
/// ever registered, the one that is here is registered.
pub async fn sealer(data_dir: &Path, store: &dyn Store, if_missing: IfMissing) -> anyhow::Result<Sealer> {
    // The database first: if another process makes and registers a master key here meanwhile, its file is found, since the file comes before
    // the row.
    let current = current(&store.list_master_keys().await?);
    let (files, path) = (load(data_dir)?, master_key_path(data_dir));
    if let Some(current) = current {
        return with_current(data_dir, files, current);
    }
    let (files, is_new) = match files.as_slice() {
        [] if if_missing == IfMissing::Refuse => {
            bail!("there is no {}: make one with `csrd keys init`, or copy it from the other worker machines", path.display())
        }
        [] => {
            create_private_dir(data_dir)?;
            let (key, is_new) = create(&path)?;
            (vec![KeyFile { path: path.clone(), key }], is_new)
        }
        _ => (files, false),
    };
    let first = match files.as_slice() {
        [one] => one,
        // The first master key of a machine has the plain name.
        several => several.iter().find(|file| master_key_name_id(&file.path).is_none()).with_context(|| {
            format!("the database knows no master key yet, and {}: name one of these files master.key", at_hand(data_dir, several))
        })?,
    };
    let id = first.key.id();
    match store.register_master_key(&id, SystemClock.now()).await? {
        Registration::Current => {}
        Registration::Other(current) => {
            // Another process registered its own in the meantime: the one that was made here sealed nothing.
            let files = if is_new {
                let _ = std::fs::remove_file(&path);
                Vec::new()
            } else {
                files
            };
            return with_current(data_dir, files, current);
        }
    }
    if is_new {
        tracing::info!(master_key_id = id, "made a master key: keep a copy of {} in a safe place", path.display());
    }
    Ok(Sealer::of(id, keys(files)))
}

fn with_current(data_dir: &Path, files: Vec<KeyFile>, current: String) -> anyhow::Result<Sealer> {
    if files.iter().any(|file| file.key.id() == current) {
        return Ok(Sealer::of(current, keys(files)));
    }
    if files.is_empty() {
        bail!(
            "the database has the master key {current}, but there is no {}: restore that key from its backup, or copy it from another \
             machine with workers",
            master_key_path(data_dir).display()
        );
    }
    bail!(
        "the database has the master key {current}, but {}: restore {current} from its backup, or copy it from another machine with workers",
        at_hand(data_dir, &files)
    )
}

/// The ID of the one that seals.
pub fn current(registered: &[MasterKeyRow]) -> Option<String> {
    registered.iter().find(|key| key.current).map(|key| key.id.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::secret_file;
    use shared::{
        seal::MasterKey,
        testing::{TestDatabase, faulty::FaultyStore},
    };

    use super::*;

    #[tokio::test]
    async fn a_first_start_finds_the_master_key_that_another_one_makes_here_at_the_same_moment() {
        let database = TestDatabase::new().await;
        let dir = tempfile::tempdir().unwrap();
        let key = MasterKey::generate().unwrap();
        database.database.store.register_master_key(&key.id(), SystemClock.now()).await.unwrap();
        let (path, id, line) = (master_key_path(dir.path()), key.id(), key.to_line());
        let store = FaultyStore::meanwhile(Arc::clone(&database.database.store), "list_master_keys", move || {
            let _ = secret_file::create(&path, line.as_bytes());
        });
        for if_missing in [IfMissing::Create, IfMissing::Refuse] {
            let _ = std::fs::remove_file(master_key_path(dir.path()));
            assert_eq!(sealer(dir.path(), &store, if_missing).await.unwrap().current_id(), id);
        }
    }
}
