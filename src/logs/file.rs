//! The two files of one stream, as their writer sees them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::pipe::{SpliceFlags, splice};

use super::{Record, Stream};

/// As much as one batch moves; also the size asked for pipes.
pub(super) const BATCH: usize = 1 << 20;

/// Page size of the hole: what file systems can release.
const BLOCK: u64 = 4096;

/// What a `splice` did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Moved {
    Bytes,
    /// Nothing is in the pipe now.
    Empty,
    /// Nothing is in the pipe, and nobody holds its write end.
    End,
}

pub(super) struct LogFile {
    data: File,
    index: File,
    /// Length of the data file.
    end: u64,
    /// Length of the index file.
    index_end: u64,
    /// How much of the data file has a record.
    indexed: u64,
    /// Everything before has been released.
    start: u64,
    /// The file system can give back the beginning of a file.
    releasable: bool,
    /// Time of the last record.
    last_time: i64,
}

impl LogFile {
    /// Opens the files of a stream at their end, making them (and the folder) when missing.
    pub(super) fn open(folder: &Path, stream: Stream) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let open = |name| {
            let path = folder.join(name);
            // Not in append mode: splice(2) refuses such files.
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
        };
        let (data, index) = (open(stream.data_file())?, open(stream.index_file())?);
        let end = data.metadata()?.len();
        let index_end = index.metadata()?.len() / Record::SIZE as u64 * Record::SIZE as u64;
        let last = match index_end.checked_sub(Record::SIZE as u64) {
            Some(offset) => read_record(&index, offset)?,
            None => Record { time: 0, end: 0 },
        };
        let start = first_data(&data, end)?;
        Ok(Self {
            data,
            index,
            end,
            index_end,
            indexed: last.end.min(end),
            start,
            releasable: true,
            last_time: last.time,
        })
    }

    pub(super) fn last_time(&self) -> i64 {
        self.last_time
    }

    /// Moves what is in the pipe to the end of the file and indexes it under `time`.
    pub(super) fn take(&mut self, pipe: BorrowedFd<'_>, time: i64) -> io::Result<Moved> {
        // What could not be indexed the last time (the disk was full) comes first.
        self.record(time)?;
        let mut offset = self.end;
        match splice(pipe, None, &self.data, Some(&mut offset), BATCH, SpliceFlags::NONBLOCK) {
            Ok(0) => Ok(Moved::End),
            Ok(count) => {
                self.end += count as u64;
                self.record(time)?;
                Ok(Moved::Bytes)
            }
            Err(rustix::io::Errno::AGAIN) => Ok(Moved::Empty),
            Err(error) => Err(error.into()),
        }
    }

    /// Appends a record for what has none yet.
    pub(super) fn record(&mut self, time: i64) -> io::Result<()> {
        if self.indexed >= self.end {
            return Ok(());
        }
        let record = Record { time, end: self.end };
        self.index.write_all_at(&record.to_bytes(), self.index_end)?;
        self.index_end += Record::SIZE as u64;
        self.indexed = self.end;
        self.last_time = time;
        Ok(())
    }

    /// Bytes that the file holds.
    pub(super) fn held(&self) -> u64 {
        self.end - self.start
    }

    /// Gives about so many bytes of the oldest output back to the file system.
    pub(super) fn release(&mut self, bytes: u64) -> io::Result<()> {
        let keep_from = (self.start + bytes).next_multiple_of(BLOCK).min(self.end / BLOCK * BLOCK);
        if !self.releasable || keep_from <= self.start {
            return Ok(());
        }
        if !punch(&self.data, keep_from)? {
            self.releasable = false;
            return Ok(());
        }
        self.start = keep_from;
        let first = partition(&self.index, self.index_end, |record| record.end <= keep_from)?;
        let bytes = first.saturating_sub(Record::SIZE as u64) / BLOCK * BLOCK;
        if bytes > 0 {
            punch(&self.index, bytes)?;
        }
        Ok(())
    }
}

/// Releases the first `length` bytes; false: the file system cannot, so the file grows on.
fn punch(file: &File, length: u64) -> io::Result<bool> {
    match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, length) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Offset of the first byte that has not been released; the length of the file when there is none.
pub(super) fn first_data(file: &File, length: u64) -> io::Result<u64> {
    if length == 0 {
        return Ok(0);
    }
    match seek(file, SeekFrom::Data(0)) {
        Ok(offset) => Ok(offset),
        Err(rustix::io::Errno::NXIO) => Ok(length),
        Err(rustix::io::Errno::INVAL) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// The record at a byte offset of an index file.
pub(super) fn read_record(index: &File, offset: u64) -> io::Result<Record> {
    let mut bytes = [0; Record::SIZE];
    index.read_exact_at(&mut bytes, offset)?;
    Ok(Record::from_bytes(bytes))
}

/// Byte offset of the first record for which `before` is false, or `length`. Released records count as before.
pub(super) fn partition(index: &File, length: u64, before: impl Fn(Record) -> bool) -> io::Result<u64> {
    let size = Record::SIZE as u64;
    let (mut low, mut high) = (0, length / size);
    while low < high {
        let middle = low + (high - low) / 2;
        let record = read_record(index, middle * size)?;
        if record.end == 0 || before(record) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low * size)
}
