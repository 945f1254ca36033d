//! The only home of `unsafe`: system calls that no safe wrapper offers, descriptor passing, paths inside foreign trees and copies of them.

pub mod bpf;
pub mod copy;
pub mod dbus;
pub mod inroot;
pub mod message;
pub mod mount;
pub mod overlay;
pub mod packet_filter;
pub mod path;
pub mod peer;
pub mod process;
pub mod program;
pub mod resolver;
pub mod scheduling;
pub mod security;
pub mod signals;
pub mod userns;
pub mod watch;
