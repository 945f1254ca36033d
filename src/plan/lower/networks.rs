//! Networks, attachments and ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde_json::json;

use super::{Lowering, hash};
use crate::model::Network;
use crate::model::Port;
use crate::model::Service;
use crate::spec::NetworkSpec;
use crate::spec::PortSpec;
use crate::spec::Protocol;
use crate::spec::container::{Attachment, NetworkMode};
use crate::spec::network::Subnet;

/// The network of `network_mode: bridge`. Docker's is one for all projects; this one is the project's own.
const BRIDGE: &str = "bridge";

/// `default` is the engine's default.
fn is_bridge(mode: &str) -> bool {
    matches!(mode, BRIDGE | "default")
}

/// The name of one of the networks that Docker always has, when that is what is declared.
fn predefined(network: &Network) -> Option<&str> {
    let name = network.name.as_str();
    (network.external && matches!(name, "host" | "none" | BRIDGE)).then_some(name)
}

impl Lowering<'_> {
    pub(super) fn networks(&mut self) -> BTreeMap<String, NetworkSpec> {
        let mut networks = BTreeMap::new();
        for (key, network) in &self.project.networks {
            match predefined(network) {
                Some(BRIDGE) => drop(networks.insert(key.clone(), self.own_bridge())),
                Some(_) => {}
                None => drop(networks.insert(key.clone(), self.network(key, network))),
            }
        }
        let by_mode = |service: &Service| service.network_mode.as_deref().is_some_and(is_bridge);
        if self.project.services.values().any(by_mode) {
            networks.entry(BRIDGE.to_owned()).or_insert_with(|| self.own_bridge());
        }
        networks
    }

    fn network(&mut self, key: &str, network: &Network) -> NetworkSpec {
        let path = format!("networks.{key}");
        if network.ipam.driver.as_deref().is_some_and(|driver| !matches!(driver, "" | "default")) {
            self.not_yet(&format!("{path}.ipam.driver"), "addresses are managed here");
        }
        let options = self.network_options(&path, network);
        let mut subnets = Vec::new();
        for (index, pool) in network.ipam.config.iter().enumerate() {
            let at = |field: &str| format!("{path}.ipam.config.{index}.{field}");
            let Some(text) = &pool.subnet else {
                self.not_yet(&format!("{path}.ipam.config.{index}"), "an address pool needs its `subnet`");
                continue;
            };
            let Some(subnet) = self.parse(&at("subnet"), text, "a subnet such as `10.1.0.0/16`") else { continue };
            let subnet: IpNetwork = subnet;
            if subnet.ip() != subnet.network() {
                let whole = format!("{}/{}", subnet.network(), subnet.prefix());
                self.invalid(&at("subnet"), format!("`{text}` is an address in `{whole}`: write that"));
                continue;
            }
            let range = pool.ip_range.as_ref().and_then(|text| self.parse(&at("ip_range"), text, "a subnet"));
            let gateway = pool.gateway.as_ref().and_then(|text| self.parse(&at("gateway"), text, "an address"));
            let mut reserved = BTreeMap::new();
            for (name, text) in &pool.aux_addresses {
                if let Some(address) = self.parse(&at("aux_addresses"), text, "an address") {
                    reserved.insert(name.clone(), address);
                }
            }
            subnets.push(Subnet { subnet, range, gateway, reserved });
        }
        let enable_ipv4 = network.enable_ipv4.or(options.enable_ipv4).unwrap_or(true);
        let enable_ipv6 = network.enable_ipv6.or(options.enable_ipv6).unwrap_or(false);
        if !enable_ipv4 && !enable_ipv6 {
            self.invalid(&format!("{path}.enable_ipv4"), "a network needs IPv4, or `enable_ipv6: true`");
        }
        // A range of a family that is not switched on has no effect.
        subnets.retain(|one| if one.subnet.is_ipv6() { enable_ipv6 } else { enable_ipv4 });
        let attributes = json!([
            network.name,
            network.driver,
            network.driver_opts,
            network.internal,
            enable_ipv4,
            enable_ipv6,
            subnets,
            network.labels
        ]);
        NetworkSpec {
            name: network.name.clone(),
            external: network.external,
            internal: network.internal,
            enable_ipv4,
            enable_ipv6,
            driver: options.driver,
            mtu: options.mtu,
            interface_prefix: options.interface_prefix,
            subnets,
            labels: network.labels.clone(),
            config_hash: hash(&attributes),
        }
    }

    fn own_bridge(&self) -> NetworkSpec {
        NetworkSpec {
            config_hash: hash(&json!([BRIDGE])),
            ..NetworkSpec::bridge(format!("{}_{BRIDGE}", self.project.name))
        }
    }

    pub(super) fn network_mode(&mut self, path: &str, service: &Service) -> NetworkMode {
        match service.network_mode.as_deref() {
            None | Some("") => self.attachments(path, service),
            Some(mode) if is_bridge(mode) => {
                let mac = service.mac_address.clone();
                NetworkMode::Networks(vec![Attachment { network: BRIDGE.to_owned(), mac, ..Attachment::default() }])
            }
            Some("none") => NetworkMode::None,
            Some("host") => NetworkMode::Host,
            Some(mode) => match mode.split_once(':') {
                Some(("service", name)) => NetworkMode::Service(name.to_owned()),
                Some(("container", name)) => NetworkMode::Container(name.to_owned()),
                _ => {
                    let what = "known are `bridge`, `none`, `host`, `service:NAME` and `container:NAME`";
                    self.not_yet(&format!("{path}.network_mode"), what);
                    NetworkMode::None
                }
            },
        }
    }

    fn attachments(&mut self, path: &str, service: &Service) -> NetworkMode {
        let keys: Vec<&String> = service.networks.keys().collect();
        for key in &keys {
            match self.project.networks.get(*key).and_then(predefined) {
                Some("host") if keys.len() == 1 => return NetworkMode::Host,
                Some("none") if keys.len() == 1 => return NetworkMode::None,
                None | Some(BRIDGE) => {}
                Some(name) => {
                    let what = format!("a service on the network `{name}` cannot be on another");
                    self.invalid(&format!("{path}.networks.{key}"), what);
                }
            }
        }
        let mut found = Vec::new();
        for (key, settings) in &service.networks {
            let at = format!("{path}.networks.{key}");
            let settings = settings.clone().unwrap_or_default();
            let mut link_local = Vec::new();
            for text in &settings.link_local_ips {
                let place = format!("{at}.link_local_ips");
                let Some(address) = self.parse::<IpAddr>(&place, text, "an address") else { continue };
                let fits = match address {
                    IpAddr::V4(address) => address.is_link_local(),
                    IpAddr::V6(address) => address.is_unicast_link_local(),
                };
                if !fits {
                    self.invalid(
                        &place,
                        format!("`{text}` is not link-local: those are in 169.254.0.0/16 and fe80::/10"),
                    );
                }
                link_local.push(address);
            }
            let sysctls = self.endpoint_options(&at, &settings.driver_opts);
            if let Some(name) = &settings.interface_name {
                self.link_name(&format!("{at}.interface_name"), name);
            }
            let ipv4 = settings.ipv4_address.as_ref();
            let ipv4 =
                ipv4.and_then(|text| self.parse::<Ipv4Addr>(&format!("{at}.ipv4_address"), text, "an IPv4 address"));
            let ipv6 = settings.ipv6_address.as_ref();
            let ipv6 =
                ipv6.and_then(|text| self.parse::<Ipv6Addr>(&format!("{at}.ipv6_address"), text, "an IPv6 address"));
            let attachment = Attachment {
                network: key.clone(),
                aliases: settings.aliases,
                ipv4,
                ipv6,
                mac: settings.mac_address,
                interface: settings.interface_name,
                gw_priority: settings.gw_priority,
                link_local,
                sysctls,
            };
            found.push((settings.priority, attachment));
        }
        found.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        let mut attachments: Vec<Attachment> = found.into_iter().map(|(_, attachment)| attachment).collect();
        if let (Some(primary), Some(mac)) = (attachments.first_mut(), &service.mac_address)
            && primary.mac.get_or_insert_with(|| mac.clone()) != mac
        {
            let message = format!("it differs from that of the network `{}`", primary.network);
            self.invalid(&format!("{path}.mac_address"), message);
        }
        NetworkMode::Networks(attachments)
    }

    /// `links` and `external_links`: what this service alone calls others.
    pub(super) fn links(&self, service: &Service) -> BTreeMap<String, String> {
        let named = |link: &String| {
            let (target, name) = link.split_once(':').unwrap_or((link, link));
            (name.to_ascii_lowercase(), target.to_ascii_lowercase())
        };
        let links = service.links.iter().chain(&service.external_links).map(named);
        links.filter(|(name, target)| name != target).collect()
    }

    pub(super) fn name_servers(&mut self, path: &str, service: &Service) -> Vec<String> {
        for server in &service.dns {
            self.parse::<IpAddr>(&format!("{path}.dns"), server, "an address");
        }
        service.dns.clone()
    }

    pub(super) fn port(&mut self, path: &str, port: &Port) -> Option<PortSpec> {
        let protocol = match port.protocol.as_str() {
            "tcp" | "" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            other => {
                self.invalid(&format!("{path}.protocol"), format!("`{other}` is not `tcp`, `udp` or `sctp`"));
                return None;
            }
        };
        let at = format!("{path}.published");
        let host = match port.published.as_deref() {
            None | Some("" | "0") => None,
            Some(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                let first = self.parse(&at, first, "a port number (1 to 65535)")?;
                Some((first, self.parse(&at, last, "a port number (1 to 65535)")?))
            }
        };
        let host_ip = match port.host_ip.as_deref() {
            None | Some("") => None,
            Some(text) => {
                let bare = text.trim_start_matches('[').trim_end_matches(']');
                Some(self.parse::<IpAddr>(&format!("{path}.host_ip"), bare, "an address")?)
            }
        };
        Some(PortSpec { host_ip, host, container: port.target, protocol })
    }
}
