//! Errors of the lower half as what the reconciler passes on.

use std::error::Error;
use std::io::Write;

use crate::base::reason::without_number;
use crate::base::visible::visible_name;
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
    let known = [
        ("Too many open files", DESCRIPTORS_HELP),
        ("No space left on device", SPACE_HELP),
        ("Function not implemented", KERNEL_HELP),
    ];
    let help = known.iter().find(|(text, _)| message.contains(text)).map(|(_, help)| (*help).to_owned());
    RuntimeError { message: without_number(&message), help }
}

/// The way out of a limit that is too low.
pub(super) const DESCRIPTORS_HELP: &str = "the project's processes have the hard limit of where it was brought up: raise that \
    (`ulimit -Hn`, `LimitNOFILE=` of a systemd service, `nofile` in /etc/security/limits.conf), then `down` and `up`";

/// The way out of a full disk. What ends and removes containers works there, too.
const SPACE_HELP: &str = "make room on the disk of the data directory: `rcompose system df` tells what takes it, `rcompose image prune` \
    removes images that no container has";

/// The way out of a kernel that is too old: mount_setattr(2) is the newest system call that every container needs.
const KERNEL_HELP: &str = "boot a kernel of 5.12 or later (`uname -r` tells which one runs)";

/// A line of the log: what others have said makes no lines of its own, and does nothing to a terminal.
fn line(message: &str) -> String {
    format!("{}: {}", jiff::Timestamp::now(), visible_name(message))
}

/// A line for the supervisor's log, which is its standard error. A full disk is no reason to fail.
pub(super) fn log(message: &str) {
    let _ = writeln!(std::io::stderr(), "{}", line(message));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_a_person_can_lift_come_with_how() {
        let failed =
            |errno| because("cannot write", &std::io::Error::from_raw_os_error(errno)).help.unwrap_or_default();
        assert!(failed(libc::ENOSPC).contains("system df") && failed(libc::EMFILE).contains("ulimit"));
        assert!(failed(libc::ENOSYS).contains("5.12"));
        assert_eq!(failed(libc::EACCES), "");
    }

    #[test]
    fn what_others_say_is_one_line_of_the_log_without_control_characters() {
        let line = line("a hook has said: \x1b]0;title\x07\n2026-01-01T00:00:00Z: forged");
        assert!(line.ends_with("a hook has said: \\u{1b}]0;title\\u{7}\\n2026-01-01T00:00:00Z: forged"), "{line}");
    }
}
