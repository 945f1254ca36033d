//! Where the master of a container's terminal goes: to the caller's socket, or to a terminal that we carry for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::oci::error::OciError;
use crate::sys::message::{self, Wait};
use crate::ui::relay::{self, Local, Remote};
use crate::ui::terminal::RawMode;

/// The end of the socket that the child sends to.
pub(super) enum Console {
    /// The caller's (`--console-socket`).
    Caller(OwnedFd),
    /// A pair of ours: the child's end, and the one that we receive from.
    Own { child: OwnedFd, ours: OwnedFd },
}

/// A connection to the caller's socket.
pub(super) fn connect(path: &Path) -> Result<OwnedFd, OciError> {
    message::connect(path).map_err(OciError::io("connect to", path))
}

impl Console {
    /// For a process that has a terminal or not.
    pub(super) fn open(terminal: bool, socket: Option<&Path>, detach: bool) -> Result<Option<Self>, OciError> {
        match (terminal, socket) {
            (true, Some(path)) => connect(path).map(|socket| Some(Self::Caller(socket))),
            (true, None) if detach => {
                Err(OciError::Usage("a detached process with a terminal needs --console-socket".to_owned()))
            }
            (true, None) => {
                let (child, ours) = message::pair().map_err(OciError::io("make", "a socket"))?;
                Ok(Some(Self::Own { child, ours }))
            }
            (false, Some(_)) => Err(OciError::Usage("--console-socket needs a process with a terminal".to_owned())),
            (false, None) => Ok(None),
        }
    }

    /// Where the master goes, and whether output comes out of it unchanged: what we carry need not go to a terminal.
    pub(super) fn for_child(&self) -> (&OwnedFd, bool) {
        match self {
            Self::Caller(socket) => (socket, false),
            Self::Own { child, .. } => (child, true),
        }
    }

    /// Carries bytes between our own streams and the terminal, until the process behind `pidfd` has ended.
    pub(super) fn carry(self, pidfd: BorrowedFd<'_>) -> Result<(), OciError> {
        let Self::Own { child, ours } = self else { return Ok(()) };
        drop(child);
        let failed = OciError::io("carry for", "the terminal");
        let received = message::receive(&ours, Wait::Yes);
        let Some(master) = received.ok().flatten().and_then(|(_, mut descriptors)| descriptors.pop()) else {
            return Err(OciError::Launch("the terminal did not arrive".to_owned()));
        };
        let (stdin, stdout, stderr) = (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
        let raw = RawMode::for_input(stdin.as_fd());
        let local = Local { stdin: Some(stdin.as_fd()), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
        let carried = relay::relay(Remote::Terminal { master }, local, Some(pidfd));
        drop(raw);
        carried.map_err(failed)
    }
}
