//! Messages between keeper and supervisor: encoding, and a queue for when the other end does not read.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::message::{self, Message, Wait};

/// Sends without waiting, in order; what does not fit waits here.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Message>,
}

impl Outbox {
    /// # Errors
    /// `BrokenPipe` when the other end is gone; errors of one message (such as too many descriptors) concern it alone.
    pub(super) fn send(
        &mut self,
        socket: impl AsFd,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let bytes = encode(message)?;
        self.flush(&socket)?;
        if self.waiting.is_empty() {
            match message::send(&socket, &bytes, descriptors, Wait::No) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
        let owned = descriptors.iter().map(|fd| fd.try_clone_to_owned()).collect::<io::Result<_>>()?;
        self.waiting.push_back((bytes, owned));
        Ok(())
    }

    /// Sends what waits, as far as it goes.
    pub(super) fn flush(&mut self, socket: impl AsFd) -> io::Result<()> {
        while let Some((bytes, descriptors)) = self.waiting.front() {
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            match message::send(&socket, bytes, &descriptors, Wait::No) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                result => result?,
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(message).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
