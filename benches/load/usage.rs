//! What processes use, from /proc.

use std::{fs, time::Duration};

use anyhow::Context;

/// A tick of /proc/PID/stat: `USER_HZ` is 100 on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

/// Processor time of a process, and of its children: those that were waited for always, living ones with `tree`.
pub fn cpu(pid: u32, tree: bool) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    let mut ticks: u32 = fields(&stat, if tree { 11..15 } else { 11..13 }).iter().sum();
    if tree {
        for entry in fs::read_dir("/proc")? {
            let Ok(stat) = fs::read_to_string(entry?.path().join("stat")) else { continue };
            if fields(&stat, 1..2) == [pid] {
                ticks += fields(&stat, 11..15).iter().sum::<u32>();
            }
        }
    }
    Ok(TICK * ticks)
}

/// Fields of /proc/PID/stat, counted from the one after the name.
fn fields(stat: &str, range: std::ops::Range<usize>) -> Vec<u32> {
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.split(' ').skip(range.start).take(range.len()).filter_map(|field| field.parse().ok()).collect()
}

/// Resident memory in bytes, now and at its peak.
pub fn memory(pid: u32) -> anyhow::Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} is missing"))?;
        Ok::<u64, anyhow::Error>(line.trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// Open file descriptors; `None` for a process that is gone, or whose descriptors this user may not see.
pub fn descriptors(pid: u32) -> Option<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    u64::try_from(entries.count()).ok()
}
