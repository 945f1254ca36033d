//! Network namespaces of containers: links, addresses, routes, and the DNS sockets inside.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::RouteMessage;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::network::NetworkError;
use crate::network::bridge::{address_message, link_index};
use crate::network::netlink::{self, ACK, CREATE, EXCLUSIVE, Netlink};
use crate::network::records::NetworkRecord;

/// Where containers ask for names, UDP and TCP.
pub const DNS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);

/// A container's connection to one network.
#[derive(Clone, Debug)]
pub struct Interface<'a> {
    pub network: &'a NetworkRecord,
    /// One per address family, as leased.
    pub addresses: &'a [IpAddr],
    /// `02:42:` and the IPv4 address when `None`.
    pub mac: Option<[u8; 6]>,
    /// Name inside, `eth0` and so on.
    pub name: String,
    /// Default routes go through this one.
    pub gateway: bool,
}

/// A network namespace; its links are gone when this and the processes in it are.
#[derive(Debug)]
pub struct Sandbox {
    pub netns: OwnedFd,
    /// Bound to [`DNS`] inside; `None` where DNS is not ours.
    pub dns: Option<DnsSockets>,
}

/// Non-blocking, the TCP one listening.
#[derive(Debug)]
pub struct DnsSockets {
    pub udp: OwnedFd,
    pub tcp: OwnedFd,
}

/// Makes a namespace with `lo` and the given interfaces, all up, and the DNS sockets.
///
/// # Errors
/// [`NetworkError::Kernel`]; nothing is left then.
pub fn create(interfaces: &[Interface<'_>]) -> Result<Sandbox, NetworkError> {
    let (netns, inside, dns) = in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let netns = OwnedFd::from(File::open("/proc/thread-self/ns/net")?);
        let inside = Netlink::route()?;
        let up = LinkUnspec::new_with_index(1).up().build();
        inside.send(&netlink::encode(RouteNetlinkMessage::SetLink(up), ACK))?;
        if !interfaces.iter().any(has_ipv6) {
            ipv6_default(false)?;
        }
        Ok((netns, inside, dns_sockets()?))
    })
    .map_err(NetworkError::kernel("create a network namespace"))?;
    if !interfaces.is_empty() {
        let outside = Netlink::route().map_err(NetworkError::kernel("open a netlink socket"))?;
        for interface in interfaces {
            connect(&outside, &inside, netns.as_fd(), interface).map_err(NetworkError::kernel(format!(
                "connect a container to network `{}`",
                interface.network.name
            )))?;
        }
    }
    Ok(Sandbox { netns, dns: Some(dns) })
}

/// A namespace with nothing but `lo` (`network_mode: none`).
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn create_none() -> Result<Sandbox, NetworkError> {
    create(&[]).map(|sandbox| Sandbox { dns: None, ..sandbox })
}

/// The namespace of a running process, with new DNS sockets in it: for when the old ones died with their holders.
///
/// # Errors
/// [`NetworkError::Kernel`]; `EADDRINUSE` inside when the old ones live.
pub fn reopen(pid: u32) -> Result<Sandbox, NetworkError> {
    let netns = File::open(format!("/proc/{pid}/ns/net")).map(OwnedFd::from);
    let netns = netns.map_err(NetworkError::kernel(format!("open the network namespace of process {pid}")))?;
    let dns = enter(netns.as_fd(), dns_sockets)
        .map_err(NetworkError::kernel(format!("bind {DNS} in the network namespace of process {pid}")))?;
    Ok(Sandbox { netns, dns: Some(dns) })
}

/// Connects an existing namespace to one more network.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn join(netns: BorrowedFd<'_>, interface: &Interface<'_>) -> Result<(), NetworkError> {
    let joined = (|| {
        let inside = enter(netns, || {
            ipv6_default(has_ipv6(interface))?;
            Netlink::route()
        })?;
        connect(&Netlink::route()?, &inside, netns, interface)
    })();
    joined.map_err(NetworkError::kernel(format!("connect a container to network `{}`", interface.network.name)))
}

/// Runs `work` inside a namespace, on a thread of its own: the caller's namespace never changes.
///
/// # Errors
/// Those of `setns(2)` and of `work`.
pub fn enter<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    in_thread(|| {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).stack_size(256 << 10).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn has_ipv6(interface: &Interface<'_>) -> bool {
    interface.addresses.iter().any(IpAddr::is_ipv6)
}

/// Whether links made from now on in this thread's namespace have IPv6. An interface without an IPv6 address gets no
/// link-local one either, as with Docker. A kernel without IPv6 has no such setting.
fn ipv6_default(enabled: bool) -> io::Result<()> {
    match fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", if enabled { "0" } else { "1" }) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn dns_sockets() -> io::Result<DnsSockets> {
    let udp = UdpSocket::bind(DNS)?;
    udp.set_nonblocking(true)?;
    let tcp = TcpListener::bind(DNS)?;
    tcp.set_nonblocking(true)?;
    Ok(DnsSockets { udp: udp.into(), tcp: tcp.into() })
}

/// One message outside makes the pair, its far end inside at once (moving it later would wait for the kernel's grace
/// periods), then one batch inside.
fn connect(outside: &Netlink, inside: &Netlink, netns: BorrowedFd<'_>, interface: &Interface<'_>) -> io::Result<()> {
    let bridge = nix::net::if_::if_nametoindex(interface.network.bridge.as_str())?;
    let mut peer = LinkUnspec::new_with_name(&interface.name).setns_by_fd(netns.as_raw_fd());
    let host_name = host_name()?;
    let mut host = LinkVeth::new(&host_name, &interface.name).controller(bridge).up();
    if let Some(mtu) = interface.network.mtu {
        peer = peer.mtu(mtu);
        host = host.mtu(mtu);
    }
    let mac = interface.mac.or_else(|| interface.addresses.iter().find_map(mac_of));
    if let Some(mac) = mac {
        peer = peer.address(mac.to_vec());
    }
    let host = host.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
    let mut batch = netlink::encode(RouteNetlinkMessage::NewLink(host.build()), ACK | CREATE | EXCLUSIVE);
    batch.extend(netlink::encode(RouteNetlinkMessage::NewLink(hairpin(&host_name)), ACK));
    outside.send(&batch)?;

    let index = link_index(inside, &interface.name)?;
    let mut batch = netlink::encode(RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(index).up().build()), ACK);
    for address in interface.addresses {
        let Some(subnet) = interface.network.subnets.iter().find(|subnet| subnet.subnet.contains(*address)) else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        batch.extend(address_message(index, *address, subnet.subnet.prefix()));
        if interface.gateway && !interface.network.internal {
            let route = default_route(index, subnet.gateway);
            batch.extend(netlink::encode(RouteNetlinkMessage::NewRoute(route), ACK | CREATE | EXCLUSIVE));
        }
    }
    inside.send(&batch).map(drop)
}

/// A container reaches itself through its own published port: the bridge must send frames back where they came from. The
/// file in /sys that does the same makes the writer spin while anybody else changes a link.
fn hairpin(port: &str) -> LinkMessage {
    let mut message = LinkUnspec::new_with_name(port).build();
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
    ]));
    message
}

fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build(),
        IpAddr::V6(gateway) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().gateway(gateway).output_interface(index).build()
        }
    }
}

/// A name that was never used: a dying link of the same name must not be in the way.
fn host_name() -> io::Result<String> {
    let mut random = [0; 5];
    rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(random.iter().fold("rv-".to_owned(), |name, byte| format!("{name}{byte:02x}")))
}

fn mac_of(address: &IpAddr) -> Option<[u8; 6]> {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            Some([0x02, 0x42, a, b, c, d])
        }
        IpAddr::V6(_) => None,
    }
}

/// Takes `02:42:ac:12:00:02` apart.
///
/// # Errors
/// [`NetworkError::Mac`].
pub fn parse_mac(text: &str) -> Result<[u8; 6], NetworkError> {
    let wrong = || NetworkError::Mac { value: text.to_owned() };
    let bytes: Result<Vec<u8>, _> = text.split([':', '-']).map(|part| u8::from_str_radix(part, 16)).collect();
    bytes.map_err(|_| wrong())?.try_into().map_err(|_| wrong())
}
