//! The log store: what containers print, on disk, complete whatever is killed.
//!
//! Each container has, in its log folder, two files per stream:
//!
//! - `stdout.log`, `stderr.log`: the bytes, as printed. `splice(2)` moves them from the pipe to the end of the file;
//!   leaving the pipe and entering the file is one system call, and a kill takes effect only after it. So a writer
//!   that is killed loses nothing and doubles nothing, and the next one goes on at the end of the file.
//! - `stdout.idx`, `stderr.idx`: one [`Record`] per batch that was moved. Times grow strictly over all the containers
//!   of a pump, so that readers can merge by time alone. Bytes that a killed writer had no time to index are indexed
//!   by the next writer; until then readers take them for as old as the file's last change.
//!
//! A line ends at `\n`, and its time is that of the batch with its first byte. Old output is released by punching
//! holes at the front of the files: offsets never change, so readers need no rotation.

mod file;
mod forward;
mod pump;
mod reader;
mod watch;

pub use forward::{Forwarder, Origin, journal_name};
pub use pump::{Limits, LogPump};
pub use reader::{Line, LogReader, Query, Source, lengths};
pub use watch::{Follow, Scan, follow};

/// Which of a container's streams. A terminal has only [`Stream::Stdout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];

    const fn data_file(self) -> &'static str {
        match self {
            Self::Stdout => "stdout.log",
            Self::Stderr => "stderr.log",
        }
    }

    const fn index_file(self) -> &'static str {
        match self {
            Self::Stdout => "stdout.idx",
            Self::Stderr => "stderr.idx",
        }
    }
}

/// One batch of bytes in an index file: 16 bytes, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    /// When the batch was moved, nanoseconds since the epoch.
    time: i64,
    /// Offset of the byte after the batch in the data file.
    end: u64,
}

impl Record {
    const SIZE: usize = 16;

    fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.time.to_le_bytes());
        bytes[8..].copy_from_slice(&self.end.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
        Self { time: i64::from_le_bytes([a, b, c, d, e, f, g, h]), end: u64::from_le_bytes(rest) }
    }
}

#[cfg(test)]
mod tests;
