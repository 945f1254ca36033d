//! The only home of `unsafe`: system calls that no safe wrapper offers, and descriptor passing.

pub mod message;
pub mod mount;
pub mod process;
pub mod security;
pub mod watch;
