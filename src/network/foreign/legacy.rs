//! The tables of `iptables-legacy`, which nftables does not see. They are changed by its programs: the kernel has no way to
//! change one rule, and they hold the lock under which it is done. Nobody is told of changes.

use std::fs;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use super::{Barrier, mark};
use crate::network::NetworkError;
use crate::sys::userns;

/// The file that names tables in use, and the program that changes them.
const FAMILIES: [(&str, &str); 2] = [
    ("/proc/thread-self/net/ip_tables_names", "iptables-legacy"),
    ("/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"),
];

/// The programs of families that have a table of filters.
fn in_use() -> impl Iterator<Item = &'static str> {
    let filters = |file: &str| fs::read_to_string(file).is_ok_and(|names| names.lines().any(|name| name == "filter"));
    FAMILIES.into_iter().filter(move |(file, _)| filters(file)).map(|(_, program)| program)
}

pub(super) fn admit(bridges: &[&str]) -> Result<(), NetworkError> {
    for program in in_use() {
        let failed = |source| NetworkError::Legacy { program, bridges: bridges.join("`, `"), source };
        let listed = list(program).map_err(failed)?;
        let Some(chain) = gate(&listed) else { continue };
        let present = |bridge: &str| ours(&listed, bridge).any(|line| line.starts_with(&format!("-A {chain} ")));
        let missing = bridges.iter().filter(|bridge| !present(bridge));
        let lines = missing.flat_map(|bridge| {
            ["-i", "-o"]
                .map(|way| format!("-I {chain} {way} {bridge} -m comment --comment \"{}\" -j ACCEPT", mark(bridge)))
        });
        change(program, &lines.collect::<Vec<_>>()).map_err(failed)?;
    }
    Ok(())
}

pub(super) fn dismiss(bridge: &str) -> Result<(), NetworkError> {
    for program in in_use().filter(|program| userns::program(program).is_some()) {
        let failed = |source| NetworkError::Legacy { program, bridges: bridge.to_owned(), source };
        let listed = list(program).map_err(failed)?;
        let lines: Vec<String> = ours(&listed, bridge).map(|line| line.replacen("-A", "-D", 1)).collect();
        change(program, &lines).map_err(failed)?;
    }
    Ok(())
}

pub(super) fn barriers() -> impl Iterator<Item = Barrier> {
    in_use().filter_map(|program| {
        let shut = match list(program) {
            Ok(listed) => gate(&listed).map(|_| None)?,
            Err(error) => Some((error.to_string(), "install the package `iptables`")),
        };
        Some(Barrier { chain: format!("`FORWARD` of `{program}`"), shut })
    })
}

/// The chain that bridges are let in by, when nothing passes `FORWARD` by itself.
fn gate(listed: &str) -> Option<&'static str> {
    let closes = |line: &str| {
        line == "-P FORWARD DROP" || line == "-A FORWARD -j DROP" || line.starts_with("-A FORWARD -j REJECT")
    };
    let docker = "-A FORWARD -j DOCKER-USER";
    listed
        .lines()
        .any(closes)
        .then(|| if listed.lines().any(|line| line == docker) { "DOCKER-USER" } else { "FORWARD" })
}

/// Our rules for a bridge, as they are listed.
fn ours<'a>(listed: &'a str, bridge: &str) -> impl Iterator<Item = &'a str> {
    let mark = format!("--comment \"{}\"", mark(bridge));
    listed.lines().filter(move |line| line.contains(&mark))
}

fn list(program: &str) -> io::Result<String> {
    let listed = command(program)?.arg("-S").stdin(Stdio::null()).output()?;
    checked(listed.status, &listed.stderr)?;
    Ok(String::from_utf8_lossy(&listed.stdout).into_owned())
}

/// Does what the lines say at once.
fn change(program: &str, lines: &[String]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let text = format!("*filter\n{}\nCOMMIT\n", lines.join("\n"));
    let restore = command(&format!("{program}-restore"))?
        .arg("--noflush")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut restore = restore?;
    let written = restore.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
    let ended = restore.wait_with_output()?;
    checked(ended.status, &ended.stderr).and(written)
}

fn command(program: &str) -> io::Result<Command> {
    let path = userns::program(program)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("`{program}` is not installed")))?;
    let mut command = Command::new(path);
    // Others may hold the lock.
    command.args(["-w", "5"]);
    Ok(command)
}

fn checked(status: std::process::ExitStatus, complaint: &[u8]) -> io::Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{status}: {}", String::from_utf8_lossy(complaint).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_to_be_let_in_by_is_read_from_the_listing() {
        assert_eq!(gate("-P INPUT DROP\n-P FORWARD ACCEPT\n-A FORWARD -i eth0 -j DROP"), None);
        assert_eq!(gate("-P FORWARD DROP"), Some("FORWARD"));
        assert_eq!(gate("-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited"), Some("FORWARD"));
        assert_eq!(gate("-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER"), Some("DOCKER-USER"));
        let line = "-A FORWARD -i rc-1 -m comment --comment \"rcompose rc-1\" -j ACCEPT";
        assert_eq!(ours(line, "rc-1").collect::<Vec<_>>(), [line]);
        assert_eq!(ours(line, "rc-").count(), 0);
    }
}
