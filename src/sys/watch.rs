//! Descriptors watched by the async runtime.
#![allow(unsafe_code, reason = "the runtime's constructor is unsafe")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor. Inside a runtime.
///
/// # Errors
/// When it cannot be watched (a regular file), or too many are.
pub fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the constructor asks that the value names the same open descriptor for as long as it is registered. An `OwnedFd`
    // does: it closes only when dropped, which `AsyncFd` does after deregistering, and its number never changes.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}
