//! Published ports: held, carried to the container, and picked up again; and the project's rules as a whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use super::{Host, copy};
use crate::base::ids::ContainerId;
use crate::network;
use crate::network::ports::HeldPort;
use crate::network::{NetworkRecord, ProjectTable, firewall};
use crate::runtime::RuntimeError;
use crate::spec::Protocol;
use crate::spec::observed::Published;
use crate::state::ContainerConfig;
use crate::state::ContainerRecord;
use crate::supervisor::failure::because;

impl Host {
    /// Holds the host ports, and has the kernel send what arrives there to the container.
    pub(super) fn publish_ports(
        &self,
        config: &ContainerConfig,
        own: &[IpAddr],
    ) -> Result<Vec<Published>, RuntimeError> {
        let Some(IpAddr::V4(address)) = own.iter().find(|address| address.is_ipv4()).copied() else {
            return Ok(Vec::new());
        };
        let mut sockets = Vec::new();
        let mut ports = Vec::new();
        for spec in &config.service.container.ports {
            let held = network::ports::reserve(spec);
            let held = held.map_err(|error| because(format!("cannot publish port {}", spec.container), &error))?;
            sockets.extend(held.ipv4.as_ref().map(copy).transpose()?);
            sockets.extend(held.ipv6.as_ref().map(copy).transpose()?);
            ports.extend(published(&held));
            self.carry(&config.id, held, address)?;
        }
        if !sockets.is_empty() {
            let held = self.link.hold(&format!("ports:{}", config.id), sockets);
            held.map_err(|error| because("the keeper cannot be reached", &error))?;
        }
        Ok(ports)
    }

    /// The kernel's translation for IPv4, a proxy for IPv6.
    fn carry(&self, id: &ContainerId, held: HeldPort, address: Ipv4Addr) -> Result<(), RuntimeError> {
        let host_ip = match held.host_ip {
            None => Some(None),
            Some(IpAddr::V4(ip)) => Some((!ip.is_unspecified()).then_some(ip)),
            Some(IpAddr::V6(_)) => None,
        };
        if let Some(host_ip) = host_ip {
            let (protocol, port) = (held.protocol, held.container);
            let rule = network::Published { host_ip, host_port: held.host, protocol, address, port };
            firewall::publish(&self.firewall_name(), &rule)
                .map_err(|error| because(format!("cannot publish port {}", held.host), &error))?;
            if let Some(open) = self.connections.open.borrow_mut().get_mut(id) {
                open.published.push(rule);
            }
        }
        if let Some(socket) = held.ipv6 {
            self.proxy(id, socket, held.protocol, SocketAddr::new(address.into(), held.container));
        }
        Ok(())
    }

    fn proxy(&self, id: &ContainerId, socket: OwnedFd, protocol: Protocol, target: SocketAddr) {
        let host = self.clone();
        let proxying = tokio::task::spawn_local(async move {
            let ended = match protocol {
                Protocol::Udp => network::proxy::udp(socket, target).await,
                Protocol::Tcp | Protocol::Sctp => network::proxy::tcp(socket, target).await,
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
    pub(super) fn republish(&self, record: &ContainerRecord, own: &[IpAddr]) -> Result<(), RuntimeError> {
        let Some(IpAddr::V4(address)) = own.iter().find(|address| address.is_ipv4()).copied() else { return Ok(()) };
        let id = &record.config.id;
        let held = self.link.held(&format!("ports:{id}"));
        let held = held.map_err(|error| because("cannot pick up the published ports", &error))?;
        let lost = held.is_empty();
        let mut sockets = by_address(held);
        let mut kept = Vec::new();
        for port in &record.state.ports {
            let mut socket = sockets.remove(&(port.host_ip, port.host, port.protocol));
            if lost {
                let spec = crate::spec::PortSpec {
                    host_ip: Some(port.host_ip),
                    host: Some((port.host, port.host)),
                    container: port.container,
                    protocol: port.protocol,
                };
                match network::ports::reserve(&spec) {
                    Ok(again) => socket = again.ipv4.or(again.ipv6),
                    Err(error) => self.warn(&because("a published port is lost", &error).message),
                }
                kept.extend(socket.as_ref().map(copy).transpose()?);
            }
            match port.host_ip {
                IpAddr::V4(ip) => {
                    let rule = network::Published {
                        host_ip: (!ip.is_unspecified()).then_some(ip),
                        host_port: port.host,
                        protocol: port.protocol,
                        address,
                        port: port.container,
                    };
                    if let Some(open) = self.connections.open.borrow_mut().get_mut(id) {
                        open.published.push(rule);
                    }
                }
                IpAddr::V6(_) => {
                    if let Some(socket) = socket {
                        self.proxy(id, socket, port.protocol, SocketAddr::new(address.into(), port.container));
                    }
                }
            }
        }
        if !kept.is_empty() {
            let held = self.link.hold(&format!("ports:{id}"), kept);
            held.map_err(|error| because("the keeper cannot be reached", &error))?;
        }
        Ok(())
    }

    /// Makes the project's rules what they should be; without networks there are none.
    pub(super) fn apply_firewall(&self) -> Result<(), RuntimeError> {
        let records = self.connections.networks.list();
        let records = records.map_err(|error| because("cannot list the networks", &error))?;
        let ours: Vec<NetworkRecord> =
            records.into_iter().filter(|record| record.ready && record.project == self.project).collect();
        let name = self.firewall_name();
        let open = self.connections.open.borrow();
        let published: Vec<_> = open.values().flat_map(|one| one.published.clone()).collect();
        let applied = if ours.is_empty() && published.is_empty() {
            firewall::remove(&name)
        } else {
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
fn published(held: &HeldPort) -> Vec<Published> {
    let on =
        |host_ip: IpAddr| Published { host_ip, host: held.host, container: held.container, protocol: held.protocol };
    match held.host_ip {
        Some(address) => vec![on(address)],
        None => {
            let both = [Some(Ipv4Addr::UNSPECIFIED.into()), held.ipv6.as_ref().map(|_| Ipv6Addr::UNSPECIFIED.into())];
            both.into_iter().flatten().map(on).collect()
        }
    }
}

/// Held sockets by what they are bound to.
fn by_address(sockets: Vec<OwnedFd>) -> BTreeMap<(IpAddr, u16, Protocol), OwnedFd> {
    let mut found = BTreeMap::new();
    for socket in sockets {
        let address = rustix::net::getsockname(&socket).ok().and_then(|name| SocketAddr::try_from(name).ok());
        let kind = rustix::net::sockopt::socket_type(&socket).ok();
        if let (Some(address), Some(kind)) = (address, kind) {
            let protocol = if kind == rustix::net::SocketType::DGRAM { Protocol::Udp } else { Protocol::Tcp };
            found.insert((address.ip(), address.port(), protocol), socket);
        }
    }
    found
}
