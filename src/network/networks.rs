//! Networks on this host: bridges and their records.
//!
//! The record is written before the bridge is made and removed after it is gone, so whatever a kill leaves behind is
//! named by a record, and the next [`Networks::ensure`] or [`Networks::sweep`] clears it.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::base::ids::ContainerId;
use crate::network::NetworkError;
use crate::network::foreign;
use crate::network::ipam;
use crate::network::link::{self, link_exists};
use crate::network::outside::Outside;
use crate::network::pools;
use crate::network::records::{self, EndpointRecord, NetworkRecord, Records};
use crate::network::routes;
use crate::spec::NetworkSpec;
use crate::spec::network::{Bridge, Driver, Shared};

/// How long what others do is waited for.
const MOMENT: Duration = Duration::from_secs(1);

/// All networks of this data folder, of all projects.
#[derive(Clone, Debug)]
pub struct Networks {
    folder: PathBuf,
    outside: Outside,
}

impl Networks {
    /// `folder` is `<data_dir>/networks`; made when first needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, outside: Outside::default() }
    }

    /// The same, made where the host's network is another one: its address ranges are not to be used either.
    #[must_use]
    pub fn with_outside(self, outside: Outside) -> Self {
        Self { outside, ..self }
    }

    /// The records as they are now, also those of half-made networks (`ready` is false).
    ///
    /// # Errors
    /// [`NetworkError::File`].
    pub fn list(&self) -> Result<Vec<NetworkRecord>, NetworkError> {
        records::read_all(&self.folder)
    }

    /// The ready network of that name.
    ///
    /// # Errors
    /// [`NetworkError::File`].
    pub fn find(&self, name: &str) -> Result<Option<NetworkRecord>, NetworkError> {
        Ok(self.list()?.into_iter().find(|record| record.ready && record.name == name))
    }

    /// Makes the network exist, or finds the one that does. A difference to the specification is the planner's matter
    /// (`config_hash` of the record). Other firewalls do not let it pass yet: [`foreign::admit`].
    ///
    /// # Errors
    /// [`NetworkError`]: an external network that is missing, a name another project has, an overlap, no room.
    pub fn ensure(&self, spec: &NetworkSpec, project: &str) -> Result<NetworkRecord, NetworkError> {
        let records = Records::lock(&self.folder)?;
        let all = records.all()?;
        let same_name = all.iter().find(|record| record.name == spec.name);
        if spec.external {
            let ready = same_name.filter(|record| record.ready).cloned();
            let record = ready.ok_or_else(|| NetworkError::NotFound { name: spec.name.clone() })?;
            if self.outside.is_apart() && record.project != project && !link_exists(&record.bridge) {
                return Err(NetworkError::Apart { name: record.name, project: record.project });
            }
            return Ok(record);
        }
        if let Some(record) = same_name {
            if record.project != project {
                return Err(NetworkError::Foreign { name: spec.name.clone(), project: record.project.clone() });
            }
            if record.ready && link_exists(&record.bridge) {
                return Ok(record.clone());
            }
            clear(&records, record)?;
        }
        let mut others: Vec<_> = all.into_iter().filter(|record| record.name != spec.name).collect();
        // Under the lock nobody is making one: what is not ready is going, and must not be in the way of the range or the
        // bridge name that is asked for.
        let named = matches!(&spec.driver, Driver::Bridge(Bridge { name: Some(_), .. }));
        if !spec.subnets.is_empty() || named {
            for record in others.extract_if(.., |record| !record.ready) {
                clear(&records, &record)?;
            }
        }
        let _alone = alone();
        let mut record = plan_record(spec, project, &others, &self.outside)?;
        records.put(&record)?;
        make(&record).inspect_err(|_| {
            // Best effort: the record stays when something does, and the next sweep takes both.
            let _ = clear(&records, &record);
        })?;
        record.ready = true;
        records.put(&record)?;
        Ok(record)
    }

    /// Marks a network as gone: nothing finds it any more, and its name is free. [`Networks::remove`] is still to follow;
    /// when it does not, because of a kill, [`Networks::sweep`] or the next [`Networks::ensure`] of that name does it.
    ///
    /// # Errors
    /// [`NetworkError::File`].
    pub fn retire(&self, id: &str) -> Result<(), NetworkError> {
        let records = Records::lock(&self.folder)?;
        let Some(mut record) = records.get(id)? else { return Ok(()) };
        record.ready = false;
        records.put(&record)
    }

    /// Removes a network; one that is gone already is fine. Takes about 50 ms (the kernel waits for the bridge to
    /// be out of use), so do it last, and see [`Networks::await_unlinked`].
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn remove(&self, id: &str) -> Result<(), NetworkError> {
        let record = {
            let records = Records::lock(&self.folder)?;
            let Some(mut record) = records.get(id)? else { return Ok(()) };
            record.ready = false;
            // A VLAN that was made for this network, and that others have joined, goes with the last of them.
            if record.owns_link && record.as_bridge().is_none() {
                let all = records.all()?.into_iter();
                let mut others = all.filter(|one| one.ready && one.id != record.id && one.bridge == record.bridge);
                if let Some(mut heir) = others.next() {
                    heir.owns_link = true;
                    records.put(&heir)?;
                    record.owns_link = false;
                }
            }
            records.put(&record)?;
            record
        };
        // Others are not kept waiting: the lock is not held here, and the name of the bridge is never used again.
        unmake(&record)?;
        Records::lock(&self.folder)?.delete(id)
    }

    /// Waits until the link of a network that another thread is removing is out of everybody's sight and the kernel's lock
    /// over links is free again: about half of what [`Networks::remove`] takes. Nothing that changes links waits for the rest.
    /// Gives up after a second.
    pub fn await_unlinked(&self, id: &str) {
        let Ok(Some(record)) = self.list().map(|all| all.into_iter().find(|record| record.id == id)) else { return };
        if !record.owns_link {
            return;
        }
        let begin = Instant::now();
        while link_exists(&record.bridge) && begin.elapsed() < MOMENT {
            thread::sleep(Duration::from_micros(200));
        }
        link::await_lock();
    }

    /// Removes what a crash left of the project: half-made or half-removed networks. Makes the links of whole ones again that
    /// are gone: after a boot, or with the network namespace that they were in. Call under the project's lock.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn sweep(&self, project: &str) -> Result<(), NetworkError> {
        for record in self.list()?.into_iter().filter(|record| record.project == project) {
            let whole = record.ready && (link_exists(&record.bridge) || make(&record).is_ok());
            if !whole {
                self.remove(&record.id)?;
            }
        }
        Ok(())
    }

    /// The folder of the records.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Addresses for a container in a network, one per address family; the same ones when it has some already. Other
    /// projects on the network find it by `endpoint`.
    ///
    /// # Errors
    /// [`NetworkError`], as [`ipam::lease`].
    pub fn lease(
        &self,
        id: &str,
        container: &ContainerId,
        wanted: &[IpAddr],
        endpoint: EndpointRecord,
    ) -> Result<Vec<IpAddr>, NetworkError> {
        let records = Records::lock(&self.folder)?;
        let mut record = records.get(id)?.ok_or_else(|| NetworkError::NotFound { name: id.to_owned() })?;
        let before = record.leases.clone();
        let addresses = ipam::lease(&mut record, container.as_str(), wanted)?;
        let known = record.endpoints.insert(container.as_str().to_owned(), endpoint);
        if before != record.leases || known.as_ref() != record.endpoints.get(container.as_str()) {
            records.put(&record)?;
        }
        Ok(addresses)
    }

    /// Gives the addresses of containers back, in all networks.
    ///
    /// # Errors
    /// [`NetworkError::File`].
    pub fn release(&self, containers: &[ContainerId]) -> Result<(), NetworkError> {
        self.release_in(|_| true, containers)
    }

    /// As [`Networks::release`], in one network.
    ///
    /// # Errors
    /// [`NetworkError::File`].
    pub fn release_from(&self, id: &str, container: &ContainerId) -> Result<(), NetworkError> {
        self.release_in(|record| record.id == id, std::slice::from_ref(container))
    }

    fn release_in(
        &self,
        which: impl Fn(&NetworkRecord) -> bool,
        containers: &[ContainerId],
    ) -> Result<(), NetworkError> {
        let records = Records::lock(&self.folder)?;
        for mut record in records.all()?.into_iter().filter(which) {
            let before = record.leases.len();
            record.leases.retain(|_, holder| !containers.iter().any(|container| container.as_str() == holder));
            record.endpoints.retain(|holder, _| !containers.iter().any(|container| container.as_str() == holder));
            if record.leases.len() != before {
                records.put(&record)?;
            }
        }
        Ok(())
    }
}

/// Held from the choice of a range until its link has it: nobody with other records, those of another data folder, is to choose
/// the same one meanwhile. What is locked is the network namespace; anybody may lock that, so it is waited for for a moment only.
fn alone() -> Option<File> {
    let namespace = File::open("/proc/thread-self/ns/net").ok()?;
    let begin = Instant::now();
    while flock(&namespace, FlockOperation::NonBlockingLockExclusive).is_err() && begin.elapsed() < MOMENT {
        thread::sleep(Duration::from_micros(200));
    }
    Some(namespace)
}

/// Removes what a network is made of, and then the record.
fn clear(records: &Records, record: &NetworkRecord) -> Result<(), NetworkError> {
    unmake(record)?;
    records.delete(&record.id)
}

fn make(record: &NetworkRecord) -> Result<(), NetworkError> {
    match &record.driver {
        Driver::Bridge(_) => link::create_bridge(record),
        Driver::Shared(shared) => link::create_parent(record, shared),
    }
}

fn unmake(record: &NetworkRecord) -> Result<(), NetworkError> {
    if matches!(record.driver, Driver::Bridge(_)) {
        foreign::dismiss(record)?;
    }
    if record.owns_link { link::delete_link(&record.bridge) } else { Ok(()) }
}

fn plan_record(
    spec: &NetworkSpec,
    project: &str,
    others: &[NetworkRecord],
    outside: &Outside,
) -> Result<NetworkRecord, NetworkError> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| NetworkError::kernel("give random bytes")(errno.into()))?;
    let id = ContainerId::from_bytes(bytes).to_string();
    let own_name = || format!("rc-{}", id.get(..10).unwrap_or(&id));
    let (bridge, owns_link) = match &spec.driver {
        // As with Docker, a bridge that is there already is used, and left when the network goes.
        Driver::Bridge(Bridge { name: Some(name), .. }) => (name.clone(), !link_exists(name)),
        Driver::Shared(Shared { parent: Some(parent), .. }) => (parent.clone(), !link_exists(parent)),
        Driver::Bridge(_) | Driver::Shared(_) => (own_name(), true),
    };
    let is_bridge = matches!(spec.driver, Driver::Bridge(_));
    if let Some(other) = others.iter().find(|other| is_bridge && other.bridge == bridge) {
        return Err(NetworkError::LinkTaken { network: spec.name.clone(), link: bridge, holder: other.name.clone() });
    }
    if let Driver::Shared(shared) = &spec.driver {
        for other in others.iter().filter(|other| other.bridge == bridge) {
            let (network, holder) = (spec.name.clone(), other.name.clone());
            // The last one made would change those that are there.
            if other.changes_with(shared) {
                return Err(NetworkError::Modes { network, holder, link: bridge });
            }
            if other.excludes(shared) {
                return Err(NetworkError::Whole { network, holder, link: bridge });
            }
        }
    }
    let mut used = ipam::used_by(others);
    // The own range of a link that is there already is the very one that containers are to be in.
    if owns_link || spec.subnets.is_empty() {
        let ranges = routes::host_ranges();
        used.extend(ranges.map_err(NetworkError::kernel("list the routes and addresses of this host"))?);
        if outside.is_apart() {
            let ranges = outside.run(routes::host_ranges);
            used.extend(ranges.map_err(NetworkError::kernel("list the routes and addresses of this host"))?);
        }
    }
    let subnets = ipam::choose(spec, &id, &used, &pools::of_this_host()?)?;
    Ok(NetworkRecord {
        id,
        name: spec.name.clone(),
        project: project.to_owned(),
        bridge,
        owns_link,
        driver: spec.driver.clone(),
        mtu: spec.mtu,
        interface_prefix: spec.interface_prefix.clone(),
        internal: spec.internal,
        subnets,
        labels: spec.labels.clone(),
        config_hash: spec.config_hash.clone(),
        ready: false,
        leases: Default::default(),
        endpoints: Default::default(),
    })
}
