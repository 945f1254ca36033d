//! Compose files that lie elsewhere: which address is one. Somebody else fetches them.

use std::fmt::Debug;
use std::path::PathBuf;

use super::LoadOptions;
use super::report::Reports;
use crate::base::diagnostic::Diagnostic;
use crate::model::tree::Mark;

/// Who fetches Compose files that lie in git repositories and registries.
pub trait Remote: Debug + Send + Sync {
    /// The file on this machine that an address leads to.
    ///
    /// # Errors
    /// It cannot be had.
    fn fetch(&self, address: &str) -> Result<PathBuf, Unfetched>;

    /// What was fetched so far.
    fn fetched(&self) -> Vec<String>;
}

/// Why which file could not be had, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfetched {
    pub message: String,
    pub help: Option<String>,
}

/// Whether a text is the address of a git repository or an OCI artifact rather than a path.
pub fn is_remote(path: &str) -> bool {
    ["oci://", "git://", "ssh://", "http://", "https://", "git@", "github.com/"]
        .iter()
        .any(|start| path.starts_with(start))
}

/// Fetches what `named` names; an error is reported.
pub(super) fn fetch(options: &LoadOptions, address: &str, named: Mark, reports: &mut Reports) -> Option<PathBuf> {
    let Some(remote) = &options.remote else {
        let message = format!("`{address}`: files are read from this machine only");
        reports.error("unsupported", named, message);
        return None;
    };
    match remote.fetch(address) {
        Ok(file) => Some(file),
        Err(Unfetched { message, help }) => {
            let mut diagnostic = Diagnostic::error("fetch-failed", reports.place(named), message);
            diagnostic.help = help;
            reports.push(diagnostic);
            None
        }
    }
}
