//! `events`: what a container uses, and that the kernel has killed in it for want of memory; in runc's words.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};

use crate::engine::cgroup::Cgroup;
use crate::oci::arguments::Global;
use crate::oci::error::OciError;
use crate::oci::state::{Container, Status};

/// Clock ticks of `cpuacct.stat`: `USER_HZ`, which is part of the kernel's interface.
const TICK: u64 = 1_000_000_000 / 100;

/// Prints counters once, or again and again until the container's end.
pub(super) fn events(global: &Global, id: &str, interval: Duration, once: bool) -> Result<(), OciError> {
    let container = Container::open(global, id)?;
    let record = container.made()?;
    let status = container.status(&record);
    if status == Status::Stopped {
        return Err(OciError::WrongStatus { id: id.to_owned(), status: status.name(), wanted: "running" });
    }
    let group = record.group()?;
    let files = Files::of(&group);
    if once {
        return print(&json!({ "type": "stats", "id": id, "data": files.stats() }));
    }
    let watching = |error: rustix::io::Errno| OciError::io("watch the process of", id)(io::Error::from(error));
    let pid = Pid::from_raw(record.pid).ok_or(rustix::io::Errno::SRCH);
    let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    let pidfd = pidfd.map_err(watching)?;
    let timeout = Timespec { tv_sec: interval.as_secs().cast_signed(), tv_nsec: interval.subsec_nanos().into() };
    let counter = group.oom_counter();
    let killed = || counter.as_ref().and_then(|file| keyed(file).get("oom_kill").copied()).unwrap_or(0);
    let mut known = killed();
    loop {
        let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut ended, Some(&timeout))).map_err(watching)?;
        let now = killed();
        if now > known {
            known = now;
            print(&json!({ "type": "oom", "id": id }))?;
        }
        if ready > 0 {
            return Ok(());
        }
        print(&json!({ "type": "stats", "id": id, "data": files.stats() }))?;
    }
}

fn print(event: &Value) -> Result<(), OciError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{event}").and_then(|()| out.flush()).map_err(OciError::io("write to", "standard output"))
}

/// Where the counters are.
struct Files<'a> {
    v2: Option<&'a Path>,
    v1: &'a [(String, PathBuf)],
}

impl<'a> Files<'a> {
    fn of(group: &'a Cgroup) -> Self {
        Self { v2: group.v2_directory(), v1: group.v1_directories() }
    }

    /// A controller's file: in v1 where it is there, or else in v2.
    fn find(&self, controller: &str, v1: &str, v2: &str) -> Option<PathBuf> {
        let first = self.v1.iter().find(|(name, _)| name == controller).map(|(_, folder)| folder.join(v1));
        let second = || self.v2.map(|folder| folder.join(v2));
        first.filter(|path| path.exists()).or_else(second).filter(|path| path.exists())
    }

    fn number(&self, controller: &str, v1: &str, v2: &str) -> u64 {
        self.find(controller, v1, v2).map_or(0, |path| number(&path))
    }

    fn stats(&self) -> Value {
        json!({
            "cpu": self.cpu(),
            "cpuset": {},
            "memory": self.memory(),
            "pids": {
                "current": self.number("pids", "pids.current", "pids.current"),
                "limit": limit(self.number("pids", "pids.max", "pids.max")),
            },
            "blkio": self.blkio(),
            "hugetlb": {},
            "intel_rdt": {},
            "network_interfaces": null,
        })
    }

    fn cpu(&self) -> Value {
        let stat = self.find("cpu", "cpu.stat", "cpu.stat").map(|path| keyed(&path)).unwrap_or_default();
        let of = |key: &str| stat.get(key).copied().unwrap_or(0);
        let (total, user, kernel, each) = match self.v1.iter().find(|(name, _)| name == "cpuacct") {
            Some((_, folder)) => {
                let ticks = keyed(&folder.join("cpuacct.stat"));
                let time = |key: &str| ticks.get(key).copied().unwrap_or(0) * TICK;
                let each = fs::read_to_string(folder.join("cpuacct.usage_percpu")).unwrap_or_default();
                let each: Vec<u64> = each.split_whitespace().filter_map(|time| time.parse().ok()).collect();
                (number(&folder.join("cpuacct.usage")), time("user"), time("system"), each)
            }
            None => (of("usage_usec") * 1000, of("user_usec") * 1000, of("system_usec") * 1000, Vec::new()),
        };
        let throttled = stat.get("throttled_time").copied().unwrap_or_else(|| of("throttled_usec") * 1000);
        let mut usage = json!({ "total": total, "kernel": kernel, "user": user });
        if let (Some(usage), false) = (usage.as_object_mut(), each.is_empty()) {
            usage.insert("percpu".to_owned(), json!(each));
        }
        json!({
            "usage": usage,
            "throttling": {
                "periods": of("nr_periods"), "throttledPeriods": of("nr_throttled"), "throttledTime": throttled,
            },
        })
    }

    fn memory(&self) -> Value {
        let stat = self.find("memory", "memory.stat", "memory.stat").map(|path| keyed(&path)).unwrap_or_default();
        let cache = ["total_cache", "cache", "file"].iter().find_map(|key| stat.get(*key)).copied().unwrap_or(0);
        let kind = |v1: &str, v2: &str| {
            json!({
                "limit": self.number("memory", &format!("memory.{v1}limit_in_bytes"), &format!("memory.{v2}max")),
                "usage": self.number("memory", &format!("memory.{v1}usage_in_bytes"), &format!("memory.{v2}current")),
                "max": self.number("memory", &format!("memory.{v1}max_usage_in_bytes"), &format!("memory.{v2}peak")),
                "failcnt": self.number("memory", &format!("memory.{v1}failcnt"), "memory.no-such-file"),
            })
        };
        json!({
            "cache": cache,
            "usage": kind("", ""),
            "swap": kind("memsw.", "swap."),
            "kernel": kind("kmem.", "no-such-kind."),
            "kernelTCP": kind("kmem.tcp.", "no-such-kind."),
            "raw": stat,
        })
    }

    fn blkio(&self) -> Value {
        let file = "blkio.throttle.io_service_bytes_recursive";
        let Some((_, folder)) = self.v1.iter().find(|(name, _)| name == "blkio") else {
            let text = self.v2.and_then(|folder| fs::read_to_string(folder.join("io.stat")).ok()).unwrap_or_default();
            let of = |kinds| Value::from(entries_v2(&text, kinds));
            return json!({
                "ioServiceBytesRecursive": of([("rbytes=", "Read"), ("wbytes=", "Write")]),
                "ioServicedRecursive": of([("rios=", "Read"), ("wios=", "Write")]),
            });
        };
        let of = |file: &str| entries_v1(&fs::read_to_string(folder.join(file)).unwrap_or_default());
        json!({
            "ioServiceBytesRecursive": of(file),
            "ioServicedRecursive": of("blkio.throttle.io_serviced_recursive"),
        })
    }
}

fn entry(device: &str, kind: &str, value: u64) -> Option<Value> {
    let (major, minor) = device.split_once(':')?;
    let (major, minor) = (major.parse::<u64>().ok()?, minor.parse::<u64>().ok()?);
    Some(json!({ "major": major, "minor": minor, "op": kind, "value": value }))
}

/// Lines such as `254:0 Read 4096`.
fn entries_v1(text: &str) -> Vec<Value> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, kind, value) = (words.next()?, words.next()?, words.next()?);
        entry(device, kind, value.parse().ok()?)
    });
    lines.collect()
}

/// Lines such as `254:0 rbytes=4096 wbytes=0 rios=1 wios=0`.
fn entries_v2(text: &str, kinds: [(&str, &str); 2]) -> Vec<Value> {
    let mut all = Vec::new();
    for line in text.lines() {
        let Some((device, counters)) = line.split_once(' ') else { continue };
        for (key, kind) in kinds {
            let value = counters.split(' ').find_map(|counter| counter.strip_prefix(key)?.parse().ok());
            all.extend(value.and_then(|value| entry(device, kind, value)));
        }
    }
    all
}

/// A file with one number; `max` is the largest one.
fn number(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    if text.trim() == "max" { u64::MAX } else { text.trim().parse().unwrap_or(0) }
}

/// As runc shows it: none is 0.
fn limit(limit: u64) -> u64 {
    if limit == u64::MAX { 0 } else { limit }
}

/// Lines of a word and a number.
fn keyed(path: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_both_versions_are_told_in_the_same_words() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
        write("cpu.stat", "usage_usec 30\nuser_usec 10\nsystem_usec 20\nnr_throttled 2\nthrottled_usec 5\n");
        write("memory.stat", "anon 1\nfile 4096\n");
        write("memory.current", "8192\n");
        write("memory.max", "max\n");
        write("pids.current", "3\n");
        write("pids.max", "max\n");
        write("io.stat", "254:0 rbytes=4096 wbytes=1 rios=1 wios=2 dbytes=0 dios=0\n");
        let stats = Files { v2: Some(folder.path()), v1: &[] }.stats();
        assert_eq!(stats["cpu"]["usage"], json!({ "total": 30_000, "kernel": 20_000, "user": 10_000 }));
        assert_eq!(stats["cpu"]["throttling"]["throttledTime"], 5_000);
        assert_eq!((&stats["memory"]["cache"], &stats["memory"]["usage"]["usage"]), (&json!(4096), &json!(8192)));
        assert_eq!(stats["pids"], json!({ "current": 3, "limit": 0 }));
        let read = json!({ "major": 254, "minor": 0, "op": "Read", "value": 4096 });
        assert_eq!(stats["blkio"]["ioServiceBytesRecursive"][0], read);

        write("cpuacct.usage", "77\n");
        write("cpuacct.usage_percpu", "70 7 \n");
        write("cpuacct.stat", "user 1\nsystem 2\n");
        write("memory.usage_in_bytes", "100\n");
        write("blkio.throttle.io_service_bytes_recursive", "254:0 Read 4096\n254:0 Total 4096\nTotal 4096\n");
        let v1: Vec<_> =
            ["cpuacct", "memory", "blkio"].iter().map(|name| ((*name).to_owned(), folder.path().to_owned())).collect();
        let stats = Files { v2: None, v1: &v1 }.stats();
        let usage = json!({ "total": 77, "kernel": 20_000_000, "user": 10_000_000, "percpu": [70, 7] });
        assert_eq!(stats["cpu"]["usage"], usage);
        assert_eq!(stats["memory"]["usage"]["usage"], 100);
        assert_eq!(stats["blkio"]["ioServiceBytesRecursive"][0], read);
        assert_eq!(stats["blkio"]["ioServiceBytesRecursive"].as_array().unwrap().len(), 2);
    }
}
