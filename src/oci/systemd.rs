//! `--systemd-cgroup`: a group that systemd makes and accounts for, as a transient scope that it gives away (`Delegate=`).
//!
//! Sources: org.freedesktop.systemd1(5), systemd.scope(5), systemd's "Control Group Interfaces" and "Control Group APIs and
//! Delegation"; for the form of `linux.cgroupsPath`, runc(8).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, geteuid};
use serde::{Deserialize, Serialize};

use crate::engine::cgroup::Cgroup;
use crate::oci::error::OciError;
use crate::sys::dbus::{Body, Connection, Failure, Object, Value};
use crate::sys::process::{self, Child};
use crate::sys::userns::Ids;

const MANAGER: Object = Object {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
/// How long an answer may take; that of the usual libraries.
const PATIENCE: Duration = Duration::from_secs(25);

/// A container's scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    slice: String,
    name: String,
}

/// Keeps a scope alive, which systemd ends with its last process, until the container's process is in it.
#[derive(Debug)]
pub(super) struct Placeholder(Child);

impl Drop for Placeholder {
    fn drop(&mut self) {
        // It is our child, so it is there until we have waited for it.
        let _ = process::send_signal(&self.0.pidfd, libc::SIGKILL);
        let _ = rustix::process::waitpid(Pid::from_raw(self.0.pid), WaitOptions::empty());
    }
}

impl Unit {
    /// From `linux.cgroupsPath`: `SLICE:PREFIX:NAME`.
    pub(super) fn parse(wanted: &str, id: &str) -> Result<Self, OciError> {
        if wanted.is_empty() {
            let slice = if is_system() { "system.slice" } else { "user.slice" };
            return Ok(Self { slice: slice.to_owned(), name: format!("rcompose-{id}.scope") });
        }
        let wrong =
            || OciError::Config(format!("with --systemd-cgroup, cgroupsPath is `SLICE:PREFIX:NAME`, not `{wanted}`"));
        let mut parts = wanted.split(':');
        let (Some(slice), Some(prefix), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        if name.is_empty() || name.ends_with(".slice") {
            return Err(wrong());
        }
        let slice = match slice.trim_matches('/').rsplit('/').next().unwrap_or_default() {
            "" if is_system() => "system.slice",
            "" => "user.slice",
            // The slice that all are in.
            "-" | "-.slice" => "-.slice",
            slice => slice,
        };
        let dash = if prefix.is_empty() { "" } else { "-" };
        Ok(Self { slice: slice.to_owned(), name: format!("{prefix}{dash}{name}.scope") })
    }

    /// Has the scope made; its group's path, and what keeps it.
    pub(super) fn start(&self, id: &str) -> Result<(String, Placeholder), OciError> {
        let failed = |error| self.failed("make", error);
        let mut manager = connect()?;
        let placeholder = Placeholder(process::clone_idle(0).map_err(OciError::io("make", "a process"))?);
        let mut body = Body::default();
        body.text(&self.name);
        body.text("replace");
        body.properties(&[
            ("Description", Value::Text(format!("container {id}"))),
            ("Slice", Value::Text(self.slice.clone())),
            ("Delegate", Value::Flag(true)),
            ("DefaultDependencies", Value::Flag(false)),
            ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
            // What the bundle does not limit is not limited.
            ("TasksMax", Value::Number(u64::MAX)),
            ("PIDs", Value::Numbers(vec![placeholder.0.pid.unsigned_abs()])),
        ]);
        body.no_structures();
        let job = manager.call(MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", &body).map_err(failed)?;
        let result = manager.wait_for(&job).map_err(|error| failed(Failure::Io(error)))?;
        if result != "done" {
            return Err(failed(Failure::Io(io::Error::other(format!("its job ended as `{result}`")))));
        }
        let file = format!("/proc/{}/cgroup", placeholder.0.pid);
        let text = fs::read_to_string(&file).map_err(OciError::io("read", &file))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
        let path = path
            .filter(|path| path.ends_with(&self.name))
            .ok_or_else(|| OciError::Unsupported("--systemd-cgroup without version 2 of control groups".to_owned()))?;
        Ok((path.to_owned(), placeholder))
    }

    /// Has systemd put a process in the scope. An ordinary user cannot: what he logged in with lies in a slice that is not his.
    pub(super) fn attach(&self, pid: i32) -> Result<(), OciError> {
        let mut body = Body::default();
        body.text(&self.name);
        body.text("");
        body.numbers(&[pid.unsigned_abs()]);
        let attached = connect()?.call(MANAGER, "AttachProcessesToUnit", "ssau", &body);
        attached.map(drop).map_err(|error| self.failed("enter", error))
    }

    /// Tells systemd what is in force in the group, so that it leaves that alone when it next goes over its units.
    pub(super) fn tell_limits(&self, group: &Cgroup) -> Result<(), OciError> {
        let Some(directory) = group.v2_directory() else { return Ok(()) };
        let limits = limits(directory);
        if limits.is_empty() {
            return Ok(());
        }
        let mut body = Body::default();
        body.text(&self.name);
        // Not beyond the next boot.
        body.flag(true);
        body.properties(&limits);
        connect()?.call(MANAGER, "SetUnitProperties", "sba(sv)", &body).map_err(|error| self.failed("limit", error))?;
        Ok(())
    }

    /// Ends the scope, and waits until its name is free again.
    pub(super) fn stop(&self) -> Result<(), OciError> {
        let failed = |error| self.failed("stop", error);
        let mut manager = connect()?;
        let mut body = Body::default();
        body.text(&self.name);
        body.text("replace");
        match manager.call(MANAGER, "StopUnit", "ss", &body) {
            Ok(job) => manager.wait_for(&job).map(drop).map_err(|error| failed(Failure::Io(error))),
            // It ended with its last process.
            Err(Failure::Refused { name, .. }) if name == "org.freedesktop.systemd1.NoSuchUnit" => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    fn failed(&self, doing: &'static str, failure: Failure) -> OciError {
        OciError::Io { doing, path: PathBuf::from(&self.name), source: failure.into() }
    }
}

/// Whether this process is the machine's root: an ordinary user can be root of a namespace.
pub(super) fn is_system() -> bool {
    geteuid().is_root() && Ids::of_this_process() == Ids::Host
}

fn connect() -> Result<Connection, OciError> {
    let socket = if is_system() {
        PathBuf::from("/run/systemd/private")
    } else {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").ok_or_else(|| {
            OciError::Usage("--systemd-cgroup needs XDG_RUNTIME_DIR, where a user's systemd is".to_owned())
        })?;
        Path::new(&runtime).join("systemd/private")
    };
    Connection::open(&socket, PATIENCE).map_err(OciError::io("ask systemd at", socket))
}

/// What limits the group, as properties of a unit: systemd.resource-control(5).
fn limits(group: &Path) -> Vec<(&'static str, Value)> {
    let read = |file: &str| fs::read_to_string(group.join(file)).ok();
    let number = |text: &str| match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    };
    let plain = [
        ("MemoryMax", "memory.max"),
        ("MemoryHigh", "memory.high"),
        ("MemoryLow", "memory.low"),
        ("MemorySwapMax", "memory.swap.max"),
        ("CPUWeight", "cpu.weight"),
        ("TasksMax", "pids.max"),
    ];
    let mut all: Vec<_> =
        plain.into_iter().filter_map(|(name, file)| Some((name, Value::Number(number(&read(file)?)?)))).collect();
    if let Some((quota, period)) = read("cpu.max").as_deref().and_then(|text| text.trim().split_once(' '))
        && let (Some(quota), Some(period)) = (number(quota), number(period))
        && period > 0
    {
        let each_second = if quota == u64::MAX { quota } else { quota.saturating_mul(1_000_000) / period };
        all.push(("CPUQuotaPerSecUSec", Value::Number(each_second)));
        all.push(("CPUQuotaPeriodUSec", Value::Number(period)));
    }
    for (name, file) in [("AllowedCPUs", "cpuset.cpus"), ("AllowedMemoryNodes", "cpuset.mems")] {
        if let Some(mask) = read(file).and_then(|text| mask(text.trim())).filter(|mask| !mask.is_empty()) {
            all.push((name, Value::Bytes(mask)));
        }
    }
    if let Some(weight) =
        read("io.weight").as_deref().and_then(|text| number(text.lines().next()?.strip_prefix("default ")?))
    {
        all.push(("IOWeight", Value::Number(weight)));
    }
    all
}

/// A list like `0-2,5` as bits, the lowest first.
fn mask(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for part in list.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok().filter(|last| *last < 1 << 16)?);
        for bit in first..=last {
            bits.resize(bits.len().max(bit / 8 + 1), 0_u8);
            *bits.get_mut(bit / 8)? |= 1 << (bit % 8);
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_named_as_callers_look_for_them() {
        let unit = |text: &str| Unit::parse(text, "id").map(|unit| (unit.slice, unit.name));
        let of = |slice: &str, name: &str| Some((slice.to_owned(), name.to_owned()));
        assert_eq!(unit("system.slice:docker:0f3").ok(), of("system.slice", "docker-0f3.scope"));
        assert_eq!(unit("machine.slice/machine-a.slice:libpod:0f3").ok(), of("machine-a.slice", "libpod-0f3.scope"));
        assert_eq!(unit("a.slice::0f3").ok(), of("a.slice", "0f3.scope"));
        for wrong in ["/a/b", "a:b", "a.slice:b:", "a:b:c.slice", "a:b:c:d"] {
            assert!(unit(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_of_cpus_are_bits() {
        assert_eq!(mask("0-2,9"), Some(vec![0b111, 0b10]));
        assert_eq!(mask(""), Some(vec![]));
        assert_eq!(mask("x"), None);
    }
}
