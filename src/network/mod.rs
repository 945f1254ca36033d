//! Bridges, address pools, sandboxes (network namespaces), nftables, DNS, hosts files, the port proxy.
//!
//! What outlives a process here: the network records on disk, the bridges and the nft tables. Everything of a container
//! (its namespace, links, addresses, sockets) hangs on file descriptors and is gone when the last one is closed.

pub mod conntrack;
pub mod dns;
mod dns_forward;
pub mod dns_others;
pub mod dns_server;
pub mod dns_sockets;
pub mod files;
pub mod firewall;
pub mod foreign;
pub mod ipam;
mod link;
pub mod monitor;
mod netlink;
mod networks;
mod nft;
pub mod outside;
pub mod pools;
pub mod ports;
pub mod proxy;
pub mod records;
pub mod routes;
pub mod sandbox;
#[cfg(test)]
mod tests;
pub mod uplink;

use std::io;
use std::path::PathBuf;

use ipnetwork::IpNetwork;

pub use firewall::{ProjectTable, Published};
pub use link::link_exists;
pub use networks::Networks;
pub use outside::Outside;
pub use records::{EndpointRecord, NetworkRecord, SubnetRecord};
pub use sandbox::{Gateway, Interface, Sandbox};

/// What goes wrong with networks.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("cannot {action} `{path}`")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the kernel refused to {action}")]
    Kernel { action: String, source: io::Error },
    #[error("no free address range is left in the pools for network `{network}`; set `ipam.config.subnet`")]
    PoolsExhausted { network: String },
    #[error("`{path}` is not what it should be: {why}")]
    Pools { path: PathBuf, why: String },
    #[error(
        "network `{name}` is of project `{project}`: an ordinary user's projects each have a network namespace, and cannot share networks"
    )]
    Apart { name: String, project: String },
    #[error("subnet {subnet} of network `{network}` overlaps {other}")]
    Overlap { network: String, subnet: IpNetwork, other: String },
    #[error("no free address is left in network `{network}`")]
    AddressesExhausted { network: String },
    #[error("address {address} is not in a subnet of network `{network}`")]
    AddressOutside { network: String, address: std::net::IpAddr },
    #[error("address {address} of network `{network}` is taken by {holder}")]
    AddressTaken { network: String, address: std::net::IpAddr, holder: String },
    #[error("network `{name}` is declared external but does not exist")]
    NotFound { name: String },
    #[error("network `{name}` belongs to project `{project}`")]
    Foreign { name: String, project: String },
    #[error("the firewall's chain {gate} cuts containers off: have it accept what comes from and goes to `{bridges}`")]
    Gate { gate: String, bridges: String, source: io::Error },
    #[error("firewalld cuts containers off: `firewall-cmd --zone=trusted --add-interface={bridge}` lets them pass")]
    Zone { bridge: String, source: io::Error },
    #[error(
        "chain `FORWARD` of `{program}` may cut containers off: have it accept what comes from (`-i`) and goes to (`-o`) `{bridges}`"
    )]
    Legacy { program: &'static str, bridges: String, source: io::Error },
    #[error("link `{link}` of network `{network}` is that of network `{holder}`")]
    LinkTaken { network: String, link: String, holder: String },
    #[error(
        "networks `{network}` and `{holder}` are on link `{link}`, for which the kernel has one `ipvlan_mode` and one \
         `ipvlan_flag`: give both the same, or another `parent`"
    )]
    Modes { network: String, holder: String, link: String },
    #[error(
        "networks `{network}` and `{holder}` are on link `{link}`, of which mode `passthru` takes all: give one of them another \
         `parent`, or both another `macvlan_mode`"
    )]
    Whole { network: String, holder: String, link: String },
    #[error(
        "network `{network}` gives link `{link}` whole to one container (`macvlan_mode: passthru`), and another one is on it: \
         stop that, or choose another `macvlan_mode` or `parent`"
    )]
    Passthru { network: String, link: String },
    #[error(
        "link `{link}` cannot be the parent of network `{network}` (`{driver}`) now: it is one of `{other}`, or a port of a bridge or bond. \
         Choose another `parent`, or the same driver for all networks on it"
    )]
    Parent { network: String, link: String, driver: &'static str, other: &'static str },
    #[error("network `{network}`: this host has no link `{link}`")]
    NoParent { network: String, link: String },
    #[error("`{value}` is not a hardware address")]
    Mac { value: String },
}

impl NetworkError {
    fn kernel(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Kernel { action, source }
    }

    fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
