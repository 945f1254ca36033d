//! Address ranges this host uses.

use std::io;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

use crate::network::ipam::Used;
use crate::network::netlink::{self, DUMP, Netlink};

/// Address ranges the host uses: those of its interfaces and its routes, the default route left out.
pub(super) fn host_ranges() -> io::Result<Vec<Used>> {
    let socket = Netlink::route()?;
    let mut used = Vec::new();
    let addresses = netlink::encode(RouteNetlinkMessage::GetAddress(AddressMessage::default()), DUMP);
    for answer in socket.dump(&addresses)? {
        let Some(RouteNetlinkMessage::NewAddress(message)) = netlink::decode(&answer) else { continue };
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        let range = address.and_then(|address| IpNetwork::new(address, message.header.prefix_len).ok());
        used.extend(range.map(|range| Used { range, by: format!("address {range} of this host") }));
    }
    let routes = netlink::encode(RouteNetlinkMessage::GetRoute(RouteMessage::default()), DUMP);
    for answer in socket.dump(&routes)? {
        let Some(RouteNetlinkMessage::NewRoute(message)) = netlink::decode(&answer) else { continue };
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
            _ => None,
        });
        // Halves of the whole address space (VPNs that take the default route that way) are no ranges in use.
        let prefix = message.header.destination_prefix_length;
        let range = address.filter(|_| prefix > 1).and_then(|address| IpNetwork::new(address, prefix).ok());
        used.extend(range.map(|range| Used { range, by: format!("route {range} of this host") }));
    }
    Ok(used)
}
