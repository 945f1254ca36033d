//! Where files are copied from: a context, or the root of a stage or image. Nothing in it is trusted: paths are resolved by
//! the kernel inside its root.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use sha2::{Digest as _, Sha256};

use super::ignore::Ignore;
use super::pattern::matches_name;
use crate::sys::inroot;

/// Nobody nests directories deeper; bounds the recursion.
pub(super) const MAX_DEPTH: usize = 1024;
const BUFFER: usize = 256 * 1024;

/// A tree to copy from.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    ignore: Ignore,
    /// All files count as root's: a context, whose owners mean nothing in an image.
    anonymous: bool,
}

/// A source that was asked for and is there.
#[derive(Debug)]
pub(super) struct Found {
    /// From the root, as asked for: symbolic links in it are not replaced. Empty: the root itself.
    pub path: String,
    /// What is behind the last link. `O_PATH`.
    pub file: OwnedFd,
    pub stat: Stat,
}

/// One name in a directory.
pub(super) struct Entry {
    pub name: Vec<u8>,
    pub stat: Stat,
}

impl Found {
    pub(super) fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    pub(super) fn base_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

impl Tree {
    /// A context's folder.
    pub(super) fn of_context(root: OwnedFd, ignore: Ignore) -> Self {
        Self { root, ignore, anonymous: true }
    }

    /// The root of a stage or image.
    pub(super) fn of_image(root: OwnedFd) -> Self {
        Self { root, ignore: Ignore::default(), anonymous: false }
    }

    /// Finds what a source of `COPY` means; wildcards are those of Go's `filepath.Match`, and `**` for any folders.
    ///
    /// # Errors
    /// Reading fails. That nothing is found is none.
    pub(super) fn find(&self, pattern: &str) -> io::Result<Vec<Found>> {
        let parts = clean(pattern);
        let mut found = Vec::new();
        if parts.iter().any(|part| part.contains(['*', '?', '[', '\\'])) {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            self.search(String::new(), &parts, 0, &mut found)?;
        } else {
            found.extend(self.open(parts.join("/"))?);
        }
        Ok(found)
    }

    /// As [`Self::find`], for a path that holds no wildcards whatever it looks like.
    pub(super) fn find_exact(&self, path: &str) -> io::Result<Option<Found>> {
        self.open(clean(path).join("/"))
    }

    /// Adds sizes and times of a source's files; `false` when there come to be more than `most`.
    pub(super) fn files(
        &self,
        found: &Found,
        most: usize,
        files: &mut BTreeMap<String, (u64, i64)>,
    ) -> io::Result<bool> {
        if !found.is_directory() {
            files.insert(found.path.clone(), fingerprint(&found.stat));
            return Ok(files.len() <= most);
        }
        let mut open = vec![(inroot::open_directory(&found.file, b".")?, found.path.clone())];
        while let Some((directory, above)) = open.pop() {
            for entry in list(&directory)? {
                let path = join(&above, &String::from_utf8_lossy(&entry.name));
                let is_directory = FileType::from_raw_mode(entry.stat.st_mode) == FileType::Directory;
                let left_out = self.left_out(&path, is_directory);
                if is_directory && left_out != LeftOut::All {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                    open.push((inroot::open(&directory, &entry.name, flags)?, path));
                } else if left_out == LeftOut::No {
                    files.insert(path, fingerprint(&entry.stat));
                }
            }
            if files.len() > most || open.len() > MAX_DEPTH {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn open(&self, path: String) -> io::Result<Option<Found>> {
        if !path.is_empty() && self.ignore.excludes(&path) && !self.ignore.has_exceptions() {
            return Ok(None);
        }
        let file = match inroot::open(&self.root, path.as_bytes(), OFlags::PATH) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            opened => opened?,
        };
        let stat = rustix::fs::fstat(&file)?;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        // A folder that is left out may hold what is not; a file may not.
        let out = !path.is_empty() && self.ignore.excludes(&path) && !directory;
        Ok((!out).then_some(Found { path, file, stat }))
    }

    fn search(&self, above: String, parts: &[&str], depth: usize, found: &mut Vec<Found>) -> io::Result<()> {
        let Some((part, rest)) = parts.split_first() else {
            found.extend(self.open(above)?);
            return Ok(());
        };
        if *part == "**" {
            self.search(above.clone(), rest, depth, found)?;
        } else if !part.contains(['*', '?', '[', '\\']) {
            return self.search(join(&above, part), rest, depth, found);
        }
        if depth > MAX_DEPTH {
            return Ok(());
        }
        let directory = match inroot::open_directory(&self.root, above.as_bytes()) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            opened => opened?,
        };
        for entry in list(&directory)? {
            let Ok(name) = String::from_utf8(entry.name) else { continue };
            let path = join(&above, &name);
            if *part == "**" {
                if FileType::from_raw_mode(entry.stat.st_mode) == FileType::Directory {
                    self.search(path, parts, depth + 1, found)?;
                }
            } else if matches_name(part, &name) && (self.ignore.has_exceptions() || !self.ignore.excludes(&path)) {
                self.search(path, rest, depth + 1, found)?;
            }
        }
        Ok(())
    }

    /// Whether an entry is left out, and if so whether something in it may be in.
    pub(super) fn left_out(&self, path: &str, directory: bool) -> LeftOut {
        match (self.ignore.is_empty() || !self.ignore.excludes(path), directory && self.ignore.has_exceptions()) {
            (true, _) => LeftOut::No,
            (false, true) => LeftOut::Itself,
            (false, false) => LeftOut::All,
        }
    }

    /// Whose a file counts as.
    pub(super) fn owner(&self, stat: &Stat) -> (u32, u32) {
        if self.anonymous { (0, 0) } else { (stat.st_uid, stat.st_gid) }
    }

    /// Adds all that a copy of the source would take over to `hash`: names, types, modes, owners, contents; not times.
    ///
    /// # Errors
    /// Reading fails.
    pub(super) fn hash(&self, found: &Found, exclude: &Ignore, hash: &mut Sha256) -> io::Result<()> {
        let mut hasher = Hasher { tree: self, exclude, hash, buffer: vec![0; BUFFER] };
        hasher.field(if found.is_directory() { b"" } else { found.base_name().as_bytes() });
        hasher.attributes(&found.stat);
        if found.is_directory() {
            let directory = inroot::open_directory(&found.file, b".")?;
            return hasher.directory(&directory, &found.path, "", 0);
        }
        // Behind the last link; only the kernel's own path to the descriptor opens that very file.
        let kind = FileType::from_raw_mode(found.stat.st_mode);
        if kind == FileType::RegularFile {
            hasher.content(reopen(&found.file)?)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeftOut {
    No,
    /// But not all that is in it.
    Itself,
    All,
}

struct Hasher<'a> {
    tree: &'a Tree,
    exclude: &'a Ignore,
    hash: &'a mut Sha256,
    buffer: Vec<u8>,
}

impl Hasher<'_> {
    /// A length before each field keeps one from passing for two.
    fn field(&mut self, bytes: &[u8]) {
        self.hash.update((bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
    }

    fn attributes(&mut self, stat: &Stat) {
        let (uid, gid) = self.tree.owner(stat);
        let numbers = [u64::from(stat.st_mode), u64::from(uid), u64::from(gid), stat.st_rdev];
        numbers.iter().for_each(|number| self.hash.update(number.to_le_bytes()));
    }

    /// `path` is from the tree's root, `below` from the source.
    fn directory(&mut self, directory: &OwnedFd, path: &str, below: &str, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("directories are nested too deep"));
        }
        for entry in list(directory)? {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            let (path, below) = (join(path, &name), join(below, &name));
            let kind = FileType::from_raw_mode(entry.stat.st_mode);
            let left_out = self.tree.left_out(&path, kind == FileType::Directory);
            if left_out == LeftOut::All || self.exclude.excludes(&below) {
                continue;
            }
            self.field(below.as_bytes());
            if left_out == LeftOut::No {
                self.attributes(&entry.stat);
            }
            match kind {
                FileType::Directory => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                    self.directory(&inroot::open(directory, &entry.name, flags)?, &path, &below, depth + 1)?;
                }
                FileType::RegularFile => self.content(inroot::open_file(directory, &entry.name)?)?,
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(directory, &entry.name, Vec::new())?;
                    self.field(target.as_bytes());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn content(&mut self, mut file: impl Read) -> io::Result<()> {
        // Its own digest first, as its length may change meanwhile.
        let mut content = Sha256::new();
        loop {
            match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => content.update(self.buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.hash.update(content.finalize());
        Ok(())
    }
}

fn fingerprint(stat: &Stat) -> (u64, i64) {
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
    let time = stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
    (u64::try_from(stat.st_size).unwrap_or_default(), time)
}

/// The entries of a directory, sorted by name.
pub(super) fn list(directory: &OwnedFd) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name == b"." || name == b".." {
            continue;
        }
        match rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            // Gone since the directory was read.
            Err(rustix::io::Errno::NOENT) => {}
            stat => entries.push(Entry { stat: stat?, name }),
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Opens for reading what a descriptor of `O_PATH` names.
pub(super) fn reopen(file: &impl AsFd) -> io::Result<std::fs::File> {
    use std::os::fd::AsRawFd;
    std::fs::File::open(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

pub(super) fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") }
}

/// The parts of a path; `..` ends at the root.
pub(super) fn clean(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part.to_owned()),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree(ignore: &str) -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("src/deep")).unwrap();
        for file in ["a.txt", "b.txt", "src/c.txt", "src/deep/d.txt"] {
            fs::write(root.join(file), file).unwrap();
        }
        symlink("../../../../etc", root.join("out")).unwrap();
        symlink("src", root.join("link")).unwrap();
        let opened = fs::File::open(root).unwrap().into();
        (folder, Tree::of_context(opened, Ignore::parse(ignore)))
    }

    fn paths(tree: &Tree, pattern: &str) -> Vec<String> {
        tree.find(pattern).unwrap().into_iter().map(|found| found.path).collect()
    }

    #[test]
    fn sources_with_and_without_wildcards() {
        let (_folder, tree) = tree("b.txt");
        assert_eq!(paths(&tree, "*.txt"), ["a.txt"]);
        assert_eq!(paths(&tree, "b.txt"), [""; 0]);
        assert_eq!(paths(&tree, "/src/*/d.?xt"), ["src/deep/d.txt"]);
        assert_eq!(paths(&tree, "**/d.txt"), ["src/deep/d.txt"]);
        assert_eq!(paths(&tree, "../../a.txt"), ["a.txt"]);
        assert_eq!(paths(&tree, "."), [""]);
        assert!(tree.find("link").unwrap()[0].is_directory());
        assert!(tree.find("out/passwd").unwrap().is_empty());
    }

    #[test]
    fn the_hash_sees_names_modes_and_contents() {
        let digest = |tree: &Tree| {
            let mut hash = Sha256::new();
            tree.hash(&tree.find("").unwrap()[0], &Ignore::default(), &mut hash).unwrap();
            hash.finalize().to_vec()
        };
        let (folder, tree_a) = tree("ignored");
        let before = digest(&tree_a);
        fs::write(folder.path().join("ignored"), "x").unwrap();
        assert_eq!(digest(&tree_a), before);
        fs::write(folder.path().join("a.txt"), "changed").unwrap();
        let changed = digest(&tree_a);
        assert_ne!(changed, before);
        fs::rename(folder.path().join("a.txt"), folder.path().join("z.txt")).unwrap();
        assert_ne!(digest(&tree_a), changed);
    }
}
