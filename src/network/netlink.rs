//! Synchronous netlink: a batch of messages in one send, all answers read at once.
//!
//! The kernel handles a request inside `send(2)`, so its acknowledgements are already queued when that returns.

use std::cell::RefCell;
use std::io;

use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr};

pub(super) const REQUEST: u16 = 1;
pub(super) const ACK: u16 = 4;
pub(super) const DUMP: u16 = 0x300;
pub(super) const REPLACE: u16 = 0x100;
pub(super) const EXCLUSIVE: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

/// Of a dump, `NLM_F_DUMP_INTR`.
const INTERRUPTED: u16 = 0x10;
/// How often a dump is begun anew.
const DUMPS: usize = 50;

const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// A netlink socket; it stays in the network namespace it was opened in.
pub(super) struct Netlink {
    socket: Socket,
}

thread_local! {
    /// Kept as long as the thread: closing one after something was deleted waits for a grace period of the kernel, some
    /// milliseconds. A thread's own, since a socket stays in the network namespace that it was opened in.
    static NETFILTER: RefCell<Option<Netlink>> = const { RefCell::new(None) };
}

/// One answer: type and body.
pub(super) type Answer = (u16, Vec<u8>);

impl Netlink {
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        Ok(Self { socket })
    }

    pub(super) fn route() -> io::Result<Self> {
        Self::open(netlink_sys::protocols::NETLINK_ROUTE)
    }

    pub(super) fn netfilter() -> io::Result<Self> {
        Self::open(netlink_sys::protocols::NETLINK_NETFILTER)
    }

    /// Does something with this thread's netfilter socket.
    pub(super) fn with_netfilter<T>(action: impl FnOnce(&Self) -> io::Result<T>) -> io::Result<T> {
        NETFILTER.with_borrow_mut(|kept| {
            let socket = match kept.take() {
                Some(socket) => socket,
                None => Self::netfilter()?,
            };
            action(kept.insert(socket))
        })
    }

    /// Sends messages and reads what is answered; the first error among the answers is returned.
    pub(super) fn send(&self, messages: &[u8]) -> io::Result<Vec<Answer>> {
        self.socket.send(messages, 0)?;
        let mut answers = Vec::new();
        let mut failure = None;
        loop {
            let mut buffer = Vec::with_capacity(1 << 16);
            match self.socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {
                    read(&buffer, &mut answers, &mut failure);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        failure.map_or(Ok(answers), Err)
    }

    /// Sends one dump request and reads until its end; again when what is listed changed meanwhile, as some of it may be missing
    /// then.
    pub(super) fn dump(&self, message: &[u8]) -> io::Result<Vec<Answer>> {
        for _ in 0..DUMPS {
            let (answers, whole) = self.dump_once(message)?;
            if whole {
                return Ok(answers);
            }
        }
        self.dump_once(message).map(|(answers, _)| answers)
    }

    fn dump_once(&self, message: &[u8]) -> io::Result<(Vec<Answer>, bool)> {
        self.socket.send(message, 0)?;
        let mut answers = Vec::new();
        let mut failure = None;
        let mut whole = true;
        loop {
            let mut buffer = Vec::with_capacity(1 << 16);
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => {
                    let done = read(&buffer, &mut answers, &mut failure);
                    whole &= !is_interrupted(&buffer);
                    if done || failure.is_some() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        failure.map_or(Ok((answers, whole)), Err)
    }
}

/// Whether a message of a dump says that what it lists has changed meanwhile.
fn is_interrupted(mut bytes: &[u8]) -> bool {
    while let (Some(length), Some(flags)) = (u32_at(bytes, 0), u16_at(bytes, 6)) {
        if flags & INTERRUPTED != 0 {
            return true;
        }
        bytes = bytes.get((length as usize).max(HEADER).next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// Splits a datagram into messages; true when it holds the end of a dump.
fn read(mut bytes: &[u8], answers: &mut Vec<Answer>, failure: &mut Option<io::Error>) -> bool {
    let mut done = false;
    while let Some(length) = u32_at(bytes, 0).map(|length| length as usize) {
        let (Some(kind), Some(body)) = (u16_at(bytes, 4), bytes.get(HEADER..length)) else { break };
        match kind {
            ERROR => match u32_at(body, 0).map(u32::cast_signed) {
                Some(0) | None => {}
                Some(code) => {
                    failure.get_or_insert_with(|| io::Error::from_raw_os_error(-code));
                }
            },
            DONE => done = true,
            _ => answers.push((kind, body.to_vec())),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    done
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The messages in a datagram, whatever they are.
pub(super) fn split(bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    read(bytes, &mut answers, &mut None);
    answers
}

/// A routing message as bytes.
pub(super) fn encode(message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags | REQUEST;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Takes a routing answer apart; `None` for what the types cannot read.
pub(super) fn decode((kind, body): &Answer) -> Option<RouteNetlinkMessage> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(u32::try_from(HEADER + body.len()).ok()?.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(body);
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).ok()?.payload {
        NetlinkPayload::InnerMessage(message) => Some(message),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_that_was_interrupted_is_known_by_any_of_its_messages() {
        let message = |flags: u16| {
            let mut bytes = vec![0; 20];
            bytes[0] = 18;
            bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
            bytes
        };
        assert!(!is_interrupted(&[message(2), message(2)].concat()));
        assert!(is_interrupted(&[message(2), message(0x12)].concat()));
        assert!(!is_interrupted(&[0; 20]) && !is_interrupted(&[9]));
    }
}
