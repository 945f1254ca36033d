//! What can go wrong with images.

use std::io;
use std::path::{Path, PathBuf};

use super::digest::Digest;

/// A failure of the image store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{text}` is not an image name")]
    BadName { text: String },
    #[error(
        "image `{name}` is not in the store{}; fetch it with `rcompose pull`, load it with `rcompose image load -i FILE`, or make it from a root file system with `rcompose image import FILE {name}`",
        did_you_mean(near)
    )]
    NotFound { name: String, near: Vec<String> },
    #[error("image id `{prefix}` is ambiguous: {} images begin with it", matches.len())]
    AmbiguousId { prefix: String, matches: Vec<Digest> },
    #[error("image `{name}` is in use by a container")]
    InUse { name: String },
    #[error("image `{id}` has several names ({}); remove them one by one", names.join(", "))]
    SeveralNames { id: String, names: Vec<String> },
    #[error("the host image `{name}` is made from this machine and cannot be changed or written out")]
    HostImage { name: String },
    #[error("`{archive}` is not an image archive: {reason}")]
    NotAnImage { archive: String, reason: &'static str },
    #[error("image archive `{archive}` lacks `{member}`")]
    MissingMember { archive: String, member: String },
    #[error("`{member}` of image archive `{archive}` is not valid")]
    BadDocument { archive: String, member: String, source: serde_json::Error },
    #[error("`{member}` of image archive `{archive}` is refused: {reason}")]
    Refused { archive: String, member: String, reason: String },
    #[error("`{member}` has the digest {found}, not {expected}: it is damaged or not what it says it is")]
    WrongDigest { member: String, expected: Digest, found: Digest },
    #[error("layer {layer} cannot be unpacked")]
    Unpack { layer: String, source: UnpackError },
    #[error("layer {layer} in the store is damaged; remove its images and load them again")]
    DamagedLayer { layer: Digest, source: Option<io::Error> },
    #[error("change `{change}` is not valid: {reason}")]
    BadChange { change: String, reason: String },
    #[error("the archive cannot be written")]
    Write(#[source] io::Error),
    #[error("no space left on the disk that holds `{}`", path.display())]
    DiskFull { path: PathBuf },
    #[error("no permission to {doing} `{}`; run as root, or choose another place with RCOMPOSE_ROOT", path.display())]
    NoPermission { doing: &'static str, path: PathBuf },
    #[error("cannot {doing} `{}`", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

fn did_you_mean(near: &[String]) -> String {
    let quoted: Vec<_> = near.iter().map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() { String::new() } else { format!(" (did you mean {}?)", quoted.join(" or ")) }
}

/// Why a layer archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("entry `{entry}` is refused: {reason}")]
    Refused { entry: String, reason: &'static str },
    #[error("entry `{entry}` cannot be created")]
    Create { entry: String, source: io::Error },
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    #[error("its recipe cannot be written")]
    Recipe(#[source] io::Error),
    #[error("it has more than {limit} entries")]
    TooManyEntries { limit: u64 },
    #[error("another layer failed first")]
    Cancelled,
}

impl UnpackError {
    fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Create { source, .. } | Self::Read(source) | Self::Recipe(source) => Some(source),
            Self::Refused { .. } | Self::TooManyEntries { .. } | Self::Cancelled => None,
        }
    }

    /// The layer's error; a full disk is one whatever was being written.
    pub(super) fn of_layer(self, layer: String, folder: &Path) -> Error {
        if self.io().is_some_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            return Error::DiskFull { path: folder.to_owned() };
        }
        Error::Unpack { layer, source: self }
    }
}

/// Names the action and the path of a failed call, for `map_err`.
pub(super) fn cannot(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
    move |source| {
        let path = path.as_ref().to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull => Error::DiskFull { path },
            io::ErrorKind::PermissionDenied => Error::NoPermission { doing, path },
            _ => Error::Io { doing, path, source },
        }
    }
}
