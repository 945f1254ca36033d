//! Waiting for a child, and meanwhile passing on the signals that this process gets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags};

use crate::oci::error::OciError;
use crate::sys::process;

/// Signals to be passed on. The container's process resets its own mask before it executes its program.
pub(super) struct Forwarded(SignalFd);

impl Forwarded {
    /// Blocks them; to be called before the child is made.
    pub(super) fn block() -> Result<Self, OciError> {
        let mut signals = SigSet::all();
        for fault in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGTRAP, Signal::SIGABRT]
        {
            signals.remove(fault);
        }
        // The end of the child is seen by its pidfd; stops are for us, as for any program at a terminal.
        for own in
            [Signal::SIGCHLD, Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGCONT, Signal::SIGPIPE]
        {
            signals.remove(own);
        }
        signals.thread_block().map_err(OciError::io("block", "signals"))?;
        let descriptor = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        descriptor.map(Self).map_err(OciError::io("watch", "signals"))
    }

    /// Waits for the end of a child; its exit status, or 128 and the signal.
    pub(super) fn until_end(&self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<u8, OciError> {
        loop {
            let mut events = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)];
            let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut events, None));
            ready.map_err(OciError::io("wait for", "the container"))?;
            let [ended, signalled] = events.map(|event| !event.revents().is_empty());
            if ended {
                return for_child(pid);
            }
            if signalled {
                self.pass_on(pidfd)?;
            }
        }
    }

    fn pass_on(&self, pidfd: BorrowedFd<'_>) -> Result<(), OciError> {
        while let Some(signal) = self.0.read_signal().map_err(OciError::io("read", "signals"))? {
            match i32::try_from(signal.ssi_signo) {
                // It can have ended meanwhile, which is seen next.
                Ok(signal) => drop(process::send_signal(pidfd.as_fd(), signal)),
                Err(_) => continue,
            }
        }
        Ok(())
    }
}

/// Reaps a child.
pub(super) fn for_child(pid: i32) -> Result<u8, OciError> {
    loop {
        match waitpid(Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code as u8),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as u8),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(OciError::io("wait for", "the container")(io::Error::from(error))),
        }
    }
}
