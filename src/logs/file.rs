//! The two files of one stream, as their writer sees them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
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
    folder: PathBuf,
    stream: Stream,
    /// Data and index; made with the first byte, since many containers never write to one of their streams.
    files: Option<(File, File)>,
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
    /// Opens the files of a stream at their end. Those that are missing (and the folder) are made when there is output.
    pub(super) fn open(folder: &Path, stream: Stream) -> io::Result<Self> {
        let mut file = Self {
            folder: folder.to_owned(),
            stream,
            files: None,
            end: 0,
            index_end: 0,
            indexed: 0,
            start: 0,
            releasable: true,
            last_time: 0,
        };
        if folder.join(stream.data_file()).try_exists()? {
            file.make()?;
        }
        Ok(file)
    }

    /// Opens the files, making them when missing, and finds their ends.
    fn make(&mut self) -> io::Result<()> {
        let open = |name| {
            let path = self.folder.join(name);
            // Not in append mode: splice(2) refuses such files.
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
        };
        let data = open(self.stream.data_file()).or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            fs::create_dir_all(&self.folder)?;
            open(self.stream.data_file())
        })?;
        let index = open(self.stream.index_file())?;
        self.end = data.metadata()?.len();
        self.index_end = index.metadata()?.len() / Record::SIZE as u64 * Record::SIZE as u64;
        let last = match self.index_end.checked_sub(Record::SIZE as u64) {
            Some(offset) => read_record(&index, offset)?,
            None => Record { time: 0, end: 0 },
        };
        self.indexed = last.end.min(self.end);
        self.start = first_data(&data, self.end)?;
        self.last_time = last.time;
        self.files = Some((data, index));
        Ok(())
    }

    pub(super) fn last_time(&self) -> i64 {
        self.last_time
    }

    /// Moves what is in the pipe to the end of the file and indexes it under `time`.
    pub(super) fn take(&mut self, pipe: BorrowedFd<'_>, time: i64) -> io::Result<Moved> {
        // What could not be indexed the last time (the disk was full) comes first.
        self.record(time)?;
        if self.files.is_none() {
            match waiting(pipe)? {
                Moved::Bytes => self.make()?,
                nothing => return Ok(nothing),
            }
        }
        let Some((data, _)) = &self.files else { return Ok(Moved::Empty) };
        let mut offset = self.end;
        match splice(pipe, None, data, Some(&mut offset), BATCH, SpliceFlags::NONBLOCK) {
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
        let Some((_, index)) = self.files.as_ref().filter(|_| self.indexed < self.end) else { return Ok(()) };
        let record = Record { time, end: self.end };
        index.write_all_at(&record.to_bytes(), self.index_end)?;
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
        let Some((data, index)) = self.files.as_ref().filter(|_| self.releasable && keep_from > self.start) else {
            return Ok(());
        };
        if !punch(data, keep_from)? {
            self.releasable = false;
            return Ok(());
        }
        self.start = keep_from;
        let first = partition(index, self.index_end, |record| record.end <= keep_from)?;
        let bytes = first.saturating_sub(Record::SIZE as u64) / BLOCK * BLOCK;
        if bytes > 0 {
            punch(index, bytes)?;
        }
        Ok(())
    }
}

/// What a pipe holds, without taking it.
fn waiting(pipe: BorrowedFd<'_>) -> io::Result<Moved> {
    let mut polled = [PollFd::new(&pipe, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default()))?;
    let [polled] = polled;
    Ok(match polled.revents() {
        events if events.contains(PollFlags::IN) => Moved::Bytes,
        events if events.contains(PollFlags::HUP) => Moved::End,
        _ => Moved::Empty,
    })
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
