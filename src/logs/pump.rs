//! The writer: one thread that moves the output of all the containers of a project into their files.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::Stream;
use super::file::{BATCH, LogFile, Moved};

/// How long to wait before trying again after a write failed (a full disk), in milliseconds.
const RETRY: u16 = 500;

/// Having moved so many bytes without a pause, the thread rests for [`REST`]: whoever floods the log then waits with a full pipe, and
/// a processor becomes free for its neighbours, which else wait for a turn of the scheduler. It still moves hundreds of MB/s.
/// Counted over batches: a thread that keeps up with the flood finds little in the pipe each time, and never waits either.
pub(super) const FLOOD: u64 = 1 << 18;

/// See [`FLOOD`].
pub(super) const REST: Duration = Duration::from_micros(500);

/// Token of the wake-up descriptor; inputs count from 0.
const WAKE: u64 = u64::MAX;

/// How much output of a container is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of both streams together. 0: no limit.
    pub max_size: u64,
    /// When there are more, so many of the oldest are given up at once, of the stream that holds more.
    pub step: u64,
}

impl Default for Limits {
    /// Twice docker's customary `max-size: 100m`, so that 100 MB are always there.
    fn default() -> Self {
        Self { max_size: 200_000_000, step: 100_000_000 }
    }
}

/// Moves output into log files until it is dropped. Descriptors are best held by another process too, so that the
/// pump of the next process can go on with them.
pub struct LogPump {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

type Done = Box<dyn FnOnce() + Send>;
type OnStall = Box<dyn Fn(&str, &io::Error) + Send>;

enum Command {
    Add { container: String, files: [LogFile; 2], inputs: Vec<(Stream, Source)>, limits: Limits },
    Flush { container: String, done: Done },
    Stop,
}

/// Where bytes come from: a pipe, or a terminal through a pipe.
struct Source {
    pipe: OwnedFd,
    terminal: Option<(OwnedFd, OwnedFd)>,
}

struct Input {
    container: String,
    stream: Stream,
    source: Source,
}

impl LogPump {
    /// Starts the thread. `on_stall` hears, once each time, of a container whose output cannot be written now;
    /// it stays in the pipe meanwhile and is tried again.
    ///
    /// # Errors
    /// When epoll, eventfd or the thread cannot be had.
    pub fn start(on_stall: impl Fn(&str, &io::Error) + Send + 'static) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        epoll.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        let (commands, receiver) = mpsc::channel();
        let worker = Worker {
            epoll,
            wake: Arc::clone(&wake),
            commands: receiver,
            on_stall: Box::new(on_stall),
            outputs: HashMap::new(),
            inputs: HashMap::new(),
            stalled: Vec::new(),
            next: 0,
            last_time: 0,
            moved: 0,
        };
        let thread = thread::Builder::new().name("logs".to_owned()).spawn(move || worker.run())?;
        Ok(Self { commands, wake, thread: Some(thread) })
    }

    /// Takes the read ends of a container's output pipes. The files in `folder` are continued. Each stream is let go
    /// when its pipe has no writer left. A container may be added again (after a restart) at any time.
    ///
    /// # Errors
    /// When the files cannot be opened.
    pub fn add(
        &self,
        container: &str,
        folder: &Path,
        stdout: OwnedFd,
        stderr: OwnedFd,
        limits: Limits,
    ) -> io::Result<()> {
        for pipe in [&stdout, &stderr] {
            // A larger pipe only makes bursts cheaper; the system may refuse.
            let _ = fcntl_setpipe_size(pipe, BATCH);
        }
        let source = |pipe| Source { pipe, terminal: None };
        self.add_inputs(
            container,
            folder,
            vec![(Stream::Stdout, source(stdout)), (Stream::Stderr, source(stderr))],
            limits,
        )
    }

    /// Takes a pseudo-terminal master. A terminal cannot be spliced to a file, so its output goes through `pipe`
    /// ([`terminal_pipe`](Self::terminal_pipe)); whoever holds the master beyond this process must hold both ends of
    /// the pipe as well, else a kill could lose what is in it.
    ///
    /// # Errors
    /// When the files cannot be opened.
    pub fn add_terminal(
        &self,
        container: &str,
        folder: &Path,
        master: OwnedFd,
        pipe: (OwnedFd, OwnedFd),
        limits: Limits,
    ) -> io::Result<()> {
        let (read, write) = pipe;
        let source = Source { pipe: read, terminal: Some((master, write)) };
        self.add_inputs(container, folder, vec![(Stream::Stdout, source)], limits)
    }

    /// Makes the pipe for [`add_terminal`](Self::add_terminal): read end, write end.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn terminal_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
        Ok(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
    }

    /// Calls `done` (on the pump's thread) when everything that the container has printed so far is in its files.
    /// Asked after a container has ended, `done` means that its log is complete.
    pub fn flush(&self, container: &str, done: impl FnOnce() + Send + 'static) {
        self.send(Command::Flush { container: container.to_owned(), done: Box::new(done) });
    }

    fn add_inputs(
        &self,
        container: &str,
        folder: &Path,
        inputs: Vec<(Stream, Source)>,
        limits: Limits,
    ) -> io::Result<()> {
        let files = [LogFile::open(folder, Stream::Stdout)?, LogFile::open(folder, Stream::Stderr)?];
        self.send(Command::Add { container: container.to_owned(), files, inputs, limits });
        Ok(())
    }

    fn send(&self, command: Command) {
        // Neither can fail while the thread lives, and it lives until `Stop`.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }
}

impl Drop for LogPump {
    /// Moves what is in the pipes, then ends the thread.
    fn drop(&mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What one container has printed, and the number of inputs that write there.
struct Output {
    /// Standard output and error.
    files: [LogFile; 2],
    inputs: usize,
    limits: Limits,
}

impl Output {
    /// Gives old output up once there is more than the limit.
    fn trim(&mut self) -> io::Result<()> {
        let Limits { max_size, step } = self.limits;
        let [stdout, stderr] = &mut self.files;
        let held = stdout.held() + stderr.held();
        if max_size == 0 || held <= max_size {
            return Ok(());
        }
        let larger = if stdout.held() >= stderr.held() { stdout } else { stderr };
        larger.release(held - max_size.saturating_sub(step))
    }
}

struct Worker {
    epoll: Epoll,
    wake: Arc<EventFd>,
    commands: Receiver<Command>,
    on_stall: OnStall,
    outputs: HashMap<String, Output>,
    inputs: HashMap<u64, Input>,
    /// Inputs that could not be written, to be tried again.
    stalled: Vec<u64>,
    next: u64,
    last_time: i64,
    /// Bytes since the last pause as long as [`REST`].
    moved: u64,
}

impl Worker {
    fn run(mut self) {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let timeout = if self.stalled.is_empty() { EpollTimeout::NONE } else { EpollTimeout::from(RETRY) };
            let waits = Instant::now();
            let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
            if waits.elapsed() >= REST {
                self.moved = 0;
            }
            for event in events.iter().take(count) {
                if event.data() == WAKE {
                    let _ = self.wake.read();
                } else {
                    self.serve(event.data());
                }
            }
            if self.moved >= FLOOD {
                thread::sleep(REST);
                self.moved = 0;
            }
            for input in std::mem::take(&mut self.stalled) {
                self.retry(input);
            }
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Add { container, files, inputs, limits } => {
                        self.add(container, Output { files, inputs: 0, limits }, inputs);
                    }
                    Command::Flush { container, done } => {
                        self.drain(Some(&container));
                        done();
                    }
                    Command::Stop => {
                        self.drain(None);
                        return;
                    }
                }
            }
        }
    }

    fn add(&mut self, container: String, output: Output, inputs: Vec<(Stream, Source)>) {
        for file in &output.files {
            self.last_time = self.last_time.max(file.last_time());
        }
        let time = self.now();
        let output = self.outputs.entry(container.clone()).or_insert(output);
        for file in &mut output.files {
            if let Err(error) = file.record(time) {
                (self.on_stall)(&container, &error);
            }
        }
        output.inputs += inputs.len();
        for (stream, source) in inputs {
            let token = self.next;
            self.next += 1;
            self.inputs.insert(token, Input { container: container.clone(), stream, source });
            self.listen(token);
            // What a predecessor left in the pipe between terminal and file makes no event.
            self.serve(token);
        }
    }

    fn listen(&mut self, token: u64) {
        let Some(input) = self.inputs.get(&token) else { return };
        let fd = input.source.terminal.as_ref().map_or(&input.source.pipe, |(master, _)| master);
        if let Err(error) = self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token)) {
            (self.on_stall)(&input.container, &error.into());
            self.stalled.push(token);
        }
    }

    fn unlisten(&self, token: u64) {
        let Some(input) = self.inputs.get(&token) else { return };
        let fd = input.source.terminal.as_ref().map_or(&input.source.pipe, |(master, _)| master);
        // It may not be listened to, when it was stalled.
        let _ = self.epoll.delete(fd);
    }

    /// Moves one batch. True: there may be more.
    fn serve(&mut self, token: u64) -> bool {
        match self.take(token) {
            Ok(Moved::Bytes) => true,
            Ok(Moved::Empty) => false,
            Ok(Moved::End) => {
                self.unlisten(token);
                self.forget(token);
                false
            }
            Err(error) => {
                if let Some(input) = self.inputs.get(&token) {
                    (self.on_stall)(&input.container, &error);
                }
                self.unlisten(token);
                self.stalled.push(token);
                false
            }
        }
    }

    /// As [`serve`](Self::serve) for a stalled input: silent when it fails again.
    fn retry(&mut self, token: u64) {
        match self.take(token) {
            Ok(Moved::End) => self.forget(token),
            Ok(_) => self.listen(token),
            Err(_) => self.stalled.push(token),
        }
    }

    fn take(&mut self, token: u64) -> io::Result<Moved> {
        let time = self.now();
        let Some(input) = self.inputs.get(&token) else { return Ok(Moved::Empty) };
        let Some(output) = self.outputs.get_mut(&input.container) else { return Ok(Moved::Empty) };
        let [stdout, stderr] = &mut output.files;
        let file = if input.stream == Stream::Stdout { stdout } else { stderr };
        let filled = match &input.source.terminal {
            Some((master, write)) => Some(fill_from_terminal(master, write)?),
            None => None,
        };
        let held = file.held();
        let taken = file.take(input.source.pipe.as_fd(), time)?;
        self.moved += file.held() - held;
        match taken {
            Moved::Bytes => {
                output.trim()?;
                Ok(Moved::Bytes)
            }
            end => Ok(filled.unwrap_or(end)),
        }
    }

    fn forget(&mut self, token: u64) {
        let Some(input) = self.inputs.remove(&token) else { return };
        if let Some(output) = self.outputs.get_mut(&input.container) {
            output.inputs -= 1;
            if output.inputs == 0 {
                self.outputs.remove(&input.container);
            }
        }
    }

    /// Empties the pipes of one container, or of all.
    fn drain(&mut self, container: Option<&str>) {
        let matching = |input: &Input| container.is_none_or(|container| input.container == container);
        let tokens: Vec<_> = self.inputs.iter().filter(|(_, input)| matching(input)).map(|(token, _)| *token).collect();
        for token in tokens {
            // A writer that goes on must not keep us: a pipe holds at most one batch.
            for _ in 0..4 {
                if self.stalled.contains(&token) || !self.serve(token) {
                    break;
                }
            }
        }
    }

    /// The time, later than any before.
    fn now(&mut self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX);
        self.last_time = now.max(self.last_time.saturating_add(1));
        self.last_time
    }
}

/// Moves what the terminal has into the pipe; `End` when nobody has the terminal open any more.
fn fill_from_terminal(master: &OwnedFd, pipe: &OwnedFd) -> io::Result<Moved> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut ready = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
    poll(&mut ready, PollTimeout::ZERO)?;
    let [ready] = ready;
    let found = ready.revents().unwrap_or(PollFlags::empty());
    if !found.intersects(PollFlags::POLLIN | PollFlags::POLLHUP) {
        return Ok(Moved::Empty);
    }
    match splice(master, None, pipe, None, 1 << 16, SpliceFlags::NONBLOCK) {
        Ok(0) | Err(rustix::io::Errno::IO) => Ok(Moved::End),
        Ok(_) => Ok(Moved::Bytes),
        Err(rustix::io::Errno::AGAIN) => Ok(Moved::Empty),
        Err(error) => Err(error.into()),
    }
}
