//! The log: on standard error, each line of a request with its request ID.

mod lines;

use std::io::Stderr;

use clap::{Args, ValueEnum};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use self::lines::{LastLines, Lines};

/// How much is logged, and how.
#[derive(Args, Clone)]
pub struct LogArgs {
    /// The least important lines to log
    #[arg(long, env = "CSRD_LOG_LEVEL", hide_env_values = true, value_enum, default_value = "info")]
    log_level: LogLevel,
    /// Lines for people, or JSON for machines
    #[arg(long, env = "CSRD_LOG_FORMAT", hide_env_values = true, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// The target of the line that names the address.
const LISTENING: &str = "csrd_listening";

/// Names the address that requests are taken on.
pub fn listening(address: std::net::SocketAddr) {
    tracing::info!(target: LISTENING, "listening on http://{address}");
}

/// Starts the log. A panic leaves one line too, with its place but without its text: nobody knows what that holds.
///
/// Hold what it returns until the process ends: the last lines are written with it.
///
/// # Errors
///
/// Where the thread that writes the lines cannot be started.
pub fn start(args: &LogArgs) -> std::io::Result<LastLines<Stderr>> {
    let level = match args.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Libraries that log statements and frames may not: values stand in them. Their warnings are welcome.
    let quiet = ["sqlx", "hyper", "hyper_util", "h2", "apalis", "apalis_core", "apalis_sqlite", "poem", "rustls"];
    // Scripts wait for the address, whatever the level.
    let filter = Targets::new()
        .with_default(level)
        .with_targets(quiet.map(|name| (name, LevelFilter::WARN)))
        .with_target(LISTENING, LevelFilter::INFO);
    let log = tracing_subscriber::registry().with(filter);
    let (lines, last_lines) = Lines::new(std::io::stderr())?;
    let lines = tracing_subscriber::fmt::layer().with_writer(lines);
    match args.log_format {
        LogFormat::Text => log.with(lines.with_ansi(false).with_target(false)).init(),
        LogFormat::Json => log.with(lines.json().flatten_event(true).with_span_list(false)).init(),
    }
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a thread panicked");
    }));
    Ok(last_lines)
}
