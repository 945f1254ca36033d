//! Containers on their networks: sandbox, addresses, names, published ports. All of it hangs on descriptors that the keeper
//! holds too, so that it outlives this process; [`Host::reconnect`] picks it up again.

mod names;
mod networks;
mod ports;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::base::ids::ContainerId;
use crate::engine::spec::EtcFiles;
use crate::network;
use crate::network::dns::{Endpoint, Zone};
use crate::network::sandbox::{self, DnsSockets};
use crate::network::{Interface, NetworkRecord, Networks, Sandbox, firewall};
use crate::runtime::RuntimeError;
use crate::spec::container::{Attachment, NetworkMode};
use crate::spec::observed::Published;
use crate::state::ContainerConfig;
use crate::state::ContainerRecord;
use crate::supervisor::failure::because;
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
}

fn copy(descriptor: &OwnedFd) -> Result<OwnedFd, RuntimeError> {
    descriptor.try_clone().map_err(|error| because("no descriptor is left", &error))
}
