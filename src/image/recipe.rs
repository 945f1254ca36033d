//! Unpacked layers without a second copy of their archive: the recipe to write the same archive again, byte for byte.
//!
//! A recipe holds everything of a tar stream but the contents of regular files, which lie in the unpacked layer. It is a
//! zstd stream of records: `0, length: u32, bytes` (taken as they are) and `1, size: u64, length: u32, path` (contents of
//! that file). All numbers are little-endian.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use crate::sys::inroot;

const BYTES: u8 = 0;
const CONTENT: u8 = 1;
/// Bytes are collected up to this before they become a record.
const RECORD: usize = 64 * 1024;

/// An entry that a later entry of the same archive replaced: it is kept aside, because its contents belong to the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Displaced {
    /// Where it was, from the layer's root.
    pub(super) path: Vec<u8>,
    /// How many contents had been recorded when it was moved.
    pub(super) before: u64,
}

/// A tar stream that writes down what is read through it.
pub(super) struct Recorder<R> {
    input: R,
    state: Rc<RefCell<State>>,
}

/// The other end of a [`Recorder`], for whoever knows what the bytes mean.
#[derive(Clone)]
pub(super) struct RecipeHandle(Rc<RefCell<State>>);

struct State {
    output: zstd::stream::write::Encoder<'static, BufWriter<File>>,
    pending: Vec<u8>,
    /// Reading contents that the layer will hold.
    in_content: bool,
    contents: u64,
}

impl<R: Read> Recorder<R> {
    pub(super) fn new(input: R, output: File) -> io::Result<(Self, RecipeHandle)> {
        let state = Rc::new(RefCell::new(State::new(output)?));
        Ok((Self { input, state: Rc::clone(&state) }, RecipeHandle(state)))
    }
}

impl<R: Read> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        let mut state = self.state.borrow_mut();
        if !state.in_content {
            state.bytes(buffer.get(..read).unwrap_or_default())?;
        }
        Ok(read)
    }
}

impl RecipeHandle {
    /// What is read from here on is the contents of `path`, until [`Self::end_content`].
    pub(super) fn begin_content(&self, size: u64, path: &[u8]) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.begin_content(size, path)?;
        state.in_content = true;
        Ok(())
    }

    pub(super) fn end_content(&self) {
        self.0.borrow_mut().in_content = false;
    }

    /// How many contents have been recorded.
    pub(super) fn contents(&self) -> u64 {
        self.0.borrow().contents
    }

    pub(super) fn finish(self) -> io::Result<()> {
        self.0.borrow_mut().finish()
    }
}

/// Writes the recipe of an archive that is made here, and its digest along with it.
pub(super) struct Writer {
    state: State,
    hash: Sha256,
    size: u64,
}

impl Writer {
    pub(super) fn new(output: File) -> io::Result<Self> {
        Ok(Self { state: State::new(output)?, hash: Sha256::new(), size: 0 })
    }

    /// Bytes of the archive that no file of the layer holds.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.content(bytes);
        self.state.bytes(bytes)
    }

    /// `size` bytes of [`Self::content`] follow, which `path` holds.
    pub(super) fn begin_content(&mut self, size: u64, path: &[u8]) -> io::Result<()> {
        self.state.begin_content(size, path)
    }

    pub(super) fn content(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// The archive's digest and its size in bytes.
    pub(super) fn finish(mut self) -> io::Result<(Digest, u64)> {
        self.state.finish()?;
        Ok((Digest::finish(self.hash), self.size))
    }
}

impl State {
    fn new(output: File) -> io::Result<Self> {
        let output = zstd::stream::write::Encoder::new(BufWriter::new(output), 1)?;
        Ok(Self { output, pending: Vec::new(), in_content: false, contents: 0 })
    }

    fn begin_content(&mut self, size: u64, path: &[u8]) -> io::Result<()> {
        self.flush()?;
        let length = u32::try_from(path.len()).map_err(io::Error::other)?;
        self.output.write_all(&[CONTENT])?;
        self.output.write_all(&size.to_le_bytes())?;
        self.output.write_all(&length.to_le_bytes())?;
        self.output.write_all(path)?;
        self.contents += 1;
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        self.output.do_finish()?;
        self.output.get_mut().flush()
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= RECORD { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(self.pending.len()).map_err(io::Error::other)?;
        self.output.write_all(&[BYTES])?;
        self.output.write_all(&length.to_le_bytes())?;
        self.output.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }
}

/// Why an archive was not written again.
pub(super) enum ReplayError {
    /// The layer or its recipe is damaged.
    Layer(io::Error),
    Output(io::Error),
}

impl From<io::Error> for ReplayError {
    fn from(error: io::Error) -> Self {
        Self::Layer(error)
    }
}

/// Writes the archive of the layer in `folder` (with `fs`, `recipe` and `displaced`) and returns its digest.
pub(super) fn replay(folder: &Path, displaced: &[Displaced], output: &mut dyn Write) -> Result<Digest, ReplayError> {
    let root = File::open(folder.join("fs"))?;
    let mut recipe = BufReader::new(zstd::stream::read::Decoder::new(File::open(folder.join("recipe"))?)?);
    let mut output = Hashing { output, hash: Sha256::new(), buffer: vec![0; RECORD] };
    let displaced = Moves::new(displaced);
    let mut contents = 0;
    let mut kind = [0];
    while recipe.read(&mut kind)? == 1 {
        match kind {
            [BYTES] => {
                let length = read_u32(&mut recipe)?;
                output.copy(&mut recipe, u64::from(length))?;
            }
            [CONTENT] => {
                let size = read_u64(&mut recipe)?;
                let mut path = Vec::new();
                let length = u64::from(read_u32(&mut recipe)?);
                recipe.by_ref().take(length).read_to_end(&mut path)?;
                let mut file = open_content(folder, &root, &path, &displaced, contents)?;
                output.copy(&mut file, size)?;
                contents += 1;
            }
            _ => return Err(ReplayError::Layer(io::ErrorKind::InvalidData.into())),
        }
    }
    Ok(Digest::finish(output.hash))
}

/// What was moved, by where it was: number and [`Displaced::before`], both growing.
struct Moves<'a>(HashMap<&'a [u8], Vec<(usize, u64)>>);

impl<'a> Moves<'a> {
    fn new(displaced: &'a [Displaced]) -> Self {
        let mut moves: HashMap<_, Vec<_>> = HashMap::new();
        for (number, displaced) in displaced.iter().enumerate() {
            moves.entry(displaced.path.as_slice()).or_default().push((number, displaced.before));
        }
        Self(moves)
    }

    /// The first of them that took `path` along after contents number `contents` had been recorded, and the path inside.
    fn of<'b>(&self, path: &'b [u8], contents: u64) -> Option<(usize, &'b [u8])> {
        if self.0.is_empty() {
            return None;
        }
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| index);
        let moved = slashes.chain([path.len()]).filter_map(|end| {
            let (outer, rest) = path.split_at(end);
            let moves = self.0.get(outer)?;
            let first = moves.partition_point(|(_, before)| *before <= contents);
            Some((moves.get(first)?.0, rest))
        });
        moved.min_by_key(|(number, _)| *number)
    }
}

/// Finds the contents that were recorded as number `contents`: in the layer, or where a later entry moved them.
fn open_content(folder: &Path, root: &File, path: &[u8], displaced: &Moves<'_>, contents: u64) -> io::Result<File> {
    match displaced.of(path, contents) {
        None => inroot::open_file(root, path),
        Some((number, rest)) => {
            let aside = File::open(folder.join("displaced"))?;
            inroot::open_file(&aside, &[number.to_string().as_bytes(), rest].concat())
        }
    }
}

struct Hashing<'a> {
    output: &'a mut dyn Write,
    hash: Sha256,
    buffer: Vec<u8>,
}

impl Hashing<'_> {
    /// Copies exactly `size` bytes.
    fn copy(&mut self, input: &mut impl Read, size: u64) -> Result<(), ReplayError> {
        let mut left = size;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let read = input.read(self.buffer.get_mut(..length).unwrap_or_default())?;
            if read == 0 {
                return Err(ReplayError::Layer(io::ErrorKind::UnexpectedEof.into()));
            }
            let bytes = self.buffer.get(..read).unwrap_or_default();
            self.hash.update(bytes);
            self.output.write_all(bytes).map_err(ReplayError::Output)?;
            left -= read as u64;
        }
        Ok(())
    }
}

fn read_u32(input: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn read_u64(input: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    input.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
