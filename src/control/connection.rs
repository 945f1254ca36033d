//! The client's end: blocking, on an ordinary stream socket.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::control::MAX_MESSAGE;

/// Most descriptors a reply carries: stdin, stdout, stderr.
pub const MAX_DESCRIPTORS: usize = 3;

/// A connected control socket.
#[derive(Debug)]
pub struct Connection(UnixStream);

impl Connection {
    pub fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The socket's.
    pub fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        self.0.write_all(&encode(message)?)
    }

    /// Waits for the next message; `None` when the other side has hung up.
    ///
    /// # Errors
    /// The socket's, or `InvalidData`.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut length = [0; 4];
        match self.0.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if is_hang_up(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut bytes = vec![0; checked_length(length)?];
        match self.0.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if is_hang_up(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Receives the descriptors that a reply announced.
    ///
    /// # Errors
    /// The socket's, or `InvalidData` when there are not that many.
    pub fn receive_descriptors(&mut self, count: usize) -> io::Result<Vec<OwnedFd>> {
        receive_descriptors(&self.0, count)
    }

    /// Sends one descriptor, which a message has announced.
    ///
    /// # Errors
    /// The socket's.
    pub fn send_descriptor(&mut self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.0, &[io::IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// A second handle on the same socket.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes one byte with so many descriptors from a stream.
///
/// # Errors
/// The socket's, or `InvalidData` when there are not that many.
pub fn receive_descriptors(stream: impl AsFd, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 1];
    recvmsg(stream, &mut [io::IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut received = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            received.extend(descriptors);
        }
    }
    if received.len() == count { Ok(received) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// The bytes of one message.
///
/// # Errors
/// When it is longer than [`MAX_MESSAGE`].
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|length| *length <= MAX_MESSAGE);
    let length = length.ok_or(io::ErrorKind::FileTooLarge)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// The length that a message's first four bytes announce.
///
/// # Errors
/// `InvalidData` when it is more than [`MAX_MESSAGE`].
pub fn checked_length(bytes: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(bytes);
    if length > MAX_MESSAGE { Err(io::ErrorKind::InvalidData.into()) } else { Ok(length as usize) }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Reply, Request};

    #[test]
    fn a_message_comes_out_as_it_went_in_and_a_hang_up_is_none() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut left, mut right) = (Connection::new(left), Connection::new(right));
        left.send(&Request::Attach { container: "x-web-1".into() }).unwrap();
        let got: Request = right.receive().unwrap().unwrap();
        assert!(matches!(got, Request::Attach { container } if container == "x-web-1"));
        drop(left);
        assert!(right.receive::<Reply>().unwrap().is_none());
    }

    #[test]
    fn an_oversized_length_is_refused() {
        assert!(checked_length([255, 255, 255, 255]).is_err());
    }
}
