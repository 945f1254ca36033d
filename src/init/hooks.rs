//! Hooks of the runtime specification: programs that get the container's state on their standard input.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags};

use super::fault::{At, Fault, errno};
use super::{Hook, Listener};

/// How much of what a hook complains about is kept.
const MAX_COMPLAINT: usize = 4096;

/// Why a hook did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("cannot run the hook `{}`", hook.display())]
    Run { hook: std::path::PathBuf, source: io::Error },
    #[error("the hook `{}` did not end within {seconds} s", hook.display())]
    TimedOut { hook: std::path::PathBuf, seconds: u64 },
    #[error("the hook `{}` failed ({status}){}", hook.display(), complaint(.said))]
    Failed { hook: std::path::PathBuf, status: ExitStatus, said: String },
}

fn complaint(said: &str) -> String {
    if said.trim().is_empty() { String::new() } else { format!(": {}", said.trim()) }
}

/// Runs a hook to its end.
///
/// # Errors
/// It cannot be executed, takes longer than its timeout, or ends with another status than 0.
pub fn run_hook(hook: &Hook, state: &str) -> Result<(), HookError> {
    let failed = |source| HookError::Run { hook: hook.path.clone(), source };
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|pair| pair.split_once('=')));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It need not read it.
        match stdin.write_all(state.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
            _ => {}
        }
    }
    if let Some(seconds) = hook.timeout
        && !ends_within(&child, seconds).map_err(failed)?
    {
        child.kill().and_then(|()| child.wait()).map_err(failed)?;
        return Err(HookError::TimedOut { hook: hook.path.clone(), seconds });
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    Err(HookError::Failed { hook: hook.path.clone(), status, said: said(&mut child) })
}

fn ends_within(child: &Child, seconds: u64) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut ended, Some(&timeout)))? > 0)
}

/// What is in its standard error now; a process that it left behind may hold that open.
fn said(child: &mut Child) -> String {
    let Some(mut stderr) = child.stderr.take() else { return String::new() };
    let mut text = vec![0; MAX_COMPLAINT];
    let length = rustix::fs::fcntl_setfl(&stderr, OFlags::NONBLOCK).map_or(0, |()| stderr.read(&mut text).unwrap_or(0));
    text.truncate(length);
    String::from_utf8_lossy(&text).into_owned()
}

/// The state of the runtime specification with pid and status filled in.
///
/// # Errors
/// Text that is no such state.
pub fn state_json(state: &str, status: &str, pid: Option<i32>) -> io::Result<String> {
    let mut state: serde_json::Map<String, serde_json::Value> = serde_json::from_str(state)?;
    state.insert("status".to_owned(), status.into());
    if let Some(pid) = pid {
        state.insert("pid".to_owned(), pid.into());
    }
    Ok(serde_json::to_string(&state)?)
}

/// The container process state of the runtime specification, which a filter's listener gets.
pub(super) fn process_state(listener: &Listener, pid: i32) -> io::Result<String> {
    let state: serde_json::Value = serde_json::from_str(&state_json(&listener.state, &listener.status, Some(pid))?)?;
    let mut all = serde_json::json!({
        "ociVersion": state.get("ociVersion"),
        "fds": ["seccompFd"],
        "pid": pid,
        "state": state,
    });
    if let (Some(metadata), Some(all)) = (&listener.metadata, all.as_object_mut()) {
        all.insert("metadata".to_owned(), metadata.as_str().into());
    }
    Ok(all.to_string())
}

/// This process's pid as the host counts it.
pub(super) fn own_pid(proc: &OwnedFd) -> io::Result<i32> {
    let own = rustix::fs::readlinkat(proc.as_fd(), "self", Vec::new())?;
    own.to_str().ok().and_then(|pid| pid.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// In the container's process: with its pid, as the host counts it, in the state.
pub(super) fn run_in_child(
    proc: &OwnedFd,
    (kind, hooks): (&str, &[Hook]),
    (state, status): (&str, &str),
) -> Result<(), Fault> {
    let own = own_pid(proc).at("own pid")?;
    let state = state_json(state, status, Some(own)).at("the state for hooks")?;
    for (index, hook) in hooks.iter().enumerate() {
        run_hook(hook, &state).map_err(|error| {
            let number = if let HookError::Run { source, .. } = &error { errno(source) } else { libc::ECANCELED };
            Fault { errno: number, detail: format!("error running {kind} hook #{index}: {error}") }
        })?;
    }
    Ok(())
}
