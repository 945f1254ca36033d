//! The project's networks: made, found, and removed when nobody is left on them.

use std::collections::BTreeMap;

use super::Host;
use crate::base::ids::ContainerId;
use crate::network::{NetworkError, NetworkRecord, foreign, sandbox};
use crate::runtime::RuntimeError;
use crate::spec::NetworkSpec;
use crate::supervisor::failure::{because, failure};

/// A network that is being removed.
pub(in crate::supervisor) type Removal = tokio::task::JoinHandle<Result<(), NetworkError>>;

impl Host {
    pub(in crate::supervisor) fn ensure_network(&self, key: &str, spec: &NetworkSpec) -> Result<(), RuntimeError> {
        self.change_record(|record| {
            record.networks.insert(key.to_owned(), spec.clone());
        })?;
        let made = self.connections.networks.ensure(spec, &self.project);
        let record = made.map_err(|error| because(format!("cannot create network `{key}`"), &error))?;
        if let Err(error) = foreign::admit(&[&record]) {
            // There is more to a network than what this firewall cuts off.
            self.notice(&because(format!("network `{key}`"), &error).message);
        }
        self.apply_firewall()
    }

    pub(in crate::supervisor) fn drop_network(&self, key: &str) -> Result<(), RuntimeError> {
        let found = self.record.borrow().networks.get(key).cloned();
        if let Some(spec) = found.filter(|spec| !spec.external)
            && let Some(record) = self.network_named(&spec.name)?
        {
            // An address of ours whose container is gone could not be given back, on a full disk for example.
            let of_us = |holder: &String| record.endpoints.get(holder).is_some_and(|end| end.project == self.project);
            let others = record.leases.values().filter(|holder| !of_us(holder) && !self.is_ours(holder)).count();
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

    /// Begins to remove the bridges of networks that are gone, and returns when nobody sees them any more. The kernel takes
    /// its time over the rest, which nobody is kept waiting for: [`Host::end_removal`].
    pub(in crate::supervisor) async fn begin_removal(&self) -> Vec<Removal> {
        let retired = self.connections.retired.take();
        let begun = retired.into_iter().map(|id| {
            let (networks, same) = (self.connections.networks.clone(), id.clone());
            let removal = tokio::task::spawn_blocking(move || networks.remove(&same));
            let networks = self.connections.networks.clone();
            (removal, tokio::task::spawn_blocking(move || networks.await_unlinked(&id)))
        });
        let (removals, unlinked): (Vec<_>, Vec<_>) = begun.unzip();
        for wait in unlinked {
            // A panic in there is told by the default hook; the removal has its own.
            let _ = wait.await;
        }
        removals
    }

    pub(in crate::supervisor) async fn end_removal(&self, removals: Vec<Removal>) {
        for removal in removals {
            match removal.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.warn(&because("cannot remove what is left of a network", &error).message),
                Err(error) => self.warn(&format!("networks could not be removed: {error}")),
            }
        }
    }

    /// Deletes what is left of the connections of containers that have ended.
    pub(in crate::supervisor) async fn sweep_links(&self) {
        let links = self.connections.cut.take();
        if links.is_empty() {
            return;
        }
        match tokio::task::spawn_blocking(move || sandbox::sweep(&links)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.warn(&because("links of ended containers are left", &error).message),
            Err(error) => self.warn(&format!("links of ended containers could not be looked at: {error}")),
        }
    }

    /// Networks of the project that exist, as they were made.
    pub(in crate::supervisor) fn existing_networks(&self) -> BTreeMap<String, NetworkSpec> {
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
            Some((key.clone(), NetworkSpec { config_hash: hash.clone(), ..spec.clone() }))
        });
        there.collect()
    }

    pub(in crate::supervisor) fn sweep_networks(&self) -> Result<(), RuntimeError> {
        let swept = self.connections.networks.sweep(&self.project);
        swept.map_err(|error| because("cannot remove what is left of networks", &error))
    }

    /// Whether a network is there that the project's record names; also when that cannot be learnt.
    pub(in crate::supervisor) fn has_networks(&self) -> bool {
        let record = self.record.borrow();
        let there = |records: Vec<NetworkRecord>| {
            record.networks.values().any(|spec| records.iter().any(|record| record.name == spec.name))
        };
        !record.networks.is_empty() && self.connections.networks.list().map_or(true, there)
    }

    /// The networks that this project has made.
    pub(super) fn own_networks(&self) -> Result<Vec<NetworkRecord>, RuntimeError> {
        let records = self.connections.networks.list();
        let records = records.map_err(|error| because("cannot list the networks", &error))?;
        let own = |record: &NetworkRecord| record.ready && record.project == self.project;
        let records: Vec<_> = records.into_iter().filter(own).collect();
        self.connections.known.replace(records.clone());
        Ok(records)
    }

    /// The network with a key in the project, or another project's by its name.
    pub(super) fn network_of(&self, key: &str) -> Result<NetworkRecord, RuntimeError> {
        let name = self.record.borrow().networks.get(key).map_or(key.to_owned(), |spec| spec.name.clone());
        self.network_named(&name)?.ok_or_else(|| failure(format!("network `{name}` does not exist")))
    }

    fn network_named(&self, name: &str) -> Result<Option<NetworkRecord>, RuntimeError> {
        self.connections.networks.find(name).map_err(|error| because(format!("cannot read network `{name}`"), &error))
    }

    fn is_ours(&self, container: &str) -> bool {
        ContainerId::parse(container).is_some_and(|id| self.dir.container(&id).exists())
    }
}
