//! Processes as ps(1) shows them, from /proc (proc_pid_stat(5)).

use std::fs;

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub uid: u32,
    /// Device number of the controlling terminal; 0: none.
    pub terminal: u64,
    /// Seconds of processor time.
    pub cpu: u64,
    /// Seconds since it began.
    pub age: u64,
    pub command: String,
}

impl Process {
    /// `None` when there is no such process any more.
    pub fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok())?;
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        Self::parse(pid, &stat, uid, arguments.trim_end(), uptime)
    }

    fn parse(pid: i32, stat: &str, uid: u32, arguments: &str, uptime: f64) -> Option<Self> {
        // The name may hold spaces and brackets.
        let (head, rest) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Field 3, the state, is the first one here.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let hertz = rustix::param::clock_ticks_per_second().max(1);
        let start = field(22)? / hertz;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds of an uptime")]
        let age = (uptime as u64).saturating_sub(start);
        Some(Self {
            pid,
            parent: i32::try_from(field(4)?).ok()?,
            uid,
            terminal: field(7)?,
            cpu: (field(14)? + field(15)?) / hertz,
            age,
            command: if arguments.is_empty() { format!("[{name}]") } else { arguments.to_owned() },
        })
    }
}

/// All processes of the pid namespace of this one; only itself where that is ours, too.
pub fn of_namespace(first: i32) -> Vec<i32> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(wanted) = namespace(&first.to_string()) else { return Vec::new() };
    if namespace("self").as_ref() == Some(&wanted) {
        return vec![first];
    }
    let all =
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    all.filter(|pid| namespace(pid).as_ref() == Some(&wanted)).filter_map(|pid| pid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 3 7 7 34816 7 0 0 0 0 0 150 50 0 0 20 0 1 0 1000 0 0";
        let process = Process::parse(7, stat, 5, "", 110.7).unwrap();
        assert_eq!((process.parent, process.terminal, process.cpu, process.age), (3, 34816, 2, 100));
        assert_eq!(process.command, "[a) b (c]");
        assert_eq!(
            Process::read(std::process::id().try_into().unwrap()).unwrap().uid,
            rustix::process::geteuid().as_raw()
        );
    }
}
