//! Questions passed on to outside servers.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use simple_dns::{Packet, RCODE};
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

/// Whether another server may know better.
fn is_refusal(answer: &[u8]) -> bool {
    let code = Packet::parse(answer).map(|packet| packet.rcode());
    matches!(code, Ok(RCODE::ServerFailure | RCODE::Refused | RCODE::NotImplemented))
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
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // The id must be the asked one; anything else is not our answer.
        if length >= 12 && buffer.get(..2) == query.get(..2) {
            buffer.truncate(length);
            return Ok(buffer);
        }
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
    read_framed(&mut stream).await
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
