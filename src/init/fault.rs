//! What went wrong in a step: an error number and what was being done.

use std::io;

#[derive(Debug)]
pub(super) struct Fault {
    pub(super) errno: i32,
    pub(super) detail: String,
}

impl Fault {
    /// The same, and what it was about.
    pub(super) fn of(self, what: &str) -> Self {
        let detail = if self.detail.is_empty() { what.to_owned() } else { format!("{what}: {}", self.detail) };
        Self { detail, ..self }
    }
}

/// Adds what was being done to an error of the system.
pub(super) trait At<T> {
    fn at(self, what: impl Into<String>) -> Result<T, Fault>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, what: impl Into<String>) -> Result<T, Fault> {
        self.map_err(|error| Fault { errno: errno(&error.into()), detail: what.into() })
    }
}

/// The error number; `EINVAL` for an error that the standard library made up.
pub(super) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EINVAL)
}

pub(super) fn fault<T>(errno: i32, detail: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { errno, detail: detail.into() })
}
