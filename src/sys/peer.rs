//! Who is at the other end of a Unix socket.
#![allow(unsafe_code, reason = "getsockopt(2): no safe wrapper knows SO_PEERPIDFD")]

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::thread::CapabilitySet;

use crate::sys::userns;

/// A process that called `listen(2)`, or that connected to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// One of this user that is no more confined than this process.
    Ours,
    /// It has ended: who has the socket now cannot be told.
    Gone,
    /// Another user's, or one in a container. The pid may be 0: it has none here.
    Foreign { pid: i32, why: Why },
}

/// Why a process is not taken for one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    User(u32),
    /// It has pids or users of its own.
    Namespaces,
    /// It may not get these, which this process may get.
    Capabilities(CapabilitySet),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "is user {uid}'s"),
            Self::Namespaces => f.write_str("is in a container"),
            Self::Capabilities(lacking) => {
                let names: Vec<String> = lacking.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
                write!(f, "may be in a container: it lacks {}", names.join(", "))
            }
        }
    }
}

/// Who was at the other end when `socket` was connected.
///
/// A container may have the host's pids and the folder in which the socket lies: what it cannot have is the right to get all
/// the capabilities that this process may get, unless somebody gave it all of them, and with them the host.
///
/// # Errors
/// Whatever the kernel says.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let peer = getsockopt(&socket, PeerCredentials)?;
    let foreign = |why| Peer::Foreign { pid: peer.pid(), why };
    if peer.uid() != rustix::process::geteuid().as_raw() {
        return Ok(foreign(Why::User(peer.uid())));
    }
    if peer.pid() == 0 {
        return Ok(foreign(Why::Namespaces));
    }
    let pidfd = match peer_pidfd(&socket) {
        Ok(pidfd) => Some(pidfd),
        // Before Linux 6.5.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => None,
        Err(_) => return Ok(Peer::Gone),
    };
    let why = match why_foreign(peer.pid()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {
            return Ok(Peer::Gone);
        }
        why => why?,
    };
    // A number can mean somebody else by now; a pidfd cannot.
    if let Some(pidfd) = pidfd {
        let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::event::poll(&mut ended, Some(&now))? > 0 {
            return Ok(Peer::Gone);
        }
    }
    Ok(why.map_or(Peer::Ours, foreign))
}

fn why_foreign(pid: i32) -> io::Result<Option<Why>> {
    let theirs = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let of = |status: &str, name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
    };
    // Its pid in each namespace from this one on: in a container it has more than one.
    if of(&theirs, "NSpid:").split_whitespace().count() != 1 {
        return Ok(Some(Why::Namespaces));
    }
    let root = rustix::process::geteuid().is_root();
    let namespace = |process: &str| fs::metadata(format!("/proc/{process}/ns/user")).map(|found| found.ino());
    match namespace(&pid.to_string()) {
        // It is not below ours: an ordinary user's processes are above the user namespace of their keeper.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        // In one below ours anybody may get everything. Only the keeper of an ordinary user has to be in such a one.
        Ok(theirs) if theirs != namespace("self")? && root && userns::owns("mnt")? => {
            return Ok(Some(Why::Namespaces));
        }
        found => found?,
    };
    let bounding = |status: &str| u64::from_str_radix(&of(status, "CapBnd:"), 16).map_err(io::Error::other);
    let own = fs::read_to_string("/proc/self/status")?;
    let lacking = CapabilitySet::from_bits_retain(bounding(&own)? & !bounding(&theirs)?);
    Ok((!lacking.is_empty()).then_some(Why::Capabilities(lacking)))
}

fn peer_pidfd(socket: impl AsFd) -> io::Result<OwnedFd> {
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut pidfd: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `pidfd`, which is that large and lives through the call, and the
    // length itself.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            std::ptr::from_mut(&mut pidfd).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn who_listens_is_who_called_listen_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixListener::bind(&path).unwrap();
        let connect = || peer(UnixStream::connect(&path).unwrap()).unwrap();
        assert_eq!(connect(), Peer::Ours);
        // A child that listens, and has ended.
        let fd = socket.as_raw_fd();
        let mut command = std::process::Command::new("python3");
        let script = format!("import socket; socket.socket(fileno={fd}).listen()");
        let keep = rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty());
        keep.unwrap();
        match command.args(["-c", &script]).status() {
            Ok(status) if status.success() => assert_eq!(connect(), Peer::Gone),
            _ => println!("skipped: no python3"),
        }
    }
}
