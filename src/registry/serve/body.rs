//! Bodies of answers: bytes, a stretch of a file, or what another thread writes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::mpsc;

const CHUNK: usize = 256 * 1024;
/// Chunks between the writing thread and the connection.
const IN_FLIGHT: usize = 4;

/// The body of an answer.
pub(super) enum Answer {
    Bytes(Option<Bytes>),
    /// So many more bytes of a file.
    File(File, u64),
    /// So many more bytes of what somebody writes.
    Written(mpsc::Receiver<io::Result<Bytes>>, u64),
}

impl Answer {
    pub(super) fn empty() -> Self {
        Self::Bytes(None)
    }

    pub(super) fn of(bytes: impl Into<Bytes>) -> Self {
        Self::Bytes(Some(bytes.into()))
    }

    /// The bytes from `start` to `end`, both included.
    pub(super) fn part_of(mut file: File, start: u64, end: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(start))?;
        Ok(Self::File(file, end + 1 - start))
    }

    /// What `write` writes, from `start` to `end`, both included; in a thread of its own.
    pub(super) fn written(
        start: u64,
        end: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (send, receive) = mpsc::channel(IN_FLIGHT);
        let left = end + 1 - start;
        let mut output = Sender { send: send.clone(), skip: start, left, chunk: Vec::with_capacity(CHUNK) };
        std::thread::Builder::new().spawn(move || {
            let outcome = write(&mut output).and_then(|()| output.flush());
            match outcome {
                // It has what it asked for, or is gone.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) => drop(send.blocking_send(Err(error))),
                Ok(()) => {}
            }
        })?;
        Ok(Self::Written(receive, left))
    }
}

/// Cuts what is written to the stretch that is asked for, and passes it on.
struct Sender {
    send: mpsc::Sender<io::Result<Bytes>>,
    skip: u64,
    left: u64,
    chunk: Vec<u8>,
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let all = bytes.len();
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(all);
        self.skip -= skipped as u64;
        let rest = bytes.get(skipped..).unwrap_or_default();
        let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
        self.left -= taken as u64;
        self.chunk.extend_from_slice(rest.get(..taken).unwrap_or_default());
        if self.chunk.len() >= CHUNK || self.left == 0 {
            self.flush()?;
        }
        // Nothing more is wanted.
        if self.left == 0 && taken < rest.len() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(all) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.send.blocking_send(Ok(chunk.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let next = match &mut *self {
            Self::Bytes(bytes) => bytes.take().filter(|bytes| !bytes.is_empty()).map(Ok),
            Self::File(_, 0) | Self::Written(_, 0) => None,
            Self::File(file, left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(CHUNK);
                let mut chunk = Vec::with_capacity(length);
                match file.take(length as u64).read_to_end(&mut chunk) {
                    Ok(0) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
                    Ok(read) => {
                        *left -= read as u64;
                        Some(Ok(chunk.into()))
                    }
                    Err(error) => Some(Err(error)),
                }
            }
            Self::Written(receive, left) => match receive.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(chunk)) => {
                    *left -= chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                    Some(chunk)
                }
                Poll::Ready(None) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            },
        };
        Poll::Ready(next.map(|outcome| outcome.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Bytes(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::File(_, left) | Self::Written(_, left) => *left,
        })
    }
}
