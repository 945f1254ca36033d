//! Address ranges this host uses.

use std::io;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

use crate::network::ipam::{self, Used};
use crate::network::netlink::{self, Answer, DUMP, Netlink};
use crate::network::records::NetworkRecord;

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
    used.extend(
        routes(&socket)?.into_iter().map(|(range, _)| Used { range, by: format!("route {range} of this host") }),
    );
    Ok(used)
}

/// What to do about [`clashes`].
pub const CLASH_REMEDY: &str = "`down` and `up` choose another range, or set `ipam.config.subnet`";

/// What a network's ranges and routes of this host through other links have in common, in words; for networks that were
/// there before the routes.
///
/// # Errors
/// When the routes cannot be listed.
pub fn clashes(network: &NetworkRecord) -> io::Result<Vec<String>> {
    let own = nix::net::if_::if_nametoindex(network.bridge.as_str()).ok();
    let others = routes(&Netlink::route()?)?.into_iter().filter(|(_, link)| *link != own);
    let mut found = Vec::new();
    for (range, link) in others {
        for subnet in network.subnets.iter().map(|subnet| subnet.subnet).filter(|subnet| ipam::overlap(*subnet, range))
        {
            let link = link.and_then(|index| nix::net::if_::if_indextoname(index).ok());
            let through = link.map(|link| format!(" through `{}`", link.to_string_lossy())).unwrap_or_default();
            found.push(format!(
                "network `{}` has {subnet}, and this host now has a route to {range}{through}: they hide each other",
                network.name
            ));
        }
    }
    Ok(found)
}

/// Ranges of routes with the links they go through, default routes left out.
fn routes(socket: &Netlink) -> io::Result<Vec<(IpNetwork, Option<u32>)>> {
    let request = netlink::encode(RouteNetlinkMessage::GetRoute(RouteMessage::default()), DUMP);
    Ok(socket.dump(&request)?.iter().filter_map(route).collect())
}

fn route(answer: &Answer) -> Option<(IpNetwork, Option<u32>)> {
    let Some(RouteNetlinkMessage::NewRoute(message)) = netlink::decode(answer) else { return None };
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    let link = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    // Halves of the whole address space (VPNs that take the default route that way) are no ranges in use.
    let prefix = message.header.destination_prefix_length;
    let range = address.filter(|_| prefix > 1).and_then(|address| IpNetwork::new(address, prefix).ok())?;
    Some((range, link))
}

/// The range of a message that tells of a new route.
pub(super) fn range(message: &Answer) -> Option<IpNetwork> {
    route(message).map(|(range, _)| range)
}
