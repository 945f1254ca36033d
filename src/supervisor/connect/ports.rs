//! Published ports: held, carried to the container, and picked up again; and the project's rules as a whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use super::{Host, Joined, copy};
use crate::base::ids::ContainerId;
use crate::network;
use crate::network::ports::{HeldPort, PortError};
use crate::network::{ProjectTable, conntrack, firewall};
use crate::runtime::RuntimeError;
use crate::spec::network::Families;
use crate::spec::observed::Published;
use crate::spec::{PortSpec, Protocol, container::Attachment};
use crate::state::ContainerConfig;
use crate::state::ContainerRecord;
use crate::supervisor::failure::because;

/// Where published ports lead: the container's addresses on a bridge that leads out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    ipv4: Option<IpAddr>,
    ipv6: Option<IpAddr>,
    /// Families in which these addresses are reached as they are.
    routed: Families,
    /// Where ports are published that name no address.
    binding: Option<Ipv4Addr>,
}

impl Targets {
    /// As Docker: ports are not published on internal networks, nor on shared links, which others reach themselves.
    pub(super) fn new(attachments: &[Attachment], joined: &[Joined]) -> Self {
        let mut outward: Vec<_> = attachments
            .iter()
            .zip(joined)
            .filter_map(|(attachment, joined)| Some((attachment, joined, joined.record.as_bridge()?)))
            .filter(|(_, joined, _)| !joined.record.internal)
            .collect();
        outward.sort_by_key(|(attachment, ..)| std::cmp::Reverse(attachment.gw_priority));
        let address = |is: fn(&IpAddr) -> bool| {
            let of = |joined: &Joined| joined.addresses.iter().copied().find(is);
            outward.iter().find_map(|(_, joined, bridge)| Some((of(joined)?, bridge.routed)))
        };
        let (ipv4, ipv6) = (address(IpAddr::is_ipv4), address(IpAddr::is_ipv6));
        let routed = Families {
            ipv4: ipv4.is_some_and(|(_, routed)| routed.ipv4),
            ipv6: ipv6.is_some_and(|(_, routed)| routed.ipv6),
        };
        let binding = outward.first().and_then(|(_, _, bridge)| bridge.host_binding);
        Self { ipv4: ipv4.map(|(address, _)| address), ipv6: ipv6.map(|(address, _)| address), routed, binding }
    }

    /// What of a port is let through to the container, as a published one without a port of the host, as Docker shows it; and
    /// what is left to be bound on the host.
    fn split(self, spec: &PortSpec) -> (Vec<Published>, Option<PortSpec>) {
        let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let (routed, bound): (Vec<_>, Vec<_>) = spec
            .host_ip
            .map_or(all.to_vec(), |address| vec![address])
            .into_iter()
            .partition(|ip| self.routed.have(*ip));
        let through = |host_ip| Published { host_ip, host: 0, container: spec.container, protocol: spec.protocol };
        let bound = match bound.as_slice() {
            [] => None,
            [_] if !routed.is_empty() => Some(PortSpec { host_ip: bound.first().copied(), ..spec.clone() }),
            _ => Some(spec.clone()),
        };
        (routed.into_iter().map(through).collect(), bound)
    }

    fn is_empty(self) -> bool {
        self.ipv4.is_none() && self.ipv6.is_none()
    }

    /// The kernel's translation within a family; a proxy between families, and for what IPv6 does not forward.
    fn ways(self, port: &Published) -> (Option<network::Published>, Option<SocketAddr>) {
        let rule = |address: IpAddr| network::Published {
            host_ip: (!port.host_ip.is_unspecified()).then_some(port.host_ip),
            host_port: port.host,
            protocol: port.protocol,
            address,
            port: port.container,
        };
        let proxy = |address: IpAddr| SocketAddr::new(address, port.container);
        if self.routed.have(port.host_ip) {
            let through =
                |address| network::Published { host_ip: Some(address), host_port: port.container, ..rule(address) };
            let own = if port.host_ip.is_ipv4() { self.ipv4 } else { self.ipv6 };
            return (own.map(through), None);
        }
        if port.host_ip.is_ipv4() {
            return match self.ipv4 {
                Some(address) => (Some(rule(address)), None),
                None => (None, self.ipv6.map(proxy)),
            };
        }
        (self.ipv6.filter(|_| !port.host_ip.is_loopback()).map(rule), self.ipv6.or(self.ipv4).map(proxy))
    }
}

impl Host {
    /// Holds the host ports, and has the kernel send what arrives there to the container.
    pub(super) fn publish_ports(
        &self,
        config: &ContainerConfig,
        attachments: &[Attachment],
        joined: &[Joined],
    ) -> Result<Vec<Published>, RuntimeError> {
        let wanted = &config.service.container.ports;
        let targets = Targets::new(attachments, joined);
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        if targets.is_empty() {
            self.warn(&format!("ports of container `{}` are not published: no network of it leads out", config.name));
            return Ok(Vec::new());
        }
        let mut sockets = Vec::new();
        let mut ports = Vec::new();
        for spec in wanted {
            let mut spec = spec.clone();
            spec.host_ip = spec.host_ip.or(targets.binding.map(IpAddr::V4));
            let (routed, bound) = targets.split(&spec);
            ports.extend(routed);
            let Some(spec) = bound else { continue };
            let held = self.reserve(&spec);
            let held = held.map_err(|error| because(format!("cannot publish port {}", spec.container), &error))?;
            ports.extend(published(&held, targets));
            sockets.extend(held.ipv4.into_iter().chain(held.ipv6));
        }
        let copies = sockets.iter().map(copy).collect::<Result<Vec<_>, _>>()?;
        if !copies.is_empty() {
            let held = self.link.hold(&format!("ports:{}", config.id), copies);
            held.map_err(|error| because("the keeper cannot be reached", &error))?;
        }
        let rules = self.carry(&config.id, &ports, sockets, targets);
        if !rules.is_empty() {
            firewall::publish(&self.firewall_name(), &rules)
                .map_err(|error| because("cannot publish the container's ports", &error))?;
            self.forget_datagrams(&rules);
        }
        Ok(ports)
    }

    /// Takes a port of the host.
    pub(in crate::supervisor) fn reserve(&self, spec: &PortSpec) -> Result<HeldPort, PortError> {
        let spec = spec.clone();
        self.connections.outside.run(move || network::ports::reserve(&spec))
    }

    /// Starts the proxies, and notes and returns the rules, of published ports. For a host whose network is apart the proxy
    /// carries everything, and the rules are for other containers only.
    fn carry(
        &self,
        id: &ContainerId,
        ports: &[Published],
        sockets: Vec<OwnedFd>,
        targets: Targets,
    ) -> Vec<network::Published> {
        let apart = self.connections.outside.is_apart();
        let mut sockets = by_address(sockets);
        let mut rules = Vec::new();
        for port in ports {
            let socket = sockets.remove(&(port.host_ip, port.host, port.protocol));
            let (rule, target) = targets.ways(port);
            let direct = rule.as_ref().map(|rule| SocketAddr::new(rule.address, rule.port)).filter(|_| apart);
            rules.extend(rule);
            if let (Some(socket), Some(target)) = (socket, target.or(direct)) {
                self.proxy(id, socket, port.protocol, target);
            }
        }
        // Two ports of the host can lead to one that is routed.
        rules.sort();
        rules.dedup();
        if let Some(open) = self.connections.open.borrow_mut().get_mut(id) {
            open.published.extend(&rules);
        }
        rules
    }

    fn proxy(&self, id: &ContainerId, socket: OwnedFd, protocol: Protocol, target: SocketAddr) {
        let host = self.clone();
        let proxying = tokio::task::spawn_local(async move {
            let ended = match protocol {
                Protocol::Udp => network::proxy::udp(socket, target).await,
                Protocol::Tcp | Protocol::Sctp => network::proxy::connections(socket, protocol, target).await,
            };
            if let Err(error) = ended {
                host.warn(&format!("the proxy to {target} has ended: {error}"));
            }
        });
        if let Some(open) = self.connections.open.borrow_mut().get_mut(id) {
            open.tasks.push(proxying.abort_handle());
        }
    }

    /// The ports of a container that runs: held sockets go on, lost ones are bound again.
    pub(super) fn republish(
        &self,
        record: &ContainerRecord,
        attachments: &[Attachment],
        joined: &[Joined],
    ) -> Result<(), RuntimeError> {
        let targets = Targets::new(attachments, joined);
        let id = &record.config.id;
        let held = self.link.held(&format!("ports:{id}"));
        let mut sockets = held.map_err(|error| because("cannot pick up the published ports", &error))?;
        if sockets.is_empty() && !record.state.ports.is_empty() {
            sockets = self.bind_again(&record.state.ports);
            let copies = sockets.iter().map(copy).collect::<Result<Vec<_>, _>>()?;
            let held = self.link.hold(&format!("ports:{id}"), copies);
            held.map_err(|error| because("the keeper cannot be reached", &error))?;
        }
        self.carry(id, &record.state.ports, sockets, targets);
        Ok(())
    }

    fn bind_again(&self, ports: &[Published]) -> Vec<OwnedFd> {
        let mut sockets = Vec::new();
        // Those without a port of the host are let through to the container.
        for port in ports.iter().filter(|port| port.host != 0) {
            let spec = PortSpec {
                host_ip: Some(port.host_ip),
                host: Some((port.host, port.host)),
                container: port.container,
                protocol: port.protocol,
            };
            match self.reserve(&spec) {
                Ok(again) => sockets.extend(again.ipv4.into_iter().chain(again.ipv6)),
                Err(error) => self.warn(&because("a published port is lost", &error).message),
            }
        }
        sockets
    }

    /// Closes published ports.
    pub(super) fn unpublish(&self, rules: &[network::Published]) {
        if rules.is_empty() {
            return;
        }
        if let Err(error) = firewall::unpublish(&self.firewall_name(), rules) {
            self.warn(&because("a port cannot be closed", &error).message);
        }
        self.forget_datagrams(rules);
    }

    /// Peers that send datagrams all the time would be sent where their first one went, for ever.
    fn forget_datagrams(&self, rules: &[network::Published]) {
        let ports: Vec<u16> =
            rules.iter().filter(|rule| rule.protocol == Protocol::Udp).map(|rule| rule.host_port).collect();
        if let (false, Err(error)) = (ports.is_empty(), conntrack::forget_udp(&ports)) {
            self.warn(&because("datagrams may still go to a container that is gone", &error).message);
        }
    }

    /// Makes the project's rules what they should be; without networks there are none.
    pub(super) fn apply_firewall(&self) -> Result<(), RuntimeError> {
        let ours = self.own_networks()?;
        if ours.iter().any(|record| !record.internal) {
            self.need_uplink();
        }
        let name = self.firewall_name();
        let open = self.connections.open.borrow();
        let published: Vec<_> = open.values().flat_map(|one| one.published.clone()).collect();
        let applied = if ours.is_empty() && published.is_empty() {
            firewall::remove(&name)
        } else {
            self.watch_host();
            firewall::apply(&ProjectTable { project: &name, networks: &ours, published: &published })
        };
        applied.map_err(|error| because("cannot set the firewall's rules", &error))
    }

    /// Projects of the same name below different roots have rules of their own.
    pub(super) fn firewall_name(&self) -> String {
        let group = self.roots.cgroup_name();
        match group.strip_prefix("rcompose-") {
            Some(root) => format!("{}-{root}", self.project),
            None => self.project.clone(),
        }
    }
}

/// A held port as `ps` shows it: one line per address family.
fn published(held: &HeldPort, targets: Targets) -> Vec<Published> {
    let on =
        |host_ip: IpAddr| Published { host_ip, host: held.host, container: held.container, protocol: held.protocol };
    match held.host_ip {
        Some(address) => vec![on(address)],
        None => {
            let ipv6 = held.ipv6.is_some() || (held.protocol == Protocol::Sctp && targets.ipv6.is_some());
            let both = [Some(Ipv4Addr::UNSPECIFIED.into()), ipv6.then_some(Ipv6Addr::UNSPECIFIED.into())];
            both.into_iter().flatten().map(on).collect()
        }
    }
}

/// Held sockets by what they are bound to.
fn by_address(sockets: Vec<OwnedFd>) -> BTreeMap<(IpAddr, u16, Protocol), OwnedFd> {
    let mut found = BTreeMap::new();
    for socket in sockets {
        let address = rustix::net::getsockname(&socket).ok().and_then(|name| SocketAddr::try_from(name).ok());
        let kind = rustix::net::sockopt::socket_protocol(&socket).ok().flatten();
        if let Some(address) = address {
            let protocol = match kind {
                Some(rustix::net::ipproto::UDP) => Protocol::Udp,
                Some(rustix::net::ipproto::SCTP) => Protocol::Sctp,
                _ => Protocol::Tcp,
            };
            found.insert((address.ip(), address.port(), protocol), socket);
        }
    }
    found
}
