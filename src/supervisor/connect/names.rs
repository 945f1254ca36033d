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
use crate::spec::container::{NamespaceMode, NetworkMode};
use crate::state::ContainerConfig;
use crate::supervisor::failure::{because, failure};

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
        let servers: Vec<IpAddr> = container.dns.iter().filter_map(|server| server.parse().ok()).collect();
        let (search, options) = (&container.dns_search, &container.dns_opt);
        let resolv_conf = if on_host || own.is_empty() {
            files::plain_resolv_conf(&host_text, &servers, search, options)
        } else {
            files::resolv_conf(&Resolver::parse(&host_text), &servers, search, options)
        };
        let gateway = self.host_gateway(config);
        let domain = container.domainname.as_deref();
        let base = if on_host { std::fs::read_to_string("/etc/hosts").ok() } else { None };
        let base = base.unwrap_or_else(|| files::localhost(!without_ipv6(&container.sysctls)));
        let hosts = base + &files::hosts(&connected.hostname, domain, own, &container.extra_hosts, gateway);
        connected.etc = self.etc_files_of(config);
        let EtcFiles { hosts: hosts_file, hostname, resolv_conf: resolver } = &connected.etc;
        let texts = [(hosts_file, hosts), (hostname, files::hostname(&connected.hostname)), (resolver, resolv_conf)];
        for (path, text) in texts.iter().filter_map(|(path, text)| Some((path.as_ref()?, text))) {
            std::fs::write(path, text)
                .map_err(|error| because(format!("cannot write `{}`", path.display()), &error))?;
        }
        Ok(())
    }

    /// Where they are.
    pub(in crate::supervisor) fn etc_files_of(&self, config: &ContainerConfig) -> EtcFiles {
        let folder = self.dir.container(&config.id);
        let path = |name| Some(folder.join(name));
        EtcFiles { hosts: path("hosts"), hostname: path("hostname"), resolv_conf: path("resolv.conf") }
    }

    /// The container whose network a container joins, which may have joined another one's itself.
    pub(super) fn owner_of_network(&self, config: &ContainerConfig) -> Result<ContainerConfig, RuntimeError> {
        let mut owner = config.clone();
        loop {
            let mode = owner.service.container.network.namespace();
            if !matches!(mode, NamespaceMode::Service(_) | NamespaceMode::Container(_)) {
                return Ok(owner);
            }
            let id = self.owner_of(&mode)?;
            let id = id.ok_or_else(|| failure(format!("{mode:?} does not run, so its network cannot be joined")))?;
            owner = self.load(&id)?.config;
        }
    }

    /// The host's address on the container's primary network.
    fn host_gateway(&self, config: &ContainerConfig) -> Option<IpAddr> {
        let attachments = match &config.service.container.network {
            NetworkMode::Networks(attachments) => attachments,
            NetworkMode::Host => return Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
            _ => return None,
        };
        let record = self.network_of(&attachments.first()?.network).ok()?;
        record.subnets.first().map(|subnet| subnet.gateway)
    }
}

/// Whether the container is to have no IPv6 at all, not even of its own.
fn without_ipv6(sysctls: &BTreeMap<String, String>) -> bool {
    let name = |name: &str| name.replace('/', ".") == "net.ipv6.conf.all.disable_ipv6";
    sysctls.iter().any(|(key, value)| name(key) && value == "1")
}
