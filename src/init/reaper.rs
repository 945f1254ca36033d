//! Pid 1 of a container that asks for one: forwards signals to the program, reaps orphans, ends as the program ends.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgrp, setpgid, tcsetpgrp};

use super::fault::{At, Fault};
use crate::sys::process::{self, SingleThreaded};

/// Forks. Returns in the child, which goes on with the steps; the parent stays and never returns.
pub(super) fn split(single: SingleThreaded) -> Result<(), Fault> {
    // Signals that come in between wait for the loop below. The program gets a fresh mask when it is executed.
    SigSet::all().thread_block().at("blocking signals")?;
    match process::fork(single).at("fork")? {
        Some(child) => stay(Pid::from_raw(child)),
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

fn stay(child: Pid) -> ! {
    process::close_everything();
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
