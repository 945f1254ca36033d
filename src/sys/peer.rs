//! Who listens at the other end of a Unix socket.
#![allow(unsafe_code, reason = "getsockopt(2): no safe wrapper knows SO_PEERPIDFD")]

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::event::{PollFd, PollFlags, Timespec};

/// A process that called `listen(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// One of this user, in the pid namespace that this process is in.
    Ours,
    /// It has ended: who has the socket now cannot be told.
    Gone,
    /// Another user's, or one in a container. The pid may be 0: it has none here.
    Foreign { pid: i32, uid: u32 },
}

/// Who listened when `socket` was connected.
///
/// # Errors
/// Whatever the kernel says.
pub fn listener(socket: impl AsFd) -> io::Result<Listener> {
    let peer = getsockopt(&socket, PeerCredentials)?;
    let foreign = Listener::Foreign { pid: peer.pid(), uid: peer.uid() };
    if peer.uid() != rustix::process::geteuid().as_raw() || peer.pid() == 0 {
        return Ok(foreign);
    }
    // A number can mean somebody else by now; a pidfd cannot.
    let told = match peer_pidfd(&socket) {
        Ok(pidfd) => {
            let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            if rustix::event::poll(&mut ended, Some(&now))? > 0 {
                return Ok(Listener::Gone);
            }
            fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))
        }
        // Before Linux 6.5.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            fs::read_to_string(format!("/proc/{}/status", peer.pid()))
        }
        Err(_) => return Ok(Listener::Gone),
    };
    let text = match told {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Listener::Gone),
        told => told?,
    };
    // Its pid in each namespace from this one on: in a container it has more than one.
    let pids = text.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    Ok(match pids.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["-1" | "0"] => Listener::Gone,
        [_] => Listener::Ours,
        _ => foreign,
    })
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
        let connect = || listener(UnixStream::connect(&path).unwrap()).unwrap();
        assert_eq!(connect(), Listener::Ours);
        // A child that listens, and has ended.
        let fd = socket.as_raw_fd();
        let mut command = std::process::Command::new("python3");
        let script = format!("import socket; socket.socket(fileno={fd}).listen()");
        let keep = rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty());
        keep.unwrap();
        match command.args(["-c", &script]).status() {
            Ok(status) if status.success() => assert_eq!(connect(), Listener::Gone),
            _ => println!("skipped: no python3"),
        }
    }
}
