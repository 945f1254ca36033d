//! One layer on its way from an archive into a directory: read and decompressed, hashed, and unpacked, each in a thread.

use std::fs;
use std::io::{self, BufReader, Read};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::compression::Compression;
use super::digest::Digest;
use super::error::{Error, UnpackError, cannot};
use super::recipe::Displaced;
use super::unpack::{Rights, unpack};
use crate::base::disk::{self, Durability};

const CHUNK: usize = 256 * 1024;
/// Chunks on their way between two threads: bounds the memory of a layer to a few MiB.
const IN_FLIGHT: usize = 8;

/// `layer.json`: what the store knows of an unpacked layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Layer {
    /// The digest of the uncompressed archive.
    pub(super) diff_id: Digest,
    /// Sum of the sizes of the regular files, in bytes.
    pub(super) size: u64,
    /// Size of the uncompressed archive, in bytes.
    pub(super) archive_size: u64,
    /// The boot it was made in (see `intake`).
    #[serde(default)]
    pub(super) boot: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) displaced: Vec<Displaced>,
}

impl Layer {
    pub(super) fn read(folder: &Path) -> io::Result<Option<Self>> {
        disk::read_json(&folder.join("layer.json"))
    }
}

/// What a layer must turn out to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    /// Digest of the bytes as they come, compressed or not.
    pub(super) blob: Option<Digest>,
    pub(super) diff_id: Option<Digest>,
}

/// Where a layer is made, and how.
#[derive(Clone, Copy)]
pub(super) struct Workplace<'a> {
    /// To be created.
    pub(super) folder: &'a Path,
    pub(super) rights: Rights,
    /// The present boot.
    pub(super) boot: &'a str,
    /// Set when the work is to end.
    pub(super) stop: &'a AtomicBool,
}

/// Unpacks the layer that `input` is (plain, gzip or zstd) into the new directory `at.folder`, and checks its digests.
/// `name` is for messages. A failure leaves a half-made directory behind, for the caller to discard.
pub(super) fn stage(
    input: impl Read + Send,
    name: &str,
    expected: &Expected,
    at: Workplace<'_>,
) -> Result<Layer, Error> {
    let Workplace { folder, rights, boot, stop } = at;
    fs::create_dir(folder).map_err(cannot("create", folder))?;
    let root = folder.join("fs");
    fs::create_dir(&root).map_err(cannot("create", &root))?;
    let open = rustix::fs::Mode::from_raw_mode(0o755);
    rustix::fs::chmod(&root, open).map_err(io::Error::from).map_err(cannot("open to all", &root))?;
    let known = expected.blob.is_some() || expected.diff_id.is_some();
    let (unpacked, fed, (diff_id, archive_size)) = thread::scope(|scope| {
        let (to_unpack, chunks) = sync_channel(IN_FLIGHT);
        let (to_hash, hashed) = sync_channel(IN_FLIGHT);
        let feeder = scope.spawn(move || feed(input, known, &to_unpack, &to_hash));
        let hasher = scope.spawn(move || hash(&hashed));
        let unpacked = unpack(Chunks { chunks, current: Arc::default(), position: 0 }, folder, rights, stop);
        let fed = feeder.join().unwrap_or_else(|panic| resume_unwind(panic));
        (unpacked, fed, hasher.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let unpacked = match unpacked {
        Ok(unpacked) => unpacked,
        Err(error) => {
            // What cannot be read is most often a damaged archive, and the digest can prove it.
            if matches!(error, UnpackError::Read(_)) {
                match &fed {
                    Fed::Plain => check(name, expected.blob.as_ref().or(expected.diff_id.as_ref()), &diff_id)?,
                    Fed::Compressed(blob) => check(name, expected.blob.as_ref(), blob)?,
                    Fed::Broken => {}
                }
            }
            return Err(error.of_layer(name.to_owned(), folder));
        }
    };
    check(name, expected.blob.as_ref(), if let Fed::Compressed(blob) = &fed { blob } else { &diff_id })?;
    check(name, expected.diff_id.as_ref(), &diff_id)?;
    let layer =
        Layer { diff_id, size: unpacked.size, archive_size, boot: boot.to_owned(), displaced: unpacked.displaced };
    let record = folder.join("layer.json");
    // Synced with all the rest before it is renamed into the store.
    disk::replace_json(&record, &layer, Durability::Kill).map_err(cannot("write", &record))?;
    Ok(layer)
}

fn check(member: &str, expected: Option<&Digest>, found: &Digest) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != found => {
            let (expected, found) = (expected.clone(), found.clone());
            Err(Error::WrongDigest { member: member.to_owned(), expected, found })
        }
        _ => Ok(()),
    }
}

type Chunk = Arc<Vec<u8>>;

/// How the reading ended.
enum Fed {
    /// The bytes were not compressed: their digest is that of the archive.
    Plain,
    /// The digest of the compressed bytes.
    Compressed(Digest),
    /// The bytes could not be read to their end, or nobody wanted that.
    Broken,
}

/// Reads and decompresses. Where the digest is known (`known`), reading goes on after the unpacker has given up, to see
/// whether the bytes are the right ones.
fn feed(input: impl Read, known: bool, unpacker: &SyncSender<io::Result<Chunk>>, hasher: &SyncSender<Chunk>) -> Fed {
    let mut input = BufReader::with_capacity(CHUNK, HashingReader { input, hash: Some(Sha256::new()) });
    let compression = match Compression::sniff(&mut input) {
        Ok(compression) => compression,
        Err(error) => {
            // A receiver that is gone has failed and says so itself; so below.
            let _ = unpacker.send(Err(error));
            return Fed::Broken;
        }
    };
    if compression == Compression::None {
        input.get_mut().hash = None;
    }
    let decoded = compression.decoder(&mut input).and_then(|mut decoder| {
        let mut unpacking = true;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            decoder.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
            let chunk = Arc::new(chunk);
            unpacking = unpacking && unpacker.send(Ok(Arc::clone(&chunk))).is_ok();
            if chunk.is_empty() || !(unpacking || known) || hasher.send(chunk).is_err() {
                return Ok(());
            }
        }
    });
    if let Err(error) = decoded {
        let _ = unpacker.send(Err(error));
        if compression == Compression::None {
            return Fed::Broken;
        }
    }
    // What follows the compressed data is part of the blob.
    if known && compression != Compression::None && io::copy(&mut input, &mut io::sink()).is_err() {
        return Fed::Broken;
    }
    input.into_inner().hash.map_or(Fed::Plain, |hash| Fed::Compressed(Digest::finish(hash)))
}

fn hash(chunks: &Receiver<Chunk>) -> (Digest, u64) {
    let mut hash = Sha256::new();
    let mut size = 0;
    for chunk in chunks {
        hash.update(chunk.as_slice());
        size += chunk.len() as u64;
    }
    (Digest::finish(hash), size)
}

struct HashingReader<R> {
    input: R,
    hash: Option<Sha256>,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(buffer.get(..read).unwrap_or_default());
        }
        Ok(read)
    }
}

/// The unpacker's end of the channel.
struct Chunks {
    chunks: Receiver<io::Result<Chunk>>,
    current: Chunk,
    position: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.current.len() {
            match self.chunks.recv() {
                Ok(chunk) => (self.current, self.position) = (chunk?, 0),
                Err(_the_feeder_is_done) => return Ok(0),
            }
        }
        let mut rest = self.current.get(self.position..).unwrap_or_default();
        let read = rest.read(buffer)?;
        self.position += read;
        Ok(read)
    }
}
