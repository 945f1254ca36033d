//! Reading a tar stream of foreign origin entry by entry: ustar, GNU and pax, in bounded memory.
//!
//! The `tar` crate decodes the fields of a header; its own reader keeps extended headers of any size in memory and cuts pax
//! values (such as file capabilities) at line ends.

use std::io::{self, Read};

use rustix::fs::Timespec;
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

const BLOCK: usize = 512;
/// Long names and extended headers of one entry, in bytes.
const MAX_EXTENDED: u64 = 1024 * 1024;

/// An entry without its contents.
pub(crate) struct Entry {
    pub(crate) kind: EntryType,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Option<Vec<u8>>,
    /// The fields that nothing overrides.
    pub(crate) header: Header,
    /// How many bytes of contents are in the stream.
    pub(crate) size: u64,
    /// For a sparse file: where the bytes in the stream belong, and how long the file is.
    pub(crate) sparse: Option<(Vec<Stretch>, u64)>,
    pub(crate) extended: Extended,
}

/// Bytes of a sparse file that are not a hole.
pub(crate) struct Stretch {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// What pax and GNU headers say of the entry that follows them.
#[derive(Default)]
pub(crate) struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<Timespec>,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    /// The entry is a sparse file in one of pax's own encodings.
    pub(crate) pax_sparse: bool,
}

/// The entries of a stream. Reading from it gives the contents of the last entry.
pub(crate) struct Entries<R> {
    input: R,
    left: u64,
    padding: u64,
}

impl<R: Read> Entries<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0 }
    }

    /// Goes on to the next entry, over what was not read of the last; `None` at the end of the archive.
    pub(crate) fn advance(&mut self) -> io::Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            let rest = self.left + self.padding;
            self.skip(rest)?;
            (self.left, self.padding) = (0, 0);
            let Some(header) = self.header()? else { return Ok(None) };
            match header.entry_type() {
                EntryType::XHeader => extended.parse(&self.body(&header)?)?,
                EntryType::XGlobalHeader => drop(self.body(&header)?),
                EntryType::GNULongName => extended.path = Some(text(self.body(&header)?)),
                EntryType::GNULongLink => extended.link = Some(text(self.body(&header)?)),
                kind => return self.entry(kind, header, extended).map(Some),
            }
        }
    }

    /// Reads the stream to its end, beyond the end of the archive.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self.input, &mut io::sink()).map(drop)
    }

    fn entry(&mut self, mut kind: EntryType, header: Header, mut extended: Extended) -> io::Result<Entry> {
        let path = extended.path.take().unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extended.link.take().or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        if kind == EntryType::Regular && path.ends_with(b"/") {
            kind = EntryType::Directory; // as tar wrote them before there was a type for it
        }
        let mut size = extended.size.map_or_else(|| header.entry_size(), Ok)?;
        let sparse = if kind == EntryType::GNUSparse { Some(self.sparse_map(&header, size)?) } else { None };
        if has_no_contents(kind) {
            size = 0; // these have no contents, whatever the field says
        }
        self.expect(size)?;
        Ok(Entry { kind, path, link, header, size, sparse, extended })
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(block.get_mut(filled..).unwrap_or_default()) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The sum of all bytes, with blanks in place of the sum itself.
        let sum =
            |range: std::ops::Range<usize>| block.get(range).into_iter().flatten().map(|b| u32::from(*b)).sum::<u32>();
        let found = sum(0..148) + sum(156..BLOCK) + 8 * u32::from(b' ');
        if header.cksum()? == found { Ok(Some(header)) } else { Err(invalid("the checksum of a header is wrong")) }
    }

    /// The contents of an extension header.
    fn body(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let size = header.entry_size()?;
        if size > MAX_EXTENDED {
            return Err(invalid("the extended header of an entry is too long"));
        }
        self.expect(size)?;
        let mut body = Vec::new();
        self.read_to_end(&mut body)?;
        Ok(body)
    }

    fn sparse_map(&mut self, header: &Header, size: u64) -> io::Result<(Vec<Stretch>, u64)> {
        let gnu = header.as_gnu().ok_or_else(|| invalid("a sparse file without a GNU header"))?;
        let real_size = gnu.real_size()?;
        let mut map = Vec::new();
        let mut stored: u64 = 0;
        let mut add = |blocks: &[GnuSparseHeader]| -> io::Result<()> {
            for block in blocks.iter().filter(|block| !block.is_empty()) {
                let (offset, length) = (block.offset()?, block.length()?);
                let end = offset.checked_add(length).filter(|end| *end <= real_size);
                stored = stored.checked_add(length).filter(|stored| *stored <= size).unwrap_or(u64::MAX);
                if end.is_none() || stored == u64::MAX {
                    return Err(invalid("the map of a sparse file does not fit the file"));
                }
                map.push(Stretch { offset, length });
            }
            Ok(())
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        let mut blocks = 0;
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.input.read_exact(block.as_mut_bytes())?;
            add(block.sparse())?;
            more = block.is_extended();
            blocks += BLOCK as u64;
            if blocks > MAX_EXTENDED {
                return Err(invalid("the map of a sparse file is too long"));
            }
        }
        if stored == size {
            Ok((map, real_size))
        } else {
            Err(invalid("the map of a sparse file does not fit the file"))
        }
    }

    fn expect(&mut self, size: u64) -> io::Result<()> {
        let padding = size.wrapping_neg() % BLOCK as u64;
        size.checked_add(padding).ok_or_else(|| invalid("the size of an entry is impossible"))?;
        (self.left, self.padding) = (size, padding);
        Ok(())
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.input.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.input.read(buffer.get_mut(..length).unwrap_or_default())?;
        if read == 0 && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

impl Extended {
    /// Takes pax records, `length key=value\n` each; an empty value takes an earlier one back.
    fn parse(&mut self, mut records: &[u8]) -> io::Result<()> {
        while !records.is_empty() {
            let bad = || invalid("an extended header is malformed");
            let blank = records.iter().take(20).position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length = records.get(..blank).and_then(|digits| str::from_utf8(digits).ok()?.parse::<usize>().ok());
            let length = length.filter(|length| *length > blank + 1 && *length <= records.len()).ok_or_else(bad)?;
            let (record, rest) = records.split_at(length);
            let record = record.get(blank + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(bad)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            let (key, value) = (record.get(..equals).unwrap_or_default(), record.get(equals + 1..).unwrap_or_default());
            self.record(str::from_utf8(key).map_err(|_| bad())?, value).ok_or_else(bad)?;
            records = rest;
        }
        Ok(())
    }

    fn record(&mut self, key: &str, value: &[u8]) -> Option<()> {
        let bytes = || (!value.is_empty()).then(|| value.to_owned());
        let number = || match value {
            b"" => Some(None),
            value => str::from_utf8(value).ok()?.parse::<u64>().ok().map(Some),
        };
        match key {
            "path" => self.path = bytes(),
            "linkpath" => self.link = bytes(),
            "size" => self.size = number()?,
            "uid" => self.uid = number()?,
            "gid" => self.gid = number()?,
            "mtime" if value.is_empty() => self.mtime = None,
            "mtime" => self.mtime = Some(parse_time(str::from_utf8(value).ok()?)?),
            _ if key.starts_with("GNU.sparse.") => self.pax_sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    self.xattrs.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        Some(())
    }
}

/// GNU ends its long names with a NUL.
fn text(mut body: Vec<u8>) -> Vec<u8> {
    let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
    body.truncate(end);
    body
}

fn has_no_contents(kind: EntryType) -> bool {
    use EntryType::{Block, Char, Directory, Fifo, Link, Symlink};
    matches!(kind, Link | Symlink | Char | Block | Directory | Fifo)
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Seconds since 1970 with a fraction, such as `-1.5`.
fn parse_time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let (seconds, nanoseconds): (i64, i64) = (seconds.parse().ok()?, digits.parse().ok()?);
    match (text.starts_with('-'), nanoseconds) {
        (true, 1..) => Some(Timespec { tv_sec: seconds.checked_sub(1)?, tv_nsec: 1_000_000_000 - nanoseconds }),
        (_, 0..) => Some(Timespec { tv_sec: seconds, tv_nsec: nanoseconds }),
        _ => None,
    }
}
