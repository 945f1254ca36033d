//! The network of build steps: a bridge of their own, made when the first step wants it and removed when the build is over.
//!
//! The launcher removes it, which outlives the build: so it goes also when the build is killed. What a kill of both leaves is
//! swept by the next build.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::builder::lock;
use super::error::BuildError;
use crate::base::ids::ContainerId;
use crate::network::NetworkError;
use crate::network::Networks;
use crate::network::firewall::{self, ProjectTable};
use crate::network::foreign;
use crate::network::records::{EndpointRecord, NetworkRecord};
use crate::network::sandbox::{self, Gateway, Interface, Sandbox};
use crate::spec::NetworkSpec;

/// What the names of all such networks begin with; the number of the process follows.
const PREFIX: &str = "rcompose-build-";
/// Where resolvers that only listen on the host's loopback say whom they ask themselves.
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// The network of one build process.
#[derive(Debug)]
pub(super) struct StepNetwork {
    folder: PathBuf,
    record: Mutex<Option<NetworkRecord>>,
}

/// A step's connection; its address is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Connection<'a> {
    pub(super) sandbox: Sandbox,
    networks: &'a Path,
    id: ContainerId,
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // The whole network goes soon; until then an address that stays leased harms nobody.
        let _ = Networks::new(self.networks.to_owned()).release(std::slice::from_ref(&self.id));
    }
}

impl StepNetwork {
    /// `folder` is `<data>/networks`.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, record: Mutex::default() }
    }

    /// A namespace on the bridge.
    pub(super) fn connect(&self) -> Result<Connection<'_>, BuildError> {
        let mut bytes = [0; 32];
        rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
            .map_err(|error| BuildError::because("cannot make an id", &error))?;
        let id = ContainerId::from_bytes(bytes);
        let link = sandbox::host_link().map_err(|error| BuildError::because("cannot name the step's link", &error))?;
        let connected = self.record().and_then(|record| {
            let networks = Networks::new(self.folder.clone());
            let endpoint = EndpointRecord {
                project: record.project.clone(),
                container: id.to_string(),
                names: Vec::new(),
                link: link.clone(),
            };
            let addresses = networks.lease(&record.id, &id, &[], endpoint)?;
            let interface = Interface {
                network: &record,
                addresses: &addresses,
                mac: None,
                name: "eth0".to_owned(),
                link: &link,
                link_local: &[],
                gateway: Gateway { ipv4: true, ipv6: false },
                sysctls: &[],
            };
            sandbox::create(&[interface])
        });
        let sandbox = connected.map_err(|error| {
            let error = BuildError::because("cannot connect the step to a network", &error);
            error.help("`network: host` or `network: none` in `build` needs none")
        })?;
        Ok(Connection { sandbox, networks: &self.folder, id })
    }

    fn record(&self) -> Result<NetworkRecord, NetworkError> {
        let mut record = lock(&self.record);
        if let Some(record) = &*record {
            return Ok(record.clone());
        }
        sweep(&self.folder)?;
        let name = format!("{PREFIX}{}", std::process::id());
        let spec = NetworkSpec::bridge(name.clone());
        let made = Networks::new(self.folder.clone()).ensure(&spec, &name)?;
        firewall::apply(&ProjectTable { project: &name, networks: std::slice::from_ref(&made), published: &[] })?;
        foreign::admit(&[&made])?;
        *record = Some(made.clone());
        Ok(made)
    }
}

/// Removes the network of the build that was this process's parent, if it made one. For the launcher, when the build is over.
pub(super) fn remove_of(folder: &Path, process: u32) {
    let name = format!("{PREFIX}{process}");
    let removed = remove(folder, &name);
    // Nobody is left to be told; the next build sweeps.
    drop(removed);
}

fn remove(folder: &Path, name: &str) -> Result<(), NetworkError> {
    let networks = Networks::new(folder.to_owned());
    for record in networks.list()?.into_iter().filter(|record| record.project == name) {
        firewall::remove(name)?;
        networks.remove(&record.id)?;
    }
    Ok(())
}

/// Removes the networks of builds whose processes are gone.
fn sweep(folder: &Path) -> Result<(), NetworkError> {
    for record in Networks::new(folder.to_owned()).list()? {
        let process = record.project.strip_prefix(PREFIX).and_then(|number| number.parse::<i32>().ok());
        // A process of that number lives: if it is another's by now, a later build will see.
        if process.is_some_and(|process| crate::sys::process::start_time(process).is_none()) {
            remove(folder, &record.project)?;
        }
    }
    Ok(())
}

/// The text of a step's `/etc/resolv.conf`: the host's, or what the host's own resolver asks where that can be reached from the
/// host only.
pub(super) fn resolv_conf(isolated: bool) -> String {
    let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let loopback = |text: &str| {
        let servers = crate::network::files::Resolver::parse(text).nameservers;
        !servers.is_empty() && servers.iter().all(|server| server.is_loopback())
    };
    if isolated && loopback(&own) {
        return std::fs::read_to_string(UPSTREAM).unwrap_or(own);
    }
    own
}
