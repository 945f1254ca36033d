//! Where images come from: an archive whose members can be read in any order, or an OCI layout directory.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::de::DeserializeOwned;
use tar::EntryType;

use super::compression::Compression;
use super::error::{Error, cannot};
use super::staging::Staging;
use crate::sys::inroot;

/// An image archive has a few members per layer.
const MAX_MEMBERS: usize = 100_000;
/// Long names and extended headers of one member.
const MAX_HEADER: u64 = 1024 * 1024;
/// Manifests and configurations are kept in memory.
const MAX_DOCUMENT: u64 = 8 * 1024 * 1024;

/// An opened archive or layout.
pub(super) struct Source {
    /// For messages.
    name: String,
    content: Content,
}

enum Content {
    Archive { file: File, members: HashMap<String, Member> },
    Directory(File),
}

enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// Old `docker save` writes a layer that two images share once and links to it.
    Link(String),
}

impl Source {
    /// Opens a directory, an archive, or a pipe that an archive comes through.
    pub(super) fn open(path: &Path, staging: &Staging) -> Result<Self, Error> {
        let name = path.display().to_string();
        let mut file = File::open(path).map_err(cannot("open", path))?;
        let metadata = file.metadata().map_err(cannot("look at", path))?;
        if metadata.is_dir() {
            return Ok(Self { name, content: Content::Directory(file) });
        }
        if !metadata.is_file() {
            return Self::spool(&mut file, name, staging);
        }
        let plain = Compression::sniff(&mut BufReader::new(&file)).map_err(cannot("read", path))?;
        file.rewind().map_err(cannot("read", path))?;
        if plain == Compression::None { Self::index(file, name) } else { Self::spool(&mut file, name, staging) }
    }

    /// Takes an archive, compressed or not, that can only be read once: it is written to a file of the staging directory.
    pub(super) fn spool(input: &mut dyn Read, name: String, staging: &Staging) -> Result<Self, Error> {
        let path = staging.path().join("archive");
        let mut file =
            File::options().read(true).write(true).create_new(true).open(&path).map_err(cannot("create", &path))?;
        let mut input = BufReader::with_capacity(256 * 1024, input);
        let mut decoder = Compression::sniff(&mut input)
            .and_then(|compression| compression.decoder(input))
            .map_err(cannot("read", &name))?;
        io::copy(&mut decoder, &mut file).map_err(cannot("copy the archive to", &path))?;
        file.rewind().map_err(cannot("read", &path))?;
        // Nobody needs its name any more.
        fs::remove_file(&path).map_err(cannot("remove", &path))?;
        Self::index(file, name)
    }

    fn index(file: File, name: String) -> Result<Self, Error> {
        let length = file.metadata().map_err(cannot("look at", &name))?.len();
        let mut members = HashMap::new();
        let mut archive = tar::Archive::new(Bounded { file: &file, header: 0 });
        for entry in archive.entries_with_seek().map_err(cannot("read", &name))? {
            let entry = entry.map_err(|source| match source.kind() {
                io::ErrorKind::Other => Error::NotAnImage { archive: name.clone(), reason: "it is no tar archive" },
                _ => cannot("read", &name)(source),
            })?;
            let member = lexical(&String::from_utf8_lossy(&entry.path_bytes()));
            let refused =
                |reason: &str| Error::Refused { archive: name.clone(), member: member.clone(), reason: reason.into() };
            let found = match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let (offset, size) = (entry.raw_file_position(), entry.size());
                    if offset.checked_add(size).is_none_or(|end| end > length) {
                        return Err(refused("the archive is cut off in it"));
                    }
                    Member::File { offset, size }
                }
                kind @ (EntryType::Symlink | EntryType::Link) => {
                    let target = entry.link_name_bytes().ok_or_else(|| refused("a link without a target"))?;
                    let target = String::from_utf8_lossy(&target).into_owned();
                    let folder = if kind == EntryType::Symlink {
                        member.rsplit_once('/').map_or("", |(folder, _)| folder)
                    } else {
                        ""
                    };
                    Member::Link(lexical(&format!("{folder}/{target}")))
                }
                _ => continue,
            };
            members.insert(member, found);
            if members.len() > MAX_MEMBERS {
                return Err(Error::NotAnImage { archive: name, reason: "it has more than 100000 members" });
            }
        }
        Ok(Self { name, content: Content::Archive { file, members } })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Opens a member; `None` when there is no such thing.
    pub(super) fn member(&self, member: &str) -> Result<Option<Box<dyn Part + '_>>, Error> {
        match &self.content {
            Content::Archive { file, members } => {
                let mut path = lexical(member);
                for _ in 0..8 {
                    match members.get(&path) {
                        None => return Ok(None),
                        Some(Member::Link(target)) => path.clone_from(target),
                        Some(Member::File { offset, size }) => {
                            return Ok(Some(Box::new(Range { file, offset: *offset, left: *size })));
                        }
                    }
                }
                Err(self.refused(member, "it is a circle of links"))
            }
            Content::Directory(root) => match inroot::open_file(root, member.as_bytes()) {
                Ok(file) => Ok(Some(Box::new(file))),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    Err(self.refused(member, "it is no regular file"))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(cannot("open", Path::new(&self.name).join(member))(error)),
            },
        }
    }

    /// Opens a member that must be there.
    pub(super) fn required(&self, member: &str) -> Result<Box<dyn Part + '_>, Error> {
        let missing = || Error::MissingMember { archive: self.name.clone(), member: member.to_owned() };
        self.member(member)?.ok_or_else(missing)
    }

    /// A small member as it is.
    pub(super) fn bytes(&self, member: &str) -> Result<Vec<u8>, Error> {
        let part = self.required(member)?;
        if part.size().map_err(cannot("read", &self.name))? > MAX_DOCUMENT {
            return Err(self.refused(member, "it is larger than 8 MiB"));
        }
        let mut bytes = Vec::new();
        part.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(cannot("read", &self.name))?;
        Ok(bytes)
    }

    pub(super) fn json<T: DeserializeOwned>(&self, member: &str) -> Result<T, Error> {
        self.parse(member, &self.bytes(member)?)
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, member: &str, bytes: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(bytes).map_err(|source| {
            let (archive, member) = (self.name.clone(), member.to_owned());
            Error::BadDocument { archive, member, source }
        })
    }

    pub(super) fn refused(&self, member: &str, reason: impl Into<String>) -> Error {
        Error::Refused { archive: self.name.clone(), member: member.to_owned(), reason: reason.into() }
    }
}

/// A member being read.
pub(super) trait Part: Read + Send {
    /// Its size in bytes.
    fn size(&self) -> io::Result<u64>;
}

impl Part for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// A stretch of the archive; several can be read at once.
struct Range<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Part for Range<'_> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.left)
    }
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(buffer.get_mut(..length).unwrap_or_default(), self.offset)?;
        if read == 0 && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// The archive for the tar reader, which keeps whole headers in memory: it may not read on for long without a seek.
struct Bounded<'a> {
    file: &'a File,
    header: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.header += read as u64;
        if self.header > MAX_HEADER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the header of a member is too long"));
        }
        Ok(read)
    }
}

impl Seek for Bounded<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.header = 0;
        self.file.seek(position)
    }
}

/// `a/./b/../c` is `a/c`; what would lead out of the archive stays at its root.
fn lexical(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
