//! `csrd certificate sync`: exports that follow the certificates.

use std::{collections::HashMap, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use shared::{
    clock::Timestamp,
    custom_certificate::CustomCertificate,
    ids::{CustomCertificateId, TenantId},
    storage::{Store, StoreError},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::Instant,
};

use super::{
    database::DatabaseArgs,
    export::Options,
    order::{Order, check_master_key},
    scopes::tenant_id,
    settings::{complain, duration},
};

/// Certificates to read at a time.
const BATCH: u32 = 500;
/// The pauses after the first failure of an export, the second and so on; the last one repeats.
const PAUSES: [Duration; 5] =
    [Duration::from_secs(5), Duration::from_secs(15), Duration::from_mins(1), Duration::from_mins(5), Duration::from_mins(15)];

/// Which certificates to export, and where to.
#[derive(Args)]
#[command(
    after_help = "Each certificate gets the directory DIR/ID, as `csrd certificate export ID --out DIR/ID` would write it. When a certificate \
is renewed, moved to another key or changed in any other way, or with --combined another one of its set is, its export is repeated as that \
directory remembers it: with the options that are given here and those of its last export. Unchanged certificates are left alone: no file is \
written, no command runs, no audit entry is made. \
An export that fails is reported on standard error and tried again; the others go on. The directory of a deleted certificate stays as it is. \
SIGTERM and SIGINT end it."
)]
pub struct SyncArgs {
    /// The directory in which every certificate gets one of its own, by its ID
    #[arg(long, value_name = "DIR")]
    out_root: PathBuf,
    /// Only certificates of this zone; repeatable
    #[arg(long, value_name = "ID", value_parser = tenant_id)]
    zone: Vec<TenantId>,
    /// The time between two looks for certificates that changed
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
    every: Duration,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Exports until SIGTERM or SIGINT.
pub async fn run(args: &SyncArgs) -> anyhow::Result<ExitCode> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, mut stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
    });
    let database = args.database.open().await?;
    if let Err(refused) = check_master_key(&args.database) {
        database.close().await;
        return Err(refused);
    }
    let mut follower = Follower { args, store: &*database.store, known: HashMap::new(), stopped: stopped.clone() };
    while !*stopped.borrow() {
        if let Err(error) = follower.look().await {
            complain(&format!("the certificates were not looked for, which is tried again: {error}"));
        }
        // An export is not interrupted: the same signal ends its command.
        tokio::select! {
            () = tokio::time::sleep(args.every) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

/// The state of an export.
enum Known {
    /// The directory has this state of the certificate.
    Done(State),
    /// This many attempts failed in a row; the next one is at this time.
    Failed(usize, Instant),
}

/// When a certificate last changed, and when those of its set that lie in its zone did.
#[derive(PartialEq, Eq)]
struct State {
    modified_at: Timestamp,
    matched: Vec<(CustomCertificateId, Timestamp)>,
}

struct Follower<'a> {
    args: &'a SyncArgs,
    store: &'a dyn Store,
    known: HashMap<CustomCertificateId, Known>,
    stopped: watch::Receiver<bool>,
}

impl Follower<'_> {
    /// Exports what changed.
    async fn look(&mut self) -> Result<(), StoreError> {
        let (mut after, mut seen) = (None, HashMap::new());
        let mut sets = HashMap::<_, Vec<_>>::new();
        let mut set_of = HashMap::new();
        for matched in self.store.list_matched_certificates(None).await? {
            let set = (matched.zone, matched.set_id);
            sets.entry(set.clone()).or_default().push((matched.id, matched.modified_at));
            set_of.insert(matched.id, set);
        }
        loop {
            let page = self.store.list_all_certificates(after, BATCH).await?;
            let wanted = |certificate: &&CustomCertificate| self.args.zone.is_empty() || self.args.zone.contains(certificate.zone.id());
            for listed in page.iter().filter(wanted) {
                if *self.stopped.borrow() {
                    return Ok(());
                }
                let known = self.known.remove(&listed.id);
                let matched = set_of.get(&listed.id).and_then(|set| sets.get(set)).cloned().unwrap_or_default();
                let state = State { modified_at: listed.modified_at, matched };
                seen.insert(listed.id, self.follow(listed, state, known).await);
            }
            match page.last() {
                Some(last) => after = Some(last.id),
                None => break,
            }
        }
        // Forgets those that are gone.
        self.known = seen;
        Ok(())
    }

    async fn follow(&self, listed: &CustomCertificate, state: State, known: Option<Known>) -> Known {
        let failures = match known {
            Some(Known::Done(before)) if before == state => return Known::Done(before),
            Some(Known::Failed(failures, until)) if Instant::now() < until => return Known::Failed(failures, until),
            Some(Known::Failed(failures, _)) => failures,
            Some(Known::Done(_)) | None => 0,
        };
        match self.export(listed).await {
            Ok(()) => Known::Done(state),
            Err(error) => {
                complain(&format!("custom certificate {}: {error:#}", listed.id));
                let pause = PAUSES.get(failures).or(PAUSES.last()).copied().unwrap_or_default();
                Known::Failed(failures + 1, Instant::now() + pause)
            }
        }
    }

    async fn export(&self, listed: &CustomCertificate) -> anyhow::Result<()> {
        // To have its chain, which lists leave out.
        let Some(certificate) = self.store.find_certificate(&listed.zone, listed.id).await? else { return Ok(()) };
        let out = self.args.out_root.join(certificate.id.to_string());
        let order = Order { id: certificate.id, out: &out, options: &self.args.options, force: false };
        if order.is_done(self.store, &certificate).await? {
            return Ok(());
        }
        order.run(&self.args.database, self.store).await
    }
}
