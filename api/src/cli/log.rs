//! The log: on standard error, each line of a request with its request ID. Whoever reads it holds nobody up: beyond a bounded queue
//! lines are dropped and counted.

use std::{
    io::{self, BufWriter, Stderr, Write},
    sync::{Arc, OnceLock},
};

use clap::{Args, ValueEnum};
use shared::{
    clock::{Clock, SystemClock},
    printable::escape,
};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::MakeWriter,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use super::settings::patiently;

/// How much is logged, and how.
#[derive(Args, Clone)]
pub struct LogArgs {
    /// The minimum level of the lines to log
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

/// The target of the lines that name addresses.
const LISTENING: &str = "csrd_listening";

/// Names the address that requests are taken on, such as `http://127.0.0.1:8080`.
pub fn listening(base: &str) {
    tracing::info!(target: LISTENING, "listening on {base}");
}

/// Names the URL of the metrics.
pub fn metrics_at(url: &str) {
    tracing::info!(target: LISTENING, "metrics at {url}");
}

/// Starts the log. A panic leaves one line too, with its place but without its text: nobody knows what that holds.
///
/// Hold what it returns until the process ends: the last lines are written with it.
pub fn start(args: &LogArgs) -> LastLines {
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
    let output = Output { stderr: BufWriter::new(io::stderr()), dropped: Arc::default(), told: 0, format: args.log_format };
    let dropped = Arc::clone(&output.dropped);
    let (queue, guard) = NonBlockingBuilder::default().buffered_lines_limit(QUEUE_LINES).thread_name("log").finish(output);
    let _ = dropped.set(queue.error_counter());
    let lines = tracing_subscriber::fmt::layer().with_writer(Lines(queue));
    match args.log_format {
        LogFormat::Text => log.with(lines.with_ansi(false).with_target(false)).init(),
        LogFormat::Json => log.with(lines.json().flatten_event(true).with_span_list(false)).init(),
    }
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a thread panicked");
    }));
    LastLines(Some(guard))
}

/// Lines that wait to be written at most.
const QUEUE_LINES: usize = 16 * 1024;

/// Writes the last lines when it is dropped, if someone reads them.
#[must_use]
pub struct LastLines(Option<WorkerGuard>);

impl Drop for LastLines {
    fn drop(&mut self) {
        let guard = self.0.take();
        // Its drop waits for the reader, and complains on standard output, whose reader may be the same.
        patiently(move || drop(guard));
    }
}

/// Takes the lines of all threads.
struct Lines(NonBlocking);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.0.clone())
    }
}

/// Takes one line, and escapes in it what a terminal or a line reader would act on.
struct Line(NonBlocking);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let mut escaped = escape(text.trim_end_matches('\n')).into_owned();
        escaped.push('\n');
        self.0.write_all(escaped.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where lines go, with a line for those that were dropped.
struct Output {
    stderr: BufWriter<Stderr>,
    dropped: Arc<OnceLock<ErrorCounter>>,
    /// Of those, how many were told of.
    told: usize,
    format: LogFormat,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stderr.write(bytes)
    }

    /// Called when the queue is empty.
    fn flush(&mut self) -> io::Result<()> {
        let dropped = self.dropped.get().map_or(0, ErrorCounter::dropped_lines);
        if dropped > self.told {
            let (now, count) = (SystemClock.now().rfc3339(), dropped - self.told);
            self.told = dropped;
            match self.format {
                LogFormat::Text => writeln!(self.stderr, "{now}  WARN {count} lines dropped: nobody read them in time")?,
                LogFormat::Json => {
                    writeln!(
                        self.stderr,
                        "{{\"timestamp\":\"{now}\",\"level\":\"WARN\",\"message\":\"{count} lines dropped: nobody read them in time\"}}"
                    )?;
                }
            }
        }
        self.stderr.flush()
    }
}
