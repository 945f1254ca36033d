//! `driver` and `driver_opts` of networks, and `driver_opts` of a service on a network. Keys are those of Docker's drivers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Lowering;
use crate::model::Network;
use crate::spec::network::{Bridge, Driver, Families, IpvlanFlag, Shared, SharedKind};

/// What the options of a network say.
#[derive(Default)]
pub(super) struct Options {
    pub(super) driver: Driver,
    pub(super) mtu: Option<u32>,
    pub(super) interface_prefix: Option<String>,
    pub(super) enable_ipv4: Option<bool>,
    pub(super) enable_ipv6: Option<bool>,
}

/// A link name must fit the kernel's 15 bytes and hold nothing that a path or a shell would read.
fn is_link_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
    !name.is_empty() && name.len() <= 15 && name != "." && name != ".." && name.bytes().all(plain)
}

impl Lowering<'_> {
    pub(super) fn network_options(&mut self, path: &str, network: &Network) -> Options {
        let mut options = Options::default();
        let mut own: BTreeMap<&str, &str> = BTreeMap::new();
        for (key, value) in &network.driver_opts {
            let at = format!("{path}.driver_opts.{key}");
            match key.as_str() {
                "com.docker.network.driver.mtu" => options.mtu = self.parse(&at, value, "a number of bytes"),
                "com.docker.network.container_iface_prefix" => {
                    options.interface_prefix = self.link_name(&at, &format!("{value}0")).then(|| value.clone());
                }
                "com.docker.network.enable_ipv4" => options.enable_ipv4 = self.switch(&at, value),
                "com.docker.network.enable_ipv6" => options.enable_ipv6 = self.switch(&at, value),
                key => drop(own.insert(key, value)),
            }
        }
        options.driver = match network.driver.as_deref() {
            None | Some("" | "bridge" | "default") => Driver::Bridge(self.bridge(path, own, network.internal)),
            Some("macvlan") => Driver::Shared(self.shared(path, own, "macvlan_mode", "bridge")),
            Some("ipvlan") => Driver::Shared(self.shared(path, own, "ipvlan_mode", "l2")),
            Some(other) => {
                let known = "known are `bridge`, `macvlan` and `ipvlan`";
                self.not_yet(&format!("{path}.driver"), &format!("there is no driver `{other}`; {known}"));
                Driver::default()
            }
        };
        options
    }

    fn bridge(&mut self, path: &str, options: BTreeMap<&str, &str>, internal: bool) -> Bridge {
        let mut bridge = Bridge::default();
        for (key, value) in options {
            let at = format!("{path}.driver_opts.{key}");
            match key {
                "com.docker.network.bridge.name" => {
                    bridge.name = self.link_name(&at, value).then(|| value.to_owned());
                }
                "com.docker.network.bridge.enable_icc" => bridge.icc = self.switch(&at, value).unwrap_or(true),
                "com.docker.network.bridge.enable_ip_masquerade" => {
                    bridge.masquerade = self.switch(&at, value).unwrap_or(true);
                }
                "com.docker.network.bridge.host_binding_ipv4" => {
                    let address: Option<Ipv4Addr> = self.parse(&at, value, "an IPv4 address");
                    bridge.host_binding = address.filter(|address| !address.is_unspecified());
                }
                "com.docker.network.host_ipv4" => {
                    let address: Option<Ipv4Addr> = self.parse(&at, value, "an IPv4 address");
                    bridge.sources.extend(address.map(IpAddr::V4));
                }
                "com.docker.network.host_ipv6" => {
                    let address: Option<Ipv6Addr> = self.parse(&at, value, "an IPv6 address");
                    bridge.sources.extend(address.map(IpAddr::V6));
                }
                "com.docker.network.bridge.gateway_mode_ipv4" | "com.docker.network.bridge.gateway_mode_ipv6" => {
                    let of = |families: &mut Families| {
                        *(if key.ends_with('4') { &mut families.ipv4 } else { &mut families.ipv6 }) = true;
                    };
                    match value {
                        "nat" => {}
                        "nat-unprotected" => bridge.unprotected = true,
                        "routed" => of(&mut bridge.routed),
                        "isolated" if internal => of(&mut bridge.isolated),
                        "isolated" => {
                            self.invalid(&at, "gateway mode `isolated` is for networks that are `internal`".to_owned());
                        }
                        other => self.invalid(&at, format!("there is no mode `{other}`")),
                    }
                }
                "com.docker.network.bridge.default_bridge" if self.switch(&at, value) == Some(false) => {}
                _ => self.not_yet(&at, "it is not known here"),
            }
        }
        bridge
    }

    fn shared(&mut self, path: &str, options: BTreeMap<&str, &str>, mode_key: &str, default: &str) -> Shared {
        let mut parent = None;
        let mut mode = default;
        let mut flag = IpvlanFlag::default();
        for (key, value) in options {
            let at = format!("{path}.driver_opts.{key}");
            match key {
                "parent" => parent = self.link_name(&at, value).then(|| value.to_owned()),
                "ipvlan_flag" if mode_key == "ipvlan_mode" => match value {
                    "bridge" => {}
                    "private" => flag = IpvlanFlag::Private,
                    "vepa" => flag = IpvlanFlag::Vepa,
                    other => self.invalid(&at, format!("there is no flag `{other}`")),
                },
                key if key == mode_key => mode = value,
                _ => self.not_yet(&at, "it is not known here"),
            }
        }
        let kind = match (mode_key, mode) {
            ("macvlan_mode", "bridge") => SharedKind::MacvlanBridge,
            ("macvlan_mode", "private") => SharedKind::MacvlanPrivate,
            ("macvlan_mode", "vepa") => SharedKind::MacvlanVepa,
            ("macvlan_mode", "passthru") => SharedKind::MacvlanPassthru,
            ("ipvlan_mode", "l2") => SharedKind::IpvlanL2,
            ("ipvlan_mode", "l3") => SharedKind::IpvlanL3,
            ("ipvlan_mode", "l3s") => SharedKind::IpvlanL3s,
            (_, other) => {
                self.invalid(&format!("{path}.driver_opts.{mode_key}"), format!("there is no mode `{other}`"));
                SharedKind::MacvlanBridge
            }
        };
        Shared { parent, kind, flag }
    }

    /// `driver_opts` of a service on a network: settings of its interface.
    pub(super) fn endpoint_options(&mut self, path: &str, options: &BTreeMap<String, String>) -> Vec<(String, String)> {
        let mut sysctls = Vec::new();
        for (key, value) in options {
            let at = format!("{path}.driver_opts.{key}");
            if key != "com.docker.network.endpoint.sysctls" {
                self.not_yet(&at, "it is not known here");
                continue;
            }
            for setting in value.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
                let parts = setting.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
                let Some((name, value)) = parts.filter(|(name, _)| is_interface_setting(name)) else {
                    self.invalid(&at, format!("`{setting}` is not `net.X.Y.IFNAME.Z=VALUE`"));
                    continue;
                };
                sysctls.push((name.to_owned(), value.to_owned()));
            }
        }
        sysctls
    }

    pub(super) fn link_name(&mut self, path: &str, name: &str) -> bool {
        let fits = is_link_name(name);
        if !fits {
            self.invalid(path, format!("`{name}` is not a link's name: 1 to 15 letters, digits, `-`, `_` and `.`"));
        }
        fits
    }

    /// A truth value as Go reads them.
    fn switch(&mut self, path: &str, text: &str) -> Option<bool> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => {
                self.invalid(path, format!("`{text}` is neither `true` nor `false`"));
                None
            }
        }
    }
}

/// `net.X.Y.IFNAME.Z`, as Docker wants it.
fn is_interface_setting(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let plain = |part: &&str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    parts.len() == 5 && parts.first() == Some(&"net") && parts.get(3) == Some(&"IFNAME") && parts.iter().all(plain)
}
