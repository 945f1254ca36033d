//! Links of a container that runs: made, deleted, and which of them leads out.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use netlink_packet_route::RouteNetlinkMessage;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{if_nameindex, if_nametoindex};
use rtnetlink::LinkUnspec;

use super::{Interface, configure, connecting, default_route, enter, has_ipv6, interface_settings, make, set_ipv6};
use crate::network::NetworkError;
use crate::network::netlink::{self, ACK, CREATE, Netlink, REPLACE};

/// A default route of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    pub gateway: IpAddr,
    /// The container's address on the link that it goes through.
    pub own: IpAddr,
    /// The link itself leads there, without a router.
    pub direct: bool,
}

/// Makes one more interface in a namespace, up and addressed, in the place of one that has an address of it already. Default
/// routes stay as they are. Its name is the next free one with the prefix in `interface.name`.
///
/// # Errors
/// [`NetworkError::Kernel`]; no link is left then.
pub fn join(netns: BorrowedFd<'_>, mut interface: Interface<'_>) -> Result<(), NetworkError> {
    leave(netns, interface.addresses)?;
    let made = enter(netns, || {
        set_ipv6("default", has_ipv6(&interface))?;
        let links = if_nameindex()?;
        let is_free = |name: &String| links.iter().all(|link| link.name().to_bytes() != name.as_bytes());
        let mut names = (0..=links.iter().count()).map(|number| format!("{}{number}", interface.name));
        Ok((names.find(is_free).ok_or(io::ErrorKind::AlreadyExists)?, Netlink::route()?))
    });
    let (name, inside) = made.map_err(connecting(&interface))?;
    interface.name = name;
    let made = Netlink::route().and_then(|outside| {
        let made = make(&outside, netns, &interface);
        enter(netns, || set_ipv6("default", true))?;
        made?;
        let mut batch = Vec::new();
        configure(&interface, &inside, &mut batch)?;
        inside.send(&batch)?;
        enter(netns, || interface_settings(&interface))
    });
    made.map_err(|error| {
        // Best effort: what is left of the link ends with the container.
        let _ = delete(&inside, &interface.name);
        connecting(&interface)(error)
    })
}

/// Deletes the interfaces that have one of the addresses.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn leave(netns: BorrowedFd<'_>, addresses: &[IpAddr]) -> Result<(), NetworkError> {
    let left = enter(netns, || {
        let socket = Netlink::route()?;
        addresses.iter().filter_map(|address| link_with(*address)).try_for_each(|name| delete(&socket, &name))
    });
    left.map_err(NetworkError::kernel("take a container off a network"))
}

/// Has default routes lead elsewhere, or where there was none.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn route(netns: BorrowedFd<'_>, routes: &[DefaultRoute]) -> Result<(), NetworkError> {
    let set = enter(netns, || {
        let socket = Netlink::route()?;
        for DefaultRoute { gateway, own, direct } in routes {
            let name = link_with(*own).ok_or(io::ErrorKind::AddrNotAvailable)?;
            let route = default_route(if_nametoindex(name.as_str())?, *gateway, *direct);
            socket.send(&netlink::encode(RouteNetlinkMessage::NewRoute(route), ACK | CREATE | REPLACE))?;
        }
        Ok(())
    });
    set.map_err(NetworkError::kernel("set the container's default routes"))
}

/// The interface of this thread's namespace that has an address.
fn link_with(address: IpAddr) -> Option<String> {
    let has = |interface: &nix::ifaddrs::InterfaceAddress| {
        let found = interface.address.as_ref()?;
        let ipv4 = found.as_sockaddr_in().map(|found| IpAddr::V4(found.ip()));
        ipv4.or_else(|| found.as_sockaddr_in6().map(|found| IpAddr::V6(found.ip())))
    };
    getifaddrs().ok()?.find(|interface| has(interface) == Some(address)).map(|interface| interface.interface_name)
}

/// One that is gone is fine.
fn delete(socket: &Netlink, name: &str) -> io::Result<()> {
    let message = LinkUnspec::new_with_name(name).build();
    match socket.send(&netlink::encode(RouteNetlinkMessage::DelLink(message), ACK)) {
        Err(error) if error.raw_os_error() != Some(libc::ENODEV) => Err(error),
        _ => Ok(()),
    }
}
