//! One function per verb over an options struct: loads the project, talks to the supervisor or reads the state on disk.

pub mod config;
pub mod options;
pub mod session;

pub use crate::compose::LoadOptions;
