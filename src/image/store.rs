//! The store on disk and its table of images: open, resolve, list, tag, remove.
//!
//! Below `<data_dir>/images`:
//! ```text
//! images.json             images and names, replaced whole under `lock`
//! blobs/sha256/<hex>      image configurations, by digest (the image's id)
//! layers/<hex>/fs         a layer unpacked for overlayfs, by the digest of its uncompressed archive
//! layers/<hex>/recipe     how to write that archive again (see `recipe`)
//! layers/<hex>/layer.json sizes
//! host/<hex>/fs           the bottom layer of the host image, by a hash of what it was made from
//! empty                   the layer of images that have none
//! tmp/                    unfinished work, each directory locked by its maker
//! build/steps/<key>       which build step made which layer (see `steps`)
//! layers.lock             which layers somebody is working with (see `locks`)
//! ```

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::archive;
use super::config::ImageDocument;
use super::database::{Database, Record};
use super::digest::Digest;
use super::error::{Error, cannot};
use super::host;
use super::reference::Reference;
use super::unpack::Rights;
use crate::base::disk::{self, Durability};
use crate::base::trash::Trash;

/// The images of one data directory. Any number of processes may use it at once.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    trash: Trash,
    rights: Rights,
}

/// An image that containers can be made from.
#[derive(Clone, Debug)]
pub struct Image {
    pub id: Digest,
    /// Its names, short (`redis:7`), sorted.
    pub names: Vec<String>,
    pub document: ImageDocument,
    /// Directories for overlayfs, topmost first (the order of its `lowerdir`); never empty.
    pub layers: Vec<PathBuf>,
    /// Trees of the host that belong into the root, each copy-on-write. Only the host image has them.
    pub binds: Vec<HostTree>,
    /// Sum of the layers, unpacked, in bytes; without `binds`.
    pub size: u64,
}

/// A directory of the host that is part of an image's root: to be mounted as the lower layer of an overlay of its own,
/// without the mounts that lie in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTree {
    pub host: PathBuf,
    /// Absolute, as seen from inside; the directory is there.
    pub target: PathBuf,
}

/// What a removal did, in the words that people see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone, short.
    pub untagged: Vec<String>,
    /// Images that are gone.
    pub deleted: Vec<Digest>,
}

/// How a person named an image.
enum Target {
    Name(Reference, Digest),
    Id(Digest),
}

impl Store {
    /// Opens the store below `data_dir`, and makes it if there is none.
    ///
    /// # Errors
    /// Its directories cannot be made.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let folder = data_dir.join("images");
        // Closed to other users: the layers hold set-id programs.
        for name in ["", "blobs/sha256", "layers", "host", "empty", "tmp"] {
            let path = folder.join(name);
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(cannot("create", &path))?;
        }
        let open = Permissions::from_mode(0o755);
        fs::set_permissions(folder.join("empty"), open).map_err(cannot("open to all", folder.join("empty")))?;
        Ok(Self { folder, trash: Trash::new(data_dir), rights: Rights::of_this_process() })
    }

    /// Finds an image by name (`redis`, `redis:7`, `redis@sha256:…`), id, or the beginning of an id.
    /// `rcompose/host` is the host image, made on the spot.
    ///
    /// # Errors
    /// There is no such image, or what there is of it is damaged.
    pub fn resolve(&self, name: &str) -> Result<Image, Error> {
        if let Some(image) = host::find(self, name)? {
            return Ok(image);
        }
        let database = self.database()?;
        let (Target::Name(_, id) | Target::Id(id)) = find(&database, name)?;
        self.image(&database, id)
    }

    /// All images, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let database = self.database()?;
        let mut images =
            database.images.keys().map(|id| self.image(&database, id.clone())).collect::<Result<Vec<_>, _>>()?;
        images.sort_by(|a, b| (a.names.is_empty(), &a.names, &a.id).cmp(&(b.names.is_empty(), &b.names, &b.id)));
        Ok(images)
    }

    /// Gives an image one more name; if that was another image's, it goes over.
    ///
    /// # Errors
    /// There is no such image, or `name` is no name for one.
    pub fn tag(&self, image: &str, name: &str) -> Result<(), Error> {
        let bad = || Error::BadName { text: name.to_owned() };
        let reference = Reference::parse(name).filter(|reference| reference.digest().is_none()).ok_or_else(bad)?;
        if host::is_host(image) || host::is_host(name) {
            return Err(Error::HostImage { name: host::NAME.to_owned() });
        }
        self.change(|database| {
            let (Target::Name(_, id) | Target::Id(id)) = find(database, image)?;
            database.name(reference.key(), id, jiff::Timestamp::now().as_second());
            Ok(())
        })
    }

    /// Takes a name away; with its last name, or by its id, the image goes, and the layers that no other image has.
    /// The files lie in the trash afterwards. `in_use` are the ids that containers were made from.
    ///
    /// # Errors
    /// There is no such image, a container uses it, or it was named by its id and has several names.
    pub fn remove(&self, image: &str, in_use: &BTreeSet<Digest>) -> Result<Removed, Error> {
        if host::is_host(image) {
            return Err(Error::HostImage { name: host::NAME.to_owned() });
        }
        let _lock = self.lock_database()?;
        let mut database = self.database()?;
        let (names, id) = match find(&database, image)? {
            Target::Name(name, id) => (vec![name.key()], id),
            Target::Id(id) => (database.names_of(&id), id),
        };
        let untagged: Vec<_> = names.iter().map(|name| familiar(name)).collect();
        let goes = database.names_of(&id).iter().all(|name| names.contains(name));
        if goes && in_use.contains(&id) {
            return Err(Error::InUse { name: untagged.first().cloned().unwrap_or_else(|| id.short().to_owned()) });
        }
        if names.len() > 1 {
            return Err(Error::SeveralNames { id: id.short().to_owned(), names: untagged });
        }
        database.names.retain(|name, _| !names.contains(name));
        database.named_at.retain(|name, _| !names.contains(name));
        database.digests.retain(|name, there| !(names.contains(name) || (goes && *there == id)));
        if goes {
            database.images.remove(&id);
        }
        // First the table, so that a kill leaves too much and never too little.
        self.write_database(&database)?;
        let deleted = if goes { vec![id] } else { Vec::new() };
        for id in &deleted {
            self.discard_config(id)?;
        }
        if goes {
            self.discard_layers(&database)?;
        }
        Ok(Removed { untagged, deleted })
    }

    pub(super) fn discard_config(&self, id: &Digest) -> Result<(), Error> {
        let config = self.config_path(id);
        self.trash.discard(&config).map_err(cannot("discard", &config))
    }

    /// Discards the layers that are of no use to images or the build cache.
    pub(super) fn discard_unused_layers(&self) -> Result<(), Error> {
        let _lock = self.lock_database()?;
        self.discard_layers(&self.database()?).map(drop)
    }

    /// Writes a tree out as a tar archive: what a container's processes see of their root.
    ///
    /// # Errors
    /// The tree cannot be read, or what `output` returns.
    pub fn export(&self, root: &OwnedFd, output: &mut dyn Write) -> io::Result<()> {
        archive::write(root, self.rights(), &[], output)
    }

    fn image(&self, database: &Database, id: Digest) -> Result<Image, Error> {
        let gone = || Error::NotFound { name: id.to_string(), near: Vec::new() };
        let Record { layers, size } = database.images.get(&id).cloned().ok_or_else(gone)?;
        let (_, document) = self.document(&id)?;
        let mut paths = Vec::with_capacity(layers.len());
        for (number, layer) in layers.iter().enumerate().rev() {
            // Overlayfs takes no directory twice, and a layer's upper occurrence covers all that the lower one does.
            if layers.iter().skip(number + 1).any(|upper| upper == layer) {
                continue;
            }
            let path = self.layer_path(layer).join("fs");
            if !path.is_dir() {
                return Err(Error::DamagedLayer { layer: layer.clone(), source: None });
            }
            paths.push(path);
        }
        if paths.is_empty() {
            paths.push(self.path("empty"));
        }
        let mut names: Vec<_> = database.names_of(&id).iter().map(|name| familiar(name)).collect();
        names.sort();
        Ok(Image { id, names, document, layers: paths, binds: Vec::new(), size })
    }

    /// The configuration, as it was written and as it reads.
    ///
    /// # Errors
    /// It is not there or damaged.
    pub fn document(&self, id: &Digest) -> Result<(Vec<u8>, ImageDocument), Error> {
        let path = self.config_path(id);
        let bytes = fs::read(&path).map_err(cannot("read", &path))?;
        let found = Digest::of(&bytes);
        if found != *id {
            return Err(Error::WrongDigest { member: path.display().to_string(), expected: id.clone(), found });
        }
        let document = serde_json::from_slice(&bytes).map_err(io::Error::from).map_err(cannot("read", &path))?;
        Ok((bytes, document))
    }

    pub(super) fn write_config(&self, id: &Digest, bytes: &[u8]) -> Result<(), Error> {
        let path = self.config_path(id);
        disk::replace(&path, bytes, Durability::PowerLoss).map_err(cannot("write", &path))
    }

    /// Changes the table while nobody else does; a failed change leaves it as it was.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Database) -> Result<T, Error>) -> Result<T, Error> {
        let _lock = self.lock_database()?;
        let mut database = self.database()?;
        let outcome = change(&mut database)?;
        self.write_database(&database)?;
        Ok(outcome)
    }

    /// Held until the file is dropped.
    pub(super) fn lock_database(&self) -> Result<File, Error> {
        let path = self.path("lock");
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(cannot("open", &path))?;
        file.lock().map_err(cannot("lock", &path))?;
        Ok(file)
    }

    pub(super) fn database(&self) -> Result<Database, Error> {
        let path = self.path("images.json");
        Database::read(&path).map_err(cannot("read", &path))
    }

    pub(super) fn write_database(&self, database: &Database) -> Result<(), Error> {
        let path = self.path("images.json");
        database.write(&path).map_err(cannot("write", &path))
    }

    /// The layers that images have.
    pub(super) fn layers_of_images(&self) -> Result<BTreeSet<Digest>, Error> {
        Ok(self.database()?.images.into_values().flat_map(|record| record.layers).collect())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn layer_path(&self, layer: &Digest) -> PathBuf {
        self.folder.join("layers").join(layer.hex())
    }

    fn config_path(&self, id: &Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(id.hex())
    }

    pub(super) fn trash(&self) -> &Trash {
        &self.trash
    }

    pub(super) fn rights(&self) -> Rights {
        self.rights
    }
}

fn find(database: &Database, text: &str) -> Result<Target, Error> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let reference = Reference::parse(text);
    if let Some(id) = Digest::from_hex(digits).filter(|id| database.images.contains_key(id)) {
        return Ok(Target::Id(id));
    }
    if let Some(name) = &reference
        && let Some(id) = database.names.get(&name.key()).or_else(|| database.digests.get(&name.key()))
    {
        return Ok(Target::Name(name.clone(), id.clone()));
    }
    let is_prefix = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let matches: Vec<_> =
        database.images.keys().filter(|id| is_prefix && id.hex().starts_with(digits)).cloned().collect();
    match matches.as_slice() {
        [id] => Ok(Target::Id(id.clone())),
        [] if reference.is_none() && !is_prefix => Err(Error::BadName { text: text.to_owned() }),
        [] => Err(Error::NotFound { name: text.to_owned(), near: near(database, text) }),
        _ => Err(Error::AmbiguousId { prefix: text.to_owned(), matches }),
    }
}

/// Names that may have been meant: the same repository, or nearly the same spelling.
fn near(database: &Database, text: &str) -> Vec<String> {
    let repository = |name: &str| Reference::parse(name).map(|name| name.repository());
    let wanted = repository(text);
    let mut found: Vec<(usize, String)> = database
        .names
        .keys()
        .filter_map(|key| {
            let name = familiar(key);
            let without_tag = name.strip_suffix(":latest").unwrap_or(&name);
            let distance = if wanted.is_some() && repository(key) == wanted {
                0
            } else {
                strsim::damerau_levenshtein(text, without_tag)
            };
            (distance <= text.len() / 4 + 1).then_some((distance, name))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).take(3).collect()
}

pub(super) fn familiar(key: &str) -> String {
    Reference::parse(key).map_or_else(|| key.to_owned(), |reference| reference.familiar())
}
