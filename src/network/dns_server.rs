//! The DNS server of a container, on sockets inside its namespace; what it does not know is asked from the host.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use simple_dns::RCODE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::network::dns::{self, Reply, Zone};
use crate::network::files::Resolver;
use crate::network::sandbox::DnsSockets;

const PATIENCE: Duration = Duration::from_secs(4);
/// Queries under way to outside servers, per container.
const FORWARDS: usize = 256;
const CONNECTIONS: usize = 64;

/// Serves a container until the sender of `zone` is dropped. `servers` takes the place of the host's when not empty.
///
/// # Errors
/// When the sockets cannot be used.
pub async fn serve(sockets: DnsSockets, zone: watch::Receiver<Arc<Zone>>, servers: Vec<IpAddr>) -> io::Result<()> {
    let udp = Arc::new(UdpSocket::from_std(from_fd(sockets.udp)?)?);
    let listener: std::net::TcpListener = sockets.tcp.into();
    listener.set_nonblocking(true)?;
    let tcp = TcpListener::from_std(listener)?;
    let mut closed = zone.clone();
    let servers: Arc<[IpAddr]> = servers.into();
    tokio::select! {
        never = serve_udp(udp, zone.clone(), servers.clone()) => match never {},
        result = serve_tcp(tcp, zone, servers) => result,
        _ = async { while closed.changed().await.is_ok() {} } => Ok(()),
    }
}

fn from_fd(fd: OwnedFd) -> io::Result<std::net::UdpSocket> {
    let socket: std::net::UdpSocket = fd.into();
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn serve_udp(socket: Arc<UdpSocket>, zone: watch::Receiver<Arc<Zone>>, servers: Arc<[IpAddr]>) -> Infallible {
    let forwards = Arc::new(Semaphore::new(FORWARDS));
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let query = buffer.get(..length).unwrap_or_default();
        let reply = dns::answer(query, &zone.borrow(), false);
        match reply {
            // An answer that cannot be sent is one the asker asks for again, as with any lost datagram.
            Reply::Answer(bytes) => drop(socket.send_to(&bytes, from).await),
            Reply::Ignore => {}
            Reply::Forward => {
                let Ok(permit) = forwards.clone().try_acquire_owned() else { continue };
                let (socket, servers, query) = (socket.clone(), servers.clone(), query.to_vec());
                tokio::spawn(async move {
                    if let Some(bytes) = forward(&query, &servers, false).await {
                        let _ = socket.send_to(&bytes, from).await;
                    }
                    drop(permit);
                });
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: watch::Receiver<Arc<Zone>>, servers: Arc<[IpAddr]>) -> io::Result<()> {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return Ok(()) };
        let (mut stream, _) = listener.accept().await?;
        let (zone, servers) = (zone.clone(), servers.clone());
        tokio::spawn(async move {
            loop {
                let Ok(Ok(query)) = timeout(PATIENCE, read_framed(&mut stream)).await else { break };
                let reply = dns::answer(&query, &zone.borrow(), true);
                let bytes = match reply {
                    Reply::Answer(bytes) => Some(bytes),
                    Reply::Forward => forward(&query, &servers, true).await,
                    Reply::Ignore => None,
                };
                let Some(bytes) = bytes else { break };
                if write_framed(&mut stream, &bytes).await.is_err() {
                    break;
                }
            }
            drop(permit);
        });
    }
}

/// Asks the servers one after the other; `SERVFAIL` when none answers.
async fn forward(query: &[u8], servers: &[IpAddr], over_tcp: bool) -> Option<Vec<u8>> {
    let host;
    let servers = if servers.is_empty() {
        host = host_servers();
        &host[..]
    } else {
        servers
    };
    for server in servers {
        let server = SocketAddr::new(*server, 53);
        let asked = if over_tcp {
            timeout(PATIENCE, ask_tcp(query, server)).await
        } else {
            timeout(PATIENCE, ask_udp(query, server)).await
        };
        if let Ok(Ok(answer)) = asked {
            return Some(answer);
        }
    }
    dns::failure(query, RCODE::ServerFailure)
}

thread_local! {
    static HOST: std::cell::RefCell<Option<(SystemTime, Vec<IpAddr>)>> = const { std::cell::RefCell::new(None) };
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

async fn ask_udp(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
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

async fn ask_tcp(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, query).await?;
    read_framed(&mut stream).await
}

async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn write_framed(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await
}
