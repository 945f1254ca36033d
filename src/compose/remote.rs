//! Compose files that lie elsewhere: which address is one. Somebody else fetches them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::LoadOptions;
use super::report::Reports;
use crate::base::diagnostic::Diagnostic;
use crate::model::tree::Mark;

/// Files of one project that lie elsewhere: each is a connection.
const MOST: usize = 100;

/// Brings a file here: from its address to its path on this machine.
type Fetch = dyn Fn(&str) -> Result<PathBuf, Unfetched> + Send + Sync;

/// Compose files that lie in git repositories and registries, each fetched once.
#[derive(Clone)]
pub struct Remotes {
    fetch: Arc<Fetch>,
    known: Arc<Mutex<BTreeMap<String, Result<PathBuf, Unfetched>>>>,
}

impl Remotes {
    /// `fetch` is called by one thread at a time.
    pub fn new(fetch: impl Fn(&str) -> Result<PathBuf, Unfetched> + Send + Sync + 'static) -> Self {
        Self { fetch: Arc::new(fetch), known: Arc::default() }
    }

    /// What was asked for so far.
    pub fn addresses(&self) -> Vec<String> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn file(&self, address: &str) -> Result<PathBuf, Unfetched> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(address) {
            return found.clone();
        }
        if known.len() >= MOST {
            let message = format!("more than {MOST} files of this project lie elsewhere");
            return Err(Unfetched { message, help: None });
        }
        let found = (self.fetch)(address);
        known.insert(address.to_owned(), found.clone());
        found
    }
}

impl fmt::Debug for Remotes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remotes").field(&self.addresses()).finish()
    }
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
    let Some(remotes) = &options.remotes else {
        let message = format!("`{address}`: files are read from this machine only");
        reports.error("unsupported", named, message);
        return None;
    };
    match remotes.file(address) {
        Ok(file) => Some(file),
        Err(Unfetched { message, help }) => {
            let mut diagnostic = Diagnostic::error("fetch-failed", reports.place(named), message);
            diagnostic.help = help;
            reports.push(diagnostic);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_fetched_once_and_not_too_many() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let asking = asked.clone();
        let remotes = Remotes::new(move |address| {
            asking.lock().unwrap().push(address.to_owned());
            Err(Unfetched { message: address.to_owned(), help: None })
        });
        for number in 0..MOST + 5 {
            assert_eq!(remotes.file("https://h/x.git").unwrap_err().message, "https://h/x.git");
            let error = remotes.file(&format!("oci://h/{number}")).unwrap_err();
            assert_eq!(error.message.starts_with("more than"), number + 1 >= MOST, "{number}: {}", error.message);
        }
        assert_eq!(asked.lock().unwrap().len(), MOST);
        assert_eq!(remotes.addresses().len(), MOST);
    }
}
