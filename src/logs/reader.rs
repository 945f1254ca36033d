//! Reads the files of many containers as one sequence of lines, in the order they were printed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::file::{first_data, partition, read_record};
use super::{Record, Stream};

/// Read at once. Of a line no more is kept in memory: a longer one is looked through for its end, and read once more to be shown.
const CHUNK: usize = 256 * 1024;

/// One container's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Handed back with each line.
    pub name: String,
    /// Its log folder; need not exist yet.
    pub folder: PathBuf,
    /// While it runs, a line without its end is held back.
    pub running: bool,
    /// How much of each stream is passed over, as [`lengths`] had it.
    pub from: [u64; 2],
}

/// How much a container has printed on each stream so far. Unlike a time, this goes forward whatever becomes of the machine's clock.
///
/// # Errors
/// When the log cannot be read.
pub fn lengths(folder: &Path) -> io::Result<[u64; 2]> {
    let length = |stream: Stream| match std::fs::metadata(folder.join(stream.data_file())) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    };
    let [stdout, stderr] = Stream::BOTH;
    Ok([length(stdout)?, length(stderr)?])
}

/// Which lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Only so many last lines of each container.
    pub tail: Option<usize>,
    /// Nanoseconds since the epoch: not older.
    pub since: Option<i64>,
    /// Nanoseconds since the epoch: not newer.
    pub until: Option<i64>,
    /// Not lines, but bytes as they come: their ends are in the text then.
    pub raw: bool,
}

/// A line of output, or a piece of a long one: nothing else comes between its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub container: &'a str,
    pub stream: Stream,
    /// Nanoseconds since the epoch.
    pub time: i64,
    /// As printed, without the `\n`: any bytes.
    pub text: &'a [u8],
    /// It is the first piece.
    pub begins: bool,
    /// It is the last piece.
    pub ends: bool,
    /// A `\n` comes after this piece. None does when the program ended without it.
    pub complete: bool,
}

/// A merged view of several logs that can be read on as they grow.
pub struct LogReader {
    containers: Vec<Container>,
    /// Two per container, in its order.
    cursors: Vec<Cursor>,
    query: Query,
}

struct Container {
    source: Source,
    /// Lines still to leave out: the tails of both streams together are longer than the tail asked for.
    skip: usize,
}

impl LogReader {
    /// # Errors
    /// When a log cannot be read.
    pub fn open(sources: Vec<Source>, query: Query) -> io::Result<Self> {
        let mut reader = Self { containers: Vec::new(), cursors: Vec::new(), query };
        for source in sources {
            reader.add(source, query)?;
        }
        Ok(reader)
    }

    /// Brings the list up to date: a container that is new is read from its beginning, one that is gone to its end,
    /// and `running` is taken over.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn update(&mut self, sources: Vec<Source>) -> io::Result<()> {
        for container in &mut self.containers {
            container.source.running = false;
        }
        for source in sources {
            match self.containers.iter_mut().find(|known| known.source.folder == source.folder) {
                Some(known) => known.source.running = source.running,
                None => self.add(source, Query { tail: None, ..self.query })?,
            }
        }
        Ok(())
    }

    /// The log folders being read.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.containers.iter().map(|container| container.source.folder.as_path())
    }

    fn add(&mut self, source: Source, query: Query) -> io::Result<()> {
        let mut lines = 0;
        for (stream, passed) in Stream::BOTH.into_iter().zip(source.from) {
            let mut cursor = Cursor::new(&source.folder, stream, query.raw);
            lines += cursor.position(query, passed)?;
            self.cursors.push(cursor);
        }
        let skip = query.tail.map_or(0, |tail| lines.saturating_sub(tail));
        self.containers.push(Container { source, skip });
        Ok(())
    }

    /// Hands out every line there is and that was not handed out yet.
    ///
    /// # Errors
    /// When a log cannot be read, or what `emit` returns.
    pub fn read(&mut self, emit: &mut dyn FnMut(Line<'_>) -> io::Result<()>) -> io::Result<()> {
        // The writer is one thread whose times grow: once a record is seen, all earlier ones are on disk. So the
        // newest record seen in a first look bounds what a second look can put in order.
        let mut horizon = i64::MIN;
        for cursor in &mut self.cursors {
            horizon = horizon.max(cursor.refresh()?);
        }
        for cursor in &mut self.cursors {
            cursor.refresh()?;
        }
        let stopped = |index: usize, containers: &[Container]| {
            containers.get(index / 2).is_some_and(|container| !container.source.running)
        };
        for (index, cursor) in self.cursors.iter_mut().enumerate() {
            if stopped(index, &self.containers) {
                horizon = horizon.max(cursor.adopt_rest()?);
            }
        }
        let mut order = BinaryHeap::new();
        for (index, cursor) in self.cursors.iter_mut().enumerate() {
            if let Some(time) = cursor.find(stopped(index, &self.containers))? {
                order.push(Reverse((time, index)));
            }
        }
        while let Some(Reverse((mut time, index))) = order.pop() {
            if time > horizon || self.query.until.is_some_and(|until| time > until) {
                break;
            }
            let next = order.peek().map_or(i64::MAX, |Reverse((time, _))| *time).min(horizon);
            let (Some(cursor), Some(container)) = (self.cursors.get_mut(index), self.containers.get_mut(index / 2))
            else {
                break;
            };
            // Lines of one stream in a row need no queue.
            while time <= next && self.query.until.is_none_or(|until| time <= until) {
                if container.skip > 0 {
                    container.skip -= 1;
                } else if self.query.since.is_none_or(|since| time >= since) {
                    cursor.emit(&container.source.name, time, emit)?;
                }
                cursor.consume();
                match cursor.find(!container.source.running)? {
                    Some(next_time) => time = next_time,
                    None => {
                        time = i64::MIN;
                        break;
                    }
                }
            }
            if time > i64::MIN {
                order.push(Reverse((time, index)));
            }
        }
        Ok(())
    }
}

/// Where the next line ends, and where what follows it begins.
enum Found {
    InBuffer { end: usize, next: usize },
    InFile { end: u64, next: u64 },
}

/// A place in one stream's files.
struct Cursor {
    stream: Stream,
    folder: PathBuf,
    raw: bool,
    files: Option<(File, File)>,
    /// Bytes of the data file from `offset` on; `at` is the beginning of the next line, `found` the end of it.
    buffer: Vec<u8>,
    offset: u64,
    at: usize,
    found: Found,
    /// Where in `buffer` to go on looking for the end of the line.
    scanned: usize,
    /// The same in the file, for a line that is too long for the buffer.
    long: Option<u64>,
    /// How far the data file may be read: as far as it is indexed.
    readable: u64,
    /// Records not yet passed, oldest first.
    records: std::collections::VecDeque<Record>,
    index_offset: u64,
}

impl Cursor {
    fn new(folder: &Path, stream: Stream, raw: bool) -> Self {
        Self {
            stream,
            raw,
            folder: folder.to_owned(),
            files: None,
            buffer: Vec::new(),
            offset: 0,
            at: 0,
            found: Found::InBuffer { end: 0, next: 0 },
            scanned: 0,
            long: None,
            readable: 0,
            records: std::collections::VecDeque::new(),
            index_offset: 0,
        }
    }

    /// Opens the files when there are any by now.
    fn open(&mut self) -> io::Result<bool> {
        if self.files.is_none() {
            let open = |name| match File::open(self.folder.join(name)) {
                Ok(file) => Ok(Some(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            };
            let found = (open(self.stream.data_file())?, open(self.stream.index_file())?);
            if let (Some(data), Some(index)) = found {
                self.files = Some((data, index));
            }
        }
        Ok(self.files.is_some())
    }

    /// Goes to where the query begins, not before `passed`; tells how many lines the tail has.
    fn position(&mut self, query: Query, passed: u64) -> io::Result<usize> {
        if !self.open()? {
            return Ok(0);
        }
        let Some((data, index)) = &self.files else { return Ok(0) };
        let length = data.metadata()?.len();
        let start = first_data(data, length)?;
        let mut from = if start == 0 { 0 } else { line_after(data, start, length)? };
        from = from.max(passed.min(length));
        let index_length = index.metadata()?.len();
        if let Some(since) = query.since {
            let first = partition(index, index_length, |record| record.time < since)?;
            if let Some(previous) = first.checked_sub(Record::SIZE as u64) {
                let batch = read_record(index, previous)?.end;
                from = from.max(if batch == 0 { 0 } else { line_after(data, batch - 1, length)? });
            }
        }
        let mut lines = 0;
        if let Some(tail) = query.tail {
            (from, lines) = last_lines(data, from, length, tail)?;
        }
        self.offset = from;
        self.index_offset = partition(index, index_length, |record| record.end <= from)?;
        Ok(lines)
    }

    /// Takes in what has been indexed since; the time of the newest record, or the least time.
    fn refresh(&mut self) -> io::Result<i64> {
        if !self.open()? {
            return Ok(i64::MIN);
        }
        let Some((_, index)) = &self.files else { return Ok(i64::MIN) };
        let length = index.metadata()?.len() / Record::SIZE as u64 * Record::SIZE as u64;
        if length > self.index_offset {
            let mut bytes = vec![0; usize::try_from(length - self.index_offset).unwrap_or(CHUNK)];
            index.read_exact_at(&mut bytes, self.index_offset)?;
            let (records, _) = bytes.as_chunks::<{ Record::SIZE }>();
            let records = records.iter().map(|bytes| Record::from_bytes(*bytes)).filter(|record| record.end > 0);
            self.records.extend(records);
            self.index_offset = length;
        }
        let Some(last) = self.records.back() else { return Ok(i64::MIN) };
        self.readable = self.readable.max(last.end);
        Ok(last.time)
    }

    /// Of a container that has ended: makes what its writer could not index readable. The time it gets.
    fn adopt_rest(&mut self) -> io::Result<i64> {
        let Some((data, _)) = &self.files else { return Ok(i64::MIN) };
        let metadata = data.metadata()?;
        let changed = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let last = self.records.back().copied().unwrap_or(Record { time: i64::MIN, end: self.readable });
        let time = i64::try_from(changed).unwrap_or(i64::MAX).max(last.time.saturating_add(1));
        if metadata.len() <= last.end.max(self.offset) {
            return Ok(last.time);
        }
        self.records.push_back(Record { time, end: metadata.len() });
        self.readable = metadata.len();
        Ok(time)
    }

    /// Finds the next line and its time. `partial`: also one without its end.
    fn find(&mut self, partial: bool) -> io::Result<Option<i64>> {
        if self.raw {
            return self.find_bytes();
        }
        loop {
            if let Some(scanned) = self.long {
                let Some(found) = self.find_far(scanned, partial)? else { continue };
                return Ok(found.then(|| self.time()));
            }
            let unseen = self.buffer.get(self.scanned..).unwrap_or_default();
            if let Some(length) = memchr(b'\n', unseen) {
                let end = self.scanned + length;
                self.found = Found::InBuffer { end, next: end + 1 };
                return Ok(Some(self.time()));
            }
            self.scanned = self.buffer.len();
            if self.buffer.len() - self.at >= CHUNK {
                self.long = Some(self.offset + self.buffer.len() as u64);
                self.go_to(self.offset + self.at as u64);
            } else if !self.fill()? {
                self.found = Found::InBuffer { end: self.buffer.len(), next: self.buffer.len() };
                let some = partial && self.at < self.buffer.len();
                return Ok(some.then(|| self.time()));
            }
        }
    }

    /// As many bytes as came at once.
    fn find_bytes(&mut self) -> io::Result<Option<i64>> {
        if self.at == self.buffer.len() && !self.fill()? {
            return Ok(None);
        }
        let time = self.time();
        let batch = self.records.front().map_or(u64::MAX, |record| record.end).saturating_sub(self.offset);
        let end = usize::try_from(batch).unwrap_or(usize::MAX).min(self.buffer.len());
        self.found = Found::InBuffer { end, next: end };
        Ok(Some(time))
    }

    /// Looks for the end of a long line where that has not been done yet. `None`: its beginning has been given up meanwhile, and
    /// the line with it.
    fn find_far(&mut self, mut scanned: u64, partial: bool) -> io::Result<Option<bool>> {
        let Some((data, _)) = &self.files else { return Ok(Some(false)) };
        let mut chunk = vec![0; CHUNK];
        while scanned < self.readable {
            let part = piece(&mut chunk, self.readable - scanned);
            data.read_exact_at(part, scanned)?;
            let start = first_data(data, self.readable)?;
            if start > self.offset {
                let next = line_after(data, start, self.readable)?;
                self.long = None;
                self.go_to(next);
                return Ok(None);
            }
            if let Some(length) = memchr(b'\n', part) {
                let end = scanned + length as u64;
                self.found = Found::InFile { end, next: end + 1 };
                return Ok(Some(true));
            }
            scanned += part.len() as u64;
            self.long = Some(scanned);
        }
        self.found = Found::InFile { end: scanned, next: scanned };
        Ok(Some(partial))
    }

    /// Hands out what [`find`](Self::find) found.
    fn emit(&self, container: &str, time: i64, emit: &mut dyn FnMut(Line<'_>) -> io::Result<()>) -> io::Result<()> {
        let stream = self.stream;
        let (end, next) = match self.found {
            Found::InBuffer { end, next } => {
                let text = self.buffer.get(self.at..end).unwrap_or_default();
                return emit(Line { container, stream, time, text, begins: true, ends: true, complete: next > end });
            }
            Found::InFile { end, next } => (end, next),
        };
        let Some((data, _)) = &self.files else { return Ok(()) };
        let mut chunk = vec![0; CHUNK];
        let mut from = self.offset;
        loop {
            let part = piece(&mut chunk, end - from);
            data.read_exact_at(part, from)?;
            // The writer gives up old output, this line with it: there it ends.
            let text: &[u8] = if first_data(data, self.readable)? > from { &[] } else { part };
            let begins = from == self.offset;
            from += text.len() as u64;
            let ends = from == end || text.is_empty();
            emit(Line { container, stream, time, text, begins, ends, complete: ends && next > end })?;
            if ends {
                return Ok(());
            }
        }
    }

    fn consume(&mut self) {
        match self.found {
            Found::InBuffer { next, .. } => {
                self.at = next;
                self.scanned = next;
            }
            Found::InFile { next, .. } => {
                self.long = None;
                self.go_to(next);
            }
        }
    }

    /// Goes on there, with nothing in memory.
    fn go_to(&mut self, offset: u64) {
        self.buffer.clear();
        self.offset = offset;
        self.at = 0;
        self.scanned = 0;
    }

    /// Time of the batch with the first byte of the next line.
    fn time(&mut self) -> i64 {
        let first = self.offset + self.at as u64;
        while self.records.len() > 1 && self.records.front().is_some_and(|record| record.end <= first) {
            self.records.pop_front();
        }
        self.records.front().map_or(i64::MIN, |record| record.time)
    }

    /// Reads on; false: nothing more is readable now.
    fn fill(&mut self) -> io::Result<bool> {
        let Some((data, _)) = &self.files else { return Ok(false) };
        self.buffer.drain(..self.at);
        self.offset += self.at as u64;
        self.scanned -= self.at;
        self.at = 0;
        let from = self.offset + self.buffer.len() as u64;
        let count = usize::try_from(self.readable.saturating_sub(from)).unwrap_or(CHUNK).min(CHUNK);
        if count == 0 {
            return Ok(false);
        }
        let old = self.buffer.len();
        self.buffer.resize(old + count, 0);
        let chunk = self.buffer.get_mut(old..).unwrap_or_default();
        data.read_exact_at(chunk, from)?;
        // Overtaken by the writer giving up old output: go on with what is left.
        let start = first_data(data, self.readable)?;
        if start > from {
            self.buffer.clear();
            self.scanned = 0;
            self.offset = line_after(data, start, self.readable)?;
        }
        Ok(true)
    }
}

/// As much of the buffer as there is to read.
fn piece(buffer: &mut [u8], left: u64) -> &mut [u8] {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    buffer.get_mut(..length).unwrap_or_default()
}

fn memchr(byte: u8, bytes: &[u8]) -> Option<usize> {
    // Blocks of 32 compare as vectors; the standard library's own search is not public for bytes.
    let (blocks, rest) = bytes.as_chunks::<32>();
    for (number, block) in blocks.iter().enumerate() {
        if block.iter().fold(false, |found, b| found | (*b == byte)) {
            return block.iter().position(|b| *b == byte).map(|at| number * 32 + at);
        }
    }
    rest.iter().position(|b| *b == byte).map(|at| blocks.len() * 32 + at)
}

/// Offset after the first `\n` at or behind `from`, or `length`.
fn line_after(data: &File, mut from: u64, length: u64) -> io::Result<u64> {
    let mut chunk = vec![0; 4096];
    while from < length {
        let count = data.read_at(&mut chunk, from)?;
        let read = chunk.get(..count).unwrap_or_default();
        if count == 0 {
            break;
        }
        if let Some(at) = memchr(b'\n', read) {
            return Ok(from + at as u64 + 1);
        }
        from += count as u64;
    }
    Ok(length)
}

/// Where the last `tail` lines begin, not before `from`, and how many there are. A last line without end counts.
fn last_lines(data: &File, from: u64, length: u64, tail: usize) -> io::Result<(u64, usize)> {
    if tail == 0 || length <= from {
        return Ok((length.max(from), 0));
    }
    let mut lines = 0;
    let mut chunk = vec![0; CHUNK];
    let mut end = length;
    while end > from {
        let begin = end.saturating_sub(CHUNK as u64).max(from);
        let part = chunk.get_mut(..usize::try_from(end - begin).unwrap_or(CHUNK)).unwrap_or_default();
        data.read_exact_at(part, begin)?;
        for (at, byte) in part.iter().enumerate().rev() {
            let after = begin + at as u64 + 1;
            // The end of the last line begins no other.
            if *byte == b'\n' && after < length {
                lines += 1;
                if lines == tail {
                    return Ok((after, lines));
                }
            }
        }
        end = begin;
    }
    Ok((from, lines + 1))
}
