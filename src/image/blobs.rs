//! What a layer is called at registries: the compressed blobs that it came from or went out as.
//!
//! A layer is kept unpacked, and compressing it again gives another digest than somebody else's compressor. So the store
//! remembers, beside each layer, which blobs it is and who has them: a push need not send what is there.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::File;

use super::compression::Compression;
use super::digest::Digest;
use super::error::{Error, cannot};
use super::manifest::{Descriptor, LAYER_GZIP};
use super::reference::Reference;
use super::store::Store;
use crate::base::disk::{self, Durability};

/// A layer has come in so many forms at most; older ones are forgotten.
const MAX_KNOWN: usize = 8;
/// So many repositories are remembered for each.
const MAX_REPOSITORIES: usize = 16;

/// A blob that is a layer, and the repositories (`docker.io/library/redis`) that had it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownBlob {
    pub blob: Descriptor,
    pub repositories: Vec<String>,
}

impl Store {
    /// The blobs that a layer is known to be, the newest first.
    pub fn known_blobs(&self, layer: &Digest) -> Vec<KnownBlob> {
        // A file that cannot be read only means that more is sent.
        disk::read_json(&self.blobs_path(layer)).ok().flatten().unwrap_or_default()
    }

    /// Remembers that `repository` has the layer as `blob`.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn note_blob(&self, layer: &Digest, blob: &Descriptor, repository: &str) -> Result<(), Error> {
        let _lock = self.lock_database()?;
        let mut known = self.known_blobs(layer);
        let at = known.iter().position(|one| one.blob.digest == blob.digest);
        let mut one = match at {
            Some(at) => known.remove(at),
            None => KnownBlob { blob: blob.clone(), repositories: Vec::new() },
        };
        if at == Some(0) && one.repositories.first().is_some_and(|first| first == repository) {
            return Ok(());
        }
        one.repositories.retain(|there| there != repository);
        one.repositories.insert(0, repository.to_owned());
        one.repositories.truncate(MAX_REPOSITORIES);
        known.insert(0, one);
        known.truncate(MAX_KNOWN);
        let path = self.blobs_path(layer);
        disk::replace_json(&path, &known, Durability::Kill).map_err(cannot("write", &path))
    }

    /// Writes down that a registry has an image under this manifest.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn note_pushed(&self, name: &Reference, manifest: &Digest) -> Result<(), Error> {
        self.change(|database| {
            if let Some(id) = database.names.get(&name.key()).cloned() {
                database.digests.insert(format!("{}@{manifest}", name.repository()), id);
            }
            Ok(())
        })
    }

    /// A layer's archive, compressed, in a file without a name. The same layer gives the same bytes.
    ///
    /// # Errors
    /// The layer is damaged, or the disk is full.
    pub fn compressed(&self, layer: &Digest) -> Result<(Descriptor, File), Error> {
        let mut output = Hashing { file: self.scratch()?, hash: Sha256::new(), size: 0 };
        let mut outcome = Ok(());
        let written = Compression::Gzip.encode(&mut output, |output| {
            match self.write_layer(layer, output) {
                Err(Error::Write(error)) => return Err(error),
                other => outcome = other,
            }
            Ok(())
        });
        written.map_err(cannot("write", self.path("tmp")))?;
        outcome?;
        let Hashing { file, hash, size } = output;
        Ok((Descriptor::new(LAYER_GZIP, Digest::finish(hash), size), file))
    }

    fn blobs_path(&self, layer: &Digest) -> PathBuf {
        self.layer_path(layer).join("blobs.json")
    }
}

struct Hashing {
    file: File,
    hash: Sha256,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
