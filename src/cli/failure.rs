//! How a command fails: one message on standard error, one exit code.

use std::process::ExitCode;

use crate::base::reason::without_number;
use crate::ui::Ansi;
use crate::ui::Colour;
use crate::ui::visible;

/// Any error, as docker compose has it.
pub const GENERAL: u8 = 1;
/// `lint`: there are warnings, and no errors.
pub const WARNINGS: u8 = 2;
/// Cancelled by SIGINT or SIGTERM.
pub const INTERRUPTED: u8 = 130;
/// `exec`: there is no such program.
pub const NOT_FOUND: u8 = 127;

/// A failed command. Printed once, by [`Failure::report`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Lower case, no full stop; the causes joined with `: `. Empty: it has been reported already.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    pub code: u8,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, code: GENERAL }
    }

    /// An error with its chain of sources.
    pub fn from_error(error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self::new(without_number(&message))
    }

    /// No failure at all: something to say, and exit code 0.
    pub fn nothing(what: &str) -> Self {
        Self { message: what.to_owned(), help: None, code: 0 }
    }

    /// A failure whose messages are out already.
    pub const fn reported(code: u8) -> Self {
        Self { message: String::new(), help: None, code }
    }

    /// A flag or command of docker compose that this program does not have yet.
    pub fn not_yet(what: &str) -> Self {
        Self::new(format!("`{what}` is not supported yet")).help("leave it out, or use docker compose for this command")
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Prints it on standard error.
    #[expect(clippy::print_stderr, reason = "the one place where failures are shown")]
    pub fn report(&self, ansi: Ansi) -> ExitCode {
        if self.code == 0 {
            eprintln!("{}", visible(&self.message));
        } else if !self.message.is_empty() {
            let colour = ansi.enabled(std::io::IsTerminal::is_terminal(&std::io::stderr()));
            let label = |text: &str, with: Colour| if colour { with.paint(text) } else { text.to_owned() };
            eprintln!("{} {}", label("error:", Colour::Red), visible(&self.message));
            if let Some(help) = &self.help {
                eprintln!("{} {}", label("help:", Colour::Cyan), visible(help));
            }
        }
        ExitCode::from(self.code)
    }
}
