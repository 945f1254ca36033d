//! The sockets that names are asked at, inside a container's namespace.
//!
//! Programs ask 127.0.0.11, port 53, but the sockets are on another port: a container may have a name server of its own on
//! every address. Two rules in the namespace put the one port in the place of the other, without tracking connections, which
//! would cost every packet of the container.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use ipnetwork::IpNetwork;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, ipproto, listen, socket_with};

use crate::network::netlink::Netlink;
use crate::network::nft::{self, Hook, IPV4, Rule, Transaction};

/// Where containers ask for names, UDP and TCP.
pub const DNS: SocketAddr = SocketAddr::new(ADDRESS, 53);
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

const TABLE: &str = "rcompose-dns";
const CHAIN: &str = "output";
/// Before connection tracking and address translation.
const RAW: i32 = -300;
const TRIES: u32 = 16;

/// Non-blocking, the TCP one listening.
#[derive(Debug)]
pub struct DnsSockets {
    pub udp: OwnedFd,
    pub tcp: OwnedFd,
}

/// Opens the sockets in this thread's namespace. `again`: there may be rules that lead to earlier sockets.
///
/// # Errors
/// When the kernel refuses a socket: `lo` must be up.
pub(super) fn open(again: bool) -> io::Result<DnsSockets> {
    let mut tries = 0;
    let (sockets, port) = loop {
        tries += 1;
        match pair(0) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < TRIES => {}
            pair => break pair?,
        }
    };
    match Netlink::netfilter().and_then(|netlink| netlink.send(&redirection(port, again))) {
        Ok(_) => Ok(sockets),
        // A kernel without nftables: then on the port itself, and a name server in the container needs another address.
        Err(_) => pair(DNS.port()).map(|(sockets, _)| sockets),
    }
}

/// Both sockets on one port, which is chosen when 0.
fn pair(port: u16) -> io::Result<(DnsSockets, u16)> {
    let open = |kind, protocol, port| -> io::Result<(OwnedFd, u16)> {
        let socket =
            socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(protocol))?;
        bind(&socket, &SocketAddr::new(ADDRESS, port))?;
        let name = SocketAddr::try_from(getsockname(&socket)?)?;
        Ok((socket, name.port()))
    };
    let (udp, port) = open(SocketType::DGRAM, ipproto::UDP, port)?;
    let (tcp, _) = open(SocketType::STREAM, ipproto::TCP, port)?;
    listen(&tcp, 128)?;
    Ok((DnsSockets { udp, tcp }, port))
}

/// Questions to port 53 go to `port`, and answers from there come from port 53.
fn redirection(port: u16, again: bool) -> Vec<u8> {
    let mut transaction = Transaction::new(IPV4);
    if again {
        transaction.add_table(TABLE);
        transaction.delete_table(TABLE);
    }
    transaction.add_table(TABLE);
    transaction.add_chain(TABLE, CHAIN, Hook("filter", nft::OUTPUT, RAW));
    let here = IpNetwork::from(ADDRESS);
    // Protocol number, and where its header has the checksum.
    for (protocol, checksum) in [(17, 6), (6, 16)] {
        let question = Rule::default().destination(false, here).protocol(protocol).port(false, DNS.port());
        transaction.add_rule(TABLE, CHAIN, question.set_port(false, port, checksum));
        let answer = Rule::default().source(here).protocol(protocol).port(true, port);
        transaction.add_rule(TABLE, CHAIN, answer.set_port(true, DNS.port(), checksum));
    }
    transaction.end()
}
