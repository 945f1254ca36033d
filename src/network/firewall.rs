//! The nftables table of a project: outbound translation, isolation, published ports.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use sha2::{Digest, Sha256};

use crate::network::NetworkError;
use crate::network::netlink::Netlink;
use crate::network::nft::{self, ADDRESS4, ADDRESS6, Hook, INET, IPV4, IPV6, Map, PORT, PROTOCOL, Rule, Transaction};
use crate::network::records::NetworkRecord;
use crate::spec::Protocol;
use crate::spec::network::Bridge;

/// Ports published on every address: protocol and port. One map per family of the containers' addresses.
const ANY: Map = Map { name: "published", id: 1, family: IPV4, key_types: &[PROTOCOL, PORT] };
const ANY6: Map = Map { name: "published6", id: 2, family: IPV6, key_types: &[PROTOCOL, PORT] };
/// Ports published on one address: address, protocol and port.
const BOUND: Map = Map { name: "published-on", id: 3, family: IPV4, key_types: &[ADDRESS4, PROTOCOL, PORT] };
const BOUND6: Map = Map { name: "published-on6", id: 4, family: IPV6, key_types: &[ADDRESS6, PROTOCOL, PORT] };
/// Numbers of protocols.
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
/// The maps in the order they are asked in.
const MAPS: [Map; 4] = [BOUND, ANY, BOUND6, ANY6];

const LOOPBACK: IpNetwork = IpNetwork::V4(match Ipv4Network::new_checked(Ipv4Addr::new(127, 0, 0, 0), 8) {
    Some(network) => network,
    None => unreachable!(),
});
/// What IPv6 does not forward: connections to these are the proxy's.
const NEAR: [IpNetwork; 2] = [
    IpNetwork::V6(match Ipv6Network::new_checked(Ipv6Addr::LOCALHOST, 128) {
        Some(network) => network,
        None => unreachable!(),
    }),
    IpNetwork::V6(match Ipv6Network::new_checked(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10) {
        Some(network) => network,
        None => unreachable!(),
    }),
];

/// A published port: where the kernel sends what arrives. Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// `None`: every address of the host. The container's own, on a routed network: the port is let through to it.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
}

/// All of a project's rules.
#[derive(Clone, Debug)]
pub struct ProjectTable<'a> {
    pub project: &'a str,
    pub networks: &'a [NetworkRecord],
    pub published: &'a [Published],
}

/// The project's table name: the project's own, or its hash when that is too long for nftables or a shell.
pub fn table_name(project: &str) -> String {
    if project.len() <= 100 {
        return format!("rcompose-{project}");
    }
    let digest = Sha256::digest(project.as_bytes());
    digest.iter().take(16).fold("rcompose-".to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// Makes the kernel's table equal to `table` in one transaction: no packet sees a moment in between, and
/// connections that exist keep their translation.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn apply(table: &ProjectTable<'_>) -> Result<(), NetworkError> {
    let sent = Netlink::with_netfilter(|socket| {
        let there = has_table(socket, &table_name(table.project))?;
        socket.send(&build(table, there)).map(drop)
    });
    sent.map_err(NetworkError::kernel(format!("set the nftables rules of project `{}`", table.project)))
}

/// Publishes more ports, in one transaction; the project's table must exist.
///
/// # Errors
/// [`NetworkError::Kernel`], `EEXIST` inside when a port leads elsewhere already.
pub fn publish(project: &str, ports: &[Published]) -> Result<(), NetworkError> {
    let mut transaction = Transaction::new(INET);
    for port in ports {
        let (map, key) = key(port);
        transaction.add_element(&table_name(project), map, &key, port.address, port.port);
    }
    let sent = Netlink::with_netfilter(|socket| socket.send(&transaction.end()).map(drop));
    sent.map_err(NetworkError::kernel(format!("publish {}", listed(ports))))
}

/// Takes published ports away; those that are not there are fine.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn unpublish(project: &str, ports: &[Published]) -> Result<(), NetworkError> {
    let table = table_name(project);
    let delete = |ports: &[Published]| {
        let mut transaction = Transaction::new(INET);
        for port in ports {
            let (map, key) = key(port);
            transaction.delete_element(&table, map, &key);
        }
        Netlink::with_netfilter(|socket| socket.send(&transaction.end()).map(drop))
    };
    let deleted = match delete(ports) {
        // One that is missing undoes the whole transaction.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            ports.iter().try_for_each(|port| gone_is_fine(delete(std::slice::from_ref(port))))
        }
        other => other,
    };
    deleted.map_err(NetworkError::kernel(format!("close {}", listed(ports))))
}

fn listed(ports: &[Published]) -> String {
    let each = ports.iter().map(|port| format!("port {}/{}", port.host_port, port.protocol));
    each.collect::<Vec<_>>().join(", ")
}

/// Removes the project's table; one that is not there is fine.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn remove(project: &str) -> Result<(), NetworkError> {
    let name = table_name(project);
    let sent = Netlink::with_netfilter(|socket| {
        // A transaction that fails waits for a grace period of the kernel, some milliseconds.
        if !has_table(socket, &name)? {
            return Ok(());
        }
        let mut transaction = Transaction::new(INET);
        transaction.delete_table(&name);
        socket.send(&transaction.end()).map(drop)
    });
    gone_is_fine(sent).map_err(NetworkError::kernel(format!("remove the nftables rules of project `{project}`")))
}

/// Whether the project has its table.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn exists(project: &str) -> Result<bool, NetworkError> {
    let found = Netlink::with_netfilter(|socket| has_table(socket, &table_name(project)));
    found.map_err(NetworkError::kernel(format!("look for the nftables rules of project `{project}`")))
}

fn has_table(socket: &Netlink, table: &str) -> io::Result<bool> {
    match socket.send(&nft::table_request(INET, table)) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn key(port: &Published) -> (Map, Vec<u8>) {
    let protocol = match port.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    };
    let number = port.host_port.to_be_bytes();
    let tail = [protocol, 0, 0, 0, number[0], number[1], 0, 0];
    match (port.host_ip.filter(|address| !address.is_unspecified()), port.address) {
        (None, IpAddr::V4(_)) => (ANY, tail.to_vec()),
        (None, IpAddr::V6(_)) => (ANY6, tail.to_vec()),
        (Some(address), IpAddr::V4(_)) => (BOUND, [&nft::octets(address)[..], &tail].concat()),
        (Some(address), IpAddr::V6(_)) => (BOUND6, [&nft::octets(address)[..], &tail].concat()),
    }
}

/// The whole transaction; `there`: the table exists. Its chains stay and only what is in them is replaced: of two chains at one
/// hook a packet can see the new one before the change and the old one after it, and would be translated by neither.
fn build(table: &ProjectTable<'_>, there: bool) -> Vec<u8> {
    let name = table_name(table.project);
    let mut transaction = Transaction::new(INET);
    transaction.add_table(&name);
    let ipv6 = table.networks.iter().any(|network| network.subnets.iter().any(|subnet| subnet.subnet.is_ipv6()));
    let maps = || MAPS.into_iter().filter(|map| ipv6 || map.family == IPV4);
    for map in maps() {
        transaction.add_map(&name, map);
        if there {
            transaction.flush_map(&name, map);
        }
    }
    for port in table.published {
        let (map, key) = key(port);
        transaction.add_element(&name, map, &key, port.address, port.port);
    }
    for (chain, hook) in [
        ("guard", Hook("filter", nft::PREROUTING, -300)),
        ("prerouting", Hook("nat", nft::PREROUTING, -100)),
        ("output", Hook("nat", nft::OUTPUT, -100)),
        ("postrouting", Hook("nat", nft::POSTROUTING, 100)),
        ("forward", Hook("filter", nft::FORWARD, 0)),
    ] {
        transaction.add_chain(&name, chain, hook);
        if there {
            transaction.flush_chain(&name, chain);
        }
    }
    // What is published on the loopback is for this machine. The kernel drops such a packet from elsewhere by its address, which
    // it does not have any more once it has been translated.
    let strange = Rule::default().input(true, "lo").destination(false, LOOPBACK);
    transaction.add_rule(&name, "prerouting", strange.accept());
    for chain in ["prerouting", "output"] {
        for map in maps() {
            let mut rule = Rule::default();
            if map.family == IPV6 {
                rule = NEAR.iter().fold(rule, |rule, network| rule.destination(true, *network));
            }
            transaction.add_rule(&name, chain, rule.local_destination().translate(map));
        }
    }
    let bridges: Vec<_> = table.networks.iter().filter_map(|network| Some((network, network.as_bridge()?))).collect();
    translate_sources(&mut transaction, &name, &bridges);
    isolate(&mut transaction, &name, &bridges);
    transaction.end()
}

fn translate_sources(transaction: &mut Transaction, name: &str, networks: &[(&NetworkRecord, &Bridge)]) {
    for (network, options) in networks {
        let link = &network.bridge;
        // route_localnet opens the host's loopback services to the bridge; replies never carry such an address,
        // since the sources of 127/8 are masqueraded.
        transaction.add_rule(name, "guard", Rule::default().input(false, link).destination(false, LOOPBACK).drop());
        let from_loopback = Rule::default().output(false, link).source(LOOPBACK).translated();
        transaction.add_rule(name, "postrouting", from_loopback.masquerade());
        for subnet in network.subnets.iter().map(|subnet| subnet.subnet) {
            let hairpin = Rule::default().output(false, link).source(subnet).translated();
            transaction.add_rule(name, "postrouting", hairpin.masquerade());
            if !network.internal && options.masquerade && !options.routed.have(subnet.ip()) {
                let outbound = Rule::default().source(subnet).output(true, link);
                let address = options.sources.iter().find(|address| address.is_ipv4() == subnet.is_ipv4());
                let translated = match address {
                    Some(address) => outbound.source_nat(*address),
                    None => outbound.masquerade(),
                };
                transaction.add_rule(name, "postrouting", translated);
            }
        }
    }
}

/// Only replies, published ports and the bridge itself get in; from an internal network nothing gets out.
fn isolate(transaction: &mut Transaction, name: &str, networks: &[(&NetworkRecord, &Bridge)]) {
    transaction.add_rule(name, "forward", Rule::default().known_connection().accept());
    for (network, _) in networks.iter().filter(|(_, options)| options.icc) {
        let within = Rule::default().input(false, &network.bridge).output(false, &network.bridge);
        transaction.add_rule(name, "forward", within.accept());
    }
    for (network, _) in networks.iter().filter(|(network, _)| network.internal) {
        transaction.add_rule(name, "forward", Rule::default().input(false, &network.bridge).drop());
        transaction.add_rule(name, "forward", Rule::default().output(false, &network.bridge).drop());
    }
    transaction.add_rule(name, "forward", Rule::default().translated().accept());
    for (network, options) in networks {
        let routed =
            network.subnets.iter().map(|subnet| subnet.subnet).filter(|subnet| options.routed.have(subnet.ip()));
        for subnet in routed {
            let (map, icmp) = if subnet.is_ipv4() { (BOUND, ICMP) } else { (BOUND6, ICMP6) };
            let to = || Rule::default().output(false, &network.bridge).destination(false, subnet);
            transaction.add_rule(name, "forward", to().listed(map).accept());
            transaction.add_rule(name, "forward", to().protocol(icmp).accept());
        }
    }
    for (network, _) in networks.iter().filter(|(_, options)| !options.unprotected) {
        transaction.add_rule(name, "forward", Rule::default().output(false, &network.bridge).drop());
    }
}
