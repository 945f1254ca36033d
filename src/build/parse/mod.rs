//! The Dockerfile language: text to instructions. Pure; any text gives instructions or an error, never a panic.
//!
//! The reference is BuildKit's parser (<https://docs.docker.com/reference/dockerfile/>).

mod error;
mod flags;
mod health;
mod heredoc;
mod instruction;
mod lines;
mod mount;
mod words;

pub use error::ParseError;
pub use health::Health;
pub use heredoc::{Heredoc, is_heredoc};
pub use instruction::{Arg, Command, Copy, From, Instruction, Kind, Parsed, Run, parse, parse_trigger};
pub use mount::{Mount, MountKind, ResolvedMount, Sharing};
