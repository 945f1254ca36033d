//! Containers on their networks: sandbox, addresses, names, published ports. All of it hangs on descriptors that the keeper
//! holds too, so that it outlives this process; [`Host::reconnect`] picks it up again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::base::ids::ContainerId;
use crate::engine::spec::EtcFiles;
use crate::network;
use crate::network::dns::{Endpoint, Zone};
use crate::network::files::{self, Resolver};
use crate::network::ports::HeldPort;
use crate::network::sandbox::{self, DnsSockets};
use crate::network::{Interface, NetworkRecord, Networks, ProjectTable, Sandbox, firewall};
use crate::runtime::RuntimeError;
use crate::spec::NetworkSpec;
use crate::spec::Protocol;
use crate::spec::container::{Attachment, NetworkMode};
use crate::spec::observed::Published;
use crate::state::ContainerConfig;
use crate::state::ContainerRecord;
use crate::supervisor::failure::{because, failure};
use crate::supervisor::host::Host;

/// What a container gets to know of its network when it starts.
#[derive(Debug, Default)]
pub(super) struct Connected {
    pub(super) hostname: String,
    pub(super) etc: EtcFiles,
    /// `None`: the host's, or another container's.
    pub(super) netns: Option<OwnedFd>,
    /// By network key.
    pub(super) addresses: BTreeMap<String, IpAddr>,
    pub(super) ports: Vec<Published>,
}

/// The networks, and who is on them.
#[derive(Debug)]
pub(super) struct Connections {
    networks: Networks,
    open: RefCell<BTreeMap<ContainerId, Open>>,
    /// Ids of networks whose bridges are to be removed after the change under way.
    retired: RefCell<Vec<String>>,
    /// The names are about to be made anew.
    stale: Cell<bool>,
}

/// A container's tasks and names here.
#[derive(Debug, Default)]
struct Open {
    endpoints: Vec<Endpoint>,
    /// Ids of its networks, the primary one first.
    networks: Vec<String>,
    forwards: bool,
    zone: Option<watch::Sender<Arc<Zone>>>,
    published: Vec<network::Published>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Connections {
    pub(super) fn new(data: &Path) -> Self {
        Self {
            networks: Networks::new(data.join("networks")),
            open: RefCell::default(),
            retired: RefCell::default(),
            stale: Cell::default(),
        }
    }
}

impl Host {
    pub(super) fn ensure_network(&self, key: &str, spec: &NetworkSpec) -> Result<(), RuntimeError> {
        self.change_record(|record| {
            record.networks.insert(key.to_owned(), spec.clone());
        })?;
        self.connections
            .networks
            .ensure(spec, &self.project)
            .map_err(|error| because(format!("cannot create network `{key}`"), &error))?;
        self.apply_firewall()
    }

    pub(super) fn drop_network(&self, key: &str) -> Result<(), RuntimeError> {
        let found = self.record.borrow().networks.get(key).cloned();
        if let Some(spec) = found.filter(|spec| !spec.external)
            && let Some(record) = self.network_named(&spec.name)?
        {
            let others = record.leases.values().filter(|holder| !self.is_ours(holder)).count();
            if others > 0 {
                return Err(failure(format!("network `{}` is in use by {others} other container(s)", spec.name)));
            }
            self.connections
                .networks
                .retire(&record.id)
                .map_err(|error| because(format!("cannot remove network `{key}`"), &error))?;
            self.connections.retired.borrow_mut().push(record.id);
        }
        self.change_record(|record| {
            record.networks.remove(key);
        })?;
        self.apply_firewall()
    }

    /// Removes the bridges of networks that are gone. The kernel takes its time over it, so nobody is kept waiting.
    pub(super) async fn remove_retired(&self) {
        let retired = self.connections.retired.take();
        if retired.is_empty() {
            return;
        }
        let networks = self.connections.networks.clone();
        let removal = tokio::task::spawn_blocking(move || retired.iter().try_for_each(|id| networks.remove(id)));
        match removal.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.warn(&because("cannot remove what is left of a network", &error).message),
            Err(error) => self.warn(&format!("networks could not be removed: {error}")),
        }
    }

    /// Networks of the project that exist: their configuration hashes by key.
    pub(super) fn existing_networks(&self) -> BTreeMap<String, String> {
        let records = match self.connections.networks.list() {
            Ok(records) => records,
            Err(error) => {
                self.warn(&because("cannot list the networks", &error).message);
                return BTreeMap::new();
            }
        };
        let known = self.record.borrow();
        let there = known.networks.iter().filter_map(|(key, spec)| {
            let record = records.iter().find(|record| record.ready && record.name == spec.name)?;
            let hash = if spec.external { &spec.config_hash } else { &record.config_hash };
            Some((key.clone(), hash.clone()))
        });
        there.collect()
    }

    pub(super) fn sweep_networks(&self) -> Result<(), RuntimeError> {
        let swept = self.connections.networks.sweep(&self.project);
        swept.map_err(|error| because("cannot remove what is left of networks", &error))
    }

    /// Connects a container that is about to start.
    pub(super) fn connect(&self, config: &ContainerConfig) -> Result<Connected, RuntimeError> {
        let container = &config.service.container;
        let hostname = container.hostname.clone().unwrap_or_else(|| config.id.short().to_owned());
        let mut connected = Connected { hostname, ..Connected::default() };
        let mut own = Vec::new();
        match &container.network {
            NetworkMode::Networks(attachments) => {
                own = self.join_networks(config, attachments, &mut connected)?;
            }
            NetworkMode::None => {
                let sandbox = sandbox::create_none();
                connected.netns =
                    Some(sandbox.map_err(|error| because("cannot make a network namespace", &error))?.netns);
            }
            NetworkMode::Host | NetworkMode::Service(_) | NetworkMode::Container(_) => {}
        }
        self.write_etc_files(config, &own, &mut connected)?;
        Ok(connected)
    }

    /// Makes the sandbox on the container's networks, serves its names and publishes its ports.
    fn join_networks(
        &self,
        config: &ContainerConfig,
        attachments: &[Attachment],
        connected: &mut Connected,
    ) -> Result<Vec<IpAddr>, RuntimeError> {
        let joined = self.lease(config, attachments)?;
        let gateway = attachments.iter().enumerate().max_by_key(|(n, one)| (one.gw_priority, std::cmp::Reverse(*n)));
        let gateway = gateway.map(|(n, _)| n);
        let mut interfaces = Vec::new();
        for (number, (attachment, (record, addresses))) in attachments.iter().zip(&joined).enumerate() {
            let mac = attachment.mac.as_deref().map(sandbox::parse_mac).transpose();
            interfaces.push(Interface {
                network: record,
                addresses,
                mac: mac.map_err(|error| because("`mac_address`", &error))?,
                name: attachment.interface.clone().unwrap_or_else(|| format!("eth{number}")),
                gateway: Some(number) == gateway,
            });
        }
        let sandbox = sandbox::create(&interfaces).map_err(|error| because("cannot connect the container", &error))?;
        let Sandbox { netns, dns } = sandbox;
        let mut held = vec![copy(&netns)?];
        if let Some(dns) = &dns {
            held.extend([copy(&dns.udp)?, copy(&dns.tcp)?]);
        }
        let id = &config.id;
        self.link.hold(&format!("net:{id}"), held).map_err(|error| because("the keeper cannot be reached", &error))?;
        for (attachment, (_, addresses)) in attachments.iter().zip(&joined) {
            if let Some(address) = addresses.first() {
                connected.addresses.insert(attachment.network.clone(), *address);
            }
        }
        self.open(config, attachments, &joined, dns)?;
        let own: Vec<IpAddr> = joined.iter().flat_map(|(_, addresses)| addresses.clone()).collect();
        connected.ports = self.publish_ports(config, &own)?;
        connected.netns = Some(netns);
        Ok(own)
    }

    fn lease(
        &self,
        config: &ContainerConfig,
        attachments: &[Attachment],
    ) -> Result<Vec<(NetworkRecord, Vec<IpAddr>)>, RuntimeError> {
        let mut joined = Vec::new();
        for attachment in attachments {
            let record = self.network_of(&attachment.network)?;
            let wanted: Vec<IpAddr> =
                attachment.ipv4.map(IpAddr::V4).into_iter().chain(attachment.ipv6.map(IpAddr::V6)).collect();
            let addresses = self.connections.networks.lease(&record.id, &config.id, &wanted);
            let addresses = addresses.map_err(|error| because("cannot give the container an address", &error))?;
            joined.push((record, addresses));
        }
        Ok(joined)
    }

    /// Notes the container's names, and serves DNS in its sandbox.
    fn open(
        &self,
        config: &ContainerConfig,
        attachments: &[Attachment],
        joined: &[(NetworkRecord, Vec<IpAddr>)],
        dns: Option<DnsSockets>,
    ) -> Result<(), RuntimeError> {
        let endpoints = attachments.iter().zip(joined).map(|(attachment, (record, addresses))| {
            let mut names = attachment.aliases.clone();
            if config.number > 0 {
                names.push(config.service.name.clone());
            }
            names.push(config.id.short().to_owned());
            Endpoint {
                project: self.project.clone(),
                network: record.id.clone(),
                network_name: record.name.clone(),
                addresses: addresses.clone(),
                container: config.name.clone(),
                names,
            }
        });
        let mut open = Open {
            endpoints: endpoints.collect(),
            networks: joined.iter().map(|(record, _)| record.id.clone()).collect(),
            forwards: joined.iter().any(|(record, _)| !record.internal),
            zone: None,
            published: Vec::new(),
            tasks: Vec::new(),
        };
        if let Some(sockets) = dns {
            let (zone, seen) = watch::channel(Arc::default());
            let servers = config.service.container.dns.iter().filter_map(|server| server.parse().ok()).collect();
            let host = self.clone();
            let name = config.name.clone();
            let serving = tokio::task::spawn_local(async move {
                if let Err(error) = network::dns_server::serve(sockets, seen, servers).await {
                    host.warn(&format!("DNS of container `{name}` has ended: {error}"));
                }
            });
            open.tasks.push(serving.abort_handle());
            open.zone = Some(zone);
        }
        self.connections.open.borrow_mut().insert(config.id.clone(), open);
        self.refresh_zones();
        Ok(())
    }

    /// Has every container's view of the names made anew, once for all changes that happen in one go. That comes before
    /// any question that is asked from now on: the servers are tasks of this thread, too.
    fn refresh_zones(&self) {
        if self.connections.stale.replace(true) {
            return;
        }
        let host = self.clone();
        tokio::task::spawn_local(async move {
            host.connections.stale.set(false);
            host.make_zones();
        });
    }

    fn make_zones(&self) {
        let open = self.connections.open.borrow();
        let endpoints: Vec<Endpoint> = open.values().flat_map(|one| one.endpoints.clone()).collect();
        // Containers on the same networks see the same names: one copy serves them all.
        let mut made: BTreeMap<(&[String], bool), Arc<Zone>> = BTreeMap::new();
        for one in open.values() {
            if let Some(zone) = &one.zone {
                let view = made
                    .entry((&one.networks, one.forwards))
                    .or_insert_with(|| Arc::new(Zone::new(&self.project, &one.networks, &endpoints, one.forwards)));
                zone.send_replace(Arc::clone(view));
            }
        }
    }

    /// Holds the host ports, and has the kernel send what arrives there to the container.
    fn publish_ports(&self, config: &ContainerConfig, own: &[IpAddr]) -> Result<Vec<Published>, RuntimeError> {
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

    /// Picks up the connection of a container that runs: with the descriptors that are held, or anew.
    pub(super) fn reconnect(&self, record: &ContainerRecord) -> Result<(), RuntimeError> {
        let config = &record.config;
        let NetworkMode::Networks(attachments) = &config.service.container.network else { return Ok(()) };
        let joined = self.lease(config, attachments)?;
        let what = "cannot pick up the container's connection";
        let id = &config.id;
        let mut held = self.link.held(&format!("net:{id}")).map_err(|error| because(what, &error))?.into_iter();
        let dns = match (held.next(), held.next(), held.next()) {
            (Some(_), Some(udp), Some(tcp)) => Some(DnsSockets { udp, tcp }),
            _ => {
                let pid = record.state.run.as_ref().and_then(|run| u32::try_from(run.pid).ok()).unwrap_or_default();
                let Sandbox { netns, dns } = sandbox::reopen(pid).map_err(|error| because(what, &error))?;
                let mut held = vec![netns];
                if let Some(dns) = &dns {
                    held.extend([copy(&dns.udp)?, copy(&dns.tcp)?]);
                }
                self.link.hold(&format!("net:{id}"), held).map_err(|error| because(what, &error))?;
                dns
            }
        };
        self.open(config, attachments, &joined, dns)?;
        let own: Vec<IpAddr> = joined.into_iter().flat_map(|(_, addresses)| addresses).collect();
        self.republish(record, &own)
    }

    /// The ports of a container that runs: held sockets go on, lost ones are bound again.
    fn republish(&self, record: &ContainerRecord, own: &[IpAddr]) -> Result<(), RuntimeError> {
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

    /// Once everything has been picked up: rules and names as they should be.
    pub(super) fn refresh_network(&self) -> Result<(), RuntimeError> {
        self.refresh_zones();
        self.apply_firewall()
    }

    /// Lets go of a container's sandbox, names and ports. Its addresses stay its own until it is removed.
    pub(super) fn disconnect(&self, id: &ContainerId) {
        let open = self.connections.open.borrow_mut().remove(id);
        for name in ["net", "ports", "terminal"] {
            if let Err(error) = self.link.release(&format!("{name}:{id}")) {
                self.warn(&format!("cannot release the descriptors of container {}: {error}", id.short()));
            }
        }
        let Some(open) = open else { return };
        for rule in &open.published {
            if let Err(error) = firewall::unpublish(&self.firewall_name(), rule) {
                self.warn(&because("a port cannot be closed", &error).message);
            }
        }
        drop(open);
        self.refresh_zones();
    }

    pub(super) fn release_addresses(&self, id: &ContainerId) {
        if let Err(error) = self.connections.networks.release(std::slice::from_ref(id)) {
            self.warn(&because("addresses cannot be given back", &error).message);
        }
    }

    /// Makes the project's rules what they should be; without networks there are none.
    fn apply_firewall(&self) -> Result<(), RuntimeError> {
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
    fn firewall_name(&self) -> String {
        let group = self.roots.cgroup_name();
        match group.strip_prefix("rcompose-") {
            Some(root) => format!("{}-{root}", self.project),
            None => self.project.clone(),
        }
    }

    fn network_of(&self, key: &str) -> Result<NetworkRecord, RuntimeError> {
        let name = self.record.borrow().networks.get(key).map(|spec| spec.name.clone());
        let name = name.ok_or_else(|| failure(format!("network `{key}` has not been created")))?;
        self.network_named(&name)?.ok_or_else(|| failure(format!("network `{name}` does not exist")))
    }

    fn network_named(&self, name: &str) -> Result<Option<NetworkRecord>, RuntimeError> {
        self.connections.networks.find(name).map_err(|error| because(format!("cannot read network `{name}`"), &error))
    }

    fn is_ours(&self, container: &str) -> bool {
        ContainerId::parse(container).is_some_and(|id| self.dir.container(&id).exists())
    }

    /// Writes the files that the container sees as /etc/hosts, /etc/hostname and /etc/resolv.conf.
    fn write_etc_files(
        &self,
        config: &ContainerConfig,
        own: &[IpAddr],
        connected: &mut Connected,
    ) -> Result<(), RuntimeError> {
        let container = &config.service.container;
        let on_host = container.network == NetworkMode::Host;
        let host_text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let resolv_conf = if on_host || own.is_empty() {
            host_text
        } else {
            let servers: Vec<IpAddr> = container.dns.iter().filter_map(|server| server.parse().ok()).collect();
            files::resolv_conf(&Resolver::parse(&host_text), &servers, &container.dns_search, &container.dns_opt)
        };
        let gateway = self.host_gateway(config);
        let domain = container.domainname.as_deref();
        let hosts = files::hosts(&connected.hostname, domain, own, &container.extra_hosts, gateway);
        let folder = self.dir.container(&config.id);
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text)
                .map_err(|error| because(format!("cannot write `{}`", path.display()), &error))?;
            Ok(Some(path))
        };
        connected.etc = EtcFiles {
            hosts: write("hosts", &hosts)?,
            hostname: write("hostname", &files::hostname(&connected.hostname))?,
            resolv_conf: write("resolv.conf", &resolv_conf)?,
        };
        Ok(())
    }

    /// The host's address on the container's primary network.
    fn host_gateway(&self, config: &ContainerConfig) -> Option<IpAddr> {
        let NetworkMode::Networks(attachments) = &config.service.container.network else { return None };
        let record = self.network_of(&attachments.first()?.network).ok()?;
        record.subnets.first().map(|subnet| subnet.gateway)
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

fn copy(descriptor: &OwnedFd) -> Result<OwnedFd, RuntimeError> {
    descriptor.try_clone().map_err(|error| because("no descriptor is left", &error))
}
