//! `csrd audit archive`: the one way to make the audit table smaller.

use std::{
    fs::File,
    io::{BufWriter, Write},
    ops::RangeInclusive,
    path::{Path, PathBuf, absolute},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use api::secret_file::NewFile;
use aws_lc_rs::digest;
use clap::Args;
use shared::{
    audit::NewEntry,
    clock::{Clock, SystemClock, Timestamp},
    printable::hex,
    storage::{AuditQuery, Store, StoreError},
};

use super::{super::actor, line, time};
use crate::cli::{bad_setting, database::DatabaseArgs, settings::say};

/// The most entries that one transaction deletes: it keeps nobody else waiting for long.
const BATCH: i64 = 1_000;
/// How often a database that is busy is asked again, and after how long.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// Which entries to move, and where to.
#[derive(Args)]
pub struct ArchiveArgs {
    /// Entries from before this time, written as for --since: `90d` moves what is older than 90 days
    #[arg(long, value_name = "TIME", value_parser = time)]
    before: Timestamp,
    /// The file, readable for its owner alone; it must not exist yet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Writes the entries to the file, and deletes exactly those from the table once the file is safely on disk. Where it is interrupted, the
/// table still has what is not deleted yet, and a repeat with another file goes on.
pub async fn archive(args: ArchiveArgs) -> anyhow::Result<ExitCode> {
    let place = args.out.display();
    let path = absolute(&args.out).map_err(|error| bad_setting(format!("--out: {place}: {error}")))?;
    let database = args.database.open().await?;
    let file = NewFile::begin(&path).with_context(|| format!("--out: {place} cannot be created"))?;
    let written = write(&*database.store, args.before, file.temporary()).await;
    let Written { entries, sha256, numbers } = written.context("nothing was archived")?;
    if entries == 0 {
        say(&format!("there are no entries from before {}: {place} was not written", args.before.rfc3339()))?;
    } else {
        file.finish().with_context(|| format!("--out: {place} cannot be written: nothing was archived"))?;
        let deleted = delete(&*database.store, &numbers, &NewEntry::archive(entries, sha256.clone())).await;
        deleted
            .with_context(|| format!("{place} has {entries} entries, of which some were not deleted: archive again, to another file"))?;
        say(&format!("moved {entries} entries to {place}, SHA-256 {sha256}"))?;
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

struct Written {
    entries: u64,
    sha256: String,
    /// Numbers without a gap: what is in one is not committed yet, and in no file.
    numbers: Vec<RangeInclusive<i64>>,
}

async fn write(store: &dyn Store, before: Timestamp, path: &Path) -> anyhow::Result<Written> {
    let cannot = || format!("--out: {} cannot be written", path.display());
    let mut file = BufWriter::new(File::options().write(true).open(path).with_context(cannot)?);
    let mut hash = digest::Context::new(&digest::SHA256);
    let (mut entries, mut numbers) = (0, Vec::<RangeInclusive<i64>>::new());
    let mut run = store.read_audit(AuditQuery { until: before, ..AuditQuery::default() }).await?;
    loop {
        let page = run.next().await?;
        if page.is_empty() {
            break;
        }
        for entry in page {
            let line = format!("{}\n", line(&entry));
            hash.update(line.as_bytes());
            file.write_all(line.as_bytes()).with_context(cannot)?;
            entries += 1;
            match numbers.last_mut() {
                Some(range) if range.end() + 1 == entry.number => *range = *range.start()..=entry.number,
                _ => numbers.push(entry.number..=entry.number),
            }
        }
    }
    file.flush().with_context(cannot)?;
    Ok(Written { entries, sha256: hex(hash.finish().as_ref()), numbers })
}

/// The entry that says so is written with the first ones that go: none goes unsaid.
async fn delete(store: &dyn Store, numbers: &[RangeInclusive<i64>], entry: &NewEntry) -> anyhow::Result<()> {
    let mut entry = Some(entry);
    for range in numbers {
        let mut first = *range.start();
        while first <= *range.end() {
            let last = range.end().min(&(first + BATCH - 1)).to_owned();
            delete_patiently(store, first..=last, entry.take()).await?;
            first = last + 1;
        }
    }
    Ok(())
}

async fn delete_patiently(store: &dyn Store, numbers: RangeInclusive<i64>, entry: Option<&NewEntry>) -> Result<(), StoreError> {
    let mut tries = 1;
    loop {
        match store.delete_archived(numbers.clone(), entry, &actor::local(), SystemClock.now()).await {
            // Nothing was done: a busy server has its turn first.
            Err(StoreError::Unavailable(_)) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            deleted => return deleted.map(drop),
        }
    }
}
