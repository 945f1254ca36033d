//! Networks and published ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

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
    pub driver: Driver,
    /// Bytes; the kernel's default when `None`.
    pub mtu: Option<u32>,
    /// Containers' interfaces are named so, with a number behind; `eth` when `None`.
    pub interface_prefix: Option<String>,
    /// Empty: taken from the pools.
    pub subnets: Vec<Subnet>,
    pub labels: BTreeMap<String, String>,
    /// SHA-256 (hexadecimal) of the attributes; a difference means recreation.
    pub config_hash: String,
}

impl NetworkSpec {
    /// A bridge with IPv4 that leads out, and nothing else asked for.
    pub fn bridge(name: String) -> Self {
        Self {
            name,
            external: false,
            internal: false,
            enable_ipv4: true,
            enable_ipv6: false,
            driver: Driver::default(),
            mtu: None,
            interface_prefix: None,
            subnets: Vec::new(),
            labels: BTreeMap::new(),
            config_hash: String::new(),
        }
    }
}

/// What a network is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    Bridge(Bridge),
    /// Every container has a link of its own on a link of the host.
    Shared(Shared),
}

impl Default for Driver {
    fn default() -> Self {
        Self::Bridge(Bridge::default())
    }
}

/// A bridge of the host, and what the firewall does around it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Name of the link; a random one when `None`.
    pub name: Option<String>,
    /// Containers on it reach each other.
    pub icc: bool,
    /// What leaves the host carries the host's address.
    pub masquerade: bool,
    /// Others may open connections to the containers without a published port.
    pub unprotected: bool,
    /// Families whose containers are reached at their own addresses: ports are let through to them instead of being published on the
    /// host, and nothing is translated.
    #[serde(default, skip_serializing_if = "Families::is_neither")]
    pub routed: Families,
    /// Families in which the host has no address on an internal network.
    #[serde(default, skip_serializing_if = "Families::is_neither")]
    pub isolated: Families,
    /// Where ports are published that name no address.
    pub host_binding: Option<Ipv4Addr>,
    /// Addresses that masqueraded traffic carries, one per family at most.
    pub sources: Vec<IpAddr>,
}

impl Default for Bridge {
    fn default() -> Self {
        Self {
            name: None,
            icc: true,
            masquerade: true,
            unprotected: false,
            routed: Families::default(),
            isolated: Families::default(),
            host_binding: None,
            sources: Vec::new(),
        }
    }
}

/// IPv4, IPv6, both or neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Families {
    pub ipv4: bool,
    pub ipv6: bool,
}

impl Families {
    fn is_neither(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the address's family is among them.
    pub fn have(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

/// Links on a link of the host (`macvlan` and `ipvlan`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// The host's link, or `LINK.VLAN`, which is made when it is missing; `None`: a link that leads nowhere.
    pub parent: Option<String>,
    pub kind: SharedKind,
    #[serde(default, skip_serializing_if = "IpvlanFlag::is_bridge")]
    pub flag: IpvlanFlag,
}

/// How links of `ipvlan` on the same parent reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpvlanFlag {
    #[default]
    Bridge,
    /// Not at all.
    Private,
    /// By a switch outside that sends frames back.
    Vepa,
}

impl IpvlanFlag {
    fn is_bridge(&self) -> bool {
        *self == Self::Bridge
    }
}

/// How the links share their parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedKind {
    MacvlanBridge,
    MacvlanPrivate,
    MacvlanVepa,
    MacvlanPassthru,
    IpvlanL2,
    IpvlanL3,
    IpvlanL3s,
}

impl SharedKind {
    /// What `driver` is in a file.
    pub fn driver(self) -> &'static str {
        match self {
            Self::MacvlanBridge | Self::MacvlanPrivate | Self::MacvlanVepa | Self::MacvlanPassthru => "macvlan",
            Self::IpvlanL2 | Self::IpvlanL3 | Self::IpvlanL3s => "ipvlan",
        }
    }

    /// The containers' default route names no gateway.
    pub fn is_routed(self) -> bool {
        matches!(self, Self::IpvlanL3 | Self::IpvlanL3s)
    }
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
