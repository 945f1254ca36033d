//! Pid 1 of a container that asks for one: forwards signals to the program, reaps orphans, ends as the program ends.

use std::ffi::{CString, OsString};
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, execveat, getpgrp, setpgid, tcsetpgrp};

use super::exec::exec;
use super::fault::{At, Fault};
use super::restrict;
use crate::base::reason::without_number;
use crate::sys::process::{self, SingleThreaded};

/// First argument of the process, which `main.rs` dispatches on; the second is the pid of the program.
pub const REAPER_ROLE: &str = "reaper-process";
/// In place of the pid: the program and its arguments follow, which are to be started.
pub const PROGRAM: &str = "--";

/// Forks. Returns in the child, which goes on with the steps; the parent stays and never returns.
pub(super) fn split(single: SingleThreaded, exe: BorrowedFd<'_>, proc: &OwnedFd) -> Result<(), Fault> {
    // Signals that come in between wait for the loop below. The program gets a fresh mask when it is executed.
    SigSet::all().thread_block().at("blocking signals")?;
    match process::fork(single).at("fork")? {
        Some(child) => stay(child, exe, proc),
        None => lead(),
    }
}

/// The program has a process group of its own, in the foreground of the terminal.
fn lead() -> Result<(), Fault> {
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).at("process group")?;
    match tcsetpgrp(rustix::stdio::stdin(), getpgrp()) {
        // No terminal, or not ours.
        Ok(()) | Err(Errno::ENOTTY | Errno::EPERM) => Ok(()),
        Err(error) => Err(error).at("foreground process group"),
    }
}

/// Executes our program anew: a fresh memory, without the keeper's, that the container may look at like any other's.
fn stay(child: i32, exe: BorrowedFd<'_>, proc: &OwnedFd) -> ! {
    process::close_on_exec(3);
    if let Ok(pid) = CString::new(child.to_string())
        && let Ok(role) = CString::new(REAPER_ROLE)
    {
        let argv = [c"rcompose-init".to_owned(), role, pid];
        let execute = || execveat(exe, c"", &argv, &[] as &[CString], AtFlags::AT_EMPTY_PATH);
        // A policy of SELinux need not let the container's label begin with our program: then it goes without, as nobody in
        // there may touch what has another label.
        if let Err(Errno::EACCES) = execute()
            && restrict::forget_process_label(proc).is_ok()
        {
            let _ = execute();
        }
        // A seccomp profile may refuse it: then this copy of the keeper does the work, which nobody can look into.
    }
    process::close_everything();
    serve(Pid::from_raw(child))
}

/// Entry of the process that was executed anew; all signals are blocked. Where another OCI runtime executes it, there is [`PROGRAM`]
/// in place of the pid.
pub fn reaper_main() -> ExitCode {
    let mut words = std::env::args_os().skip(2);
    let child = match words.next() {
        Some(word) if word == PROGRAM => begin(words),
        word => word.and_then(|pid| pid.to_str()?.parse().ok()),
    };
    let Some(child) = child else { return ExitCode::FAILURE };
    // The name is for people; without it nothing is lost.
    let _ = rustix::thread::set_name(c"rcompose-init");
    serve(Pid::from_raw(child))
}

/// Starts the program that the words name.
fn begin(words: impl Iterator<Item = OsString>) -> Option<i32> {
    // As in `split`.
    SigSet::all().thread_block().ok()?;
    match process::fork(SingleThreaded::check().ok()?).ok()? {
        Some(child) => Some(child),
        None => {
            let text = |word: OsString| CString::new(word.into_vec()).ok();
            let argv: Vec<CString> = words.filter_map(text).collect();
            let env = std::env::vars_os().filter_map(|(mut name, value)| {
                name.push("=");
                name.push(value);
                text(name)
            });
            let env: Vec<CString> = env.collect();
            let Err(fault) = lead().and_then(|()| {
                process::reset_signals();
                exec(&argv, &env)
            });
            give_up(&fault)
        }
    }
}

/// Ends in the place of a program that cannot be executed. Docker's init process says so, too, and ends with these.
pub(super) fn give_up(fault: &Fault) -> ! {
    let cause = io::Error::from_raw_os_error(fault.errno);
    let _ = writeln!(io::stderr(), "cannot execute `{}`: {}", fault.detail, without_number(&cause.to_string()));
    process::exit_now(if fault.errno == libc::ENOENT { 127 } else { 126 })
}

fn serve(child: Pid) -> ! {
    loop {
        match SigSet::all().wait() {
            Ok(Signal::SIGCHLD) => reap(child),
            // Its own doing, or stops that concern the program's group only.
            Ok(Signal::SIGTTIN | Signal::SIGTTOU) => {}
            // The child may have ended already: then its SIGCHLD is next.
            Ok(signal) => drop(kill(child, signal)),
            // A real-time signal, which the wrapper has no name for: nothing to forward it with.
            Err(_) => {}
        }
    }
}

fn reap(child: Pid) {
    loop {
        let code = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => 128 + signal as i32,
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => continue,
        };
        process::exit_now(code);
    }
}
