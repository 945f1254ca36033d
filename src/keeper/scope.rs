//! Control groups for an ordinary user's containers: systemd gives a part of its tree away to who asks for it.
//!
//! The keeper is started as a scope of the user's own systemd (systemd-run(1), `Delegate=` in systemd.resource-control(5)).
//! Without it everything works but limits and `pause`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::sys::userns::{self, Ids, OWN_GROUP};

const MOUNT: &str = "/sys/fs/cgroup";

/// The command that what follows it is run in a scope with; `None` where there is no user's systemd, or no need of it.
pub(super) fn command(purpose: &str) -> Option<Vec<OsString>> {
    let unified = Path::new(MOUNT).join("cgroup.controllers").exists();
    let ordinary = !rustix::process::geteuid().is_root() && Ids::of_this_process() == Ids::Host;
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)?;
    if !unified || !ordinary || !runtime.join("systemd/private").exists() {
        return None;
    }
    let program = userns::program("systemd-run")?;
    let mut words = vec![program.into_os_string()];
    words.extend(["--user", "--scope", "--quiet", "--collect", "--property=Delegate=yes"].map(OsString::from));
    words.push(format!("--description=rcompose {purpose}").into());
    words.push("--".into());
    Some(words)
}

/// The controllers that a scope gets which is made now; the files of systemd's own groups do not tell.
///
/// # Errors
/// What keeps it from being made.
pub fn controllers() -> io::Result<String> {
    let words = command("doctor").ok_or_else(|| io::Error::other("this user has no systemd to ask"))?;
    let look = "read -r own < /proc/self/cgroup && cat \"/sys/fs/cgroup${own#0::}/cgroup.controllers\"";
    let mut asked = Command::new(words.first().ok_or(io::ErrorKind::NotFound)?);
    let asked = asked.args(words.iter().skip(1)).args(["sh", "-c", look]).stdin(Stdio::null()).output()?;
    if !asked.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&asked.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&asked.stdout).into_owned())
}

/// Leaves the group that was given away for one below it: a group with processes of its own cannot limit those below it.
/// For the keeper, from whom all others descend.
///
/// # Errors
/// What the kernel says; a group that is not ours is none.
pub(super) fn step_aside() -> io::Result<()> {
    if Ids::of_this_process() == Ids::Host {
        return Ok(());
    }
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let Some(own) = own.lines().find_map(|line| line.strip_prefix("0::/")) else { return Ok(()) };
    let group = Path::new(MOUNT).join(own);
    let ours = |file: &str| rustix::fs::access(group.join(file), rustix::fs::Access::WRITE_OK).is_ok();
    if group.ends_with(OWN_GROUP) || !ours("cgroup.procs") || !ours("cgroup.subtree_control") {
        return Ok(());
    }
    let aside = group.join(OWN_GROUP);
    match fs::create_dir(&aside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::write(aside.join("cgroup.procs"), "0")
}
