//! The nftables table of a project: outbound translation, isolation, published ports.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::net::Ipv4Addr;

use ipnetwork::{IpNetwork, Ipv4Network};
use sha2::{Digest, Sha256};

use crate::network::NetworkError;
use crate::network::netlink::Netlink;
use crate::network::nft::{self, Hook, Map, Rule, Transaction};
use crate::network::records::NetworkRecord;
use crate::spec::Protocol;

/// Ports published on every address: protocol and port.
const ANY: Map = Map { name: "published", id: 1, key_types: &[12, 13] };
/// Ports published on one address: address, protocol and port.
const BOUND: Map = Map { name: "published-on", id: 2, key_types: &[7, 12, 13] };

const LOOPBACK: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::new(127, 0, 0, 0), 8) {
    Some(network) => network,
    None => unreachable!(),
};

/// A published port: where the kernel sends what arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// `None`: every address of the host.
    pub host_ip: Option<Ipv4Addr>,
    pub host_port: u16,
    pub protocol: Protocol,
    pub address: Ipv4Addr,
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
    let sent = on_the_socket(|socket| {
        let there = exists(socket, &table_name(table.project))?;
        socket.send(&build(table, there)).map(drop)
    });
    sent.map_err(NetworkError::kernel(format!("set the nftables rules of project `{}`", table.project)))
}

/// Publishes one more port; the project's table must exist.
///
/// # Errors
/// [`NetworkError::Kernel`], `EEXIST` inside when the port leads elsewhere already.
pub fn publish(project: &str, port: &Published) -> Result<(), NetworkError> {
    let mut transaction = Transaction::new();
    let (map, key) = key(port);
    transaction.add_element(&table_name(project), map.name, &key, port.address, port.port);
    let sent = on_the_socket(|socket| socket.send(&transaction.end()).map(drop));
    sent.map_err(NetworkError::kernel(format!("publish port {}/{}", port.host_port, port.protocol)))
}

/// Takes a published port away; one that is not there is fine.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn unpublish(project: &str, port: &Published) -> Result<(), NetworkError> {
    let mut transaction = Transaction::new();
    let (map, key) = key(port);
    transaction.delete_element(&table_name(project), map.name, &key);
    let sent = on_the_socket(|socket| socket.send(&transaction.end()).map(drop));
    gone_is_fine(sent).map_err(NetworkError::kernel(format!("close port {}/{}", port.host_port, port.protocol)))
}

/// Removes the project's table; one that is not there is fine.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn remove(project: &str) -> Result<(), NetworkError> {
    let name = table_name(project);
    let sent = on_the_socket(|socket| {
        // A transaction that fails waits for a grace period of the kernel, some milliseconds.
        if !exists(socket, &name)? {
            return Ok(());
        }
        let mut transaction = Transaction::new();
        transaction.delete_table(&name);
        socket.send(&transaction.end()).map(drop)
    });
    gone_is_fine(sent).map_err(NetworkError::kernel(format!("remove the nftables rules of project `{project}`")))
}

thread_local! {
    /// Kept as long as the thread: closing one after something was deleted waits for a grace period of the kernel, some
    /// milliseconds. A thread's own, since a socket stays in the network namespace that it was opened in.
    static SOCKET: RefCell<Option<Netlink>> = const { RefCell::new(None) };
}

fn on_the_socket<T>(action: impl FnOnce(&Netlink) -> io::Result<T>) -> io::Result<T> {
    SOCKET.with_borrow_mut(|kept| {
        let socket = match kept.take() {
            Some(socket) => socket,
            None => Netlink::netfilter()?,
        };
        action(kept.insert(socket))
    })
}

fn exists(socket: &Netlink, table: &str) -> io::Result<bool> {
    match socket.send(&nft::table_request(table)) {
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
    match port.host_ip.filter(|address| !address.is_unspecified()) {
        None => (ANY, tail.to_vec()),
        Some(address) => (BOUND, [&address.octets()[..], &tail].concat()),
    }
}

pub(super) fn ipv4_subnets(network: &NetworkRecord) -> impl Iterator<Item = Ipv4Network> + '_ {
    network.subnets.iter().filter_map(|subnet| match subnet.subnet {
        IpNetwork::V4(subnet) => Some(subnet),
        IpNetwork::V6(_) => None,
    })
}

/// The whole transaction; `there`: the table exists. Adding it before deleting it makes the deletion valid also when
/// somebody else has deleted it meanwhile.
fn build(table: &ProjectTable<'_>, there: bool) -> Vec<u8> {
    let name = table_name(table.project);
    let mut transaction = Transaction::new();
    if there {
        transaction.add_table(&name);
        transaction.delete_table(&name);
    }
    transaction.add_table(&name);
    transaction.add_map(&name, ANY);
    transaction.add_map(&name, BOUND);
    for port in table.published {
        let (map, key) = key(port);
        transaction.add_element(&name, map.name, &key, port.address, port.port);
    }
    transaction.add_chain(&name, "guard", Hook("filter", nft::PREROUTING, -300));
    transaction.add_chain(&name, "prerouting", Hook("nat", nft::PREROUTING, -100));
    transaction.add_chain(&name, "output", Hook("nat", nft::OUTPUT, -100));
    transaction.add_chain(&name, "postrouting", Hook("nat", nft::POSTROUTING, 100));
    transaction.add_chain(&name, "forward", Hook("filter", nft::FORWARD, 0));
    for chain in ["prerouting", "output"] {
        for map in [BOUND, ANY] {
            transaction.add_rule(&name, chain, Rule::default().local_destination().translate(&map));
        }
    }
    translate_sources(&mut transaction, &name, table.networks);
    isolate(&mut transaction, &name, table.networks);
    transaction.end()
}

fn translate_sources(transaction: &mut Transaction, name: &str, networks: &[NetworkRecord]) {
    for network in networks {
        let bridge = &network.bridge;
        // route_localnet opens the host's loopback services to the bridge; replies never carry such an address,
        // since the sources of 127/8 are masqueraded.
        transaction.add_rule(name, "guard", Rule::default().input(false, bridge).destination(LOOPBACK).drop());
        let from_loopback = Rule::default().output(false, bridge).source(LOOPBACK).translated();
        transaction.add_rule(name, "postrouting", from_loopback.masquerade());
        for subnet in ipv4_subnets(network) {
            let hairpin = Rule::default().output(false, bridge).source(subnet).translated();
            transaction.add_rule(name, "postrouting", hairpin.masquerade());
            if !network.internal {
                let outbound = Rule::default().source(subnet).output(true, bridge);
                transaction.add_rule(name, "postrouting", outbound.masquerade());
            }
        }
    }
}

/// Only replies, published ports and the bridge itself get in; from an internal network nothing gets out.
fn isolate(transaction: &mut Transaction, name: &str, networks: &[NetworkRecord]) {
    transaction.add_rule(name, "forward", Rule::default().known_connection().accept());
    for network in networks {
        let within = Rule::default().input(false, &network.bridge).output(false, &network.bridge);
        transaction.add_rule(name, "forward", within.accept());
    }
    for network in networks.iter().filter(|network| network.internal) {
        transaction.add_rule(name, "forward", Rule::default().input(false, &network.bridge).drop());
        transaction.add_rule(name, "forward", Rule::default().output(false, &network.bridge).drop());
    }
    transaction.add_rule(name, "forward", Rule::default().translated().accept());
    for network in networks {
        transaction.add_rule(name, "forward", Rule::default().output(false, &network.bridge).drop());
    }
}
