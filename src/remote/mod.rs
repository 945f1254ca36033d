//! What a build takes from elsewhere: files by HTTP, and git repositories.
//!
//! [`Address`] says what a text means (pure), [`Downloads`] and [`check_out`] fetch it into a folder of the caller's. git is the
//! program of that name, as for everybody who builds from repositories; nothing in a text can become one of its options.

mod address;
mod git;
mod http;
mod kept;

pub use address::{Address, Repository, without_password};
pub use git::{check_out, commit, find};
pub use kept::{DOWNLOADS, Downloads};

use std::io;
use std::time::Duration;

/// What may be fetched at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// On the disk, with git's own files.
    pub bytes: u64,
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 10 << 30, time: Duration::from_secs(30 * 60) }
    }
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{text}` is not a URL that can be fetched: {reason}")]
    Address { text: String, reason: &'static str },
    #[error("cannot fetch `{url}`: {reason}")]
    Refused { url: String, reason: String },
    #[error("cannot fetch `{url}`: the server answers with status {code}")]
    Status { url: String, code: u16 },
    #[error("cannot fetch `{url}`")]
    Io { url: String, source: io::Error },
    #[error("`git` is needed for repositories, and cannot be run")]
    NoGit(#[source] io::Error),
    #[error("git cannot {doing} `{url}`: {said}")]
    Git { doing: &'static str, url: String, said: String },
    #[error("`{url}` is larger than {} MiB, the most that is fetched", bytes >> 20)]
    TooLarge { url: String, bytes: u64 },
    #[error("`{url}` did not come within {seconds} seconds")]
    TooSlow { url: String, seconds: u64 },
    #[error("the repository `{url}` has no branch, tag or commit `{reference}`")]
    NoReference { reference: String, url: String },
    #[error("`{folder}` is not a folder of the repository `{url}`")]
    NoFolder { folder: String, url: String },
    #[error(transparent)]
    Settings(#[from] crate::registry::Error),
}

impl Error {
    /// What to do about it.
    pub const fn help(&self) -> Option<&'static str> {
        match self {
            Self::NoGit(_) => Some("install git"),
            Self::Status { code: 404, .. } => Some("check the address"),
            Self::Status { code: 401 | 403, .. } => {
                Some("the server wants to know who asks; use an address that it gives to all")
            }
            Self::Git { .. } | Self::NoReference { .. } => {
                Some("check the address, the branch, tag or commit after `#`, and that you may read it")
            }
            Self::TooLarge { .. } => Some("fetch it yourself, and name the folder where it is"),
            Self::TooSlow { .. } => Some("try again later, or fetch it yourself and name the folder where it is"),
            Self::Refused { .. } => Some("check the address, your network, and HTTPS_PROXY if you need a proxy"),
            _ => None,
        }
    }
}
