//! The program as an OCI runtime, judged from outside: its commands, and what processes in its containers see.
//! As root, with busybox as the root file system.

mod attributes;
pub(crate) mod bundle;
mod callers;
mod entering;
mod lifecycle;
mod mounts;
mod suites;
