//! The results: printed as they come, and written to files.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use tokio::process::Command;

use crate::{
    drive::{Figures, Latencies},
    numbers::{grouped, mib, ms},
    plot::{Bar, Panel, Span},
    postgres::output,
};

/// One line of the table: a figure beside its limit, peer or bound.
pub struct Row {
    pub what: String,
    pub figure: String,
    pub beside: String,
    pub ratio: String,
    pub target: &'static str,
    /// `None` if the line has no target.
    pub reached: Option<bool>,
}

/// All results so far.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    details: Vec<String>,
    pub panels: Vec<Panel>,
    pub spans: Vec<Span>,
    /// What was not measured and why, and what went wrong.
    pub notes: Vec<String>,
    pub versions: Vec<String>,
}

const TABLE: &str = "| what | figure | peer or limit, same run | ratio | target | |\n|---|---|---|---|---|---|";
const DETAILS: &str = "| run | per second | p50 | p99 | CPU each: csrd or peer | PostgreSQL | load generator | peak memory | failures |\n|---|---|---|---|---|---|---|---|---|";

impl Report {
    pub fn row(&mut self, row: Row) {
        println!("{}", row.line());
        self.rows.push(row);
    }

    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        println!("NOTE: {note}");
        self.notes.push(note);
    }

    /// The figures behind a line.
    pub fn detail(&mut self, run: &str, figures: &Figures) {
        let Figures { failures, latencies, cpu, peak_bytes, .. } = figures;
        let each = |time: Duration| if time.is_zero() { "–".to_owned() } else { format!("{} µs", grouped(figures.micros_each(time))) };
        let line = format!(
            "| {run} | {} | {} | {} | {} | {} | {} | {} | {failures} |",
            grouped(figures.rate()),
            ms(latencies.at(50)),
            ms(latencies.at(99)),
            each(cpu.processes),
            each(cpu.server),
            each(cpu.generator),
            mib(*peak_bytes),
        );
        println!("    {line}");
        self.details.push(line);
        if *failures > 0 {
            self.note(format!("{run}: {failures} answers were not what was expected"));
        }
    }

    pub fn bars(&mut self, title: &str, bars: Vec<Bar>) {
        self.panels.push(Panel { title: title.to_owned(), bars });
    }

    pub fn span(&mut self, label: impl Into<String>, latencies: &Latencies) {
        let (p50, p99) = latencies.p50_p99();
        self.spans.push(Span { label: label.into(), p50, p99 });
    }

    /// The table alone.
    pub fn table(&self) -> String {
        let lines: String = self.rows.iter().map(|row| row.line() + "\n").collect();
        format!("{TABLE}\n{lines}")
    }

    /// Writes the results and the plots.
    pub fn write(&self, dir: &Path, machine: &str) -> anyhow::Result<()> {
        let mut text = format!(
            "# Results\n\nWritten by `cargo bench -p benches --bench load -- --out`. A missed target is printed, never hidden.\n\n{machine}\n## Targets\n\n{}",
            self.table()
        );
        if !self.notes.is_empty() {
            let _ = writeln!(text, "\nNotes:\n");
            for note in &self.notes {
                let _ = writeln!(text, "- {note}");
            }
        }
        let _ = writeln!(
            text,
            "\n![Throughput](throughput.svg)\n\n![Latency](latency.svg)\n\n## Every run\n\n{DETAILS}\n{}",
            self.details.join("\n")
        );
        fs::create_dir_all(dir)?;
        fs::write(dir.join("RESULTS.md"), text)?;
        fs::write(dir.join("throughput.svg"), crate::plot::bars(&self.panels))?;
        fs::write(dir.join("latency.svg"), crate::plot::spans(&self.spans))?;
        Ok(())
    }
}

impl Row {
    fn line(&self) -> String {
        let Self { what, figure, beside, ratio, target, reached } = self;
        let reached = match reached {
            Some(true) => "reached",
            Some(false) => "**missed**",
            None => "context",
        };
        format!("| {what} | {figure} | {beside} | {ratio} | {target} | {reached} |")
    }
}

/// Puts `content` between the two marks of this name in a file of text that is written by hand otherwise.
pub fn replace_block(file: &Path, name: &str, content: &str) -> anyhow::Result<()> {
    let (open, close) = (format!("<!-- {name}: generated -->\n"), format!("<!-- /{name} -->"));
    let text = fs::read_to_string(file)?;
    let parts = text.split_once(&open).and_then(|(before, rest)| Some((before, rest.split_once(&close)?.1)));
    let (before, after) = parts.ok_or_else(|| anyhow::anyhow!("{} lacks the marks of {name}", file.display()))?;
    fs::write(file, format!("{before}{open}{content}{close}{after}"))?;
    Ok(())
}

/// Writes one of the tables of SOAK.md, in whatever directory.
pub fn write_soak(dir: &Path, name: &str, content: &str) -> anyhow::Result<()> {
    let file = dir.join("SOAK.md");
    if !file.exists() {
        fs::create_dir_all(dir)?;
        fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/SOAK.md"), &file)?;
    }
    replace_block(&file, name, content)
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The machine, the day and every version that matters.
pub async fn machine(dir: &Path, versions: &[String], quick: bool) -> anyhow::Result<String> {
    let line = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':')).map(|(_, v)| v.trim().to_owned())
    };
    let model = line("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = line("/proc/meminfo", "MemTotal").and_then(|kib| kib.split(' ').next()?.parse::<u64>().ok()).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let date = output(Command::new("date").args(["-u", "+%F %H:%M UTC"])).await?;
    let rustc = output(Command::new("rustc").arg("--version")).await.unwrap_or_else(|_| "rustc unknown".to_owned());
    let openssl = output(Command::new("openssl").arg("version")).await.unwrap_or_else(|_| "no openssl".to_owned());
    let file_system = output(Command::new("df").arg("--output=fstype").arg(dir)).await?;
    let file_system = file_system.lines().last().unwrap_or("an unknown file system");
    let mut text = format!(
        "- {}: {} cores of {model}, {} GiB, Linux {}\n- {}, {}, {}\n",
        date.trim(),
        cores(),
        memory / 1024 / 1024,
        kernel.trim(),
        rustc.trim(),
        openssl.trim(),
        versions.join(", ")
    );
    let _ = writeln!(text, "- databases on {}; one fdatasync there takes {}", file_system.trim(), ms(fdatasync(dir)?));
    let _ = writeln!(text, "- client, service, database and peers share the cores; load average at the end: {}", load.trim());
    if quick {
        let _ = writeln!(text, "- **`--quick`: short runs, small tables, coarse figures**");
    }
    Ok(text)
}

/// The median time of a synchronous write: the limit of everything durable.
fn fdatasync(dir: &Path) -> anyhow::Result<Duration> {
    use std::io::Write as _;
    let mut file = tempfile::tempfile_in(dir)?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = std::time::Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(Latencies::new(times).at(50))
}
