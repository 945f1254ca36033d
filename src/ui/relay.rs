//! Carries bytes between this process's streams and a process in a container (`exec`, `run`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{read, write};

use crate::ui::terminal;

const BUFFER: usize = 64 * 1024;

/// The process's end of the streams.
pub enum Remote {
    /// Dropping `stdin` tells the process that there is no more input.
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    /// A pseudo-terminal master, for both directions.
    Terminal { master: OwnedFd },
}

/// This side's streams.
#[derive(Clone, Copy)]
pub struct Local<'a> {
    /// `None`: no input is forwarded. A terminal, pipe, file or closed descriptor.
    pub stdin: Option<BorrowedFd<'a>>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
}

/// Carries bytes until the process has closed its output, or `ended` becomes readable or hangs up and all it
/// printed has been carried. The end of our input is passed on, and input nobody reads any more is dropped.
/// With a terminal at both ends, changes of the window's size are passed on too; `SIGWINCH` must be blocked
/// ([`block_window_changes`]) before.
///
/// # Errors
/// When a stream of ours fails (`BrokenPipe` when nobody reads our output).
pub fn relay(remote: Remote, local: Local<'_>, ended: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut channels = Channels::new(remote, local)?;
    let resizes = match (&channels.terminal, local.stdin.and_then(terminal::size)) {
        (true, Some(_)) => {
            let mut signals = SigSet::empty();
            signals.add(Signal::SIGWINCH);
            channels.resize(local)?;
            Some(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
        }
        _ => None,
    };
    let mut over = false;
    while channels.open() {
        let events = channels.wait(local, resizes.as_ref(), ended, over)?;
        if events.resized {
            if let Some(resizes) = &resizes {
                resizes.read_signal()?;
            }
            channels.resize(local)?;
        }
        channels.input(local, &events)?;
        let moved = channels.output(local, &events)?;
        if over && !moved {
            break;
        }
        over |= events.ended;
    }
    Ok(())
}

/// Blocks `SIGWINCH` for this thread, so that [`relay`] can wait for it.
///
/// # Errors
/// None that the system documents for valid arguments.
pub fn block_window_changes() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGWINCH);
    Ok(pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)?)
}

struct Channels {
    /// Where input goes.
    input: Option<OwnedFd>,
    /// Where standard output and error come from.
    outputs: [Option<OwnedFd>; 2],
    terminal: bool,
    /// Our input is at its end, or not asked for.
    input_over: bool,
    /// Input not yet written.
    pending: Vec<u8>,
}

struct Events {
    readable: bool,
    writable: bool,
    outputs: [bool; 2],
    resized: bool,
    ended: bool,
}

impl Channels {
    fn new(remote: Remote, local: Local<'_>) -> io::Result<Self> {
        let (input, outputs, terminal) = match remote {
            Remote::Pipes { stdin, stdout, stderr } => (stdin, [Some(stdout), Some(stderr)], false),
            Remote::Terminal { master } => (Some(master.try_clone()?), [Some(master), None], true),
        };
        let mut channels = Self { input, outputs, terminal, input_over: false, pending: Vec::new() };
        if let Some(input) = &channels.input {
            // Else a process that does not read would keep us from showing what it prints.
            rustix::io::ioctl_fionbio(input, true)?;
        }
        if local.stdin.is_none() {
            // Others may type into a terminal: only its own reader's pipe is closed.
            if channels.terminal {
                channels.input_over = true;
            } else {
                channels.end_input()?;
            }
        }
        Ok(channels)
    }

    fn open(&self) -> bool {
        self.outputs.iter().any(Option::is_some)
    }

    fn resize(&self, local: Local<'_>) -> io::Result<()> {
        let size = local.stdin.and_then(terminal::size);
        if let ([Some(master), _], Some((rows, columns))) = (&self.outputs, size) {
            terminal::set_size(master.as_fd(), rows, columns)?;
        }
        Ok(())
    }

    fn wait(
        &self,
        local: Local<'_>,
        resizes: Option<&SignalFd>,
        ended: Option<BorrowedFd<'_>>,
        over: bool,
    ) -> io::Result<Events> {
        let wants_input = self.input.is_some() && !self.input_over && self.pending.is_empty();
        let candidates = [
            (local.stdin.filter(|_| wants_input), PollFlags::POLLIN),
            (self.input.as_ref().map(AsFd::as_fd).filter(|_| !self.pending.is_empty()), PollFlags::POLLOUT),
            (self.outputs[0].as_ref().map(AsFd::as_fd), PollFlags::POLLIN),
            (self.outputs[1].as_ref().map(AsFd::as_fd), PollFlags::POLLIN),
            (resizes.map(AsFd::as_fd), PollFlags::POLLIN),
            (ended.filter(|_| !over), PollFlags::POLLIN),
        ];
        let mut places = Vec::with_capacity(candidates.len());
        let mut fds = Vec::with_capacity(candidates.len());
        for (place, (fd, flags)) in candidates.into_iter().enumerate() {
            if let Some(fd) = fd {
                places.push(place);
                fds.push(PollFd::new(fd, flags));
            }
        }
        let timeout = if over { PollTimeout::ZERO } else { PollTimeout::NONE };
        loop {
            match poll(&mut fds, timeout) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let ready = |place| places.iter().zip(&fds).any(|(known, fd)| *known == place && fd.any().unwrap_or(true));
        Ok(Events {
            readable: ready(0),
            writable: ready(1),
            outputs: [ready(2), ready(3)],
            resized: ready(4),
            ended: ready(5),
        })
    }

    fn input(&mut self, local: Local<'_>, events: &Events) -> io::Result<()> {
        if let (true, Some(stdin)) = (events.readable, local.stdin) {
            let mut buffer = vec![0; BUFFER];
            match read(stdin, &mut buffer) {
                Ok(0) | Err(Errno::EBADF | Errno::EIO) => self.end_input()?,
                Ok(count) => {
                    buffer.truncate(count);
                    self.pending = buffer;
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if events.writable || events.readable {
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(input) = &self.input else { return Ok(()) };
        while !self.pending.is_empty() {
            match write(input, &self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                // The process has closed its input: nobody wants the rest.
                Err(Errno::EPIPE | Errno::EIO) => {
                    self.pending.clear();
                    self.input = None;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        if self.input_over && !self.terminal {
            self.input = None;
        }
        Ok(())
    }

    /// Passes the end of our input on: by closing the pipe, or by the end-of-file character of a terminal.
    fn end_input(&mut self) -> io::Result<()> {
        if self.input_over {
            return Ok(());
        }
        self.input_over = true;
        if self.terminal {
            self.pending.push(0x04);
        }
        self.send()
    }

    /// Carries what was printed; true when there was something.
    fn output(&mut self, local: Local<'_>, events: &Events) -> io::Result<bool> {
        let mut moved = false;
        let mut buffer = vec![0; BUFFER];
        let to = [local.stdout, local.stderr];
        for ((from, ready), to) in self.outputs.iter_mut().zip(events.outputs).zip(to) {
            let (Some(source), true) = (&*from, ready) else { continue };
            match read(source, &mut buffer) {
                // EIO: nobody has the terminal open any more.
                Ok(0) | Err(Errno::EIO) => *from = None,
                Ok(count) => {
                    moved = true;
                    write_all(to, buffer.get(..count).unwrap_or_default())?;
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(moved)
    }
}

/// Writes everything, also to a descriptor that somebody has made non-blocking.
fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write, pipe};
    use std::process::{Command, Stdio};

    use super::*;

    fn spawn(script: &str) -> (std::process::Child, Remote) {
        let mut child = Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let remote = Remote::Pipes {
            stdin: child.stdin.take().map(OwnedFd::from),
            stdout: child.stdout.take().unwrap().into(),
            stderr: child.stderr.take().unwrap().into(),
        };
        (child, remote)
    }

    fn run(script: &str, stdin: Option<BorrowedFd<'_>>) -> (Vec<u8>, Vec<u8>) {
        let (mut child, remote) = spawn(script);
        let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        relay(remote, Local { stdin, stdout: out.as_fd(), stderr: err.as_fd() }, None).unwrap();
        child.wait().unwrap();
        let text = |file: &mut File| {
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            bytes
        };
        (text(&mut out), text(&mut err))
    }

    #[test]
    fn a_file_goes_through_whole_and_its_end_is_passed_on() {
        let mut input = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
        input.write_all(&bytes).unwrap();
        input.rewind().unwrap();
        let (out, err) = run("cat; echo done >&2", Some(input.as_fd()));
        assert!(out == bytes);
        assert_eq!(err, b"done\n");
    }

    #[test]
    fn a_process_that_reads_nothing_keeps_nobody() {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(&[b'x'; 60_000]).unwrap();
        assert_eq!(run("exec <&-; echo hello", Some(reader.as_fd())).0, b"hello\n");
        assert_eq!(run("cat; echo over", None).0, b"over\n");
    }

    #[test]
    fn the_end_of_the_process_ends_the_relay_although_a_child_keeps_the_pipe() {
        let (mut child, remote) = spawn("sleep 1000 & echo $!");
        let (ended, end) = pipe().unwrap();
        let mut out = tempfile::tempfile().unwrap();
        child.wait().unwrap();
        drop(end);
        let local = Local { stdin: None, stdout: out.as_fd(), stderr: out.as_fd() };
        relay(remote, local, Some(ended.as_fd())).unwrap();
        let mut text = String::new();
        out.rewind().unwrap();
        out.read_to_string(&mut text).unwrap();
        let pid = nix::unistd::Pid::from_raw(text.trim().parse().unwrap());
        nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    }

    #[test]
    fn a_terminal_carries_both_directions() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let mut slave = File::from(pty.slave);
        let (stdin, mut keyboard) = pipe().unwrap();
        let (mut screen, stdout) = pipe().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let local = Local { stdin: Some(stdin.as_fd()), stdout: stdout.as_fd(), stderr: stdout.as_fd() };
                relay(Remote::Terminal { master: pty.master }, local, None).unwrap();
            });
            keyboard.write_all(b"hello\n").unwrap();
            let mut line = [0; 6];
            slave.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"hello\n");
            slave.write_all(b"bye").unwrap();
            drop(slave);
            let mut shown = String::new();
            screen.read_to_string(&mut shown).unwrap();
            assert_eq!(shown, "hello\r\nbye");
        });
    }
}
