//! Pid 1 of a container that asks for one: forwards signals to the program, reaps orphans, ends as the program ends.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, execveat, getpgrp, setpgid, tcsetpgrp};

use super::fault::{At, Fault};
use super::restrict;
use crate::sys::process::{self, SingleThreaded};

/// First argument of the process, which `main.rs` dispatches on; the second is the pid of the program.
pub const REAPER_ROLE: &str = "reaper-process";

/// Forks. Returns in the child, which goes on with the steps; the parent stays and never returns.
pub(super) fn split(single: SingleThreaded, exe: BorrowedFd<'_>, proc: &OwnedFd) -> Result<(), Fault> {
    // Signals that come in between wait for the loop below. The program gets a fresh mask when it is executed.
    SigSet::all().thread_block().at("blocking signals")?;
    match process::fork(single).at("fork")? {
        Some(child) => stay(child, exe, proc),
        None => {
            setpgid(Pid::from_raw(0), Pid::from_raw(0)).at("process group")?;
            match tcsetpgrp(rustix::stdio::stdin(), getpgrp()) {
                // No terminal, or not ours.
                Ok(()) | Err(Errno::ENOTTY | Errno::EPERM) => Ok(()),
                Err(error) => Err(error).at("foreground process group"),
            }
        }
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

/// Entry of the process that was executed anew; all signals are blocked.
pub fn reaper_main() -> ExitCode {
    let Some(child) = std::env::args().nth(2).and_then(|pid| pid.parse().ok()) else { return ExitCode::FAILURE };
    // The name is for people; without it nothing is lost.
    let _ = rustix::thread::set_name(c"rcompose-init");
    serve(Pid::from_raw(child))
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
