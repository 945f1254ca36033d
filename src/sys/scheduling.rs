//! When a process runs, and when its I/O is done.
#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use std::io;

use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// `struct sched_attr` of sched_setattr(2); times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// `SCHED_*`
    pub policy: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

impl Scheduling {
    /// Whether a process loses it, or may not fork, where it has a child.
    pub fn ends_with_fork(&self) -> bool {
        let resets = self.flags & libc::SCHED_FLAG_RESET_ON_FORK.unsigned_abs() as u64 != 0;
        resets || self.policy == libc::SCHED_DEADLINE.unsigned_abs()
    }
}

/// Numbers of CPUs are below it.
pub const MAX_CPU: usize = CpuSet::MAX_CPU;

/// Of this process; `priority` as `ioprio_set(2)` takes it.
///
/// # Errors
/// `EPERM` for the real-time class without `CAP_SYS_ADMIN` or `CAP_SYS_NICE`, `EINVAL`.
pub fn set_io_priority(priority: u16) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: numbers only.
    done(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, libc::c_int::from(priority)) })
}

/// Of a thread; 0 is this one.
///
/// # Errors
/// `EPERM`; `ESRCH`; `EINVAL` for what the policy does not take; `EBUSY` when the machine has no time left to promise.
pub fn set_scheduler(thread: i32, wanted: &Scheduling) -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: wanted.policy,
        sched_flags: wanted.flags,
        sched_nice: wanted.nice,
        sched_priority: wanted.priority,
        sched_runtime: wanted.runtime,
        sched_deadline: wanted.deadline,
        sched_period: wanted.period,
    };
    // SAFETY: the kernel reads a live structure whose size is in it.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, thread, std::ptr::from_ref(&attributes), 0) })
}

/// Of this thread and those it makes.
///
/// # Errors
/// `EINVAL` when none of these CPUs may be used.
pub fn set_affinity(cpus: impl IntoIterator<Item = usize>) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus.into_iter().filter(|cpu| *cpu < MAX_CPU) {
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
