//! The little of D-Bus that systemd and firewalld are asked with: method calls, their replies, and the signal that a job of
//! systemd has ended. systemd is asked over its private socket, firewalld over the system's bus.
//!
//! Source: D-Bus Specification 0.43, "Message Protocol", "Type System", "Authentication Protocol".

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// No message to us is larger than a few hundred bytes.
const LONGEST: usize = 1 << 20;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A value that a property can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
    Numbers(Vec<u32>),
    Bytes(Vec<u8>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Text(_) => "s",
            Self::Flag(_) => "b",
            Self::Number(_) => "t",
            Self::Numbers(_) => "au",
            Self::Bytes(_) => "ay",
        }
    }
}

/// Values in the order of the wire, each at its alignment. Little-endian.
#[derive(Debug, Default)]
pub struct Body(Vec<u8>);

impl Body {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        // What is sent is made by us and far smaller.
        self.number(u32::try_from(length).unwrap_or(u32::MAX));
    }

    /// `s`
    pub fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// `b`
    pub fn flag(&mut self, flag: bool) {
        self.number(u32::from(flag));
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// An array whose elements are aligned to `alignment`, which does not count as part of its length.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.align(4);
        let at = self.0.len();
        self.number(0);
        self.align(alignment);
        let from = self.0.len();
        elements(self);
        let length = u32::try_from(self.0.len() - from).unwrap_or(u32::MAX);
        if let Some(place) = self.0.get_mut(at..at + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Text(text) => self.text(text),
            Value::Flag(flag) => self.flag(*flag),
            Value::Number(number) => {
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Numbers(numbers) => self.numbers(numbers),
            Value::Bytes(bytes) => self.array(1, |body| body.0.extend(bytes)),
        }
    }

    /// `a(sv)`
    pub fn properties(&mut self, properties: &[(&str, Value)]) {
        self.array(8, |body| {
            for (name, value) in properties {
                body.align(8);
                body.text(name);
                body.variant(value);
            }
        });
    }

    /// `au`
    pub fn numbers(&mut self, numbers: &[u32]) {
        self.array(4, |body| numbers.iter().for_each(|number| body.number(*number)));
    }

    /// An array of structures without an element.
    pub fn no_structures(&mut self) {
        self.array(8, |_| {});
    }
}

/// Where in a message something is read next. `None`: the message is shorter than it says.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Some(text)
    }

    fn signature(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(*self.take(1)?.first()?);
        let text = self.take(length)?;
        self.take(1)?;
        Some(text)
    }
}

/// What a message is about: the fields of its header that we look at.
#[derive(Debug, Default, PartialEq, Eq)]
struct Header {
    kind: u8,
    answers: u32,
    /// Of a signal.
    member: String,
    /// Of an error.
    error: String,
}

fn header(kind: u8, fields: &[u8]) -> Option<Header> {
    let mut header = Header { kind, ..Header::default() };
    let mut cursor = Cursor { bytes: fields, at: 0 };
    while cursor.at < fields.len() {
        cursor.align(8);
        let code = *cursor.take(1)?.first()?;
        match cursor.signature()? {
            b"s" | b"o" => {
                let text = cursor.text()?;
                match code {
                    3 => header.member = text,
                    4 => header.error = text,
                    _ => {}
                }
            }
            b"u" => {
                let number = cursor.number()?;
                if code == 5 {
                    header.answers = number;
                }
            }
            b"g" => drop(cursor.signature()?),
            _ => return None,
        }
    }
    Some(header)
}

/// What a call failed with.
#[derive(Debug)]
pub enum Failure {
    /// The name of a D-Bus error, and its text.
    Refused {
        name: String,
        text: String,
    },
    Io(io::Error),
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Io(error) => error,
            Failure::Refused { name, text } => Self::other(format!("{text} ({name})")),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whose methods are called.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// Its name on a bus.
    pub destination: &'static str,
    pub path: &'static str,
    pub interface: &'static str,
}

const BUS: Object =
    Object { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };

/// A connection to a bus, or to a systemd.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
    serial: u32,
    /// Jobs that have ended, and how.
    ended: Vec<(String, String)>,
}

impl Connection {
    /// `patience`: how long an answer may take.
    ///
    /// # Errors
    /// Nobody is there, or does not accept this user.
    pub fn open(socket: &Path, patience: Duration) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        // Who we are, the kernel says: so it works from a user namespace, where our number is another one.
        stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let mut connection = Self { stream: BufReader::new(stream), serial: 0, ended: Vec::new() };
        loop {
            let mut line = Vec::new();
            (&mut connection.stream).take(512).read_until(b'\n', &mut line)?;
            if line.starts_with(b"OK ") {
                return Ok(connection);
            }
            if !line.starts_with(b"DATA") {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "this user is not accepted"));
            }
        }
    }

    /// The same on a bus, which wants to be greeted.
    ///
    /// # Errors
    /// As [`Connection::open`], and what the bus answers.
    pub fn open_bus(socket: &Path, patience: Duration) -> Result<Self, Failure> {
        let mut connection = Self::open(socket, patience)?;
        connection.call(BUS, "Hello", "", &Body::default())?;
        Ok(connection)
    }

    /// Calls a method; what it returns, if that is one text or path.
    ///
    /// # Errors
    /// The call is refused, or no answer comes in time.
    pub fn call(&mut self, object: Object, method: &str, signature: &str, body: &Body) -> Result<String, Failure> {
        self.serial += 1;
        let mut message = Body(vec![b'l', CALL, 0, 1]);
        message.length(body.0.len());
        message.number(self.serial);
        message.array(8, |fields| {
            let texts =
                [(1, "o", object.path), (2, "s", object.interface), (3, "s", method), (6, "s", object.destination)];
            for (code, kind, text) in texts {
                fields.align(8);
                fields.0.push(code);
                fields.signature(kind);
                fields.text(text);
            }
            if !signature.is_empty() {
                fields.align(8);
                fields.0.push(8);
                fields.signature("g");
                fields.signature(signature);
            }
        });
        message.align(8);
        message.0.extend(&body.0);
        self.stream.get_mut().write_all(&message.0)?;
        loop {
            let (header, body) = self.receive()?;
            if header.answers != self.serial {
                continue;
            }
            let text = Cursor { bytes: &body, at: 0 }.text().unwrap_or_default();
            match header.kind {
                RETURN => return Ok(text),
                ERROR => return Err(Failure::Refused { name: header.error, text }),
                _ => {}
            }
        }
    }

    /// Waits for the end of a job: its result, `done` when all went well.
    ///
    /// # Errors
    /// Nothing comes in time, or something that is no message.
    pub fn wait_for(&mut self, job: &str) -> io::Result<String> {
        loop {
            if let Some(at) = self.ended.iter().position(|(ended, _)| ended == job) {
                return Ok(self.ended.swap_remove(at).1);
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> io::Result<(Header, Vec<u8>)> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "what came is no message of D-Bus");
        let mut fixed = [0; 16];
        self.stream.read_exact(&mut fixed)?;
        let [order, kind, _, version, ..] = fixed;
        let mut cursor = Cursor { bytes: &fixed, at: 4 };
        let mut number = || cursor.number().map(|number| number as usize).ok_or_else(wrong);
        let (body, _serial, fields) = (number()?, number()?, number()?);
        if order != b'l' || version != 1 || fields > LONGEST || body > LONGEST {
            return Err(wrong());
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.stream.read_exact(&mut rest)?;
        let header = rest.get(..fields).and_then(|fields| header(kind, fields)).ok_or_else(wrong)?;
        let body = rest.split_off(fields.next_multiple_of(8));
        if header.kind == SIGNAL && header.member == "JobRemoved" {
            self.ended.push(job_removed(&body).ok_or_else(wrong)?);
        }
        Ok((header, body))
    }
}

/// Path of the job and its result, out of the body of the signal (`uoss`).
fn job_removed(body: &[u8]) -> Option<(String, String)> {
    let mut cursor = Cursor { bytes: body, at: 0 };
    cursor.number()?;
    let (job, _unit, result) = (cursor.text()?, cursor.text()?, cursor.text()?);
    Some((job, result))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_where_the_specification_has_them() {
        let mut body = Body::default();
        body.text("a");
        body.properties(&[("N", Value::Number(7)), ("B", Value::Flag(true))]);
        let wanted: &[&[u8]] = &[
            &[1, 0, 0, 0, b'a', 0, 0, 0],
            // The array's length; its elements begin at the next multiple of 8, as each of them does.
            &[40, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, b'N', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0],
            &[7, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, b'B', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0],
        ];
        assert_eq!(body.0, wanted.concat());
    }

    #[test]
    fn a_signal_is_read() {
        let mut fields = Body::default();
        fields.0.push(3);
        fields.signature("s");
        fields.text("JobRemoved");
        assert_eq!(header(SIGNAL, &fields.0).unwrap().member, "JobRemoved");
        let mut body = Body::default();
        body.number(12);
        ["/job/12", "a.scope", "done"].iter().for_each(|text| body.text(text));
        assert_eq!(job_removed(&body.0), Some(("/job/12".to_owned(), "done".to_owned())));
        // Cut short anywhere, it is no signal, and nothing worse.
        for end in 0..body.0.len() {
            assert_eq!(job_removed(body.0.get(..end).unwrap()), None, "{end}");
        }
    }
}
