//! Errors of the lower half as what the reconciler passes on.

use std::error::Error;
use std::io::Write;

use crate::base::reason::without_number;
use crate::runtime::RuntimeError;

/// A failure without a cause of its own.
pub(super) fn failure(message: impl Into<String>) -> RuntimeError {
    RuntimeError { message: message.into(), help: None }
}

/// What could not be done, and the chain of causes.
pub(super) fn because(what: impl Into<String>, error: &dyn Error) -> RuntimeError {
    let mut message = what.into();
    let mut cause = Some(error);
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    let help = message.contains("Too many open files").then(|| DESCRIPTORS_HELP.to_owned());
    RuntimeError { message: without_number(&message), help }
}

/// The way out of a limit that is too low.
pub(super) const DESCRIPTORS_HELP: &str = "the project's processes have the hard limit of where it was brought up: raise that \
    (`ulimit -Hn`, `LimitNOFILE=` of a systemd service, `nofile` in /etc/security/limits.conf), then `down` and `up`";

/// A line for the supervisor's log, which is its standard error. A full disk is no reason to fail.
pub(super) fn log(message: &str) {
    let _ = writeln!(std::io::stderr(), "{}: {message}", jiff::Timestamp::now());
}
