//! Networks, attachments and ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::json;

use super::{Lowering, hash};
use crate::model::Port;
use crate::model::Service;
use crate::spec::NetworkSpec;
use crate::spec::PortSpec;
use crate::spec::Protocol;
use crate::spec::container::{Attachment, NetworkMode};
use crate::spec::network::Subnet;

/// Options of bridges that the network layer honours.
const KNOWN_OPTIONS: &[&str] = &["com.docker.network.bridge.name", "com.docker.network.driver.mtu"];

impl Lowering<'_> {
    pub(super) fn networks(&mut self) -> BTreeMap<String, NetworkSpec> {
        let mut networks = BTreeMap::new();
        for (key, network) in &self.project.networks {
            let path = format!("networks.{key}");
            if network.driver.as_deref().is_some_and(|driver| !matches!(driver, "" | "bridge" | "default")) {
                self.not_yet(&format!("{path}.driver"), "networks are bridges");
            }
            if network.ipam.driver.as_deref().is_some_and(|driver| !matches!(driver, "" | "default")) {
                self.not_yet(&format!("{path}.ipam.driver"), "addresses are managed here");
            }
            // Options of other drivers mean nothing to a bridge.
            let unknown =
                |name: &&String| name.starts_with("com.docker.network.") && !KNOWN_OPTIONS.contains(&name.as_str());
            for name in network.driver_opts.keys().filter(unknown) {
                self.not_yet(&format!("{path}.driver_opts"), &format!("`{name}` is not known here"));
            }
            let mut subnets = Vec::new();
            for (index, pool) in network.ipam.config.iter().enumerate() {
                let at = |field: &str| format!("{path}.ipam.config.{index}.{field}");
                let Some(text) = &pool.subnet else {
                    self.not_yet(&format!("{path}.ipam.config.{index}"), "an address pool needs its `subnet`");
                    continue;
                };
                let Some(subnet) = self.parse(&at("subnet"), text, "a subnet such as `10.1.0.0/16`") else { continue };
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
            let (enable_ipv4, enable_ipv6) =
                (network.enable_ipv4.unwrap_or(true), network.enable_ipv6.unwrap_or(false));
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
            let spec = NetworkSpec {
                name: network.name.clone(),
                external: network.external,
                internal: network.internal,
                enable_ipv4,
                enable_ipv6,
                driver: network.driver.clone(),
                driver_opts: network.driver_opts.clone(),
                subnets,
                labels: network.labels.clone(),
                config_hash: hash(&attributes),
            };
            networks.insert(key.clone(), spec);
        }
        networks
    }

    pub(super) fn network_mode(&mut self, path: &str, service: &Service) -> NetworkMode {
        match service.network_mode.as_deref() {
            None | Some("") => self.attachments(path, service),
            Some("none") => NetworkMode::None,
            Some("host") => NetworkMode::Host,
            Some(mode) => match mode.split_once(':') {
                Some(("service", name)) => NetworkMode::Service(name.to_owned()),
                Some(("container", name)) => NetworkMode::Container(name.to_owned()),
                _ => {
                    let what = "known are `none`, `host`, `service:NAME` and `container:NAME`";
                    self.not_yet(&format!("{path}.network_mode"), what);
                    NetworkMode::None
                }
            },
        }
    }

    fn attachments(&mut self, path: &str, service: &Service) -> NetworkMode {
        let mut found = Vec::new();
        for (key, settings) in &service.networks {
            let at = format!("{path}.networks.{key}");
            let settings = settings.clone().unwrap_or_default();
            if !settings.link_local_ips.is_empty() {
                self.not_yet(&format!("{at}.link_local_ips"), "link-local addresses are not assigned");
            }
            if !settings.driver_opts.is_empty() {
                self.not_yet(&format!("{at}.driver_opts"), "endpoints have no options");
            }
            let ipv4 = settings.ipv4_address.as_ref();
            let ipv4 =
                ipv4.and_then(|text| self.parse::<Ipv4Addr>(&format!("{at}.ipv4_address"), text, "an IPv4 address"));
            let ipv6 = settings.ipv6_address.as_ref();
            let ipv6 =
                ipv6.and_then(|text| self.parse::<Ipv6Addr>(&format!("{at}.ipv6_address"), text, "an IPv6 address"));
            let mut aliases = settings.aliases;
            aliases.extend(self.link_aliases(&service.name, key));
            let attachment = Attachment {
                network: key.clone(),
                aliases,
                ipv4,
                ipv6,
                mac: settings.mac_address,
                interface: settings.interface_name,
                gw_priority: settings.gw_priority,
            };
            found.push((settings.priority, attachment));
        }
        found.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        let mut attachments: Vec<Attachment> = found.into_iter().map(|(_, attachment)| attachment).collect();
        if let Some(primary) = attachments.first_mut().filter(|primary| primary.mac.is_none()) {
            primary.mac.clone_from(&service.mac_address);
        }
        NetworkMode::Networks(attachments)
    }

    /// Names that others give this service in their `links` (`SERVICE:ALIAS`). Everybody in the network can use them:
    /// there is one name space per network.
    fn link_aliases(&self, service: &str, network: &str) -> BTreeSet<String> {
        let linking = self.project.services.values().filter(|other| other.networks.contains_key(network));
        let links = linking.flat_map(|other| &other.links).filter_map(|link| link.split_once(':'));
        links.filter(|(name, alias)| *name == service && alias != name).map(|(_, alias)| alias.to_owned()).collect()
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
