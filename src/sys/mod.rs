//! The only home of `unsafe`: raw system calls, fd passing, clone3, mounts by fd, signals, terminals.

pub mod bpf;
