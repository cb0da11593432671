//! What the kernel tells about the machine and about this process.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::Result;

/// The machine in one line, with its load: a shared machine shows in it.
pub(super) fn describe() -> String {
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory_gib = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .map_or(0.0, |kib| kib / f64::from(1 << 20));
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cores} x {cpu}, {memory_gib:.0} GiB, Linux {kernel}, load {load}")
}

/// User and system time of all threads of this process: what `getrusage` adds up, from the clock behind it.
pub(super) fn cpu_time() -> Duration {
    read_clock(ClockId::ProcessCPUTime)
}

/// User and system time of the calling thread.
pub(crate) fn thread_cpu_time() -> Duration {
    read_clock(ClockId::ThreadCPUTime)
}

fn read_clock(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

/// Makes the kernel forget the most memory this process ever held; returns what it holds now, in bytes.
pub(super) fn reset_peak_memory() -> Result<u64> {
    fs::write("/proc/self/clear_refs", "5")?;
    status_bytes("VmRSS")
}

pub(super) fn peak_memory_bytes() -> Result<u64> {
    status_bytes("VmHWM")
}

fn status_bytes(name: &str) -> Result<u64> {
    let text = field("/proc/self/status", name).ok_or("the kernel does not tell memory use")?;
    let kib: u64 = text.trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

/// The first value under a name in one of the kernel's text files.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let values = text.lines().filter_map(|line| line.split_once(':'));
    let mut found = values.filter(|(key, _)| key.trim() == name);
    found.next().map(|(_, value)| value.trim().to_owned())
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}
