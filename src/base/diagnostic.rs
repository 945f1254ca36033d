//! What is wrong, where, and what to do about it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A stretch of a source file. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file as the user named it, or as it was found.
    pub file: Arc<PathBuf>,
    pub line: u32,
    pub column: u32,
    /// How many characters of the line to mark; 0 marks one.
    pub length: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// One problem of the user's input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stable kebab-case code, such as `unknown-key`.
    pub code: &'static str,
    /// Where it is, when there is a place.
    pub place: Option<Place>,
    /// What is wrong: lower case, no full stop, literals in backticks.
    pub message: String,
    /// Other places that matter, each with a note.
    pub related: Vec<(Place, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A finding that keeps the command from going on. `code` is stable: `lint` prints it.
    pub fn error(code: &'static str, place: Option<Place>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, place, message: message.into(), related: Vec::new(), help: None }
    }

    /// A finding that is only told.
    pub fn warning(code: &'static str, place: Option<Place>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, place, message) }
    }

    /// Adds how it is mended.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds another place that has to do with it.
    #[must_use]
    pub fn related(mut self, place: Place, note: impl Into<String>) -> Self {
        self.related.push((place, note.into()));
        self
    }
}
