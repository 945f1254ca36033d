//! Containers of other projects on a shared network. Their names are in the networks' records, which are read when a name is
//! asked for that the own project does not know, and read again when they have changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::base::disk;
use crate::network::dns::{self, Endpoint, View, Zone};
use crate::network::link::link_exists;
use crate::network::records::NetworkRecord;

/// What tells one state of a file from another: each is a file of its own that was renamed into place.
type Stamp = Option<(u64, i64, i64, u64)>;

/// The other projects' containers on some networks.
#[derive(Debug)]
pub struct Others {
    project: String,
    files: Vec<PathBuf>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    stamps: Vec<Stamp>,
    /// With the link that shows that a container is there.
    endpoints: Vec<(Endpoint, String)>,
}

impl Others {
    /// Those that are not of `project`, on the networks with these ids; `folder` holds the records.
    pub fn new(folder: &Path, project: &str, networks: &[String]) -> Self {
        let files = networks.iter().map(|id| folder.join(format!("{id}.json"))).collect();
        Self { project: project.to_owned(), files, seen: Mutex::default() }
    }

    /// The containers that a query asks for and that run, as a zone; `None` when there are none.
    pub(super) fn zone(&self, view: &View, query: &[u8]) -> Option<Zone> {
        let mut seen = self.seen.lock().ok()?;
        let stamps: Vec<Stamp> = self.files.iter().map(|file| stamp(file)).collect();
        if seen.stamps != stamps {
            *seen = Seen { stamps, endpoints: self.files.iter().flat_map(|file| self.read(file)).collect() };
        }
        if seen.endpoints.is_empty() {
            return None;
        }
        let name = dns::question(query)?;
        let target = view.links.get(&name).unwrap_or(&name);
        let asked = seen.endpoints.iter().filter(|(endpoint, link)| endpoint.answers(target) && link_exists(link));
        let asked: Vec<Endpoint> = asked.map(|(endpoint, _)| endpoint.clone()).collect();
        (!asked.is_empty()).then(|| Zone::new(view, &asked))
    }

    /// A record that cannot be read now will have changed when it can.
    fn read(&self, file: &Path) -> Vec<(Endpoint, String)> {
        let Ok(Some(record)) = disk::read_json::<NetworkRecord>(file) else { return Vec::new() };
        let others = record.endpoints.iter().filter(|(_, endpoint)| endpoint.project != self.project);
        let others = others.map(|(id, endpoint)| {
            let addresses = record.leases.iter().filter(|(_, holder)| *holder == id).map(|(address, _)| *address);
            let found = Endpoint {
                project: endpoint.project.clone(),
                network: record.id.clone(),
                network_name: record.name.clone(),
                addresses: addresses.collect(),
                container: endpoint.container.clone(),
                names: endpoint.names.clone(),
            };
            (found, endpoint.link.clone())
        });
        others.collect()
    }
}

fn stamp(file: &Path) -> Stamp {
    fs::metadata(file).ok().map(|metadata| (metadata.ino(), metadata.ctime(), metadata.ctime_nsec(), metadata.len()))
}
