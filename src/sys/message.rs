//! Messages with file descriptors over sockets, mostly `SOCK_SEQPACKET` ones.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net;
use rustix::net::sockopt;

/// Descriptors one message can carry (`SCM_MAX_FD` of the kernel).
pub const MAX_DESCRIPTORS: usize = 253;

/// Bytes a socket buffers in each direction, which bounds one message.
const BUFFER: usize = 1 << 20;

/// A message and the descriptors that came with it.
pub type Message = (Vec<u8>, Vec<OwnedFd>);

/// Whether a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Yes,
    /// `WouldBlock` instead.
    No,
}

/// A connected pair, closed on exec.
///
/// # Errors
/// Whatever `socketpair(2)` says.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) =
        net::socketpair(net::AddressFamily::UNIX, net::SocketType::SEQPACKET, net::SocketFlags::CLOEXEC, None)?;
    for end in [&one, &other] {
        // Beyond net.core.wmem_max only root may go; others get as much as they may have.
        if sockopt::set_socket_send_buffer_size_force(end, BUFFER).is_err() {
            sockopt::set_socket_send_buffer_size(end, BUFFER)?;
        }
    }
    Ok((one, other))
}

/// A connection to somebody's stream socket.
///
/// # Errors
/// Nobody listens there.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = net::socket_with(net::AddressFamily::UNIX, net::SocketType::STREAM, net::SocketFlags::CLOEXEC, None)?;
    // Socket addresses hold 108 bytes; the path may be longer.
    let node = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let address = net::SocketAddrUnix::new(format!("/proc/self/fd/{}", node.as_raw_fd()))?;
    net::connect(&socket, &address)?;
    Ok(socket)
}

/// Sends one message.
///
/// # Errors
/// `BrokenPipe` when the other end is gone, `WouldBlock`, or `InvalidInput` when it is empty or has too many descriptors.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>], wait: Wait) -> io::Result<()> {
    if bytes.is_empty() || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = net::SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(net::SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags =
        net::SendFlags::NOSIGNAL | if wait == Wait::No { net::SendFlags::DONTWAIT } else { net::SendFlags::empty() };
    rustix::io::retry_on_intr(|| net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags))?;
    Ok(())
}

/// Receives one message; `None` when the other end is gone.
///
/// # Errors
/// `WouldBlock`, or `InvalidData` when descriptors were lost on the way (this process has too many open).
pub fn receive(socket: impl AsFd, wait: Wait) -> io::Result<Option<Message>> {
    let flags = if wait == Wait::No { net::RecvFlags::DONTWAIT } else { net::RecvFlags::empty() };
    let peek = flags | net::RecvFlags::PEEK | net::RecvFlags::TRUNC;
    let mut nothing = [0_u8; 1];
    let mut look = || rustix::io::retry_on_intr(|| net::recv(&socket, &mut nothing, peek));
    // That the other end has closed without reading everything is told once; what it had sent is there all the same.
    let length = match look().or_else(|error| if error == rustix::io::Errno::CONNRESET { look() } else { Err(error) }) {
        Ok((_, length)) => length,
        Err(error) => return Err(error.into()),
    };
    if length == 0 {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = net::RecvAncillaryBuffer::new(&mut space);
    let flags = flags | net::RecvFlags::CMSG_CLOEXEC;
    let got =
        rustix::io::retry_on_intr(|| net::recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags))?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let net::RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if got.flags.contains(net::ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    bytes.truncate(got.bytes);
    Ok(Some((bytes, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_before_the_other_end_closed_arrives_also_when_it_has_not_read_everything() {
        let (ours, theirs) = pair().unwrap();
        send(&ours, b"unread", &[], Wait::No).unwrap();
        send(&theirs, b"last words", &[], Wait::No).unwrap();
        drop(theirs);
        assert_eq!(receive(&ours, Wait::No).unwrap().unwrap().0, b"last words");
        assert!(receive(&ours, Wait::No).unwrap().is_none());
    }
}
