//! `csrd serve`.

use std::{future::Future, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use api::{
    auth::{Authenticator, JwtSettings, KeySource},
    handovers::settings::Settings as HandoverSettings,
    http::server::{self, Options},
    metrics::Sources,
    secret_file::{self, Content},
    state::{AppState, MAX_WAITING, Waiting},
};
use clap::Args;
use poem::http::HeaderValue;
use shared::{
    bodies::create::Validator,
    clock::SystemClock,
    custom_csr::KeyType,
    outbound::{Gate, Outbound, OutboundSettings, Url},
    seal::Sealer,
    storage::{Database, MAX_PENDING, Queue},
    x509::trust_anchors::TrustAnchors,
};
use tokio::{net::TcpListener, sync::watch};
use worker::{Workers, keys::blocked::BlockedKeys};

use super::{
    bad_setting,
    database::{DatabaseArgs, NewDatabaseArgs},
    demo,
    handover::HandoverArgs,
    jwt::JwtArgs,
    limits::{ConnectionArgs, LimitArgs},
    log,
    master_keys::{self, Following, IfMissing},
    metrics::{self, MetricsArgs},
    names::NameArgs,
    outbound::OutboundArgs,
    process::{End, ProcessArgs, drain, exit_code, resolve, stop_or_fault, stop_signal, unless_stopped},
    reload::Hangups,
    settings::{duration, origin, web_url},
    signals,
    tls::{self, TlsArgs},
    traces::TraceArgs,
    work,
};

/// Settings of `csrd serve`.
#[derive(Args)]
pub struct ServeArgs {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, env = "CSRD_LISTEN", hide_env_values = true, default_value = "127.0.0.1:8080")]
    listen: String,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    connections: ConnectionArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    new: NewDatabaseArgs,
    /// Key generation threads, by default one a core; 0 serves the API only and needs no master key
    #[arg(long, env = "CSRD_WORKERS", hide_env_values = true, value_name = "N", allow_negative_numbers = true)]
    workers: Option<usize>,
    /// Pending custom CSRs that one zone or account may have; beyond it a POST is 429/1470
    #[arg(long, env = "CSRD_MAX_PENDING", hide_env_values = true, value_name = "N", allow_negative_numbers = true, default_value_t = MAX_PENDING, value_parser = clap::value_parser!(u32).range(1..))]
    max_pending: u32,
    /// Seconds that every POST waits for its custom CSR to be decided, for clients that expect `csr` in the 201
    #[arg(long, env = "CSRD_CREATE_WAIT", hide_env_values = true, value_name = "SECONDS", allow_negative_numbers = true, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=30))]
    create_wait: u32,
    /// How long a deleted custom CSR can be restored, before its private key is destroyed; 0 destroys it at once
    #[arg(long, env = "CSRD_DELETE_GRACE", hide_env_values = true, value_name = "TIME", value_parser = duration, default_value = "0")]
    delete_grace: Duration,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    process: ProcessArgs,
    #[command(flatten)]
    names: NameArgs,
    /// Root certificates (PEM) that uploaded certificates must lead to; without it any CA will do
    #[arg(long, env = "CSRD_TRUST_ANCHORS", hide_env_values = true, value_name = "FILE")]
    trust_anchors: Option<PathBuf>,
    /// Where tenants ask for access or a larger quota: an http or https URL, with which the hints of 1403, 1404 and 1465 end
    #[arg(long, env = "CSRD_CONTACT_URL", hide_env_values = true, value_name = "URL", value_parser = web_url)]
    contact_url: Option<String>,
    /// An origin whose pages may ask from a browser: scheme and host, with the port if it is not the usual one; repeatable. Without it, none may
    #[arg(long, env = "CSRD_CORS_ORIGIN", hide_env_values = true, value_name = "ORIGIN", value_delimiter = ',', value_parser = origin)]
    cors_origin: Vec<HeaderValue>,
    #[command(flatten)]
    handover: HandoverArgs,
    #[command(flatten)]
    jwt: JwtArgs,
    #[command(flatten)]
    outbound: OutboundArgs,
    #[command(flatten)]
    metrics: MetricsArgs,
    #[command(flatten)]
    traces: TraceArgs,
    #[command(flatten)]
    log: log::LogArgs,
}

/// Serves until SIGTERM or SIGINT.
pub async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    // Before anything is made: whoever stops a start gets an end in order.
    let (hangups, mut stop_signal) = (Hangups::take()?, Box::pin(stop_signal()?));
    signals::release();
    let _last_lines = log::start(&args.log);
    args.process.check()?;
    let Some(listen) = unless_stopped(&mut stop_signal, resolve("--listen", &args.listen)).await else { return Ok(ExitCode::SUCCESS) };
    let listen = listen?;
    let tls = args.tls.load()?;
    let handovers = HandoverSettings { public_url: args.process.public_url.clone(), template: args.handover.template()? };
    let source = args.jwt.source()?;
    let names = args.names.policy()?;
    let blocked_keys = args.process.blocked_keys()?;
    let trust_anchors = args.trust_anchors.as_deref().map(trust_anchors).transpose()?;
    // Before anything is made: a bad setting leaves nothing behind.
    let clock = Arc::new(SystemClock);
    let authenticator =
        |settings: &JwtSettings| Authenticator::new(settings, clock.clone()).map_err(|error| bad_setting(error.to_string()));
    let configured = source.clone().map(|source| authenticator(&args.jwt.with(source))).transpose()?;
    let outbound = args.process.outbound(&args.outbound)?;
    let provider = provider(&args, source.as_ref())?;
    if configured.is_none() {
        demo::check_listener(listen)?;
    }
    let traces = args.traces.begin(&args.outbound)?;
    let listener = TcpListener::bind(listen).await.map_err(|error| bad_setting(format!("--listen: {listen}: {error}")))?;
    let address = listener.local_addr()?;
    let Some(metrics) = unless_stopped(&mut stop_signal, Box::pin(args.metrics.listen())).await else { return Ok(ExitCode::SUCCESS) };
    let metrics = metrics?;

    let opening = args.database.open_for(args.process.access(), args.new.new_database);
    let Some(database) = unless_stopped(&mut stop_signal, opening).await else { return Ok(ExitCode::SUCCESS) };
    let database = database?;
    let database = if metrics.is_some() || traces.is_some() { metrics::measure(database) } else { database };
    let (authenticator, welcome) = if let Some(configured) = configured {
        if args.jwt.lacks_audience() {
            tracing::warn!("--jwt-audience is not set: any token that these keys signed is accepted, an ID token too");
        }
        (configured, None)
    } else {
        let demo = demo::find_or_make(&args.database.data_dir, &*database.store).await?;
        let settings = args.jwt.with_demo(demo.secret);
        (authenticator(&settings)?, Some((settings, demo.is_new)))
    };
    let started = start_workers(&args, &database, blocked_keys, outbound).await?;
    let sealer = started.as_ref().map(|(_, _, sealer)| Arc::clone(sealer));
    let (workers, following) = started.map(|(workers, following, _)| (workers, following)).unzip();
    if workers.is_none() && matches!(database.queue, Queue::Sqlite(_)) {
        tracing::warn!("--workers 0 on SQLite: nothing makes keys, every custom CSR stays pending");
    }
    let authenticator = Arc::new(authenticator);
    let health = args.process.health(&database).with_workers(workers.as_ref()).with_authenticator(Arc::clone(&authenticator));
    let health = Arc::new(health.with_master_keys(following.as_ref().map(Following::state)));
    let watched = args.process.watch(&health);
    let scraped = metrics.map(|metrics| {
        let sources = Sources::new(&database, args.process.key_pool_size).with_workers(workers.as_ref());
        metrics.serve(sources.with_authenticator(Arc::clone(&authenticator)))
    });
    let reloading = tokio::spawn(follow_token_keys(hangups, Arc::clone(&authenticator), provider, source, args.jwt.jwt_jwks_refresh));
    let reloading_tls =
        tls.clone().map(|tls| Ok::<_, std::io::Error>(tokio::spawn(tls::reload(tls, tls::hangups()?)).abort_handle())).transpose()?;
    log_start(&args, address, welcome.is_some())?;
    let (stop, stopping) = watch::channel(false);
    let state = AppState {
        store: Arc::clone(&database.store),
        validator: Validator::new(names).accepting(args.process.key_types()),
        trust_anchors,
        authenticator,
        clock,
        health: Arc::clone(&health),
        max_pending: args.max_pending,
        create_wait_secs: args.create_wait,
        delete_grace: args.delete_grace,
        waiting: Waiting::new(MAX_WAITING),
        body_bytes: args.limits.body_bytes(),
        rate_limits: args.limits.rate_limits(),
        trusted_proxies: args.limits.trusted_proxies(),
        handovers,
        contact_url: args.contact_url,
        cors_origins: args.cors_origin.into_iter().collect(),
        gate: Gate::new(args.outbound.reach()),
        sealer,
        stopping,
    };
    let base = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
    log::listening(&base);
    if let Some((settings, is_new)) = welcome {
        let key_types = args.process.key_types();
        demo::print_welcome(&base, &args.database.data_dir, &settings, is_new, &key_types, &*database.store).await?;
    }
    let end = End::new(args.process.shutdown_timeout);
    let nothing_cut =
        run(listener, args.connections.options(tls, args.limits.trusted_proxies()), state, workers, (stop_signal, stop), &end).await;
    let scraped = scraped.map(|task| task.abort_handle());
    for task in [watched.abort_handle(), reloading.abort_handle()].into_iter().chain(scraped).chain(reloading_tls) {
        task.abort();
    }
    Following::end(following).await;
    end.flush(traces);
    end.close(database).await;
    Ok(exit_code(nothing_cut))
}

/// Says in the log with what the process starts.
fn log_start(args: &ServeArgs, address: SocketAddr, is_demo: bool) -> anyhow::Result<()> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %args.database.data_dir.display(),
        database = args.database.place()?,
        listener = %address,
        key_threads = args.workers.unwrap_or_else(work::default_threads),
        key_pool_size = args.process.key_pool_size,
        tokens = args.jwt.verified_by(),
        "starting"
    );
    if is_demo {
        tracing::warn!("the demo identity is accepted: whoever reads signing.key in the data directory can sign tokens for the demo zone");
    }
    if !args.process.key_types().contains(KeyType::Rsa2048) {
        tracing::warn!("requests without key_type are refused: --key-types lacks rsa2048, which they stand for");
    }
    args.limits.warn();
    Ok(())
}

async fn run(
    listener: TcpListener,
    options: Options,
    state: AppState,
    workers: Option<Workers>,
    (stop, stopping): (impl Future<Output = ()>, watch::Sender<bool>),
    end: &End,
) -> bool {
    let store = Arc::clone(&state.store);
    let mut stopped = stopping.subscribe();
    let mut is_sound = true;
    let shutdown = async {
        is_sound = stop_or_fault(stop, &*store).await;
        end.begin();
        stopping.send_replace(true);
    };
    let api = server::serve(listener, options, api::app(state), shutdown, end.patience);
    let jobs = async {
        let _ = stopped.wait_for(|stopped| *stopped).await;
        match workers {
            Some(workers) => drain(workers, &*store, end).await,
            None => true,
        }
    };
    let (answered, finished) = tokio::join!(api, jobs);
    if !answered {
        tracing::warn!("some requests were still unanswered");
    }
    answered && finished && is_sound
}

async fn start_workers(
    args: &ServeArgs,
    database: &Database,
    blocked_keys: BlockedKeys,
    outbound: OutboundSettings,
) -> anyhow::Result<Option<(Workers, Following, Arc<Sealer>)>> {
    let threads = args.workers.unwrap_or_else(work::default_threads);
    if threads == 0 {
        return Ok(None);
    }
    let data_dir = &args.database.data_dir;
    let sealer = Arc::new(master_keys::sealer(data_dir, &*database.store, IfMissing::Create).await?);
    // On SQLite this process holds the database's lock: whoever held jobs is gone.
    let released = database.store.release_jobs().await?;
    if released > 0 {
        tracing::info!(released, "jobs that an earlier process had begun are run again");
    }
    database.store.empty_pool().await?;
    let workers = args.process.start_workers(database, &sealer, threads, blocked_keys, outbound)?;
    let following = args.process.follow_master_keys(database, data_dir, Arc::clone(&sealer), &workers)?;
    Ok(Some((workers, following, sealer)))
}

/// Follows the keys for tokens where they come from.
async fn follow_token_keys(
    hangups: Hangups,
    authenticator: Arc<Authenticator>,
    provider: Option<(Url, Outbound)>,
    source: Option<KeySource>,
    refresh: Duration,
) {
    match provider {
        Some((url, outbound)) => hangups.refetch(authenticator, url, outbound, refresh).await,
        None => hangups.reload(authenticator, source).await,
    }
}

/// The URL of the keys for tokens and the client that fetches them, or `None` if they are not fetched.
fn provider(args: &ServeArgs, source: Option<&KeySource>) -> anyhow::Result<Option<(Url, Outbound)>> {
    let Some(KeySource::JwksUrl(url)) = source else { return Ok(None) };
    Ok(Some((url.clone(), args.outbound.client("--jwt-jwks-url")?)))
}

/// Unlike a suffix list, roots have no others to fall back to.
fn trust_anchors(path: &std::path::Path) -> anyhow::Result<TrustAnchors> {
    let pem = secret_file::read(path, Content::Public).map_err(|error| bad_setting(format!("--trust-anchors: {error}")))?;
    TrustAnchors::parse(&pem).map_err(|error| bad_setting(format!("--trust-anchors: {}: {error}", path.display())))
}
