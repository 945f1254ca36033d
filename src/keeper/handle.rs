//! The supervisor's end of the connection to its keeper.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::channel::{Outbox, decode};
use super::{Event, Request};
use crate::sys::message::{self, Wait};
use crate::sys::watch::watch;

/// Sends requests to the keeper and receives its events. For a current-thread runtime.
#[derive(Debug)]
pub struct KeeperHandle {
    socket: AsyncFd<OwnedFd>,
    outbox: RefCell<Outbox>,
    /// Wakes `recv` when something was queued.
    queued: Notify,
    /// Wakes `flushed` when nothing is queued any more.
    emptied: Notify,
}

impl KeeperHandle {
    /// Takes the connection that the keeper gave this process as standard input, and puts /dev/null in its place.
    /// Call it once, inside a runtime.
    ///
    /// # Errors
    /// When standard input is no socket (the process was not started by a keeper).
    pub fn from_stdin() -> io::Result<Self> {
        Self::from_fd(take_stdin()?)
    }

    /// Uses a connected socket. Inside a runtime.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn from_fd(socket: OwnedFd) -> io::Result<Self> {
        let socket = watch(socket, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { socket, outbox: RefCell::default(), queued: Notify::new(), emptied: Notify::new() })
    }

    /// Sends a request; never waits: it is queued when the keeper does not read, and sent while somebody is in `recv`.
    ///
    /// # Errors
    /// `BrokenPipe` when the keeper is gone.
    pub fn send(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut outbox = self.outbox.borrow_mut();
        outbox.send(self.socket.get_ref(), request, descriptors)?;
        if !outbox.is_empty() {
            self.queued.notify_one();
        }
        Ok(())
    }

    /// Waits until everything has been sent, while somebody is in `recv`. What the keeper has not read by then it reads also when
    /// this process has ended.
    pub async fn flushed(&self) {
        while !self.outbox.borrow().is_empty() {
            self.emptied.notified().await;
        }
    }

    /// The next event with its descriptors; `None` when the keeper is gone. Can be dropped and called again without loss.
    ///
    /// # Errors
    /// A message that is none of ours, or descriptors lost (too many open files).
    pub async fn recv(&self) -> io::Result<Option<(Event, Vec<OwnedFd>)>> {
        loop {
            let waiting = !self.outbox.borrow().is_empty();
            let interest = if waiting { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            let mut ready = tokio::select! {
                ready = self.socket.ready(interest) => ready?,
                () = self.queued.notified() => continue,
            };
            if ready.ready().is_writable() && waiting {
                // A keeper that is gone shows in reading, below.
                let flushed = self.outbox.borrow_mut().flush(self.socket.get_ref());
                if self.outbox.borrow().is_empty() {
                    self.emptied.notify_one();
                } else if flushed.is_ok() {
                    ready.clear_ready_matching(tokio::io::Ready::WRITABLE);
                }
            }
            if ready.ready().is_readable() {
                match message::receive(self.socket.get_ref().as_fd(), Wait::No) {
                    Ok(None) => return Ok(None),
                    Ok(Some((bytes, descriptors))) => return Ok(Some((decode(&bytes)?, descriptors))),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready.clear_ready_matching(tokio::io::Ready::READABLE);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

/// Moves the socket that is standard input out of its place.
pub(super) fn take_stdin() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::net::sockopt::socket_type(&socket)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(socket)
}
