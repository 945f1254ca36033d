//! Links of the host that networks are made of.

use std::fs;
use std::io;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{LinkBridge, LinkDummy, LinkUnspec, LinkVlan};

use crate::network::NetworkError;
use crate::network::netlink::{self, ACK, CREATE, EXCLUSIVE, Netlink};
use crate::network::records::NetworkRecord;
use crate::spec::network::Families;
use crate::spec::network::Shared;

/// The message that says whose a link is. Not through /sys, which shows the network it was mounted in.
fn alias(index: u32, text: &str) -> Vec<u8> {
    let mut message = LinkUnspec::new_with_index(index).build();
    message.attributes.push(LinkAttribute::IfAlias(text.to_owned()));
    netlink::encode(RouteNetlinkMessage::SetLink(message), ACK)
}

/// Whether there is a link of that name in this thread's network namespace.
pub fn link_exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

pub(super) fn create_bridge(record: &NetworkRecord) -> Result<(), NetworkError> {
    let name = &record.bridge;
    let failed = |action: &str| NetworkError::kernel(format!("{action} bridge `{name}` of network `{}`", record.name));
    let socket = Netlink::route().map_err(failed("open a netlink socket for"))?;
    let mut bridge = LinkBridge::new(name).mcast_snooping(false).up();
    if let Some(mtu) = record.mtu {
        bridge = bridge.mtu(mtu);
    }
    if record.owns_link {
        let create = netlink::encode(RouteNetlinkMessage::NewLink(bridge.build()), ACK | CREATE | EXCLUSIVE);
        socket.send(&create).map_err(failed("create"))?;
    }
    let index = nix::net::if_::if_nametoindex(name.as_str()).map_err(|errno| failed("find")(errno.into()))?;
    // So that `ip link` tells whose it is.
    if record.owns_link {
        socket.send(&alias(index, &record.name)).map_err(failed("name"))?;
    }
    let mut addresses = Vec::new();
    let isolated = record.as_bridge().map_or(Families::default(), |bridge| bridge.isolated);
    for subnet in record.subnets.iter().filter(|subnet| !isolated.have(subnet.gateway)) {
        addresses.extend(address_message(index, subnet.gateway, subnet.subnet.prefix()));
    }
    let ipv6 = record.subnets.iter().any(|subnet| subnet.subnet.is_ipv6());
    // Without IPv6 the bridge needs no link-local address; a kernel without IPv6 has no such file.
    if !ipv6 && record.owns_link {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    }
    // A container must not give the host addresses and routes by pretending to be a router.
    if ipv6 && record.owns_link {
        let accept = format!("/proc/sys/net/ipv6/conf/{name}/accept_ra");
        fs::write(&accept, "0").map_err(NetworkError::file("write", &accept))?;
    }
    let sent = if addresses.is_empty() { Ok(Vec::new()) } else { socket.send(&addresses) };
    match sent {
        // A bridge that was there may have them.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) && !record.owns_link => {}
        sent => drop(sent.map_err(failed("address"))?),
    }
    set(&format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"))?;
    if !record.internal {
        set("/proc/sys/net/ipv4/ip_forward")?;
        if ipv6 {
            forward_ipv6()?;
        }
    }
    Ok(())
}

/// The link that containers' own links are on: the host's, a VLAN on it, or a dummy that leads nowhere.
pub(super) fn create_parent(record: &NetworkRecord, shared: &Shared) -> Result<(), NetworkError> {
    if !record.owns_link {
        return Ok(());
    }
    let name = &record.bridge;
    let failed = |action: &str| NetworkError::kernel(format!("{action} link `{name}` of network `{}`", record.name));
    let message = match shared.parent.as_deref().map(|parent| parent.rsplit_once('.')) {
        None => LinkDummy::new(name).up().build(),
        Some(Some((base, tag))) if tag.parse::<u16>().is_ok_and(|tag| (1..=4094).contains(&tag)) => {
            let missing = |_| NetworkError::NoParent { network: record.name.clone(), link: base.to_owned() };
            let index = nix::net::if_::if_nametoindex(base).map_err(missing)?;
            LinkVlan::new(name, index, tag.parse().unwrap_or_default()).up().build()
        }
        Some(_) => return Err(NetworkError::NoParent { network: record.name.clone(), link: name.clone() }),
    };
    let socket = Netlink::route().map_err(failed("open a netlink socket for"))?;
    let create = netlink::encode(RouteNetlinkMessage::NewLink(message), ACK | CREATE | EXCLUSIVE);
    socket.send(&create).map_err(failed("create"))?;
    let alias = format!("/sys/class/net/{name}/ifalias");
    fs::write(&alias, &record.name).map_err(NetworkError::file("write", &alias))
}

/// A host that forwards does not listen to router advertisements any more, unless told to: it must not lose its way out.
fn forward_ipv6() -> Result<(), NetworkError> {
    let all = "/proc/sys/net/ipv6/conf/all/forwarding";
    if fs::read_to_string(all).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    for link in fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
        let accept = link.path().join("accept_ra");
        if fs::read_to_string(&accept).is_ok_and(|value| value.trim() == "1") {
            fs::write(&accept, "2").map_err(NetworkError::file("write", &accept))?;
        }
    }
    set(all)
}

/// Switches a kernel setting on, unless it is.
fn set(path: &str) -> Result<(), NetworkError> {
    if fs::read_to_string(path).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    fs::write(path, "1").map_err(NetworkError::file("write", path))
}

/// The message that gives a link an address; IPv6 without waiting for duplicate detection.
pub(super) fn address_message(index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let mut message = AddressMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(address));
    if let (IpAddr::V4(_), Ok(IpNetwork::V4(network))) = (address, IpNetwork::new(address, prefix)) {
        message.attributes.push(AddressAttribute::Local(address));
        // Of two addresses none is left for broadcasts: it would be the neighbour's.
        if prefix < 31 {
            message.attributes.push(AddressAttribute::Broadcast(network.broadcast()));
        }
    } else {
        message.attributes.push(AddressAttribute::Flags(netlink_packet_route::address::AddressFlags::Nodad));
    }
    netlink::encode(RouteNetlinkMessage::NewAddress(message), ACK | CREATE | EXCLUSIVE)
}

/// Deletes a link; one that is gone is fine.
pub(super) fn delete_link(name: &str) -> Result<(), NetworkError> {
    if !link_exists(name) {
        return Ok(());
    }
    let message: LinkMessage = LinkUnspec::new_with_name(name).build();
    let delete = netlink::encode(RouteNetlinkMessage::DelLink(message), ACK);
    match Netlink::route().and_then(|socket| socket.send(&delete)) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        Err(source) => Err(NetworkError::Kernel { action: format!("delete link `{name}`"), source }),
        Ok(_) => Ok(()),
    }
}

/// Waits until nobody changes links: whoever asks for one by netlink is kept waiting meanwhile.
pub(super) fn await_lock() {
    drop(Netlink::route().map(|socket| link_index(&socket, "lo")));
}

/// The index of a link in the namespace of `socket`.
pub(super) fn link_index(socket: &Netlink, name: &str) -> io::Result<u32> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let answers = socket.send(&netlink::encode(RouteNetlinkMessage::GetLink(message), 0))?;
    // The index stands at offset 4 of `struct ifinfomsg`.
    answers.first().and_then(|(_, body)| netlink::u32_at(body, 4)).ok_or_else(|| io::ErrorKind::NotFound.into())
}
