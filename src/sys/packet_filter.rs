//! Classic BPF filters on sockets (`SO_ATTACH_FILTER`, socket(7)).
#![allow(unsafe_code, reason = "setsockopt(2) with struct sock_fprog; no safe wrapper covers it")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

pub use libc::sock_filter as Instruction;

/// Loads a byte at a fixed offset.
pub const LOAD_BYTE: u16 = 0x30;
/// Loads four bytes at a fixed offset, the first one as the highest; past the end the packet is dropped.
pub const LOAD_WORD: u16 = 0x20;
/// Jumps when what is loaded equals the constant.
pub const JUMP_EQUAL: u16 = 0x15;
/// Ends with a constant: 0 drops the packet, [`ALL`] keeps it.
pub const RETURN: u16 = 0x06;
/// Length that takes a whole packet.
pub const ALL: u32 = u32::MAX;

/// Lets a socket receive only what the program keeps.
///
/// # Errors
/// What the kernel says: `EINVAL` for a program that it refuses.
pub fn attach(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut(),
    };
    let length = libc::socklen_t::try_from(size_of_val(&filter)).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `filter` and the program that it points to live through the call, which only reads and copies them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&filter).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
