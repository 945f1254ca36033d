//! What the processes of a group use, from the kernel's counters.
//!
//! On a machine with v1 controllers, groups exist only for limits that were asked for. What has no group there is added up
//! over the processes: memory as proportional set size, input and output of the processes that still run.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::engine::cgroup::{Cgroup, CgroupError, with_descendants};

/// Counters since the group was made, and what is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time.
    pub cpu: Duration,
    /// Bytes, without file cache that can be dropped.
    pub memory: u64,
    /// Bytes; `None`: no limit.
    pub memory_limit: Option<u64>,
    /// Bytes read from and written to block devices.
    pub read: u64,
    pub written: u64,
    /// Processes and threads.
    pub pids: u64,
}

impl Cgroup {
    /// What is used now.
    ///
    /// # Errors
    /// An unreadable group.
    pub fn usage(&self) -> Result<Usage, CgroupError> {
        let pids = self.processes()?;
        let mut usage = Usage { pids: self.tasks(&pids)?, ..Usage::default() };
        usage.cpu = self.cpu().unwrap_or_else(|| pids.iter().filter_map(|pid| cpu_of(*pid)).sum());
        (usage.memory, usage.memory_limit) =
            self.memory().unwrap_or_else(|| (pids.iter().filter_map(|pid| memory_of(*pid)).sum(), None));
        (usage.read, usage.written) = self.blocks().unwrap_or_else(|| {
            let all = pids.iter().filter_map(|pid| blocks_of(*pid));
            all.fold((0, 0), |(read, written), (r, w)| (read + r, written + w))
        });
        Ok(usage)
    }

    fn tasks(&self, pids: &[i32]) -> Result<u64, CgroupError> {
        let Some(top) = self.v2.as_ref().or(self.v1.first().map(|(_, directory)| directory)) else {
            return Ok(pids.iter().map(|pid| entries(&format!("/proc/{pid}/task"))).sum());
        };
        let lists = with_descendants(top)?.into_iter().map(|directory| {
            let read = |file| fs::read_to_string(directory.join(file)).ok();
            read("cgroup.threads").or_else(|| read("tasks")).map_or(0, |text| text.lines().count() as u64)
        });
        Ok(lists.sum())
    }

    fn v1_of(&self, controller: &str) -> Option<&Path> {
        self.v1.iter().find(|(name, _)| name == controller).map(|(_, directory)| directory.as_path())
    }

    fn cpu(&self) -> Option<Duration> {
        if let Some(nanoseconds) = self.v1_of("cpuacct").and_then(|group| number(&group.join("cpuacct.usage"))) {
            return Some(Duration::from_nanos(nanoseconds));
        }
        keyed(&self.v2.as_ref()?.join("cpu.stat"), "usage_usec").map(Duration::from_micros)
    }

    /// Bytes held, and the limit.
    fn memory(&self) -> Option<(u64, Option<u64>)> {
        let files = ["memory.current", "memory.max", "inactive_file"];
        let files_v1 = ["memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"];
        let v2 = self.v2.as_deref().map(|group| (group, files));
        let v1 = self.v1_of("memory").map(|group| (group, files_v1));
        v2.into_iter().chain(v1).find_map(|(group, [held, limit, cache])| {
            let held = number(&group.join(held))?;
            let cache = keyed(&group.join("memory.stat"), cache).unwrap_or(0);
            // v1 writes a number close to 2^63 for no limit.
            let limit = number(&group.join(limit)).filter(|limit| *limit < 1 << 60);
            Some((held.saturating_sub(cache), limit))
        })
    }

    fn blocks(&self) -> Option<(u64, u64)> {
        let sum = |text: &str, key: &str| -> u64 {
            let found = text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
            found.sum()
        };
        if let Some(text) = self.v2.as_ref().and_then(|group| fs::read_to_string(group.join("io.stat")).ok()) {
            return Some((sum(&text, "rbytes="), sum(&text, "wbytes=")));
        }
        let text = fs::read_to_string(self.v1_of("blkio")?.join("blkio.throttle.io_service_bytes_recursive")).ok()?;
        let of = |kind: &str| {
            let lines = text.lines().filter(|line| line.split(' ').nth(1) == Some(kind));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        Some((of("Read"), of("Write")))
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind a word at the beginning of a line.
fn keyed(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

/// How many entries a directory has; none when it is gone.
fn entries(directory: &str) -> u64 {
    fs::read_dir(directory).map_or(0, |entries| entries.count() as u64)
}

fn cpu_of(pid: i32) -> Option<Duration> {
    // Nanoseconds on a processor; the main thread's, and those of threads that have ended, are not told apart here.
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn memory_of(pid: i32) -> Option<u64> {
    let kilobytes = keyed_text(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:")?;
    Some(kilobytes * 1024)
}

fn blocks_of(pid: i32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    Some((keyed_text(&text, "read_bytes:")?, keyed_text(&text, "write_bytes:")?))
}

fn keyed_text(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.trim().trim_end_matches(" kB").parse().ok())
}
