//! The whole of it on the real kernel, as root, under names of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::base::ids::ContainerId;

use crate::network::dns::{Endpoint, View, Zone};
use crate::network::dns_others::Others;
use crate::network::dns_server::{DnsServer, Served};
use crate::network::dns_sockets::DNS;
use crate::network::firewall::{self, ProjectTable, Published};
use crate::network::link::link_exists;
use crate::network::sandbox::{self, Gateway, Interface, Sandbox};
use crate::network::{EndpointRecord, NetworkError, NetworkRecord, Networks, foreign, netlink, nft, ports, proxy};
use crate::spec::network::{Bridge, Driver, IpvlanFlag, Shared, SharedKind};
use crate::spec::{NetworkSpec, PortSpec, Protocol};

/// A project with networks on this host; all of it goes when this is dropped, also by a failed test.
struct Host {
    folder: tempfile::TempDir,
    project: String,
}

impl Host {
    fn new(test: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let project = format!("rctest-{test}-{}", std::process::id());
        Some(Self { folder: tempfile::tempdir().unwrap(), project })
    }

    fn networks(&self) -> Networks {
        Networks::new(self.folder.path().join("networks"))
    }

    fn network(&self, name: &str, internal: bool) -> NetworkRecord {
        self.network_with(name, internal, Driver::default()).unwrap()
    }

    fn network_with(&self, name: &str, internal: bool, driver: Driver) -> Result<NetworkRecord, NetworkError> {
        let spec = NetworkSpec {
            internal,
            driver,
            config_hash: "h".into(),
            ..NetworkSpec::bridge(format!("{}_{name}", self.project))
        };
        let record = self.networks().ensure(&spec, &self.project)?;
        foreign::admit(&[&record])?;
        Ok(record)
    }

    fn container(&self, network: &NetworkRecord, number: u8) -> (Sandbox, Ipv4Addr) {
        let (sandbox, address) = self.try_container(network, number);
        (sandbox.unwrap(), address)
    }

    fn try_container(&self, network: &NetworkRecord, number: u8) -> (Result<Sandbox, NetworkError>, Ipv4Addr) {
        let id = ContainerId::from_bytes([number; 32]);
        let endpoint = self.endpoint(number);
        let link = endpoint.link.clone();
        let addresses = self.networks().lease(&network.id, &id, &[], endpoint).unwrap();
        let interface = Interface {
            network,
            addresses: &addresses,
            link_local: &[],
            mac: None,
            name: "eth0".into(),
            link: &link,
            gateway: Gateway { ipv4: !network.internal, ipv6: !network.internal },
            sysctls: &[],
        };
        let IpAddr::V4(address) = addresses[0] else { panic!("not IPv4") };
        (sandbox::create(&[interface]), address)
    }

    fn endpoint(&self, number: u8) -> EndpointRecord {
        EndpointRecord {
            project: self.project.clone(),
            container: format!("{}-{number}", self.project),
            names: Vec::new(),
            link: sandbox::host_link().unwrap(),
        }
    }

    fn apply(&self, networks: &[NetworkRecord], published: &[Published]) {
        firewall::apply(&ProjectTable { project: &self.project, networks, published }).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = firewall::remove(&self.project);
        for record in self.networks().list().unwrap_or_default() {
            let _ = self.networks().remove(&record.id);
        }
    }
}

/// As `up` in two roots at once, which know nothing of each other's records.
#[test]
fn those_with_other_records_do_not_choose_the_same_range() {
    let hosts: Option<Vec<_>> = (0..4).map(|number| Host::new(&format!("range{number}"))).collect();
    let Some(hosts) = hosts else { return };
    for round in 0..8 {
        let name = format!("n{round}");
        let make = |host: &Host| host.network(&name, false).subnets[0].subnet;
        let begin = std::sync::Barrier::new(hosts.len());
        let ranges: std::collections::BTreeSet<_> = thread::scope(|scope| {
            let started = |host| {
                let begin = &begin;
                scope.spawn(move || {
                    begin.wait();
                    make(host)
                })
            };
            let threads: Vec<_> = hosts.iter().map(started).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(ranges.len(), hosts.len(), "{ranges:?}");
    }
}

/// Answers each connection with the peer's address, until the test ends.
fn serve(netns: &OwnedFd, port: u16) {
    let (tcp, udp) = sandbox::enter(netns.as_fd(), || {
        Ok((TcpListener::bind(("0.0.0.0", port))?, UdpSocket::bind(("0.0.0.0", port))?))
    })
    .unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = tcp.accept() {
            let _ = write!(stream, "{}", peer.ip());
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    });
}

/// Long enough for a first packet that was lost while links came up.
fn ask(address: impl Into<SocketAddr>) -> std::io::Result<String> {
    ask_for(address, Duration::from_secs(5))
}

/// For what must not be reached.
fn ask_in_vain(address: impl Into<SocketAddr>) -> std::io::Result<String> {
    ask_for(address, Duration::from_millis(700))
}

fn ask_for(address: impl Into<SocketAddr>, patience: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.into(), patience)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ask_udp(address: SocketAddr) -> std::io::Result<String> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(address)?;
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Rules of ours in the host's own chains.
fn admitted(bridge: &str) -> usize {
    let socket = netlink::Netlink::netfilter().unwrap();
    let rules = |chain| socket.dump(&nft::dump_request(nft::IPV4, Some(("filter", Some(chain))))).unwrap_or_default();
    let ours = |body: &Vec<u8>| body.windows(bridge.len()).any(|window| window == bridge.as_bytes());
    ["DOCKER-USER", "FORWARD"].into_iter().flat_map(rules).filter(|(_, body)| ours(body)).count()
}

fn tables() -> Vec<String> {
    let socket = netlink::Netlink::netfilter().unwrap();
    let chains = socket.dump(&nft::dump_request(nft::INET, None)).unwrap();
    let table =
        |body: &Vec<u8>| nft::parse(&body[4..]).iter().find(|(kind, _)| *kind == 1).map(|(_, name)| name.to_vec());
    chains.iter().filter_map(|(_, body)| table(body)).map(|name| String::from_utf8_lossy(&name).into_owned()).collect()
}

#[test]
fn containers_meet_on_their_network_only_and_published_ports_are_reached_from_everywhere() {
    let Some(host) = Host::new("meet") else { return };
    let (front, back) = (host.network("front", false), host.network("back", true));
    let (web, web_address) = host.container(&front, 1);
    let (client, client_address) = host.container(&front, 2);
    let (db, db_address) = host.container(&back, 3);
    let (db_client, _) = host.container(&back, 4);
    serve(&web.netns, 80);
    serve(&db.netns, 5432);
    let networks = [front.clone(), back.clone()];
    let held = ports::reserve(&PortSpec { host_ip: None, host: None, container: 80, protocol: Protocol::Tcp }).unwrap();
    let published =
        |protocol| Published { host_ip: None, host_port: held.host, protocol, address: web_address.into(), port: 80 };
    host.apply(&networks, &[published(Protocol::Tcp)]);

    let inside = |netns: &OwnedFd, address: SocketAddr| sandbox::enter(netns.as_fd(), || ask(address));
    let refused =
        |netns: &OwnedFd, address: SocketAddr| sandbox::enter(netns.as_fd(), || ask_in_vain(address)).is_err();
    assert_eq!(inside(&client.netns, (web_address, 80).into()).unwrap(), client_address.to_string());
    assert!(inside(&db_client.netns, (db_address, 5432).into()).is_ok());
    assert!(refused(&client.netns, (db_address, 5432).into()), "networks are not isolated");
    assert!(refused(&db_client.netns, (web_address, 80).into()), "internal network has a way out");

    assert_eq!(ask((Ipv4Addr::LOCALHOST, held.host)).unwrap(), front.subnets[0].gateway.to_string());
    let IpAddr::V4(gateway) = front.subnets[0].gateway else { panic!("not IPv4") };
    assert!(ask((gateway, held.host)).is_ok());
    assert!(inside(&client.netns, (gateway, held.host).into()).is_ok(), "hairpin from the same network");
    assert!(inside(&web.netns, (gateway, held.host).into()).is_ok(), "hairpin to itself");

    // Replacing the table and adding one element keep what is published.
    host.apply(&networks, &[published(Protocol::Tcp)]);
    firewall::publish(&host.project, &[published(Protocol::Udp)]).unwrap();
    assert!(ask((Ipv4Addr::LOCALHOST, held.host)).is_ok());
    assert_eq!(ask_udp((Ipv4Addr::LOCALHOST, held.host).into()).unwrap(), gateway.to_string());
    firewall::unpublish(&host.project, &[published(Protocol::Udp)]).unwrap();
    firewall::unpublish(&host.project, &[published(Protocol::Udp)]).unwrap();

    let bridges = [front.bridge.clone(), back.bridge.clone()];
    let project = host.project.clone();
    drop((web, client, db, db_client));
    drop(host);
    assert!(bridges.iter().all(|bridge| !link_exists(bridge)), "a bridge is left");
    assert!(bridges.iter().all(|bridge| admitted(bridge) == 0), "a rule in the host's firewall is left");
    assert!(!tables().iter().any(|table| table.contains(&project)), "a table is left");
}

/// A neighbour sends to 127.0.0.1 by way of us: CVE-2020-8558 for the host's own services, and what is published on the loopback.
#[test]
fn neighbours_do_not_reach_what_is_published_on_the_loopback() {
    let Some(host) = Host::new("loopback") else { return };
    let network = host.network("front", false);
    let (web, address) = host.container(&network, 1);
    serve(&web.netns, 80);
    let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
    let spec = |host_ip| PortSpec { host_ip, host: None, container: 80, protocol: Protocol::Tcp };
    let (near, far) = (ports::reserve(&spec(Some(loopback))).unwrap(), ports::reserve(&spec(None)).unwrap());
    let published = |host_ip, host_port| {
        let (protocol, address) = (Protocol::Tcp, address.into());
        Published { host_ip, host_port, protocol, address, port: 80 }
    };
    host.apply(std::slice::from_ref(&network), &[published(Some(loopback), near.host), published(None, far.host)]);
    // Whose table is not there, which would not let such a packet in from its own network.
    let Some(neighbour) = Host::new("neighbour") else { return };
    let beside = neighbour.network("beside", false);
    let (attacker, _) = neighbour.container(&beside, 2);
    let gateway = beside.subnets[0].gateway;
    sandbox::enter(attacker.netns.as_fd(), || {
        fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")?;
        for arguments in
            [&["address", "flush", "dev", "lo"][..], &["route", "add", "127.0.0.0/8", "via", &gateway.to_string()]]
        {
            assert!(std::process::Command::new("ip").args(arguments).status()?.success(), "{arguments:?}");
        }
        Ok(())
    })
    .unwrap();
    let reaches =
        |address: IpAddr, port| sandbox::enter(attacker.netns.as_fd(), || ask_in_vain((address, port))).is_ok();
    assert!(ask((loopback, near.host)).is_ok() && reaches(gateway, far.host));
    assert!(!reaches(loopback, near.host), "published on the loopback");
    assert!(!reaches(loopback, far.host));
    // A service of the host: a bridge is a way to the loopback as long as the table of its project does not guard it.
    let own = TcpListener::bind((loopback, 0)).unwrap();
    let port = own.local_addr().unwrap().port();
    let connects = || {
        let to = SocketAddr::new(loopback, port);
        sandbox::enter(attacker.netns.as_fd(), || TcpStream::connect_timeout(&to, Duration::from_millis(700))).is_ok()
    };
    assert!(connects(), "the attack would not be seen to succeed");
    neighbour.apply(std::slice::from_ref(&beside), &[]);
    assert!(!connects(), "a service of the host is reached");
}

#[test]
fn a_container_that_has_ended_does_not_answer_for_its_successor() {
    let Some(host) = Host::new("cut") else { return };
    let network = host.network("n", false);
    // The same container's next run: its address and MAC are the same.
    let (before, address) = host.container(&network, 1);
    serve(&before.netns, 80);
    assert!(ask((address, 80)).is_ok());
    let link = host.networks().find(&network.name).unwrap().unwrap().endpoints.into_values().next().unwrap().link;
    sandbox::cut(&[link, "rv-gone".to_owned()]).unwrap();
    let (after, again) = host.container(&network, 1);
    assert_eq!(address, again);
    serve(&after.netns, 81);
    let gateway = network.subnets[0].gateway;
    for _ in 0..2 {
        // A namespace that is still there goes on talking; it would also refuse this port.
        assert!(sandbox::enter(before.netns.as_fd(), || ask_in_vain((gateway, 9))).is_err());
        assert!(ask((address, 81)).is_ok());
    }
    drop(before);
    assert!(ask((address, 81)).is_ok());
}

#[test]
fn an_address_on_a_shared_link_is_free_for_the_next_run() {
    let Some(host) = Host::new("clear") else { return };
    for kind in [SharedKind::MacvlanBridge, SharedKind::IpvlanL2] {
        let parent = host.network(&format!("under-{kind:?}"), false).bridge;
        let driver = Driver::Shared(Shared { parent: Some(parent), kind, flag: IpvlanFlag::default() });
        let network = host.network_with(&format!("{kind:?}"), false, driver).unwrap();
        let before = match host.try_container(&network, 1).0 {
            Err(NetworkError::Kernel { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                println!("skipped: the kernel has no {kind:?}");
                continue;
            }
            made => made.unwrap(),
        };
        assert!(host.try_container(&network, 1).0.is_err(), "both at once");
        sandbox::clear(before.netns.as_fd()).unwrap();
        host.container(&network, 1);
    }
}

#[test]
fn networks_on_one_parent_do_not_change_each_others_mode() {
    let Some(host) = Host::new("modes") else { return };
    let parent = host.network("under", false).bridge;
    let on_it = |kind, flag| Driver::Shared(Shared { parent: Some(parent.clone()), kind, flag });
    host.network_with("first", false, on_it(SharedKind::IpvlanL2, IpvlanFlag::Bridge)).unwrap();
    host.network_with("alike", false, on_it(SharedKind::IpvlanL2, IpvlanFlag::Bridge)).unwrap();
    host.network_with("other", false, on_it(SharedKind::MacvlanVepa, IpvlanFlag::Bridge)).unwrap();
    for (kind, flag) in [(SharedKind::IpvlanL3, IpvlanFlag::Bridge), (SharedKind::IpvlanL2, IpvlanFlag::Private)] {
        let refused = host.network_with("second", false, on_it(kind, flag)).unwrap_err();
        assert!(matches!(refused, NetworkError::Modes { .. }), "{refused}");
    }
    // Mode `passthru` takes a parent whole, and is refused where one of the driver is.
    let refused =
        host.network_with("whole", false, on_it(SharedKind::MacvlanPassthru, IpvlanFlag::Bridge)).unwrap_err();
    assert!(matches!(refused, NetworkError::Whole { .. }), "{refused}");
    let alone = host.network("alone", false).bridge;
    let on_that = |kind| Driver::Shared(Shared { parent: Some(alone.clone()), kind, flag: IpvlanFlag::Bridge });
    host.network_with("takes", false, on_that(SharedKind::MacvlanPassthru)).unwrap();
    for kind in [SharedKind::MacvlanPassthru, SharedKind::MacvlanBridge] {
        let refused = host.network_with("late", false, on_that(kind)).unwrap_err();
        assert!(matches!(refused, NetworkError::Whole { .. }), "{refused}");
    }
}

/// A network without addresses, for tests that make nothing.
pub(super) fn record(name: &str) -> NetworkRecord {
    NetworkRecord {
        id: "0".repeat(64),
        name: name.into(),
        project: "p".into(),
        bridge: String::new(),
        owns_link: false,
        driver: Driver::default(),
        mtu: None,
        interface_prefix: None,
        internal: false,
        subnets: Vec::new(),
        labels: std::collections::BTreeMap::new(),
        config_hash: String::new(),
        ready: true,
        leases: std::collections::BTreeMap::new(),
        endpoints: std::collections::BTreeMap::new(),
    }
}

#[test]
fn a_vlan_goes_with_the_last_network_on_it() {
    let Some(host) = Host::new("vlan") else { return };
    let parent = format!("rct{}", std::process::id());
    let under = Bridge { name: Some(parent.clone()), ..Bridge::default() };
    host.network_with("under", false, Driver::Bridge(under)).unwrap();
    let vlan = format!("{parent}.30");
    let kind = SharedKind::MacvlanBridge;
    let on_it = || Driver::Shared(Shared { parent: Some(vlan.clone()), kind, flag: IpvlanFlag::default() });
    let first = match host.network_with("first", false, on_it()) {
        Err(NetworkError::Kernel { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            println!("skipped: the kernel has no VLANs");
            return;
        }
        made => made.unwrap(),
    };
    let second = host.network_with("second", false, on_it()).unwrap();
    host.networks().remove(&first.id).unwrap();
    assert!(link_exists(&vlan), "the second one's containers are on it");
    host.networks().remove(&second.id).unwrap();
    assert!(!link_exists(&vlan));
}

#[test]
fn traffic_to_the_outside_carries_the_hosts_address() {
    let Some(host) = Host::new("out") else { return };
    let inner = host.network("inner", false);
    // A second project's network plays the outside: its one host listens, and only the host's own address is let in.
    let other = Host { folder: tempfile::tempdir().unwrap(), project: format!("{}-outside", host.project) };
    let outer = other.network("outer", false);
    let (outside, outside_address) = other.container(&outer, 1);
    let (container, _) = host.container(&inner, 2);
    serve(&outside.netns, 80);
    host.apply(std::slice::from_ref(&inner), &[]);
    let seen = sandbox::enter(container.netns.as_fd(), || ask((outside_address, 80)));
    assert_eq!(seen.unwrap(), outer.subnets[0].gateway.to_string());
    // With the other project's own rules it is another project, which nobody sees.
    other.apply(std::slice::from_ref(&outer), &[]);
    assert!(
        sandbox::enter(container.netns.as_fd(), || ask_in_vain((outside_address, 80))).is_err(),
        "projects see each other"
    );
    drop((container, outside));
}

#[test]
fn a_half_made_network_is_swept_and_made_anew() {
    let Some(host) = Host::new("sweep") else { return };
    let mut record = host.network("n", false);
    assert_eq!(host.network("n", false), record, "ensuring twice is one network");
    record.ready = false;
    let path = host.folder.path().join(format!("networks/{}.json", record.id));
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    host.networks().sweep(&host.project).unwrap();
    assert!(!path.exists() && !link_exists(&record.bridge));
    let again = host.network("n", false);
    assert_ne!(again.bridge, record.bridge);
}

#[tokio::test]
async fn names_are_answered_inside_the_namespace() {
    let Some(host) = Host::new("dns") else { return };
    let network = host.network("n", false);
    let (container, address) = host.container(&network, 1);
    let endpoint = Endpoint {
        project: host.project.clone(),
        network: network.id.clone(),
        network_name: network.name.clone(),
        addresses: vec![address.into()],
        container: "web-1".into(),
        names: vec!["web".into()],
    };
    let view = View {
        project: host.project.clone(),
        networks: vec![network.id.clone()],
        forwards: true,
        links: Default::default(),
    };
    let names = Arc::new(Zone::new(&view, &[endpoint]));
    let (publish, zone) = tokio::sync::watch::channel(Arc::default());
    let (_alive, until) = tokio::sync::oneshot::channel();
    let server = DnsServer::start(|container, error| panic!("{container}: {error}")).unwrap();
    let served = Served {
        container: "web-1".into(),
        sockets: container.dns.unwrap(),
        netns: container.netns.try_clone().unwrap(),
        others: Others::new(host.networks().folder(), &host.project, &view.networks),
        view,
        zone,
        servers: Vec::new(),
        outside: crate::network::Outside::default(),
        until,
    };
    server.serve(served).unwrap();
    let query = {
        let mut packet = simple_dns::Packet::new_query(9);
        let name = simple_dns::Name::new("web").unwrap();
        let class = simple_dns::QCLASS::CLASS(simple_dns::CLASS::IN);
        packet.questions.push(simple_dns::Question::new(name, simple_dns::TYPE::A.into(), class, false));
        packet.build_bytes_vec().unwrap()
    };
    let socket = sandbox::enter(container.netns.as_fd(), || UdpSocket::bind("127.0.0.1:0")).unwrap();
    let rounds: u32 = 5000;
    let asked = tokio::task::spawn_blocking(move || {
        socket.connect(DNS).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let mut buffer = [0; 512];
        let started = Instant::now();
        for round in 0..rounds {
            socket.send(&query).unwrap();
            if round == 0 {
                // Asked before the names are made: they are waited for.
                thread::sleep(Duration::from_millis(20));
                publish.send_replace(names.clone());
            }
            let length = socket.recv(&mut buffer).unwrap();
            assert!(buffer[..length].ends_with(&address.octets()), "round {round}");
        }
        println!("{:.0} queries/s", f64::from(rounds) / started.elapsed().as_secs_f64());
    });
    asked.await.unwrap();
}

#[tokio::test]
async fn ipv6_loopback_reaches_an_ipv4_container_through_the_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"hello");
        }
    });
    let spec = PortSpec { host_ip: Some("::1".parse().unwrap()), host: None, container: 80, protocol: Protocol::Tcp };
    let Ok(held) = ports::reserve(&spec) else {
        println!("skipped: no IPv6 on this host");
        return;
    };
    let proxy = tokio::spawn(proxy::connections(held.ipv6.unwrap(), Protocol::Tcp, target));
    let text = tokio::task::spawn_blocking(move || ask(("::1".parse::<IpAddr>().unwrap(), held.host))).await.unwrap();
    assert_eq!(text.unwrap(), "hello");
    proxy.abort();
}

#[test]
fn connections_live_on_and_none_is_refused_while_the_table_is_replaced() {
    let Some(host) = Host::new("replace") else { return };
    let network = host.network("n", false);
    let (web, address) = host.container(&network, 1);
    serve(&web.netns, 80);
    let echo = sandbox::enter(web.netns.as_fd(), || TcpListener::bind(("0.0.0.0", 81))).unwrap();
    let spec = PortSpec { host_ip: None, host: None, container: 80, protocol: Protocol::Tcp };
    let (held, held_echo) = (ports::reserve(&spec).unwrap(), ports::reserve(&spec).unwrap());
    let to = |host_port, port| Published {
        host_ip: None,
        host_port,
        protocol: Protocol::Tcp,
        address: address.into(),
        port,
    };
    let published = [to(held.host, 80), to(held_echo.host, 81)];
    let networks = [network.clone()];
    host.apply(&networks, &published);
    let mut near = TcpStream::connect((Ipv4Addr::LOCALHOST, held_echo.host)).unwrap();
    let (mut far, _) = echo.accept().unwrap();
    near.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let asker = thread::spawn(move || (0..200).map(|_| ask((Ipv4Addr::LOCALHOST, held.host))).collect::<Vec<_>>());
    while !asker.is_finished() {
        host.apply(&networks, &published);
        far.write_all(b"x").unwrap();
        near.read_exact(&mut [0]).unwrap();
    }
    for answer in asker.join().unwrap() {
        answer.unwrap();
    }
    // Published on one address only, it is not to be had on another.
    let IpAddr::V4(gateway) = network.subnets[0].gateway else { panic!("not IPv4") };
    host.apply(&networks, &[Published { host_ip: Some(gateway.into()), ..to(held_echo.host + 1, 80) }]);
    assert!(ask((gateway, held_echo.host + 1)).is_ok());
    assert!(ask((Ipv4Addr::LOCALHOST, held_echo.host + 1)).is_err());
}

#[test]
fn a_sandbox_is_quick() {
    let Some(host) = Host::new("quick") else { return };
    let network = host.network("n", false);
    let started = Instant::now();
    let rounds = 20;
    let all: Vec<_> = (1..=rounds).map(|number| host.container(&network, number)).collect();
    println!("{:?} per sandbox", started.elapsed() / u32::from(rounds));
    drop(all);
}
