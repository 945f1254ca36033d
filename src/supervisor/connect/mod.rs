//! Containers on their networks: sandbox, addresses, names, published ports. All of it hangs on descriptors that the keeper
//! holds too, so that it outlives this process; [`Host::reconnect`] picks it up again.

mod changes;
mod live;
mod names;
mod networks;
mod ports;
mod uplink;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use crate::base::ids::ContainerId;
use crate::engine::spec::EtcFiles;
use crate::network;
use crate::network::Outside;
use crate::network::dns::{Endpoint, View, Zone};
use crate::network::dns_server::DnsServer;
use crate::network::dns_sockets::DnsSockets;
use crate::network::sandbox;
use crate::network::{EndpointRecord, Gateway, Interface, NetworkRecord, Networks, Sandbox};
use crate::runtime::RuntimeError;
use crate::spec::container::{Attachment, NetworkMode};
use crate::spec::observed::Published;
use crate::state::ContainerConfig;
use crate::state::ContainerRecord;
use crate::supervisor::failure::{because, failure};
use crate::supervisor::host::Host;
use crate::supervisor::is_same_process;

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
    /// Where published ports are, and name servers.
    pub(super) outside: Outside,
    /// The way from the project's own network to there.
    uplink: watch::Sender<uplink::Stage>,
    open: RefCell<BTreeMap<ContainerId, Open>>,
    /// Ids of networks whose bridges are to be removed after the change under way.
    retired: RefCell<Vec<String>>,
    /// Host's ends of connections that were cut and may be there still.
    cut: RefCell<Vec<String>>,
    /// The names are about to be made anew.
    stale: Cell<bool>,
    /// The project's own, as they were read last: each change of them is followed by reading them.
    known: RefCell<Vec<NetworkRecord>>,
    /// Routes that have come and hide networks.
    clashes: RefCell<Vec<String>>,
    /// Changes of the host are followed.
    watched: Cell<bool>,
    /// Started with the first container that needs it.
    dns: OnceCell<DnsServer>,
}

/// A container's place on a network.
#[derive(Debug)]
struct Joined {
    record: NetworkRecord,
    addresses: Vec<IpAddr>,
    /// Everything it answers to there, besides its own name.
    names: Vec<String>,
    /// Name of the host's end of the connection.
    link: String,
}

/// A container's tasks and names here.
#[derive(Debug, Default)]
struct Open {
    endpoints: Vec<Endpoint>,
    view: View,
    names: Option<Names>,
    published: Vec<network::Published>,
    /// Names of the host's ends of its connections to bridges.
    links: Vec<String>,
    /// Its namespace, when links in it are on shared parents.
    shared: Option<OwnedFd>,
    tasks: Vec<AbortHandle>,
}

/// What a container's DNS server is fed by; it ends when this is dropped.
#[derive(Debug)]
struct Names {
    zone: watch::Sender<Arc<Zone>>,
    _alive: oneshot::Sender<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Connections {
    pub(super) fn new(data: &Path, outside: Outside) -> Self {
        Self {
            networks: Networks::new(data.join("networks")).with_outside(outside.clone()),
            outside,
            uplink: uplink::stage(),
            open: RefCell::default(),
            retired: RefCell::default(),
            cut: RefCell::default(),
            stale: Cell::default(),
            known: RefCell::default(),
            clashes: RefCell::default(),
            watched: Cell::default(),
            dns: OnceCell::default(),
        }
    }
}

impl Host {
    /// Connects a container that is about to start.
    pub(super) fn connect(&self, config: &ContainerConfig) -> Result<Connected, RuntimeError> {
        let container = &config.service.container;
        let mut connected = Connected { hostname: own_hostname(config), ..Connected::default() };
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
            NetworkMode::Host => {}
            NetworkMode::Service(_) | NetworkMode::Container(_) => {
                let owner = self.owner_of_network(config)?;
                connected.hostname = own_hostname(&owner);
                connected.etc = self.etc_files_of(&owner);
                return Ok(connected);
            }
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
        let joined = self.lease(config, attachments, false)?;
        let gateways = gateways(attachments, &joined);
        let mut interfaces = Vec::new();
        let names = link_names(attachments, &joined);
        for (number, ((attachment, joined), name)) in attachments.iter().zip(&joined).zip(names).enumerate() {
            let mac = attachment.mac.as_deref().map(sandbox::parse_mac).transpose();
            interfaces.push(Interface {
                network: &joined.record,
                addresses: &joined.addresses,
                link_local: &attachment.link_local,
                mac: mac.map_err(|error| because("`mac_address`", &error))?,
                name,
                link: &joined.link,
                gateway: Gateway { ipv4: gateways.0 == Some(number), ipv6: gateways.1 == Some(number) },
                sysctls: &attachment.sysctls,
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
        for (attachment, joined) in attachments.iter().zip(&joined) {
            if let Some(address) = joined.addresses.first() {
                connected.addresses.insert(attachment.network.clone(), *address);
            }
        }
        self.open(config, &joined, &netns, dns)?;
        connected.ports = self.publish_ports(config, attachments, &joined)?;
        let own: Vec<IpAddr> = joined.iter().flat_map(|joined| joined.addresses.clone()).collect();
        connected.netns = Some(netns);
        Ok(own)
    }

    /// The container's places on its networks; `known` when it runs already, with the links it has.
    fn lease(
        &self,
        config: &ContainerConfig,
        attachments: &[Attachment],
        known: bool,
    ) -> Result<Vec<Joined>, RuntimeError> {
        let mut joined = Vec::new();
        for attachment in attachments {
            let record = self.network_of(&attachment.network)?;
            let wanted: Vec<IpAddr> =
                attachment.ipv4.map(IpAddr::V4).into_iter().chain(attachment.ipv6.map(IpAddr::V6)).collect();
            let mut names = attachment.aliases.clone();
            if config.number > 0 {
                names.push(config.service.name.clone());
            }
            names.push(config.id.short().to_owned());
            let link = match record.endpoints.get(config.id.as_str()).filter(|_| known) {
                Some(endpoint) => endpoint.link.clone(),
                None => sandbox::host_link().map_err(|error| because("cannot name the container's link", &error))?,
            };
            let endpoint = EndpointRecord {
                project: self.project.clone(),
                container: config.name.clone(),
                names: names.clone(),
                link: link.clone(),
            };
            let addresses = self.connections.networks.lease(&record.id, &config.id, &wanted, endpoint);
            let addresses = addresses.map_err(|error| because("cannot give the container an address", &error))?;
            joined.push(Joined { record, addresses, names, link });
        }
        Ok(joined)
    }

    /// Picks up the connection of a container that runs: with the descriptors that are held, or anew.
    pub(super) fn reconnect(&self, record: &ContainerRecord) -> Result<(), RuntimeError> {
        let config = &record.config;
        let NetworkMode::Networks(attachments) = &config.service.container.network else { return Ok(()) };
        let joined = self.lease(config, attachments, true)?;
        let what = "cannot pick up the container's connection";
        let id = &config.id;
        let mut held = self.link.held(&format!("net:{id}")).map_err(|error| because(what, &error))?.into_iter();
        let (netns, dns) = match (held.next(), held.next(), held.next()) {
            (Some(netns), Some(udp), Some(tcp)) => (netns, Some(DnsSockets { udp, tcp })),
            _ => {
                let pid = record.state.run.as_ref().and_then(|run| u32::try_from(run.pid).ok()).unwrap_or_default();
                let Sandbox { netns, dns } = sandbox::reopen(pid).map_err(|error| because(what, &error))?;
                if !record.state.run.as_ref().is_some_and(|run| is_same_process(&self.boot_id, run)) {
                    return Err(failure(what));
                }
                let mut held = vec![copy(&netns)?];
                if let Some(dns) = &dns {
                    held.extend([copy(&dns.udp)?, copy(&dns.tcp)?]);
                }
                self.link.hold(&format!("net:{id}"), held).map_err(|error| because(what, &error))?;
                (netns, dns)
            }
        };
        self.open(config, &joined, &netns, dns)?;
        self.republish(record, attachments, &joined)
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
        self.unpublish(&open.published);
        let cut = sandbox::cut(&open.links);
        let mut links = self.connections.cut.borrow_mut();
        links.retain(|link| network::link_exists(link));
        links.extend(open.links.iter().cloned());
        drop(links);
        let cleared = open.shared.as_ref().map_or(Ok(()), |netns| sandbox::clear(netns.as_fd()));
        if let Err(error) = cut.and(cleared) {
            self.warn(&because("the container may still have its addresses", &error).message);
        }
        drop(open);
        self.refresh_zones();
    }

    pub(super) fn release_addresses(&self, id: &ContainerId) {
        if let Err(error) = self.connections.networks.release(std::slice::from_ref(id)) {
            self.warn(&because("addresses cannot be given back", &error).message);
        }
    }
}

/// As on the host where that is the host's network.
fn own_hostname(config: &ContainerConfig) -> String {
    let container = &config.service.container;
    let default = || match container.network {
        NetworkMode::Host => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        _ => config.id.short().to_owned(),
    };
    container.hostname.clone().filter(|name| !name.is_empty()).unwrap_or_else(default)
}

/// What the container's links are called inside: as they are to be, and otherwise with the next number of their prefix, as with
/// Docker.
fn link_names(attachments: &[Attachment], joined: &[Joined]) -> Vec<String> {
    let taken: Vec<&String> = attachments.iter().filter_map(|attachment| attachment.interface.as_ref()).collect();
    let mut names: Vec<String> = Vec::new();
    for (attachment, joined) in attachments.iter().zip(joined) {
        let prefix = joined.record.interface_prefix.as_deref().unwrap_or("eth");
        let mut numbered = (0..=attachments.len()).map(|number| format!("{prefix}{number}"));
        let free = || numbered.find(|name| !names.contains(name) && !taken.contains(&name));
        let name = attachment.interface.clone().or_else(free).unwrap_or_else(|| prefix.to_owned());
        names.push(name);
    }
    names
}

/// Which attachments the default routes of IPv4 and IPv6 go through, as in Docker: the one with the highest `gw_priority`, of those
/// one that leads out by both, and of those the first by its network's name.
fn gateways(attachments: &[Attachment], joined: &[Joined]) -> (Option<usize>, Option<usize>) {
    let best = |is: fn(&IpAddr) -> bool| {
        let both = attachments.iter().zip(joined).enumerate();
        let leads_out = both.filter(|(_, (_, joined))| !joined.record.internal && joined.addresses.iter().any(is));
        let both = |joined: &Joined| {
            joined.addresses.iter().any(IpAddr::is_ipv4) && joined.addresses.iter().any(IpAddr::is_ipv6)
        };
        let best = leads_out
            .max_by_key(|(_, (one, joined))| (one.gw_priority, both(joined), std::cmp::Reverse(&joined.record.name)));
        best.map(|(number, _)| number)
    };
    (best(IpAddr::is_ipv4), best(IpAddr::is_ipv6))
}

fn copy(descriptor: &OwnedFd) -> Result<OwnedFd, RuntimeError> {
    descriptor.try_clone().map_err(|error| because("no descriptor is left", &error))
}
