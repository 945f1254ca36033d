//! Names of containers: each container's view of them, and the files it has them from.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::{Connected, Host, Joined, Names, Open, copy};
use crate::engine::spec::EtcFiles;
use crate::network::dns::{Endpoint, View, Zone};
use crate::network::dns_others::Others;
use crate::network::dns_server::{DnsServer, Served};
use crate::network::dns_sockets::DnsSockets;
use crate::network::files::{self, Resolver};
use crate::runtime::RuntimeError;
use crate::spec::container::NetworkMode;
use crate::state::ContainerConfig;
use crate::supervisor::failure::because;

impl Host {
    /// Notes the container's names, and serves DNS in its sandbox.
    pub(super) fn open(
        &self,
        config: &ContainerConfig,
        joined: &[Joined],
        netns: &OwnedFd,
        dns: Option<DnsSockets>,
    ) -> Result<(), RuntimeError> {
        let endpoints = joined.iter().map(|joined| Endpoint {
            project: self.project.clone(),
            network: joined.record.id.clone(),
            network_name: joined.record.name.clone(),
            addresses: joined.addresses.clone(),
            container: config.name.clone(),
            names: joined.names.clone(),
        });
        let view = View {
            project: self.project.clone(),
            networks: joined.iter().map(|joined| joined.record.id.clone()).collect(),
            forwards: joined.iter().any(|joined| !joined.record.internal),
            links: config.service.container.links.clone(),
        };
        let (bridged, shared): (Vec<_>, Vec<_>) = joined.iter().partition(|joined| joined.record.as_bridge().is_some());
        let links = bridged.iter().map(|joined| joined.link.clone()).collect();
        let shared = (!shared.is_empty()).then(|| copy(netns)).transpose()?;
        let mut open = Open {
            endpoints: endpoints.collect(),
            view,
            names: None,
            published: Vec::new(),
            links,
            shared,
            tasks: Vec::new(),
        };
        if let Some(sockets) = dns {
            let (zone, seen) = watch::channel(Arc::default());
            let (alive, until) = oneshot::channel();
            let served = Served {
                container: config.name.clone(),
                sockets,
                netns: copy(netns)?,
                view: open.view.clone(),
                zone: seen,
                servers: config.service.container.dns.iter().filter_map(|server| server.parse().ok()).collect(),
                others: Others::new(self.connections.networks.folder(), &self.project, &open.view.networks),
                outside: self.connections.outside.clone(),
                until,
            };
            let serving = self.dns_server().and_then(|server| server.serve(served));
            serving.map_err(|error| because("names cannot be served", &error))?;
            open.names = Some(Names { zone, _alive: alive });
        }
        self.connections.open.borrow_mut().insert(config.id.clone(), open);
        self.refresh_zones();
        Ok(())
    }

    fn dns_server(&self) -> io::Result<&DnsServer> {
        if let Some(server) = self.connections.dns.get() {
            return Ok(server);
        }
        let server = DnsServer::start(|container, error| {
            crate::supervisor::complain(&io::Error::other(format!(
                "DNS of container `{container}` has ended: {error}"
            )));
        })?;
        Ok(self.connections.dns.get_or_init(|| server))
    }

    /// Has every container's view of the names made anew, once for all changes that happen in one go. That comes before
    /// the container that is about to start runs: its launch waits for the keeper.
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
        let mut made: BTreeMap<&View, Arc<Zone>> = BTreeMap::new();
        for one in open.values() {
            if let Some(names) = &one.names {
                let zone = made.entry(&one.view).or_insert_with(|| Arc::new(Zone::new(&one.view, &endpoints)));
                names.zone.send_replace(Arc::clone(zone));
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
