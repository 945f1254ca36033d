//! `ADD` of what is elsewhere: files by their URLs, and repositories. Each is fetched once in a build.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use sha2::{Digest as _, Sha256};

use super::builder::{Builder, lock};
use super::error::BuildError;
use super::ignore::Ignore;
use super::request::{Event, Fetched};
use super::tree::{Found, Tree};
use crate::image::Digest;

type Cell = Arc<OnceLock<Result<Fetched, BuildError>>>;

/// What was fetched, by URL and whether `.git` was kept.
#[derive(Default)]
pub(super) struct Remotes(Mutex<HashMap<(String, bool), Cell>>);

/// A URL, or a git repository.
pub(super) fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|scheme| source.starts_with(scheme))
}

impl Builder<'_> {
    /// What a remote source of `ADD` gives: a tree, and the source in it. `checksum` is its digest or commit.
    pub(super) fn remote(
        &self,
        url: &str,
        keep_git_dir: bool,
        checksum: Option<&str>,
    ) -> Result<(Arc<Tree>, Found), BuildError> {
        let key = (url.to_owned(), keep_git_dir);
        let cell = Arc::clone(lock(&self.remotes.0).entry(key).or_default());
        let fetched = cell.get_or_init(|| self.fetch(url, keep_git_dir)).clone()?;
        let reading = |error: io::Error| BuildError::because(format!("cannot read what came from `{url}`"), &error);
        if let Some(checksum) = checksum {
            let found = match &fetched {
                Fetched::File { path, .. } => digest_of(path).map_err(reading)?.to_string(),
                Fetched::Repository { commit, .. } => commit.clone(),
            };
            check(url, checksum, &found, matches!(fetched, Fetched::Repository { .. }))?;
        }
        let (folder, name) = match &fetched {
            Fetched::File { path, name } => (path.parent().unwrap_or(path).to_owned(), name.as_str()),
            Fetched::Repository { folder, .. } => (folder.clone(), ""),
        };
        let root = File::open(&folder).map_err(reading)?;
        let tree = Tree::of_context(root.into(), Ignore::default());
        let found = tree.find_exact(name).map_err(reading)?;
        let found = found.ok_or_else(|| BuildError::new(format!("nothing came from `{url}`")))?;
        Ok((Arc::new(tree), found))
    }

    fn fetch(&self, url: &str, keep_git_dir: bool) -> Result<Fetched, BuildError> {
        let step = self.begin(format!("[{}internal] fetch {url}", self.request.prefix()));
        let folder = self.workshop.folder()?;
        let fetched = (self.outside.fetch)(url, &folder, keep_git_dir);
        (self.outside.tell)(match &fetched {
            Ok(_) => Event::Done { step },
            Err(error) => Event::Failed { step, message: error.message.clone() },
        });
        fetched
    }
}

/// A commit may be abbreviated.
fn check(url: &str, wanted: &str, found: &str, is_commit: bool) -> Result<(), BuildError> {
    let known = match is_commit {
        true => wanted.len() >= 7 && wanted.bytes().all(|byte| byte.is_ascii_hexdigit()),
        false => Digest::parse(wanted).is_some(),
    };
    if !known {
        let kind = if is_commit { "a commit" } else { "of the form sha256:DIGITS" };
        return Err(BuildError::new(format!("ADD --checksum: `{wanted}` is not {kind}")));
    }
    if wanted == found || (is_commit && found.starts_with(wanted)) {
        return Ok(());
    }
    let error = BuildError::new(format!("what came from `{url}` has the checksum {found}, not {wanted}"));
    Err(error.help("it has changed since the checksum was written down; look at what is new before you take it over"))
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(Digest::finish(hash)),
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_files_are_digests_and_those_of_repositories_commits() {
        let digest = Digest::of(b"x").to_string();
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert!(check("u", &digest, &digest, false).is_ok());
        assert!(check("u", commit, commit, true).is_ok() && check("u", "01234567", commit, true).is_ok());
        for (wanted, found, is_commit) in [
            (Digest::of(b"y").to_string().as_str(), digest.as_str(), false),
            ("sha256:12", &digest, false),
            ("md5:0", &digest, false),
            ("0123", commit, true),
            ("7654321", commit, true),
        ] {
            assert!(check("u", wanted, found, is_commit).is_err(), "{wanted}");
        }
    }
}
