//! Networks and published ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// A network of the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Name on the host, `PROJECT_KEY` unless set.
    pub name: String,
    /// Must exist already; never created or removed by us.
    pub external: bool,
    /// No way out of the network.
    pub internal: bool,
    pub enable_ipv4: bool,
    pub enable_ipv6: bool,
    pub driver: Option<String>,
    pub driver_opts: BTreeMap<String, String>,
    /// Empty: taken from the pools.
    pub subnets: Vec<Subnet>,
    pub labels: BTreeMap<String, String>,
    /// SHA-256 (hexadecimal) of the attributes; a difference means recreation.
    pub config_hash: String,
}

/// One address range of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub subnet: IpNetwork,
    /// Containers get addresses from here only.
    pub range: Option<IpNetwork>,
    pub gateway: Option<IpAddr>,
    /// Addresses never given out.
    pub reserved: BTreeMap<String, IpAddr>,
}

/// A published port: one container port, and the host ports it may be reached at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// `None`: all addresses.
    pub host_ip: Option<IpAddr>,
    /// First and last host port to choose from; `None`: any free one.
    pub host: Option<(u16, u16)>,
    pub container: u16,
    pub protocol: Protocol,
}

/// Transport of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}
