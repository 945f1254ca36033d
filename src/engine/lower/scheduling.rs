//! `ioPriority`, `scheduler` and `execCPUAffinity` of a process.

use oci_spec::runtime::{IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process, Scheduler};

use crate::engine::lower::LowerError;
use crate::init::{Scheduling, Step};

/// For a container's first process and for a further one.
pub(super) fn scheduling(process: &Process, steps: &mut Vec<Step>) -> Result<(), LowerError> {
    if let Some(wanted) = process.io_priority() {
        let class: u16 = match wanted.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let priority = u16::try_from(wanted.priority()).ok().filter(|priority| *priority < 8);
        let wrong = || LowerError::Unsupported(format!("process.ioPriority.priority: {}", wanted.priority()));
        steps.push(Step::IoPriority(class << 13 | priority.ok_or_else(wrong)?));
    }
    if let Some(wanted) = process.scheduler() {
        steps.push(Step::Scheduler(attributes(wanted)?));
    }
    Ok(())
}

fn attributes(wanted: &Scheduler) -> Result<Scheduling, LowerError> {
    let policy = match wanted.policy() {
        LinuxSchedulerPolicy::SchedOther => libc::SCHED_OTHER,
        LinuxSchedulerPolicy::SchedFifo => libc::SCHED_FIFO,
        LinuxSchedulerPolicy::SchedRr => libc::SCHED_RR,
        LinuxSchedulerPolicy::SchedBatch => libc::SCHED_BATCH,
        LinuxSchedulerPolicy::SchedIdle => libc::SCHED_IDLE,
        LinuxSchedulerPolicy::SchedDeadline => libc::SCHED_DEADLINE,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(LowerError::Unsupported("process.scheduler.policy: SCHED_ISO".to_owned()));
        }
    };
    let mut flags = 0;
    for flag in wanted.flags().iter().flatten() {
        flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => libc::SCHED_FLAG_RESET_ON_FORK,
            LinuxSchedulerFlag::SchedFlagReclaim => libc::SCHED_FLAG_RECLAIM,
            LinuxSchedulerFlag::SchedFlagDLOverrun => libc::SCHED_FLAG_DL_OVERRUN,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => libc::SCHED_FLAG_KEEP_POLICY,
            LinuxSchedulerFlag::SchedFlagKeepParams => libc::SCHED_FLAG_KEEP_PARAMS,
            // Their values have no place in the specification.
            LinuxSchedulerFlag::SchedFlagUtilClampMin | LinuxSchedulerFlag::SchedFlagUtilClampMax => {
                return Err(LowerError::Unsupported(format!("process.scheduler.flags: {flag}")));
            }
        };
    }
    let wrong = |priority: i32| LowerError::Unsupported(format!("process.scheduler.priority: {priority}"));
    let priority = wanted.priority().unwrap_or(0);
    Ok(Scheduling {
        policy: policy.unsigned_abs(),
        flags: u64::from(flags.unsigned_abs()),
        nice: wanted.nice().unwrap_or(0),
        priority: u32::try_from(priority).map_err(|_| wrong(priority))?,
        runtime: wanted.runtime().unwrap_or(0),
        deadline: wanted.deadline().unwrap_or(0),
        period: wanted.period().unwrap_or(0),
    })
}

/// A list such as `0-3,7`, which `execCPUAffinity` has.
///
/// # Errors
/// Another form.
pub fn cpus(list: &str) -> Result<Vec<usize>, LowerError> {
    let wrong = || LowerError::Unsupported(format!("process.execCPUAffinity: {list}"));
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|cpu| *cpu < 4096).ok_or_else(wrong);
    let mut cpus = Vec::new();
    for part in list.split(',').filter(|part| !part.trim().is_empty()) {
        match part.split_once('-') {
            Some((first, last)) => cpus.extend(number(first)?..=number(last)?),
            None => cpus.push(number(part)?),
        }
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(cpus("0-2,5, 7").unwrap(), [0, 1, 2, 5, 7]);
        assert!(cpus("a").is_err() && cpus("0-99999").is_err());
    }
}
