//! Names of containers: each container's view of them, and the files it has them from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Connected, Host, Open};
use crate::engine::spec::EtcFiles;
use crate::network;
use crate::network::NetworkRecord;
use crate::network::dns::{Endpoint, Zone};
use crate::network::files::{self, Resolver};
use crate::network::sandbox::DnsSockets;
use crate::runtime::RuntimeError;
use crate::spec::container::{Attachment, NetworkMode};
use crate::state::ContainerConfig;
use crate::supervisor::failure::because;

impl Host {
    /// Notes the container's names, and serves DNS in its sandbox.
    pub(super) fn open(
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
    pub(super) fn refresh_zones(&self) {
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

    /// Writes the files that the container sees as /etc/hosts, /etc/hostname and /etc/resolv.conf.
    pub(super) fn write_etc_files(
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
