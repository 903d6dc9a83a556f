//! The process metrics that every Prometheus client has, read from `/proc` when they are asked for.

use std::{fs, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use rustix::{
    param::page_size,
    time::{ClockId, clock_gettime},
};

use crate::clock::{Clock, SystemClock};

/// This process.
#[derive(Debug)]
pub struct Process {
    /// Seconds since the Unix epoch.
    start_time: f64,
}

impl Process {
    /// The process as it is now.
    pub fn new() -> Self {
        let now = Duration::from_micros(SystemClock.now().micros().unsigned_abs());
        Self { start_time: now.saturating_sub(age().unwrap_or_default()).as_secs_f64() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = Duration::new(cpu.tv_sec.unsigned_abs(), u32::try_from(cpu.tv_nsec).unwrap_or_default());
        let cpu = ConstCounter::new(cpu.as_secs_f64());
        let help = "Processor time of this process, in user and in kernel mode";
        cpu.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, cpu.metric_type())?)?;
        let start_time = ConstGauge::new(self.start_time);
        let help = "When this process began, in seconds since the Unix epoch";
        start_time.encode(encoder.encode_descriptor("process_start_time_seconds", help, None, start_time.metric_type())?)?;
        if let Some(bytes) = resident_bytes() {
            let resident = ConstGauge::new(bytes);
            let help = "Memory of this process that is not swapped out";
            resident.encode(encoder.encode_descriptor("process_resident_memory_bytes", help, None, resident.metric_type())?)?;
        }
        if let Some(count) = open_files() {
            let open_files = ConstGauge::new(count);
            let help = "File descriptors that this process has open";
            open_files.encode(encoder.encode_descriptor("process_open_fds", help, None, open_files.metric_type())?)?;
        }
        Ok(())
    }
}

/// How long ago this process began: `/proc/self/stat` counts in hundredths of a second since the machine began.
fn age() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, the second field, may hold anything.
    let began: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let up = clock_gettime(ClockId::Boottime);
    let up = Duration::new(up.tv_sec.unsigned_abs(), u32::try_from(up.tv_nsec).ok()?);
    Some(up.saturating_sub(Duration::from_millis(began.saturating_mul(10))))
}

fn resident_bytes() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

fn open_files() -> Option<u64> {
    // One is that of the directory itself.
    u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_began_a_moment_ago_uses_memory_and_has_files_open() {
        let now = Duration::from_micros(SystemClock.now().micros().unsigned_abs()).as_secs_f64();
        let began = Process::new().start_time;
        assert!((now - 600.0..=now + 1.0).contains(&began), "{began} {now}");
        assert!(resident_bytes().unwrap() > 100_000);
        let before = open_files().unwrap();
        let file = fs::File::open("/proc/self/stat").unwrap();
        assert_eq!(open_files().unwrap(), before + 1);
        drop(file);
    }
}
