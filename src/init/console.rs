//! The pseudo-terminal of a container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::pty::{self, OpenptFlags};
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use super::fault::{At, Fault, fault};
use super::{inroot, mounts};
use crate::sys::message::{self, Wait};

/// Magic of devpts (`<linux/magic.h>`).
const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

/// Opens a terminal in the devpts of `root`, makes it the standard streams, and sends the master over `to`.
pub(super) fn open(
    root: &OwnedFd,
    to: BorrowedFd<'_>,
    (rows, columns): (u16, u16),
    unchanged: bool,
    bind: bool,
) -> Result<(), Fault> {
    let what = "/dev/pts/ptmx";
    let master = inroot::open_without_links(root, "dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY).at(what)?;
    if u64::try_from(rustix::fs::fstatfs(&master).at(what)?.f_type) != Ok(DEVPTS_SUPER_MAGIC) {
        return fault(libc::EINVAL, "/dev/pts is not devpts");
    }
    pty::unlockpt(&master).at(what)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = pty::ioctl_tiocgptpeer(&master, flags).at("opening the terminal")?;
    tcsetwinsize(&master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).at("window size")?;
    if unchanged {
        let mut modes = tcgetattr(&slave).at("terminal")?;
        modes.output_modes.remove(OutputModes::ONLCR);
        tcsetattr(&slave, OptionalActions::Now, &modes).at("terminal")?;
    }
    if bind {
        let clone = mounts::clone_tree(&slave, false).at("/dev/console")?;
        let on = inroot::make_file_without_links(root, "dev", "console").at("/dev/console")?;
        mounts::attach(&clone, &on).at("/dev/console")?;
    }
    rustix::stdio::dup2_stdin(&slave).at("terminal")?;
    rustix::stdio::dup2_stdout(&slave).at("terminal")?;
    rustix::stdio::dup2_stderr(&slave).at("terminal")?;
    message::send(to, b"m", &[master.as_fd()], Wait::Yes).at("handing over the terminal")
}

/// Makes the terminal that is standard input the controlling one of a new session.
pub(super) fn control() -> Result<(), Fault> {
    rustix::process::setsid().at("new session")?;
    rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).at("controlling terminal")
}
