//! Containers that join and leave networks while they run. What they are on is part of their configuration from then on; the
//! service's hash stays what it was, so that the planner sees in what they differ from the file.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::AsFd;

use super::ports::Targets;
use super::{Host, Joined, gateways, own_hostname};
use crate::network::dns_sockets::DnsSockets;
use crate::network::sandbox::live::{self, DefaultRoute};
use crate::network::{Gateway, Interface, NetworkRecord, files};
use crate::runtime::RuntimeError;
use crate::spec::container::{Attachment, NetworkMode};
use crate::state::{ContainerConfig, ContainerRecord};
use crate::supervisor::failure::{because, failure};

/// A container's /etc/hosts is not looked into when it is longer, in bytes.
const MAX_HOSTS: u64 = 1 << 20;

impl Host {
    /// Puts a container on one more network.
    pub(in crate::supervisor) fn join(&self, name: &str, mut attachment: Attachment) -> Result<(), RuntimeError> {
        let record = self.by_name(name)?;
        let before = attachments_of(&record.config)?.to_vec();
        attachment.network = self.key_of(&attachment.network);
        let network = self.network_of(&attachment.network)?;
        if before.iter().any(|one| one.network == attachment.network) {
            return Err(failure(format!("container `{name}` is on network `{}` already", network.name)));
        }
        let given_back = |error| {
            if let Err(error) = self.connections.networks.release_from(&network.id, &record.config.id) {
                self.warn(&because("addresses cannot be given back", &error).message);
            }
            error
        };
        let joined = self.lease(&record.config, std::slice::from_ref(&attachment), false).map_err(given_back)?;
        self.connect_live(&record, &attachment, &joined).map_err(given_back)?;
        let after = before.iter().cloned().chain([attachment]).collect();
        self.moved(record, &before, after)
    }

    /// Takes a container off a network.
    pub(in crate::supervisor) fn leave_network(&self, name: &str, network: &str) -> Result<(), RuntimeError> {
        let record = self.by_name(name)?;
        let before = attachments_of(&record.config)?.to_vec();
        let key = self.key_of(network);
        let (left, after): (Vec<_>, Vec<_>) = before.iter().cloned().partition(|one| one.network == key);
        if left.is_empty() {
            return Err(failure(format!("container `{name}` is not on network `{network}`")));
        }
        let (id, from) = (record.config.id.clone(), self.lease(&record.config, &left, true)?);
        self.moved(record, &before, after)?;
        for joined in &from {
            let released = self.connections.networks.release_from(&joined.record.id, &id);
            released.map_err(|error| because("addresses cannot be given back", &error))?;
        }
        Ok(())
    }

    /// Sees commands to their end that connected or disconnected containers and were killed between two records: their links,
    /// addresses and routes become those of the networks that their configuration names.
    pub(in crate::supervisor) fn settle_networks(&self, records: &[ContainerRecord]) {
        if records.is_empty() {
            return;
        }
        if let Err(error) = self.try_settle_networks(records) {
            self.warn(&error.message);
        }
    }

    fn try_settle_networks(&self, records: &[ContainerRecord]) -> Result<(), RuntimeError> {
        let what = "a container's networks cannot be made those of its configuration";
        let networks = self.connections.networks.list().map_err(|error| because(what, &error))?;
        for record in records {
            let NetworkMode::Networks(attached) = &record.config.service.container.network else { continue };
            let id = &record.config.id;
            let held = |network: &NetworkRecord| {
                let leases = network.leases.iter().filter(|(_, holder)| *holder == id.as_str());
                leases.map(|(address, _)| *address).collect::<Vec<IpAddr>>()
            };
            let is_left = |network: &&NetworkRecord| {
                let key = self.key_of(&network.name);
                !held(network).is_empty() && attached.iter().all(|one| one.network != key)
            };
            let left: Vec<&NetworkRecord> = networks.iter().filter(is_left).collect();
            let strays: Vec<IpAddr> = left.iter().flat_map(|network| held(network)).collect();
            if let Some(netns) = self.netns_of(record)? {
                let joined = self.lease(&record.config, attached, true)?;
                if !strays.is_empty() || record.state.addresses != first_addresses(attached, &joined) {
                    live::leave(netns.as_fd(), &strays).map_err(|error| because(what, &error))?;
                    live::route(netns.as_fd(), &default_routes(attached, &joined))
                        .map_err(|error| because(what, &error))?;
                    // Its state may have been written since.
                    self.note_addresses(&mut self.load(id)?, &strays, &joined)?;
                }
            }
            for network in left {
                let released = self.connections.networks.release_from(&network.id, id);
                released.map_err(|error| because(what, &error))?;
            }
        }
        Ok(())
    }

    pub(in crate::supervisor) fn by_name(&self, name: &str) -> Result<ContainerRecord, RuntimeError> {
        let records = self.dir.load().map_err(|error| because("cannot read the containers", &error))?;
        let found = records.into_iter().find(|record| record.config.name == name);
        let found = found.ok_or_else(|| failure(format!("there is no container `{name}`")))?;
        if self.starting.borrow().contains(&found.config.id) {
            return Err(failure(format!("container `{name}` is being started")));
        }
        Ok(found)
    }

    /// What the project calls a network that is meant by key or name; other projects' have their names only.
    fn key_of(&self, network: &str) -> String {
        let record = self.record.borrow();
        let named = || record.networks.iter().find(|(_, spec)| spec.name == network).map(|(key, _)| key.clone());
        if record.networks.contains_key(network) { network.to_owned() } else { named().unwrap_or(network.to_owned()) }
    }

    /// The namespace of a container that runs.
    fn netns_of(&self, record: &ContainerRecord) -> Result<Option<std::os::fd::OwnedFd>, RuntimeError> {
        let id = &record.config.id;
        if !self.connections.open.borrow().contains_key(id) {
            return Ok(None);
        }
        let held =
            self.link.held(&format!("net:{id}")).map_err(|error| because("the keeper cannot be reached", &error))?;
        Ok(held.into_iter().next())
    }

    fn connect_live(
        &self,
        record: &ContainerRecord,
        attachment: &Attachment,
        joined: &[Joined],
    ) -> Result<(), RuntimeError> {
        let Some(netns) = self.netns_of(record)? else { return Ok(()) };
        for joined in joined {
            let interface = Interface {
                network: &joined.record,
                addresses: &joined.addresses,
                link_local: &attachment.link_local,
                mac: None,
                name: joined.record.interface_prefix.clone().unwrap_or_else(|| "eth".to_owned()),
                link: &joined.link,
                gateway: Gateway::default(),
                sysctls: &attachment.sysctls,
            };
            live::join(netns.as_fd(), interface).map_err(|error| because("cannot connect the container", &error))?;
        }
        Ok(())
    }

    /// Writes down what a container is on now, and has its links, names, routes and ports follow. Whatever is killed from then
    /// on, the next supervisor sees to the rest of it ([`Host::settle_networks`]).
    fn moved(
        &self,
        mut record: ContainerRecord,
        before: &[Attachment],
        after: Vec<Attachment>,
    ) -> Result<(), RuntimeError> {
        let were = self.lease(&record.config, before, true)?;
        record.config.service.container.network = NetworkMode::Networks(after.clone());
        let written = self.dir.write_config(&record.config);
        written.map_err(|error| because("cannot write the container's configuration", &error))?;
        let are = self.lease(&record.config, &after, true)?;
        let id = &record.config.id;
        if !self.connections.open.borrow().contains_key(id) {
            return Ok(());
        }
        let what = "cannot pick up the container's connection";
        let mut held = self.link.held(&format!("net:{id}")).map_err(|error| because(what, &error))?.into_iter();
        let Some(netns) = held.next() else { return Err(failure(what)) };
        let dns = held.next().zip(held.next()).map(|(udp, tcp)| DnsSockets { udp, tcp });
        let all = |joined: &[Joined]| joined.iter().flat_map(|one| one.addresses.clone()).collect::<Vec<IpAddr>>();
        let kept = all(&are);
        let gone: Vec<IpAddr> = all(&were).into_iter().filter(|one| !kept.contains(one)).collect();
        live::leave(netns.as_fd(), &gone).map_err(|error| because("cannot disconnect the container", &error))?;
        let (old, new) = (default_routes(before, &were), default_routes(&after, &are));
        let changed: Vec<_> = new.into_iter().filter(|route| !old.contains(route)).collect();
        live::route(netns.as_fd(), &changed).map_err(|error| because(what, &error))?;
        self.note_addresses(&mut record, &gone, &are)?;
        let same = Targets::new(before, &were) == Targets::new(&after, &are);
        let previous = self.connections.open.borrow_mut().remove(&record.config.id);
        self.open(&record.config, &are, &netns, dns)?;
        let Some(mut previous) = previous else { return Ok(()) };
        if same {
            if let Some(open) = self.connections.open.borrow_mut().get_mut(&record.config.id) {
                open.published = std::mem::take(&mut previous.published);
                open.tasks = std::mem::take(&mut previous.tasks);
            }
            return Ok(());
        }
        self.unpublish(&previous.published);
        drop(previous);
        if record.state.ports.is_empty() {
            record.state.ports = self.publish_ports(&record.config, &after, &are)?;
            self.write_state(&record.config.id, &record.state)?;
        } else {
            self.republish(&record, &after, &are)?;
        }
        self.apply_firewall()
    }

    /// In the container's /etc/hosts, where a line comes for each address that has none and goes with the address; then in its
    /// state, which says by that that all has followed.
    fn note_addresses(
        &self,
        record: &mut ContainerRecord,
        gone: &[IpAddr],
        are: &[Joined],
    ) -> Result<(), RuntimeError> {
        let container = &record.config.service.container;
        let hostname = own_hostname(&record.config);
        let lines = |addresses: &[IpAddr]| files::own_hosts(&hostname, container.domainname.as_deref(), addresses);
        let gone = lines(gone);
        let come = lines(&are.iter().flat_map(|one| one.addresses.clone()).collect::<Vec<_>>());
        let path = self.dir.container(&record.config.id).join("hosts");
        // The container has the file itself: it is changed, not replaced. What is in it may be anything by now.
        let changed = fs::File::open(&path).and_then(|file| {
            let mut text = Vec::new();
            if file.take(MAX_HOSTS).read_to_end(&mut text)? as u64 == MAX_HOSTS {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let is_gone = |line: &&[u8]| gone.split_inclusive('\n').any(|other| other.as_bytes() == *line);
            let mut kept: Vec<&[u8]> =
                text.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_gone(line)).collect();
            let new = come.split_inclusive('\n').map(str::as_bytes).filter(|line| !kept.contains(line));
            kept.extend(new.collect::<Vec<_>>());
            fs::write(&path, kept.concat())
        });
        if let Err(error) = changed {
            self.warn(
                &because(format!("`{}` does not have the container's addresses", path.display()), &error).message,
            );
        }
        record.state.addresses = first_addresses(attachments_of(&record.config)?, are);
        self.write_state(&record.config.id, &record.state)
    }
}

fn attachments_of(config: &ContainerConfig) -> Result<&[Attachment], RuntimeError> {
    match &config.service.container.network {
        NetworkMode::Networks(attachments) => Ok(attachments),
        NetworkMode::Host | NetworkMode::None | NetworkMode::Service(_) | NetworkMode::Container(_) => Err(failure(
            format!("container `{}` has a `network_mode` that leaves it no networks of its own", config.name),
        )),
    }
}

/// By network key, as a container's state has them.
fn first_addresses(attachments: &[Attachment], joined: &[Joined]) -> BTreeMap<String, IpAddr> {
    let first = attachments.iter().zip(joined);
    first.filter_map(|(one, joined)| Some((one.network.clone(), *joined.addresses.first()?))).collect()
}

/// The default routes that a container has on its networks.
fn default_routes(attachments: &[Attachment], joined: &[Joined]) -> Vec<DefaultRoute> {
    let (ipv4, ipv6) = gateways(attachments, joined);
    let through = |number: Option<usize>, is: fn(&IpAddr) -> bool| {
        let joined = joined.get(number?)?;
        let own = joined.addresses.iter().copied().find(is)?;
        let gateway = joined.record.subnets.iter().map(|subnet| subnet.gateway).find(is)?;
        Some(DefaultRoute { gateway, own, direct: joined.record.is_routed() })
    };
    through(ipv4, IpAddr::is_ipv4).into_iter().chain(through(ipv6, IpAddr::is_ipv6)).collect()
}
