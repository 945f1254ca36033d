//! The isolation engine above the system calls: runtime spec to launch steps, root file systems, cgroups, seccomp, capabilities.

pub mod apparmor;
pub mod capabilities;
mod cdi;
pub mod cgroup;
pub mod lower;
pub mod processes;
pub mod runtimes;
pub mod seccomp;
pub mod selinux;
pub mod spec;
pub mod users;
pub mod view;
