//! Network namespaces of containers: links, addresses, routes.

pub mod live;

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoPortKind, InfoVeth, IpVlanFlags, IpVlanMode, LinkMessage, MacVlanMode};
use netlink_packet_route::route::{RouteMessage, RouteScope};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{
    LinkBridgePort, LinkIpVlan, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use crate::network::NetworkError;
use crate::network::dns_sockets::{self, DnsSockets};
use crate::network::link::{address_message, delete_link, link_exists, link_index};
use crate::network::netlink::{self, ACK, CREATE, EXCLUSIVE, Netlink};
use crate::network::records::NetworkRecord;
use crate::spec::network::{Driver, IpvlanFlag, Shared, SharedKind};

/// How long the kernel has to destroy a namespace, which usually takes it milliseconds.
const SWEEP_AFTER: Duration = Duration::from_millis(300);

/// A container's connection to one network.
#[derive(Clone, Debug)]
pub struct Interface<'a> {
    pub network: &'a NetworkRecord,
    /// One per address family, as leased.
    pub addresses: &'a [IpAddr],
    /// Addresses besides, of link scope.
    pub link_local: &'a [IpAddr],
    /// `02:42:` and the IPv4 address when `None`.
    pub mac: Option<[u8; 6]>,
    /// Name inside, `eth0` and so on.
    pub name: String,
    /// Name of the host's end, from [`host_link`].
    pub link: &'a str,
    /// Families whose default route goes through this one.
    pub gateway: Gateway,
    /// Dotted keys below `net`, `IFNAME` standing for the interface, and values.
    pub sysctls: &'a [(String, String)],
}

/// Families of default routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    pub ipv4: bool,
    pub ipv6: bool,
}

/// A network namespace; its links are gone when this and the processes in it are.
#[derive(Debug)]
pub struct Sandbox {
    pub netns: OwnedFd,
    /// `None` where DNS is not ours.
    pub dns: Option<DnsSockets>,
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
        inside.send(&loopback_up())?;
        if !interfaces.iter().all(has_ipv6) {
            set_ipv6("default", false)?;
        }
        Ok((netns, inside, dns_sockets::open(false)?))
    })
    .map_err(NetworkError::kernel("create a network namespace"))?;
    let outside = Netlink::route().map_err(NetworkError::kernel("open a netlink socket"))?;
    let mut batch = Vec::new();
    for interface in interfaces {
        let made = make(&outside, netns.as_fd(), interface);
        made.and_then(|()| configure(interface, &inside, &mut batch)).map_err(connecting(interface))?;
    }
    if !interfaces.iter().all(has_ipv6) {
        let settle = || {
            interfaces.iter().filter(|one| has_ipv6(one)).try_for_each(|one| set_ipv6(&one.name, true))?;
            // What the container makes itself, a tunnel for one, may have IPv6.
            set_ipv6("default", true)
        };
        enter(netns.as_fd(), settle).map_err(NetworkError::kernel("switch IPv6 on"))?;
    }
    if !batch.is_empty() {
        inside.send(&batch).map_err(NetworkError::kernel("address the container's links"))?;
    }
    for interface in interfaces.iter().filter(|interface| !interface.sysctls.is_empty()) {
        enter(netns.as_fd(), || interface_settings(interface)).map_err(connecting(interface))?;
    }
    Ok(Sandbox { netns, dns: Some(dns) })
}

/// A namespace with nothing but `lo` (`network_mode: none`).
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn create_none() -> Result<Sandbox, NetworkError> {
    let netns = in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let netns = OwnedFd::from(File::open("/proc/thread-self/ns/net")?);
        Netlink::route()?.send(&loopback_up())?;
        Ok(netns)
    });
    let netns = netns.map_err(NetworkError::kernel("create a network namespace"))?;
    Ok(Sandbox { netns, dns: None })
}

/// The namespace of a running process, with new DNS sockets in it: for when the old ones died with their holders.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn reopen(pid: u32) -> Result<Sandbox, NetworkError> {
    let netns = File::open(format!("/proc/{pid}/ns/net")).map(OwnedFd::from);
    let netns = netns.map_err(NetworkError::kernel(format!("open the network namespace of process {pid}")))?;
    let dns = enter(netns.as_fd(), || dns_sockets::open(true))
        .map_err(NetworkError::kernel(format!("serve names in the network namespace of process {pid}")))?;
    Ok(Sandbox { netns, dns: Some(dns) })
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

fn connecting(interface: &Interface<'_>) -> impl FnOnce(io::Error) -> NetworkError {
    let (network, link) = (interface.network.name.clone(), interface.network.bridge.clone());
    let has_mtu = interface.network.mtu.is_some();
    let shared = match &interface.network.driver {
        Driver::Shared(shared) => Some(shared.kind),
        Driver::Bridge(_) => None,
    };
    move |error| match (error.raw_os_error(), shared) {
        // All that the kernel says to one that is not alone there, and to one with an MTU that the parent does not have.
        (Some(libc::EINVAL), Some(SharedKind::MacvlanPassthru)) if !has_mtu => NetworkError::Passthru { network, link },
        (Some(libc::EBUSY), Some(kind)) => {
            let other = if kind.driver() == "macvlan" { "ipvlan" } else { "macvlan" };
            NetworkError::Parent { network, link, driver: kind.driver(), other }
        }
        _ => NetworkError::kernel(format!("connect a container to network `{network}`"))(error),
    }
}

fn has_ipv6(interface: &Interface<'_>) -> bool {
    interface.addresses.iter().chain(interface.link_local).any(IpAddr::is_ipv6)
}

/// Whether a link has IPv6, or, by the name `default`, all that are made from now on in this thread's namespace. An interface
/// without an IPv6 address gets no link-local one either, as with Docker. A kernel without IPv6 has no such setting.
fn set_ipv6(link: &str, enabled: bool) -> io::Result<()> {
    match fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), if enabled { "0" } else { "1" }) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn loopback_up() -> Vec<u8> {
    netlink::encode(RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(1).up().build()), ACK)
}

/// One message outside makes the link, inside at once: moving it later would wait for the kernel's grace periods.
fn make(outside: &Netlink, netns: BorrowedFd<'_>, interface: &Interface<'_>) -> io::Result<()> {
    let parent = nix::net::if_::if_nametoindex(interface.network.bridge.as_str())?;
    let bridge = match &interface.network.driver {
        Driver::Shared(shared) => {
            let link = RouteNetlinkMessage::NewLink(shared_link(netns, interface, parent, shared));
            return outside.send(&netlink::encode(link, ACK | CREATE | EXCLUSIVE)).map(drop);
        }
        Driver::Bridge(bridge) => bridge,
    };
    let mut peer = LinkUnspec::new_with_name(&interface.name).setns_by_fd(netns.as_raw_fd());
    let mut host = LinkVeth::new(interface.link, &interface.name).controller(parent).up();
    if let Some(mtu) = interface.network.mtu {
        peer = peer.mtu(mtu);
        host = host.mtu(mtu);
    }
    if let Some(mac) = mac_of(interface) {
        peer = peer.address(mac);
    }
    let pair = host.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build();
    // A container reaches itself through its own published port: the bridge must send frames back where they came from. The
    // file in /sys that does the same makes the writer spin while anybody else changes a link.
    let port = LinkMessageBuilder::<LinkBridgePort>::default().name(interface.link).set_port_kind(InfoPortKind::Bridge);
    let port = port.hairpin(true).isolated(!bridge.icc).build();
    let mut batch = netlink::encode(RouteNetlinkMessage::NewLink(pair), ACK | CREATE | EXCLUSIVE);
    batch.extend(netlink::encode(RouteNetlinkMessage::NewLink(port), ACK));
    outside.send(&batch).map(drop)
}

/// Takes the connections of containers that have ended off their bridges; those that are gone are fine. The kernel destroys
/// a namespace some time after its last process: until then it would answer for addresses that another container has.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn cut(links: &[String]) -> Result<(), NetworkError> {
    let Some(socket) = (!links.is_empty()).then(Netlink::route) else { return Ok(()) };
    let cut = |socket: &Netlink, link: &String| {
        let port = LinkMessageBuilder::<LinkBridgePort>::default().name(link).set_port_kind(InfoPortKind::Bridge);
        // Nothing finds the way to it any more. A disabled port would be enabled again by the very notice of the change;
        // without a bridge or deleted, it would have us wait for the kernel's grace periods.
        let port = port.learning(false).flood(false).bcast_flood(false).mcast_flood(false).fdb_flush().build();
        match socket.send(&netlink::encode(RouteNetlinkMessage::NewLink(port), ACK)) {
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => Err(error),
            _ => Ok(()),
        }
    };
    let cut = socket.and_then(|socket| links.iter().try_for_each(|link| cut(&socket, link)));
    cut.map_err(NetworkError::kernel("take a container off its networks"))
}

/// Deletes those of the links that were [`cut`] which the kernel has not taken along by itself: a connection that was open when
/// both its ends were killed keeps the namespace, and the link with it, for as long as TCP tries to end it, which is minutes.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn sweep(links: &[String]) -> Result<(), NetworkError> {
    let begin = Instant::now();
    // Deleting one takes 15 ms under the lock over all links.
    while links.iter().any(|link| link_exists(link)) && begin.elapsed() < SWEEP_AFTER {
        thread::sleep(Duration::from_millis(2));
    }
    links.iter().try_for_each(|link| delete_link(link))
}

/// Deletes the links of a container that has ended. Those on a shared parent keep their addresses from everybody else, the
/// container's next run included, until the kernel gets round to destroying the namespace.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn clear(netns: BorrowedFd<'_>) -> Result<(), NetworkError> {
    let cleared = enter(netns, || {
        let socket = Netlink::route()?;
        for interface in &nix::net::if_::if_nameindex()? {
            if interface.name() != c"lo" {
                let link = LinkUnspec::new_with_index(interface.index()).build();
                socket.send(&netlink::encode(RouteNetlinkMessage::DelLink(link), ACK))?;
            }
        }
        Ok(())
    });
    cleared.map_err(NetworkError::kernel("delete the links of a container"))
}

fn shared_link(netns: BorrowedFd<'_>, interface: &Interface<'_>, parent: u32, shared: &Shared) -> LinkMessage {
    macro_rules! finish {
        ($link:expr) => {{
            let mut link = $link.setns_by_fd(netns.as_raw_fd());
            if let Some(mtu) = interface.network.mtu {
                link = link.mtu(mtu);
            }
            link
        }};
    }
    let macvlan = |mode| {
        let link = finish!(LinkMacVlan::new(&interface.name, parent, mode));
        // The only one on its parent has the parent's address.
        match mac_of(interface).filter(|_| shared.kind != SharedKind::MacvlanPassthru) {
            Some(mac) => link.address(mac).build(),
            None => link.build(),
        }
    };
    let flag = match shared.flag {
        IpvlanFlag::Bridge => IpVlanFlags::empty(),
        IpvlanFlag::Private => IpVlanFlags::Private,
        IpvlanFlag::Vepa => IpVlanFlags::Vepa,
    };
    let ipvlan = |mode| finish!(LinkIpVlan::new(&interface.name, parent, mode).flag(flag)).build();
    match shared.kind {
        SharedKind::MacvlanBridge => macvlan(MacVlanMode::Bridge),
        SharedKind::MacvlanPrivate => macvlan(MacVlanMode::Private),
        SharedKind::MacvlanVepa => macvlan(MacVlanMode::Vepa),
        SharedKind::MacvlanPassthru => macvlan(MacVlanMode::Passthrough),
        SharedKind::IpvlanL2 => ipvlan(IpVlanMode::L2),
        SharedKind::IpvlanL3 => ipvlan(IpVlanMode::L3),
        SharedKind::IpvlanL3s => ipvlan(IpVlanMode::L3S),
    }
}

/// The messages that bring a link up inside, with its addresses and routes.
fn configure(interface: &Interface<'_>, inside: &Netlink, batch: &mut Vec<u8>) -> io::Result<()> {
    let index = link_index(inside, &interface.name)?;
    let up = LinkUnspec::new_with_index(index).up().build();
    batch.extend(netlink::encode(RouteNetlinkMessage::SetLink(up), ACK));
    for address in interface.addresses {
        let Some(subnet) = interface.network.subnets.iter().find(|subnet| subnet.subnet.contains(*address)) else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        batch.extend(address_message(index, *address, subnet.subnet.prefix()));
        let wanted = if address.is_ipv4() { interface.gateway.ipv4 } else { interface.gateway.ipv6 };
        if wanted {
            let route = default_route(index, subnet.gateway, interface.network.is_routed());
            batch.extend(netlink::encode(RouteNetlinkMessage::NewRoute(route), ACK | CREATE | EXCLUSIVE));
        }
    }
    for address in interface.link_local {
        batch.extend(address_message(index, *address, if address.is_ipv4() { 16 } else { 64 }));
    }
    Ok(())
}

fn default_route(index: u32, gateway: IpAddr, direct: bool) -> RouteMessage {
    let mut route = match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).output_interface(index).build(),
    };
    if direct {
        let is_gateway = |attribute: &_| matches!(attribute, netlink_packet_route::route::RouteAttribute::Gateway(_));
        route.attributes.retain(|attribute| !is_gateway(attribute));
        route.header.scope = RouteScope::Link;
    }
    route
}

/// Writes the settings of an interface; this thread is in its namespace.
fn interface_settings(interface: &Interface<'_>) -> io::Result<()> {
    for (key, value) in interface.sysctls {
        // The interface's own name may hold dots.
        let path = format!("/proc/sys/{}", key.replace('.', "/").replace("IFNAME", &interface.name));
        fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("`{path}`: {error}")))?;
    }
    Ok(())
}

/// What the names of the host's ends of connections begin with.
pub(super) const LINK: &str = "rv-";

/// A name for the host's end of a connection, never used before: a dying link of the same name must not be in the way.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn host_link() -> io::Result<String> {
    let mut random = [0; 5];
    rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(random.iter().fold(LINK.to_owned(), |name, byte| format!("{name}{byte:02x}")))
}

fn mac_of(interface: &Interface<'_>) -> Option<Vec<u8>> {
    let derived = interface.addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some([&[0x02, 0x42][..], &address.octets()].concat()),
        IpAddr::V6(_) => None,
    });
    interface.mac.map(Vec::from).or(derived)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::network::Bridge;

    #[test]
    fn a_parent_that_others_have_is_told_with_a_way_out() {
        let shared = |kind| Driver::Shared(Shared { parent: Some("eth7".into()), kind, flag: IpvlanFlag::Bridge });
        let told = |driver, number| {
            let network = NetworkRecord { driver, bridge: "eth7".into(), ..crate::network::tests::record("net") };
            let interface = Interface {
                network: &network,
                addresses: &[],
                link_local: &[],
                mac: None,
                name: "eth0".into(),
                link: "",
                gateway: Gateway::default(),
                sysctls: &[],
            };
            connecting(&interface)(io::Error::from_raw_os_error(number)).to_string()
        };
        let whole = told(shared(SharedKind::MacvlanPassthru), libc::EINVAL);
        assert!(whole.contains("`net` gives link `eth7` whole") && whole.contains("another `macvlan_mode`"), "{whole}");
        for (kind, other) in [(SharedKind::MacvlanBridge, "`ipvlan`"), (SharedKind::IpvlanL3, "`macvlan`")] {
            let busy = told(shared(kind), libc::EBUSY);
            assert!(busy.contains("`eth7`") && busy.contains(other) && busy.contains("another `parent`"), "{busy}");
            assert!(told(shared(kind), libc::EINVAL).contains("the kernel refused"));
        }
        assert!(told(Driver::Bridge(Bridge::default()), libc::EBUSY).contains("the kernel refused"));
    }
}
