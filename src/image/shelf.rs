//! What a registry of one's own keeps: blobs, manifests and tags by repository, byte for byte as they were pushed.
//!
//! Below `<data_dir>/images/registry`:
//! ```text
//! blobs/<hex>                      every blob once
//! repositories/<name>/blobs/<hex>  a hard link to it: this repository has the blob
//! repositories/<name>/manifests/<hex>
//! repositories/<name>/tags/<tag>   the digest of a manifest
//! uploads/<id>                     blobs that are being pushed
//! ```
//! A repository's name has `+` for `/`, which no name has. A blob whose last link goes is gone; nobody counts.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::manifest::{INDEX, MANIFEST};
use super::reference::Reference;
use super::store::Store;
use crate::base::disk::{self, Durability};

/// A push that has not gone on for so long is given up.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// So much of the disk is left to others: five hundredths of it, and at most so many bytes.
const LEFT_FREE: u64 = 1 << 30;

/// Whether a disk of `total` bytes with `free` ones has room for what is pushed.
fn has_room(total: u64, free: u64) -> bool {
    free > (total / 20).min(LEFT_FREE)
}

/// The registry's part of a store.
#[derive(Clone, Debug)]
pub struct Shelf {
    folder: PathBuf,
}

/// A repository's name, checked: lower-case letters, digits and separators, never a path that leads elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repository(String);

impl Repository {
    pub fn parse(name: &str) -> Option<Self> {
        // The grammar of image names is that of repositories once there is a registry before it.
        let valid = Reference::parse(&format!("localhost/{name}:x")).is_some_and(|parsed| parsed.path() == name);
        (valid && name.len() <= 200).then(|| Self(name.to_owned()))
    }

    pub fn name(&self) -> &str {
        &self.0
    }
}

/// A tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    Tag(String),
    Digest(Digest),
}

impl Which {
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains(':') {
            return Digest::parse(text).map(Self::Digest);
        }
        let parsed = Reference::parse(&format!("localhost/x:{text}"))?;
        (parsed.tag() == Some(text)).then(|| Self::Tag(text.to_owned()))
    }
}

/// A manifest as it was pushed.
#[derive(Clone, Debug)]
pub struct Kept {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// Why something is not kept.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    #[error("what was sent has the digest {found}")]
    WrongDigest { found: Digest },
    #[error("there is no such upload")]
    NoUpload,
    #[error("the registry's disk is full")]
    Full,
    #[error("another request writes to this upload")]
    Busy,
    #[error("the manifest is not valid: {0}")]
    BadManifest(String),
    #[error("the repository has no blob {0}")]
    NoBlob(Digest),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The parts of a manifest or index that a registry looks at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Named>,
    #[serde(default)]
    layers: Vec<Named>,
    #[serde(default)]
    manifests: Option<Vec<Named>>,
    #[serde(default)]
    subject: Option<Named>,
    #[serde(default)]
    annotations: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    digest: Digest,
    #[serde(default)]
    media_type: Option<String>,
    /// The blob is to be had elsewhere.
    #[serde(default)]
    urls: Vec<String>,
}

impl Shape {
    fn media_type(&self) -> String {
        let guess = if self.manifests.is_some() { INDEX } else { MANIFEST };
        self.media_type.clone().unwrap_or_else(|| guess.to_owned())
    }
}

impl Store {
    /// The registry's part, made if it is not there.
    ///
    /// # Errors
    /// Its directories cannot be made.
    pub fn shelf(&self) -> io::Result<Shelf> {
        let folder = self.path("registry");
        for name in ["blobs", "repositories", "uploads"] {
            fs::create_dir_all(folder.join(name))?;
        }
        Ok(Shelf { folder })
    }
}

impl Shelf {
    fn repository(&self, repository: &Repository, kind: &str) -> PathBuf {
        self.folder.join("repositories").join(repository.0.replace('/', "+")).join(kind)
    }

    fn blob_path(&self, repository: &Repository, digest: &Digest) -> PathBuf {
        self.repository(repository, "blobs").join(digest.hex())
    }

    fn whole(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.hex())
    }

    /// Opens a blob of a repository; `None`: it has no such blob.
    ///
    /// # Errors
    /// The file system's.
    pub fn blob(&self, repository: &Repository, digest: &Digest) -> io::Result<Option<File>> {
        found(File::open(self.blob_path(repository, digest)))
    }

    /// Begins an upload and names it.
    ///
    /// # Errors
    /// The file system's.
    pub fn begin(&self) -> io::Result<String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:x}-{since:x}-{number:x}", std::process::id());
        File::options().write(true).create_new(true).open(self.folder.join("uploads").join(&id))?;
        Ok(id)
    }

    /// Opens an upload to write on at its end; `None`: there is none of that name.
    ///
    /// # Errors
    /// The file system's.
    pub fn upload(&self, id: &str) -> io::Result<Option<File>> {
        match self.upload_path(id) {
            Some(path) => found(File::options().append(true).read(true).open(path)),
            None => Ok(None),
        }
    }

    /// The same, for nobody else as long as it is held.
    ///
    /// # Errors
    /// [`ShelfError::NoUpload`], [`ShelfError::Busy`], or the file system's.
    pub fn upload_alone(&self, id: &str) -> Result<Upload, ShelfError> {
        let path = self.upload_path(id).ok_or(ShelfError::NoUpload)?;
        lock(self.upload(id)?.ok_or(ShelfError::NoUpload)?, path)
    }

    fn upload_path(&self, id: &str) -> Option<PathBuf> {
        let valid = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        valid.then(|| self.folder.join("uploads").join(id))
    }

    /// Looks whether the disk has room for more of an upload.
    ///
    /// # Errors
    /// [`ShelfError::Full`], or the file system's.
    pub fn check_room(&self, upload: &File) -> Result<(), ShelfError> {
        let disk = rustix::fs::fstatvfs(upload).map_err(io::Error::from)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        if has_room(bytes(disk.f_blocks), bytes(disk.f_bavail)) { Ok(()) } else { Err(ShelfError::Full) }
    }

    /// Gives an upload up. Whether there was one.
    ///
    /// # Errors
    /// The file system's.
    pub fn cancel(&self, id: &str) -> io::Result<bool> {
        match self.upload_path(id) {
            Some(path) => Ok(found(fs::remove_file(path))?.is_some()),
            None => Ok(false),
        }
    }

    /// Makes an upload a blob of the repository, when its digest is right. One that is not right is gone afterwards.
    ///
    /// # Errors
    /// [`ShelfError::WrongDigest`], or the file system's.
    pub fn finish(&self, repository: &Repository, mut upload: Upload, expected: &Digest) -> Result<(), ShelfError> {
        upload.file.rewind()?;
        let found = digest_of(&mut upload.file)?;
        if found != *expected {
            fs::remove_file(&upload.path)?;
            return Err(ShelfError::WrongDigest { found });
        }
        upload.file.sync_all()?;
        fs::rename(&upload.path, self.whole(expected))?;
        self.link(repository, expected).map_err(Into::into).map(drop)
    }

    /// Takes a blob over from another repository, or from any when none is named. Whether that had it.
    ///
    /// # Errors
    /// The file system's.
    pub fn mount(&self, repository: &Repository, digest: &Digest, from: Option<&Repository>) -> io::Result<bool> {
        match from {
            Some(from) if self.blob(from, digest)?.is_none() => Ok(false),
            _ => self.link(repository, digest),
        }
    }

    fn link(&self, repository: &Repository, digest: &Digest) -> io::Result<bool> {
        let path = self.blob_path(repository, digest);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        match fs::hard_link(self.whole(digest), &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(true),
            linked => Ok(found(linked)?.is_some()),
        }
    }

    /// Takes a blob away from a repository. Whether it had it.
    ///
    /// # Errors
    /// The file system's.
    pub fn delete_blob(&self, repository: &Repository, digest: &Digest) -> io::Result<bool> {
        let removed = found(fs::remove_file(self.blob_path(repository, digest)))?.is_some();
        if found(fs::metadata(self.whole(digest)))?.is_some_and(|metadata| metadata.nlink() == 1) {
            found(fs::remove_file(self.whole(digest)))?;
        }
        Ok(removed)
    }

    /// Keeps a manifest, under a tag when that is how it was pushed. Returns its digest and that of what it refers to.
    ///
    /// # Errors
    /// It is no manifest, not the one that was announced, or names blobs that the repository does not have.
    pub fn put_manifest(
        &self,
        repository: &Repository,
        which: &Which,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(Digest, Option<Digest>), ShelfError> {
        let digest = Digest::of(bytes);
        if let Which::Digest(expected) = which
            && *expected != digest
        {
            return Err(ShelfError::WrongDigest { found: digest });
        }
        let bad = ShelfError::BadManifest;
        let shape: Shape = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        if shape.schema_version != 2 {
            return Err(bad(format!("schema version {} is not supported", shape.schema_version)));
        }
        // It is sent as what it says it is, and a browser would run the scripts of a page.
        if !shape.media_type().starts_with("application/") {
            return Err(bad(format!("`{}` is the media type of no manifest", shape.media_type())));
        }
        if !media_type.is_empty() && media_type != shape.media_type() {
            return Err(bad(format!("it is `{}` and was sent as `{media_type}`", shape.media_type())));
        }
        for blob in shape.config.iter().chain(&shape.layers).filter(|blob| blob.urls.is_empty()) {
            if self.blob(repository, &blob.digest)?.is_none() {
                return Err(ShelfError::NoBlob(blob.digest.clone()));
            }
        }
        // Two pushes of one tag would write the same temporary file.
        static WRITING: Mutex<()> = Mutex::new(());
        let _one = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let manifests = self.repository(repository, "manifests");
        fs::create_dir_all(&manifests)?;
        disk::replace(&manifests.join(digest.hex()), bytes, Durability::PowerLoss)?;
        if let Which::Tag(tag) = which {
            let tags = self.repository(repository, "tags");
            fs::create_dir_all(&tags)?;
            disk::replace(&tags.join(tag), digest.to_string().as_bytes(), Durability::PowerLoss)?;
        }
        Ok((digest, shape.subject.map(|subject| subject.digest)))
    }

    /// A manifest by tag or digest.
    ///
    /// # Errors
    /// The file system's.
    pub fn manifest(&self, repository: &Repository, which: &Which) -> io::Result<Option<Kept>> {
        let digest = match which {
            Which::Digest(digest) => digest.clone(),
            Which::Tag(tag) => {
                let text = found(fs::read_to_string(self.repository(repository, "tags").join(tag)))?;
                match text.as_deref().and_then(Digest::parse) {
                    Some(digest) => digest,
                    None => return Ok(None),
                }
            }
        };
        let path = self.repository(repository, "manifests").join(digest.hex());
        let Some(bytes) = found(fs::read(path))? else { return Ok(None) };
        let shape: Shape = serde_json::from_slice(&bytes)?;
        Ok(Some(Kept { digest, media_type: shape.media_type(), bytes }))
    }

    /// Takes a tag, or a manifest with its tags, away. Whether it was there.
    ///
    /// # Errors
    /// The file system's.
    pub fn delete_manifest(&self, repository: &Repository, which: &Which) -> io::Result<bool> {
        match which {
            Which::Tag(tag) => Ok(found(fs::remove_file(self.repository(repository, "tags").join(tag)))?.is_some()),
            Which::Digest(digest) => {
                let tags = self.repository(repository, "tags");
                for tag in self.tags(repository)? {
                    let path = tags.join(tag);
                    if found(fs::read_to_string(&path))?
                        .is_some_and(|text| Digest::parse(&text).as_ref() == Some(digest))
                    {
                        found(fs::remove_file(&path))?;
                    }
                }
                Ok(found(fs::remove_file(self.repository(repository, "manifests").join(digest.hex())))?.is_some())
            }
        }
    }

    /// The tags of a repository, sorted.
    ///
    /// # Errors
    /// The file system's.
    pub fn tags(&self, repository: &Repository) -> io::Result<BTreeSet<String>> {
        names(&self.repository(repository, "tags"))
    }

    /// Whether anything was ever pushed to the repository.
    pub fn has(&self, repository: &Repository) -> bool {
        self.repository(repository, "").exists()
    }

    /// The names of all repositories, sorted.
    ///
    /// # Errors
    /// The file system's.
    pub fn repositories(&self) -> io::Result<BTreeSet<String>> {
        Ok(names(&self.folder.join("repositories"))?.into_iter().map(|name| name.replace('+', "/")).collect())
    }

    /// Descriptors of the manifests that refer to `subject`.
    /// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers>
    ///
    /// # Errors
    /// The file system's.
    pub fn referrers(&self, repository: &Repository, subject: &Digest) -> io::Result<Vec<Value>> {
        let folder = self.repository(repository, "manifests");
        let mut referrers = Vec::new();
        for name in names(&folder)? {
            let Some(bytes) = found(fs::read(folder.join(&name)))? else { continue };
            let Ok(shape) = serde_json::from_slice::<Shape>(&bytes) else { continue };
            if shape.subject.as_ref().is_none_or(|named| named.digest != *subject) {
                continue;
            }
            let config = shape.config.as_ref().and_then(|config| config.media_type.clone());
            let mut descriptor = json!({
                "mediaType": shape.media_type(), "digest": format!("sha256:{name}"), "size": bytes.len(),
            });
            if let Some(artifact_type) = shape.artifact_type.or(config) {
                descriptor["artifactType"] = artifact_type.into();
            }
            if let Some(annotations) = shape.annotations {
                descriptor["annotations"] = annotations;
            }
            referrers.push(descriptor);
        }
        Ok(referrers)
    }

    /// Removes uploads that nobody goes on with, and blobs that no repository has (a push that was killed leaves them).
    ///
    /// # Errors
    /// The file system's.
    pub fn sweep(&self) -> io::Result<()> {
        for (name, is_left) in [("uploads", false), ("blobs", true)] {
            let folder = self.folder.join(name);
            for entry in names(&folder)? {
                let path = folder.join(entry);
                let Some(metadata) = found(fs::metadata(&path))? else { continue };
                let old = metadata.modified()?.elapsed().is_ok_and(|age| age > STALE);
                if old && (!is_left || metadata.nlink() == 1) {
                    found(fs::remove_file(path))?;
                }
            }
        }
        Ok(())
    }
}

fn found<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// Takes an upload for one writer, unless it has become a blob, or was given up, since it was opened: a blob stays as it is.
/// An upload that nobody else writes to meanwhile.
pub struct Upload {
    pub file: File,
    path: PathBuf,
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Closing would not do: a process that was forked meanwhile has the lock, too, until it executes its program.
        let _ = self.file.unlock();
    }
}

fn lock(file: File, path: PathBuf) -> Result<Upload, ShelfError> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ShelfError::Busy),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    let upload = Upload { file, path };
    let there = found(fs::metadata(&upload.path))?.ok_or(ShelfError::NoUpload)?;
    match there.ino() == upload.file.metadata()?.ino() {
        true => Ok(upload),
        false => Err(ShelfError::NoUpload),
    }
}

/// The names in a folder but those of unfinished files.
fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let Some(entries) = found(fs::read_dir(folder))? else { return Ok(BTreeSet::new()) };
    let mut names = BTreeSet::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok().filter(|name| !name.starts_with('.')));
    }
    Ok(names)
}

fn digest_of(file: &mut File) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Digest::finish(hash));
        }
        hash.update(buffer.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn names_cannot_lead_elsewhere() {
        for good in ["a", "library/redis", "a/b/c_d-e.f"] {
            assert!(Repository::parse(good).is_some(), "{good}");
        }
        for bad in ["", "..", "a/../b", "/a", "a/", "A", "a+b", "a//b", "a:b", "a@b"] {
            assert!(Repository::parse(bad).is_none(), "{bad}");
        }
        for bad in ["", "..", "a/b", "sha256:x", ".x", "sha512:0"] {
            assert!(Which::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_blob_lives_as_long_as_a_repository_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Store::open(folder.path()).unwrap().shelf().unwrap();
        let (a, b) = (Repository::parse("a").unwrap(), Repository::parse("b/c").unwrap());
        let id = shelf.begin().unwrap();
        shelf.upload(&id).unwrap().unwrap().write_all(b"blob").unwrap();
        let digest = Digest::of(b"blob");
        shelf.finish(&a, shelf.upload_alone(&id).unwrap(), &digest).unwrap();
        assert!(!shelf.mount(&b, &digest, Some(&Repository::parse("x").unwrap())).unwrap());
        assert!(shelf.mount(&b, &digest, Some(&a)).unwrap());
        assert!(shelf.delete_blob(&a, &digest).unwrap() && !shelf.delete_blob(&a, &digest).unwrap());
        assert!(shelf.blob(&a, &digest).unwrap().is_none() && shelf.blob(&b, &digest).unwrap().is_some());
        assert!(shelf.delete_blob(&b, &digest).unwrap());
        assert!(!shelf.whole(&digest).exists());
    }

    #[test]
    fn a_blob_stays_what_it_is_whoever_had_it_open_before() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Store::open(folder.path()).unwrap().shelf().unwrap();
        let repository = Repository::parse("a").unwrap();
        let id = shelf.begin().unwrap();
        let mut writer = shelf.upload_alone(&id).unwrap();
        writer.file.write_all(b"blob").unwrap();
        let digest = Digest::of(b"blob");
        assert!(matches!(shelf.upload_alone(&id), Err(ShelfError::Busy)));
        // As a process has it that was forked meanwhile.
        let inherited = writer.file.try_clone().unwrap();
        drop(writer);
        let late = shelf.upload(&id).unwrap().unwrap();
        shelf.finish(&repository, shelf.upload_alone(&id).unwrap(), &digest).unwrap();
        drop(inherited);
        assert!(matches!(lock(late, shelf.upload_path(&id).unwrap()), Err(ShelfError::NoUpload)));
        assert_eq!(fs::read(shelf.whole(&digest)).unwrap(), b"blob");
    }

    #[test]
    fn some_of_the_disk_is_left_to_others() {
        assert!(has_room(100 << 30, 2 << 30) && !has_room(100 << 30, 1 << 30));
        assert!(has_room(1000, 51) && !has_room(1000, 50) && !has_room(0, 0));
    }

    #[test]
    fn a_wrong_digest_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Store::open(folder.path()).unwrap().shelf().unwrap();
        let id = shelf.begin().unwrap();
        let outcome =
            shelf.finish(&Repository::parse("a").unwrap(), shelf.upload_alone(&id).unwrap(), &Digest::of(b"other"));
        assert!(matches!(outcome, Err(ShelfError::WrongDigest { .. })));
        assert!(shelf.upload(&id).unwrap().is_none());
        assert!(shelf.upload("../../images.json").unwrap().is_none());
    }
}
