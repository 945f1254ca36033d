//! Questions passed on to outside servers.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use simple_dns::RCODE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::network::dns;
use crate::network::files::Resolver;
use crate::network::outside::Outside;
use crate::network::sandbox;

/// A server has that long to answer, as in Docker.
const PATIENCE: Duration = Duration::from_secs(4);
/// A server that is silent for so long is not waited for: the next one is asked as well.
const HURRY: Duration = Duration::from_millis(800);
const PORT: u16 = 53;
/// Bytes before the question.
const HEADER: usize = 12;

/// The servers that a container's questions are passed on to.
pub(super) struct Upstream {
    netns: Arc<OwnedFd>,
    servers: Vec<IpAddr>,
    outside: Outside,
    /// Which one answered last: it is asked first.
    best: AtomicUsize,
}

impl Upstream {
    /// `servers` take the place of the host's when there are any. They are asked from inside the container's namespace, so
    /// that its routes count; servers on the host's loopback are asked from the host.
    pub(super) fn new(netns: OwnedFd, servers: Vec<IpAddr>, outside: Outside) -> Self {
        Self { netns: Arc::new(netns), servers, outside, best: AtomicUsize::new(0) }
    }

    /// Asks the servers, the next one when one refuses or is slow; `SERVFAIL` when none answers.
    pub(super) async fn ask(&self, query: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let own = !self.servers.is_empty();
        let mut servers = if own { self.servers.clone() } else { host_servers() };
        let count = servers.len().max(1);
        let first = self.best.load(Ordering::Relaxed) % count;
        servers.rotate_left(first);
        let query: Arc<[u8]> = query.into();
        let mut waiting = servers.into_iter().enumerate();
        let mut asked = JoinSet::new();
        let mut refusal = None;
        loop {
            if let Some((number, server)) = waiting.next() {
                let inside = own || !(server.is_loopback() || self.outside.is_apart());
                let from = From { netns: self.netns.clone(), outside: self.outside.clone(), inside };
                let one = ask(query.clone(), SocketAddr::new(server, PORT), from, over_tcp);
                asked.spawn(async move { (number, timeout(PATIENCE, one).await) });
            }
            let answer = tokio::select! {
                answer = asked.join_next() => answer,
                () = sleep(HURRY), if waiting.len() > 0 => continue,
            };
            match answer {
                None if waiting.len() == 0 => break,
                Some(Ok((number, Ok(Ok(bytes))))) => {
                    if !is_refusal(&bytes) {
                        self.best.store((first + number) % count, Ordering::Relaxed);
                        return Some(bytes);
                    }
                    refusal = Some(bytes);
                }
                _ => {}
            }
        }
        refusal.or_else(|| dns::failure(&query, RCODE::ServerFailure))
    }
}

/// Whether another server may know better. Only the header is looked at: whatever else there is is for whoever has asked.
fn is_refusal(answer: &[u8]) -> bool {
    const SERVER_FAILURE: u8 = 2;
    const NOT_IMPLEMENTED: u8 = 4;
    const REFUSED: u8 = 5;
    matches!(answer.get(3).map(|flags| flags & 0xf), Some(SERVER_FAILURE | NOT_IMPLEMENTED | REFUSED))
}

/// Whether these bytes answer the query: its id, and its question, which a server may leave out when it gives no answer.
fn is_answer(bytes: &[u8], query: &[u8]) -> bool {
    let (Some(header), Some(question)) = (bytes.get(..HEADER), query.get(HEADER..)) else { return false };
    let is_response = header.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let same_id = header.get(..2) == query.get(..2);
    // The name, to its root, with type and class; our query has one question.
    let Some(length) = question_length(question) else { return false };
    let asked = question.get(..length);
    let same_question = match header.get(4..8) {
        Some([0, 1, ..]) => {
            let repeated = bytes.get(HEADER..HEADER + length);
            repeated.zip(asked).is_some_and(|(repeated, asked)| repeated.eq_ignore_ascii_case(asked))
        }
        Some([0, 0, 0, 0]) => true,
        _ => false,
    };
    is_response && same_id && same_question
}

/// Of a question without compression, which has nothing before it to point to.
fn question_length(question: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match usize::from(*question.get(at)?) {
            0 => return Some(at + 1 + 4).filter(|end| *end <= question.len()),
            label @ 1..=63 => at += 1 + label,
            _ => return None,
        }
    }
}

thread_local! {
    static HOST: RefCell<Option<(SystemTime, Vec<IpAddr>)>> = const { RefCell::new(None) };
}

/// The servers of the host's `resolv.conf`, read again when it has changed; none when there is no such file.
fn host_servers() -> Vec<IpAddr> {
    let path = "/etc/resolv.conf";
    let changed = fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    HOST.with_borrow_mut(|known| match known {
        Some((when, servers)) if *when == changed => servers.clone(),
        _ => {
            let servers = Resolver::parse(&fs::read_to_string(path).unwrap_or_default()).nameservers;
            *known = Some((changed, servers.clone()));
            servers
        }
    })
}

/// Where a question is asked from: the container's namespace, or the host.
struct From {
    netns: Arc<OwnedFd>,
    outside: Outside,
    inside: bool,
}

impl From {
    /// `open` inside, or from the host where the container has no way.
    fn open<T: Send + 'static>(&self, open: impl Fn() -> io::Result<T> + Copy + Send + 'static) -> io::Result<T> {
        match self.inside.then(|| sandbox::enter(self.netns.as_fd(), open)) {
            Some(Ok(opened)) => Ok(opened),
            _ => self.outside.run(open),
        }
    }
}

async fn ask(query: Arc<[u8]>, server: SocketAddr, from: From, over_tcp: bool) -> io::Result<Vec<u8>> {
    if over_tcp { ask_tcp(&query, server, &from).await } else { ask_udp(&query, server, &from).await }
}

async fn ask_udp(query: &[u8], server: SocketAddr, from: &From) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let open = move || {
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let socket = UdpSocket::from_std(from.open(open)?)?;
    socket.send(query).await?;
    let limit = dns::udp_limit(query);
    let mut buffer = vec![0; limit + 1];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let Some(answer) = buffer.get(..length).filter(|answer| is_answer(answer, query)) else { continue };
        // More than was asked for, as if it had been cut by whoever sent it.
        let answer = if length > limit { dns::truncated(query) } else { Some(answer.to_vec()) };
        return answer.ok_or_else(|| io::ErrorKind::InvalidData.into());
    }
}

async fn ask_tcp(query: &[u8], server: SocketAddr, from: &From) -> io::Result<Vec<u8>> {
    let open = move || if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let connected = match from.inside.then(|| sandbox::enter(from.netns.as_fd(), open)) {
        Some(Ok(socket)) => socket.connect(server).await,
        _ => Err(io::ErrorKind::NetworkUnreachable.into()),
    };
    let mut stream = match connected {
        Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable => {
            from.outside.run(open)?.connect(server).await?
        }
        connected => connected?,
    };
    write_framed(&mut stream, query).await?;
    let answer = read_framed(&mut stream).await?;
    if is_answer(&answer, query) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

pub(super) async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

pub(super) async fn write_framed(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await
}

#[cfg(test)]
mod tests {

    use super::*;

    /// A query for the A record of `ab.example`.
    const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x02ab\x07example\0\0\x01\0\x01";

    fn answer(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = QUERY.to_vec();
        bytes[2] = 0x81;
        change(&mut bytes);
        bytes
    }

    #[test]
    fn only_what_answers_the_question_counts() {
        assert!(is_answer(&answer(|_| {}), QUERY));
        assert!(is_answer(&answer(|bytes| bytes[13..15].copy_from_slice(b"AB")), QUERY), "another case");
        let mut refusal = answer(|bytes| bytes[3] = 5);
        assert!(is_refusal(&refusal));
        refusal[5] = 0;
        refusal.truncate(HEADER);
        assert!(is_answer(&refusal, QUERY), "without the question");
        assert!(!is_answer(QUERY, QUERY), "the query itself");
        assert!(!is_answer(&answer(|bytes| bytes[1] = 0), QUERY), "another id");
        assert!(!is_answer(&answer(|bytes| bytes[13] = b'x'), QUERY), "another name");
        assert!(!is_answer(&answer(|bytes| bytes[26] = 28), QUERY), "another type");
        assert!(!is_answer(&answer(|bytes| bytes[5] = 2), QUERY), "two questions");
        assert!(!is_answer(&answer(|bytes| bytes.truncate(20)), QUERY), "half a question");
        // A name that leads to itself.
        let query = [&QUERY[..HEADER], b"\xc0\x0c\0\x01\0\x01"].concat();
        assert!(!is_answer(&query, &query));
    }

    #[test]
    fn names_in_an_answer_are_not_read() {
        let mut bytes = answer(|bytes| bytes[6..8].copy_from_slice(&[0xff, 0xff]));
        while bytes.len() < 65_000 {
            let at = u16::try_from(bytes.len()).unwrap().min(0x3fff) | 0xc000;
            bytes.extend(at.to_be_bytes());
        }
        assert!(is_answer(&bytes, QUERY) && !is_refusal(&bytes), "the names in an answer are not for us to read");
    }

    #[tokio::test]
    async fn an_answer_larger_than_was_asked_for_is_a_cut_one() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = server.local_addr().unwrap();
        let netns = Arc::new(OwnedFd::from(fs::File::open("/proc/self/ns/net").unwrap()));
        let from = From { netns, outside: Outside::default(), inside: false };
        let serve = async {
            let mut buffer = [0; 512];
            let (_, asker) = server.recv_from(&mut buffer).await.unwrap();
            // Not his, then too much of it.
            for bytes in [answer(|bytes| bytes[1] = 0), answer(|bytes| bytes.resize(9000, 0))] {
                server.send_to(&bytes, asker).await.unwrap();
            }
        };
        let (answer, ()) = tokio::join!(ask_udp(QUERY, to, &from), serve);
        let answer = answer.unwrap();
        assert!(answer.len() < 512 && answer[..2] == QUERY[..2] && answer[2] & 2 != 0, "{answer:?}");
    }
}
