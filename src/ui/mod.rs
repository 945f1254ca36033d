//! What a person sees: progress, tables, colours, prefixed logs, errors with their source lines.

pub mod build;
pub mod diagnostics;
pub mod doctor;
pub mod format;
pub mod human;
pub mod log_lines;
pub mod progress;
pub mod relay;
pub mod stats;
pub mod tables;
pub mod terminal;
pub mod usage;

use std::ffi::OsString;

pub use crate::base::visible::{visible, visible_name};

/// ANSI colours (SGR codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Red,
    Green,
    Yellow,
    Blue,
    Magenta,
    Cyan,
    BrightGreen,
    BrightYellow,
    BrightBlue,
    BrightMagenta,
    BrightCyan,
}

impl Colour {
    const fn code(self) -> &'static str {
        match self {
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Blue => "34",
            Self::Magenta => "35",
            Self::Cyan => "36",
            Self::BrightGreen => "32;1",
            Self::BrightYellow => "33;1",
            Self::BrightBlue => "34;1",
            Self::BrightMagenta => "35;1",
            Self::BrightCyan => "36;1",
        }
    }

    /// The text in this colour.
    pub fn paint(self, text: &str) -> String {
        format!("\x1b[{}m{text}\x1b[0m", self.code())
    }
}

/// When to use colours and cursor movements (`--ansi`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ansi {
    Never,
    Always,
    /// On a terminal, unless `NO_COLOR` is set and not empty, or `TERM` says that it knows neither.
    #[default]
    Auto,
}

impl Ansi {
    /// Whether to use them on a stream that is a terminal or not.
    pub fn enabled(self, is_terminal: bool) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Auto => is_terminal && wanted(std::env::var_os("NO_COLOR"), std::env::var_os("TERM")),
        }
    }
}

fn wanted(no_color: Option<OsString>, term: Option<OsString>) -> bool {
    no_color.is_none_or(|value| value.is_empty()) && term.is_none_or(|value| value != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_whether_a_terminal_is_coloured() {
        assert!(wanted(None, None) && wanted(Some("".into()), Some("xterm".into())));
        assert!(!wanted(Some("1".into()), Some("xterm".into())) && !wanted(None, Some("dumb".into())));
    }
}
