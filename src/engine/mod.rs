//! The isolation engine above the system calls: runtime spec to launch steps, root file systems, cgroups, seccomp, capabilities.

pub mod capabilities;
pub mod seccomp;
pub mod users;
