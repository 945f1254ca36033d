//! Sends a container's lines on to a log service, from the files: what the service cannot take now is sent later, and a
//! process that takes over goes on where the last one was.

use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use serde::{Deserialize, Serialize};

use super::{Follow, Line, LogReader, Query, Scan, Source, Stream, follow};
use crate::base::disk::{self, Durability};
use crate::spec::logging::{Destination, SyslogAddress, SyslogFormat};

/// Longer lines go in pieces, as Docker sends them, in bytes.
const PIECE: usize = 16 * 1024;
/// Longest a service may take to accept a connection or a line.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between attempts, in milliseconds.
const RETRY: u16 = 500;
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Whose lines they are.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    pub id: String,
    pub name: String,
    pub image: String,
    pub tag: String,
    pub hostname: String,
    /// Further fields for the journal: labels and variables.
    pub fields: Vec<(String, String)>,
}

/// Sends lines on until its container has ended.
pub struct Forwarder {
    shared: Arc<Shared>,
}

struct Shared {
    stop: EventFd,
    /// The container has ended and its log is complete.
    ended: AtomicBool,
}

type Done = Box<dyn FnOnce() + Send>;

/// `forwarded.json`: how far the service has the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// Time of the last line sent.
    time: i64,
    /// How many lines of that time have been sent.
    lines: usize,
}

impl Forwarder {
    /// Connects, and starts the thread. `folder` is the container's log folder; `done` runs when everything has been sent
    /// after [`Forwarder::end`], `warn` hears of trouble, once each time.
    ///
    /// # Errors
    /// When the service cannot be reached, or there is no thread to be had.
    pub fn start(
        folder: &Path,
        origin: Origin,
        destination: &Destination,
        warn: impl Fn(&str) + Send + 'static,
        done: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared = Arc::new(Shared { stop, ended: AtomicBool::new(false) });
        let sender = Sender {
            sink: Some(Sink::connect(destination)?),
            destination: destination.clone(),
            folder: folder.to_owned(),
            origin,
            shared: Arc::clone(&shared),
            warn: Box::new(warn),
            reached: true,
        };
        let done: Done = Box::new(done);
        thread::Builder::new().name("forward".to_owned()).spawn(move || {
            sender.run();
            done();
        })?;
        Ok(Self { shared })
    }

    /// Whether the service can be reached.
    ///
    /// # Errors
    /// Why not.
    pub fn check(destination: &Destination) -> io::Result<()> {
        Sink::connect(destination).map(|_| ())
    }

    /// The container's log is complete: sends what is left, then ends.
    pub fn end(&self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Fails only when it has been told so often already.
        let _ = self.shared.stop.write(1);
    }
}

struct Sender {
    sink: Option<Sink>,
    destination: Destination,
    folder: PathBuf,
    origin: Origin,
    shared: Arc<Shared>,
    warn: Box<dyn Fn(&str) + Send>,
    /// The last attempt succeeded.
    reached: bool,
}

impl Sender {
    fn run(mut self) {
        let path = self.folder.join("forwarded.json");
        let sent = self.follow(&path);
        if let Err(error) = sent {
            let name = self.origin.name.clone();
            (self.warn)(&format!("the output of `{name}` is not sent on: {error}"));
        }
    }

    fn follow(&mut self, path: &Path) -> io::Result<()> {
        let from: Position = disk::read_json(path)?.unwrap_or_default();
        let shared = Arc::clone(&self.shared);
        let folder = self.folder.clone();
        let source =
            move |ended: bool| Source { name: String::new(), folder: folder.clone(), running: !ended, from: [0; 2] };
        let since = (from.time > 0).then_some(from.time);
        let mut reader = LogReader::open(vec![source(false)], Query { since, ..Query::default() })?;
        let mut rescan = || Ok(Scan { sources: vec![source(shared.ended.load(Ordering::SeqCst))], over: false });
        let position = std::cell::Cell::new(Position { time: from.time, lines: 0 });
        let saved = std::cell::Cell::new(from);
        let mut settled = || {
            if position.get() != saved.get() && position.get().lines > 0 {
                disk::replace_json(path, &position.get(), Durability::Kill)?;
                saved.set(position.get());
            }
            Ok(())
        };
        let stop = shared.stop.as_fd();
        let how = Follow { folders: &|| Ok(Vec::new()), rescan: &mut rescan, settled: &mut settled, stop };
        follow(&mut reader, how, &mut |line| {
            let mut at = position.get();
            at = if at.time == line.time {
                Position { lines: at.lines + 1, ..at }
            } else {
                Position { time: line.time, lines: 1 }
            };
            let known = at.time == from.time && at.lines <= from.lines;
            if !known {
                self.deliver(&line)?;
            }
            if line.ends {
                position.set(at);
            }
            Ok(())
        })
    }

    /// Tries until the service has the line; gives up only when the container has ended.
    fn deliver(&mut self, line: &Line<'_>) -> io::Result<()> {
        // An empty line is a message, too.
        let whole = (line.text.is_empty() && line.begins).then_some(line.text);
        for piece in line.text.chunks(PIECE).chain(whole) {
            loop {
                let error = match self.send(&Line { text: piece, ..*line }) {
                    Ok(()) => break,
                    Err(error) => error,
                };
                self.sink = None;
                if self.reached {
                    (self.warn)(&format!("the output of `{}` waits, it cannot be sent on: {error}", self.origin.name));
                    self.reached = false;
                }
                if self.shared.ended.load(Ordering::SeqCst) {
                    return Err(error);
                }
                pause(self.shared.stop.as_fd())?;
            }
            self.reached = true;
        }
        Ok(())
    }

    fn send(&mut self, line: &Line<'_>) -> io::Result<()> {
        let message = match &self.destination {
            Destination::Journald => journal_entry(&self.origin, line),
            Destination::Syslog { facility, format, .. } => syslog_message(&self.origin, *facility, *format, line),
        };
        let sink = match &mut self.sink {
            Some(sink) => sink,
            none => none.insert(Sink::connect(&self.destination)?),
        };
        sink.send(&message)
    }
}

/// Waits a little, or until told to stop.
fn pause(stop: BorrowedFd<'_>) -> io::Result<()> {
    let mut ready = [PollFd::new(stop, PollFlags::POLLIN)];
    match poll(&mut ready, PollTimeout::from(RETRY)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug)]
enum Sink {
    Datagram(UnixDatagram),
    Stream(UnixStream),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Sink {
    fn connect(destination: &Destination) -> io::Result<Self> {
        match destination {
            Destination::Journald => Self::datagram(Path::new(JOURNAL)),
            Destination::Syslog { address, .. } => match address {
                SyslogAddress::Local => Self::local(),
                SyslogAddress::Unix(path) => Self::stream(path),
                SyslogAddress::Unixgram(path) => Self::datagram(path),
                SyslogAddress::Udp(address) => Self::udp(address),
                SyslogAddress::Tcp(address) => Self::tcp(address),
            },
        }
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", describe(destination))))
    }

    fn local() -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for path in LOCAL.map(Path::new) {
            match Self::datagram(path).or_else(|_| Self::stream(path)) {
                Ok(sink) => return Ok(sink),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn datagram(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::Datagram(socket))
    }

    fn stream(path: &Path) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::Stream(socket))
    }

    fn udp(address: &str) -> io::Result<Self> {
        let to = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        let from = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        Ok(Self::Udp(socket))
    }

    fn tcp(address: &str) -> io::Result<Self> {
        let to = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        let socket = TcpStream::connect_timeout(&to, PATIENCE)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::Tcp(socket))
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Datagram(socket) => socket.send(message).map(|_| ()),
            Self::Stream(socket) => socket.write_all(message),
            Self::Udp(socket) => socket.send(message).map(|_| ()),
            Self::Tcp(socket) => socket.write_all(message),
        }
    }
}

fn describe(destination: &Destination) -> String {
    match destination {
        Destination::Journald => format!("journald at `{JOURNAL}`"),
        Destination::Syslog { address: SyslogAddress::Local, .. } => "syslog of this host".to_owned(),
        Destination::Syslog { address: SyslogAddress::Unix(path) | SyslogAddress::Unixgram(path), .. } => {
            format!("syslog at `{}`", path.display())
        }
        Destination::Syslog { address: SyslogAddress::Udp(address) | SyslogAddress::Tcp(address), .. } => {
            format!("syslog at `{address}`")
        }
    }
}

/// Severity as Docker has it: standard error is an error (3), standard output informational (6).
fn severity(stream: Stream) -> u8 {
    if stream == Stream::Stderr { 3 } else { 6 }
}

/// The journal's own protocol (systemd, "Native Journal Protocol"): fields, those with arbitrary bytes with their length.
fn journal_entry(origin: &Origin, line: &Line<'_>) -> Vec<u8> {
    let priority = severity(line.stream).to_string();
    let short = origin.id.get(..12).unwrap_or(&origin.id);
    let known = [
        ("PRIORITY", priority.as_str()),
        ("CONTAINER_ID", short),
        ("CONTAINER_ID_FULL", &origin.id),
        ("CONTAINER_NAME", &origin.name),
        ("CONTAINER_TAG", &origin.tag),
        ("IMAGE_NAME", &origin.image),
        ("SYSLOG_IDENTIFIER", &origin.tag),
    ];
    let mut entry = Vec::new();
    // A label may be called anything: what tells whose line it is stays ours, and a line without a name would begin another entry.
    let is_theirs = |name: &str| !name.is_empty() && name != "MESSAGE" && known.iter().all(|(known, _)| *known != name);
    let own = origin.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in known.into_iter().chain(own.filter(|(name, _)| is_theirs(name))) {
        field(&mut entry, name, value.as_bytes());
    }
    field(&mut entry, "MESSAGE", line.text);
    entry
}

fn field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

fn syslog_message(origin: &Origin, facility: u8, format: SyslogFormat, line: &Line<'_>) -> Vec<u8> {
    let priority = facility * 8 + severity(line.stream);
    let pid = std::process::id();
    let Origin { tag, hostname, .. } = origin;
    let tag = tag.replace(char::is_control, "_");
    let time = jiff::Timestamp::from_nanosecond(i128::from(line.time)).unwrap_or_default();
    let local = time.to_zoned_datetime(jiff::tz::TimeZone::system());
    let stamp = local.strftime("%b %e %H:%M:%S");
    let zone = if local.offset().is_zero() { "Z".to_owned() } else { local.strftime("%:z").to_string() };
    let mut message = match format {
        SyslogFormat::Plain => format!("<{priority}>{stamp} {tag}[{pid}]: "),
        SyslogFormat::Rfc3164 => format!("<{priority}>{stamp} {hostname} {tag}[{pid}]: "),
        SyslogFormat::Rfc5424 => {
            format!("<{priority}>1 {}{zone} {hostname} {tag} {pid} {tag} - ", local.strftime("%Y-%m-%dT%H:%M:%S"))
        }
        SyslogFormat::Rfc5424Micro => {
            format!("<{priority}>1 {}{zone} {hostname} {tag} {pid} {tag} - ", local.strftime("%Y-%m-%dT%H:%M:%S.%6f"))
        }
    }
    .into_bytes();
    // A message ends at a NUL for some servers (busybox), and what follows would be one of anybody's.
    message.extend(line.text.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }));
    message.push(b'\n');
    message
}

/// A label or variable as a field of the journal: upper case, other characters as `_`, as Docker names them.
pub fn journal_name(name: &str) -> String {
    let text = name.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    text.trim_start_matches(|c: char| c == '_' || c.is_ascii_digit()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        let id = "0123456789abcdef".to_owned();
        Origin {
            id,
            name: "p-web-1".into(),
            image: "app".into(),
            tag: "web".into(),
            hostname: "host".into(),
            fields: vec![],
        }
    }

    fn line(text: &'static [u8], stream: Stream) -> Line<'static> {
        Line { container: "", stream, time: 1_700_000_000_123_456_789, text, begins: true, ends: true, complete: true }
    }

    #[test]
    fn messages_are_as_the_formats_say() {
        let message = |format, stream| {
            let bytes = syslog_message(&origin(), 16, format, &line(b"hello", stream));
            String::from_utf8(bytes).unwrap().replace(&format!("{}", std::process::id()), "PID")
        };
        let local =
            jiff::Timestamp::from_second(1_700_000_000).unwrap().to_zoned_datetime(jiff::tz::TimeZone::system());
        let stamp = local.strftime("%b %e %H:%M:%S");
        assert_eq!(message(SyslogFormat::Plain, Stream::Stdout), format!("<134>{stamp} web[PID]: hello\n"));
        assert_eq!(message(SyslogFormat::Rfc3164, Stream::Stderr), format!("<131>{stamp} host web[PID]: hello\n"));
        let text = message(SyslogFormat::Rfc5424Micro, Stream::Stdout);
        assert!(text.starts_with("<134>1 2023-11-1") && text.contains(".123456"), "{text}");
        assert!(text.ends_with(" host web PID web - hello\n"), "{text}");
    }

    #[test]
    fn no_line_or_name_makes_a_message_of_its_own() {
        const FORGED: &str = "<38>Jan  1 00:00:00 sshd[1]: Accepted password for root";
        let text = format!("x\0{FORGED}").into_bytes();
        let line = Line {
            container: "",
            stream: Stream::Stdout,
            time: 0,
            text: &text,
            begins: true,
            ends: true,
            complete: true,
        };
        let mut from = origin();
        from.tag = format!("web\n{FORGED}\u{9b}");
        from.fields = vec![
            (journal_name("1"), "MESSAGE=forged\n".to_owned()),
            (journal_name("container-name"), "other".to_owned()),
            (journal_name("message"), "forged".to_owned()),
            (journal_name("com.example.a"), "b".to_owned()),
        ];
        for format in [SyslogFormat::Plain, SyslogFormat::Rfc3164, SyslogFormat::Rfc5424, SyslogFormat::Rfc5424Micro] {
            let message = syslog_message(&from, 16, format, &line);
            // As servers take a stream, or busybox a datagram, apart.
            let parts: Vec<_> =
                message.split(|byte| matches!(byte, 0 | b'\n')).filter(|part| !part.is_empty()).collect();
            assert_eq!(parts.len(), 1, "{}", String::from_utf8_lossy(&message));
        }
        let entry = journal_entry(&from, &line);
        let has = |wanted: &[u8]| entry.windows(wanted.len()).any(|part| part == wanted);
        assert!(has(b"COM_EXAMPLE_A\n") && has(b"p-web-1\n") && has(b"x\0<38>"));
        assert!(!has(b"forged") && !has(b"other"));
    }

    #[test]
    fn the_journal_gets_any_bytes() {
        let entry = journal_entry(&origin(), &line(b"a\nb\0", Stream::Stderr));
        let wanted = b"MESSAGE\n\x04\0\0\0\0\0\0\0a\nb\0\n";
        assert!(entry.windows(wanted.len()).any(|part| part == wanted));
        assert_eq!(journal_name("com.example.a-b"), "COM_EXAMPLE_A_B");
    }
}
