//! What is known of each network, on disk: `<data_dir>/networks/<id>.json`, changed under one lock for all projects.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::base::disk::{self, Durability};
use crate::network::NetworkError;
use crate::network::ipam;
use crate::spec::network::{Bridge, Driver, Shared, SharedKind};

/// A network that exists, or of which something may exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// 64 hexadecimal digits, new with each creation.
    pub id: String,
    /// Name on the host.
    pub name: String,
    /// Project that made it and may remove it.
    pub project: String,
    /// Name of the host's link: the bridge, or what containers' links are on.
    pub bridge: String,
    /// The link was made for this network, and goes with it.
    pub owns_link: bool,
    pub driver: Driver,
    pub mtu: Option<u32>,
    pub interface_prefix: Option<String>,
    pub internal: bool,
    pub subnets: Vec<SubnetRecord>,
    pub labels: BTreeMap<String, String>,
    /// Of the specification it was made from.
    pub config_hash: String,
    /// Bridge and addresses have been set up completely.
    pub ready: bool,
    /// Address to the id of the container that has it.
    pub leases: BTreeMap<IpAddr, String>,
    /// Who is on the network, by container id.
    pub endpoints: BTreeMap<String, EndpointRecord>,
}

/// A container on a network, for other projects to find it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    pub project: String,
    /// The container's name.
    pub container: String,
    /// Everything else it answers to.
    pub names: Vec<String>,
    /// The host's end of its connection. While there is such a link, the container is there.
    pub link: String,
}

impl NetworkRecord {
    /// Whether one of the ranges reaches into it.
    pub fn overlaps(&self, ranges: &[IpNetwork]) -> bool {
        let reaches = |range: &IpNetwork| self.subnets.iter().any(|subnet| ipam::overlap(subnet.subnet, *range));
        ranges.iter().any(reaches)
    }

    /// Whether its links lead out by themselves, without a router on their network.
    pub fn is_routed(&self) -> bool {
        matches!(&self.driver, Driver::Shared(shared) if shared.kind.is_routed())
    }

    /// Whether a network like this one on the same parent would change it: a parent has one mode and flag for all of `ipvlan`.
    pub fn changes_with(&self, new: &Shared) -> bool {
        let Driver::Shared(own) = &self.driver else { return false };
        let ipvlan = own.kind.driver() == "ipvlan" && new.kind.driver() == "ipvlan";
        ipvlan && (own.kind, own.flag) != (new.kind, new.flag)
    }

    /// Whether one of them takes the parent, if it is the same, whole.
    pub fn excludes(&self, new: &Shared) -> bool {
        let Driver::Shared(own) = &self.driver else { return false };
        let macvlan = own.kind.driver() == "macvlan" && new.kind.driver() == "macvlan";
        macvlan && [own.kind, new.kind].contains(&SharedKind::MacvlanPassthru)
    }

    /// Its bridge; `None` for a network of another kind.
    pub fn as_bridge(&self) -> Option<&Bridge> {
        match &self.driver {
            Driver::Bridge(bridge) => Some(bridge),
            Driver::Shared(_) => None,
        }
    }
}

/// One address range, with its gateway decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetRecord {
    pub subnet: IpNetwork,
    /// Containers get addresses from here only.
    pub range: Option<IpNetwork>,
    pub gateway: IpAddr,
    pub reserved: BTreeMap<String, IpAddr>,
}

/// The folder of records, locked; unlocked when dropped.
pub(super) struct Records {
    folder: PathBuf,
    _lock: Flock<File>,
}

impl Records {
    pub(super) fn lock(folder: &Path) -> Result<Self, NetworkError> {
        fs::create_dir_all(folder).map_err(NetworkError::file("create", folder))?;
        let path = folder.join(".lock");
        let file = File::create(&path).map_err(NetworkError::file("open", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| NetworkError::file("lock", &path)(errno.into()))?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    pub(super) fn all(&self) -> Result<Vec<NetworkRecord>, NetworkError> {
        read_all(&self.folder)
    }

    pub(super) fn get(&self, id: &str) -> Result<Option<NetworkRecord>, NetworkError> {
        let path = self.path(id);
        disk::read_json(&path).map_err(NetworkError::file("read", &path))
    }

    pub(super) fn put(&self, record: &NetworkRecord) -> Result<(), NetworkError> {
        let path = self.path(&record.id);
        disk::replace_json(&path, record, Durability::Kill).map_err(NetworkError::file("write", &path))
    }

    pub(super) fn delete(&self, id: &str) -> Result<(), NetworkError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(NetworkError::file("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}

/// All records, in the order of their names. Needs no lock: each file is replaced in one step.
pub(super) fn read_all(folder: &Path) -> Result<Vec<NetworkRecord>, NetworkError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(NetworkError::file("list", folder)(error)),
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.map_err(NetworkError::file("list", folder))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let record: Option<NetworkRecord> = disk::read_json(&path).map_err(NetworkError::file("read", &path))?;
        records.extend(record);
    }
    records.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(records)
}
