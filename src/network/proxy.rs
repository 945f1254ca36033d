//! Forwarding in user space, for published ports the kernel cannot translate: IPv6 to a container without it.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::spec::Protocol;

/// A UDP peer that has been silent for so long is forgotten, as in Docker's proxy.
const UDP_IDLE: Duration = Duration::from_secs(90);
const UDP_PEERS: usize = 1024;

/// Accepts on a held listening socket and copies both ways; ends only by being dropped or by a broken socket. Of SCTP it
/// keeps the data and, as long as they fit its buffer, the messages; as Docker's, it knows nothing of streams.
///
/// # Errors
/// When the socket cannot be used.
pub async fn connections(listener: OwnedFd, protocol: Protocol, target: SocketAddr) -> io::Result<()> {
    let listener: std::net::TcpListener = listener.into();
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (mut outside, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            // The peer was gone before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        tokio::spawn(async move {
            let connected = match protocol {
                Protocol::Sctp => connect_sctp(target).await,
                Protocol::Tcp | Protocol::Udp => TcpStream::connect(target).await,
            };
            if let Ok(mut inside) = connected {
                // Either end breaking off is the peers' matter; both see it as the connection closing.
                let _ = outside.set_nodelay(true).and(inside.set_nodelay(true));
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
    }
}

/// An SCTP socket for one connection is used like one of TCP.
async fn connect_sctp(target: SocketAddr) -> io::Result<TcpStream> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::SCTP))?;
    match connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// Passes datagrams on from a held socket, each peer through a socket of its own so that answers find back.
///
/// # Errors
/// When the socket cannot be used.
pub async fn udp(socket: OwnedFd, target: SocketAddr) -> io::Result<()> {
    let socket: std::net::UdpSocket = socket.into();
    socket.set_nonblocking(true)?;
    let outside = Arc::new(UdpSocket::from_std(socket)?);
    let mut peers: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let (gone, mut leaving) = mpsc::channel(UDP_PEERS);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let received = tokio::select! {
            Some(peer) = leaving.recv() => {
                peers.remove(&peer);
                continue;
            }
            received = outside.recv_from(&mut buffer) => received,
        };
        // Errors on an unconnected socket are late news of single peers.
        let Ok((length, peer)) = received else { continue };
        if !peers.contains_key(&peer) && peers.len() >= UDP_PEERS {
            continue;
        }
        let inside = match peers.get(&peer) {
            Some(inside) => inside.clone(),
            None => {
                let inside = Arc::new(connect_udp(target).await?);
                peers.insert(peer, inside.clone());
                tokio::spawn(answers(outside.clone(), inside.clone(), peer, gone.clone()));
                inside
            }
        };
        let _ = inside.send(buffer.get(..length).unwrap_or_default()).await;
    }
}

async fn connect_udp(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr =
        if target.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket)
}

async fn answers(outside: Arc<UdpSocket>, inside: Arc<UdpSocket>, peer: SocketAddr, gone: mpsc::Sender<SocketAddr>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(received) = timeout(UDP_IDLE, inside.recv(&mut buffer)).await {
        if let Ok(length) = received {
            let _ = outside.send_to(buffer.get(..length).unwrap_or_default(), peer).await;
        }
    }
    // The proxy itself has ended when nobody listens.
    let _ = gone.send(peer).await;
}
