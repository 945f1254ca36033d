//! What is wrong with a Dockerfile.

/// One problem. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    pub line: usize,
    /// Lower case, no full stop.
    pub message: String,
    pub help: Option<String>,
}

impl ParseError {
    /// `line` counts from 1.
    pub fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into(), help: None }
    }

    /// Adds how it is mended.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
