//! Networks, seen from inside containers and in the kernel's state.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Project, can_run_containers, eventually, kill, needs_root};

/// Answers each TCP connection and datagram with a word, on all addresses of both families.
const SERVER: &str = "import socket, sys, threading
port, word = int(sys.argv[1]), sys.argv[2].encode()
tcp = socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
udp.bind(('::', port))
def datagrams():
    while True:
        _, peer = udp.recvfrom(512)
        udp.sendto(word, peer)
threading.Thread(target=datagrams, daemon=True).start()
print('ready', flush=True)
while True:
    peer, _ = tcp.accept()
    peer.sendall(word)
    peer.close()
";

/// Attributes of a service that runs [`SERVER`].
fn server(port: u16, word: &str) -> String {
    let command = serde_json::to_string(&["python3", "-c", SERVER, &port.to_string(), word]).unwrap();
    format!("image: rcompose/host, stop_signal: SIGKILL, command: {command}")
}

/// Answers each SCTP connection with what it was sent, on all addresses of both families.
const SCTP_SERVER: &str = "import socket
listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.bind(('::', 80))
listener.listen()
print('ready', flush=True)
while True:
    peer, _ = listener.accept()
    peer.sendall(peer.recv(99))
    peer.close()
";

/// Has what listens at each of the given addresses and ports send a word back by SCTP; prints those that do.
const SCTP_CLIENT: &str = "import socket, sys
for host, port in zip(sys.argv[1::2], sys.argv[2::2]):
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_SCTP) as peer:
        peer.settimeout(10)
        try:
            peer.connect((host, int(port)))
            peer.sendall(b'word')
            if peer.recv(99) == b'word':
                print(host, port)
        except OSError as error:
            print(host, port, error, file=sys.stderr)
";

/// Attributes of a service that does nothing.
const IDLE: &str = "image: rcompose/host, stop_signal: SIGKILL, command: [sleep, '1000']";

fn has_python(test: &str) -> bool {
    let there = Command::new("python3").arg("-V").output().is_ok_and(|output| output.status.success());
    if !there {
        println!("{test}: skipped: needs python3");
    }
    there
}

/// Runs a shell script in a service's container; what it wrote, without white space at the ends.
#[track_caller]
fn inside(project: &Project, service: &str, script: &str) -> String {
    let ran = project.run(&["exec", "-T", service, "sh", "-c", script]);
    assert_eq!(ran.code, 0, "{script}\n{}{}", ran.out, ran.err);
    ran.out.trim().to_owned()
}

fn fails_inside(project: &Project, service: &str, script: &str) -> bool {
    project.run(&["exec", "-T", service, "sh", "-c", script]).code != 0
}

/// A shell command that connects, prints what it is told, and gives up after three, by when a lost packet has been sent again.
fn connect(host: &str, port: u16) -> String {
    format!(
        "python3 -c \"import socket; print(socket.create_connection(('{host}', {port}), 3).recv(99).decode())\" 2>/dev/null"
    )
}

fn lookup(name: &str) -> String {
    format!("getent ahosts {name} | awk '{{print $1}}' | sort -u | tr '\\n' ' '")
}

fn ask(address: impl Into<IpAddr>, port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&(address.into(), port).into(), Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[track_caller]
fn ready(project: &Project, services: &[&str]) {
    for service in services {
        eventually("the server listens", || {
            project.run(&["logs", "--no-log-prefix", service]).ok().out.contains("ready").then_some(())
        });
    }
}

fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[test]
fn projects_on_a_shared_network_find_each_other() {
    let test = "projects_on_a_shared_network_find_each_other";
    if !can_run_containers(test) || !has_python(test) || needs_root(test, "projects share no networks") {
        return;
    }
    let owner = Project::new(&format!(
        "services:\n  db: {{{}, networks: {{shared: {{aliases: [store]}}}}}}\n  other: {{{IDLE}, networks: [shared]}}\n\
         networks: {{shared: {{name: NAME_shared}}}}\n",
        server(5432, "db of the owner")
    ));
    let shared = format!("{}_shared", owner.name);
    owner.write(
        "compose.yaml",
        &std::fs::read_to_string(owner.folder().join("compose.yaml")).unwrap().replace("NAME_shared", &shared),
    );
    owner.run(&["up", "-d"]).ok();
    ready(&owner, &["db"]);
    let guest = owner.beside(&format!(
        "services:\n  web: {{{}, networks: [theirs], external_links: ['{}-db-1:database']}}\n  db: {{{IDLE}, networks: [theirs]}}\n\
         networks: {{theirs: {{external: true, name: {shared}}}}}\n",
        server(80, "web of the guest"),
        owner.name
    ));
    guest.run(&["up", "-d"]).ok();
    ready(&guest, &["web"]);
    let db = inside(&owner, "other", &lookup("db"));
    assert_eq!(inside(&owner, "other", &connect("web", 80)), "web of the guest");
    assert_eq!(inside(&guest, "web", &connect("store", 5432)), "db of the owner");
    assert_eq!(inside(&guest, "web", &connect("database", 5432)), "db of the owner", "an external link");
    assert_ne!(inside(&guest, "web", &lookup("db")), db, "the own project comes first");
    let reverse = inside(&guest, "web", &format!("getent hosts {db} | awk '{{print $2}}'"));
    assert_eq!(reverse, format!("{}-db-1.{shared}", owner.name));
    // Whoever does not run is not found, and is again when it does.
    guest.run(&["stop", "-t", "0", "web"]).ok();
    eventually("the name is gone", || fails_inside(&owner, "other", "getent hosts web").then_some(()));
    guest.run(&["start", "web"]).ok();
    ready(&guest, &["web"]);
    eventually("the name is back", || (!fails_inside(&owner, "other", &connect("web", 80))).then_some(()));
    assert_eq!(inside(&owner, "other", &connect("web", 80)), "web of the guest");
    owner.run(&["down", "-t", "0"]).fails(1);
    guest.run(&["down", "-t", "0"]).ok();
    owner.down();
}

#[test]
fn a_routed_network_is_reached_at_its_own_addresses_and_an_isolated_one_has_no_host() {
    let test = "a_routed_network_is_reached_at_its_own_addresses_and_an_isolated_one_has_no_host";
    if !can_run_containers(test) || !has_python(test) || needs_root(test, "its networks are apart from the host's") {
        return;
    }
    let mode = "driver_opts: {com.docker.network.bridge.gateway_mode_ipv4";
    let owner = Project::new(&format!(
        "services:\n  web: {{{}, networks: [direct], ports: ['80', '81']}}\n  hidden: {{{}, networks: [direct]}}\n  \
         alone: {{{IDLE}, networks: [apart]}}\nnetworks: {{direct: {{{mode}: routed}}}}, \
         apart: {{internal: true, {mode}: isolated}}, ipam: {{config: [{{subnet: 10.213.77.0/24}}]}}}}}}\n",
        server(80, "directly"),
        server(80, "hidden"),
    ));
    // The host has no route to the isolated network, so another test's could get the same range.
    owner.run(&["up", "-d"]).ok();
    ready(&owner, &["web", "hidden"]);
    let [web, hidden] = ["web", "hidden"].map(|name| inside(&owner, "web", &lookup(name)));
    let guest = owner.beside(&format!("services: {{client: {{{IDLE}}}}}\n"));
    guest.run(&["up", "-d"]).ok();
    assert_eq!(inside(&guest, "client", &connect(&web, 80)), "directly");
    assert!(fails_inside(&guest, "client", &connect(&hidden, 80)), "a port that nobody published");
    // No socket of the host, and nothing but the rule goes with the container.
    let shown = owner.run(&["ps", "--format", "json"]).ok().out;
    assert!(shown.contains(r#""URL":"0.0.0.0","TargetPort":80,"PublishedPort":0"#), "{shown}");
    owner.run(&["stop", "-t", "0", "web"]).ok();
    owner.run(&["start", "web"]).ok();
    eventually("it is let through again", || {
        let web = inside(&owner, "hidden", &lookup("web"));
        (!fails_inside(&guest, "client", &connect(&web, 80))).then_some(())
    });
    let routes = inside(&owner, "alone", "cat /proc/net/route");
    assert_eq!(routes.lines().count(), 2, "no default route: {routes}");
    let address = inside(&owner, "alone", "hostname -i").trim().to_owned();
    let of_host = Command::new("ip").args(["-4", "route", "get", &address]).output().unwrap();
    let way = String::from_utf8_lossy(&of_host.stdout).into_owned();
    assert!(!way.contains(" dev rc-"), "the host is on the isolated network: {way}");
    guest.run(&["down", "-t", "0"]).ok();
    owner.down();
}

#[test]
fn a_name_server_in_a_container_may_have_port_53_of_every_address() {
    let test = "a_name_server_in_a_container_may_have_port_53_of_every_address";
    if !can_run_containers(test) || !has_python(test) {
        return;
    }
    let project = Project::new(&format!(
        "services:\n  dns: {{{}}}\n  client: {{{IDLE}, links: ['dns:alias']}}\n  stranger: {{{IDLE}}}\n",
        server(53, "mine")
    ));
    project.run(&["up", "-d"]).ok();
    ready(&project, &["dns"]);
    assert_eq!(inside(&project, "client", &connect("alias", 53)), "mine");
    assert_eq!(inside(&project, "dns", &connect("127.0.0.1", 53)), "mine");
    assert!(fails_inside(&project, "stranger", "getent hosts alias"), "a link is its owner's alone");
    assert!(!inside(&project, "dns", &lookup("client")).is_empty(), "our names beside its own server");
    // Over TCP, and in the other case.
    let over_tcp = "import socket, struct
query = bytes.fromhex('000701000001000000000000') + b'\\\\x06CLIENT\\\\x00' + bytes.fromhex('00010001')
stream = socket.create_connection(('127.0.0.11', 53), 2)
stream.sendall(struct.pack('>H', len(query)) + query)
answer = stream.recv(512)
print(answer[8:10].hex(), socket.inet_ntoa(answer[-4:]))";
    let answer = inside(&project, "dns", &format!("printf \"{over_tcp}\" | python3 -"));
    assert_eq!(answer, format!("0001 {}", inside(&project, "dns", &lookup("client"))));
    project.down();
}

#[test]
fn ipv6_is_published_by_the_kernel_and_networks_may_have_nothing_else() {
    let test = "ipv6_is_published_by_the_kernel_and_networks_may_have_nothing_else";
    if !can_run_containers(test) || !has_python(test) || needs_root(test, "the host has no way to a bridge") {
        return;
    }
    if !has_ipv6() {
        println!("{test}: skipped: this host has no IPv6");
        return;
    }
    let project = Project::new(&format!(
        "services:
  both: {{{}, networks: [both], ports: ['80']}}
  six: {{{}, networks: [six], ports: ['80', '80/udp']}}
  client: {{{IDLE}, networks: [both, six]}}
  out: {{{IDLE}, networks: [out]}}
networks:
  both: {{enable_ipv6: true}}
  six: {{enable_ipv4: false, enable_ipv6: true}}
  out: {{enable_ipv6: true}}
",
        server(80, "both"),
        server(80, "six")
    ));
    project.run(&["up", "-d"]).ok();
    ready(&project, &["both", "six"]);
    let published = |service: &str| {
        let publishers = project.container(service)["Publishers"].as_array().unwrap().clone();
        u16::try_from(publishers[0]["PublishedPort"].as_u64().unwrap()).unwrap()
    };
    let gateway = |service: &str| inside(&project, service, "ip -6 route show default | awk '{print $3}'");
    let addresses = inside(&project, "client", &lookup("both"));
    assert!(addresses.contains(':') && addresses.contains('.'), "{addresses}");
    let six = inside(&project, "client", &lookup("six"));
    assert!(six.starts_with("fd") && !six.contains('.'), "{six}");
    assert_eq!(inside(&project, "client", &connect("six", 80)), "six");
    assert_eq!(inside(&project, "six", "ip -4 -o addr show dev eth0 | wc -l"), "0");
    for (service, port) in [("both", published("both")), ("six", published("six"))] {
        assert_eq!(ask(Ipv4Addr::LOCALHOST, port).unwrap(), service);
        assert_eq!(ask(Ipv6Addr::LOCALHOST, port).unwrap(), service);
        // By another address of the host no proxy is on the way: it cannot be killed.
        let bridge: IpAddr = gateway(service).parse().unwrap();
        assert_eq!(ask(bridge, port).unwrap(), service);
    }
    assert!(fails_inside(&project, "out", &connect(six.trim(), 80)), "networks are not isolated in IPv6");
    let table = Command::new("nft").args(["list", "ruleset"]).output();
    if let Ok(table) = table {
        let text = String::from_utf8_lossy(&table.stdout).into_owned();
        assert!(text.contains("published6"), "no map of IPv6 ports");
    }
    project.down();
}

#[test]
fn every_setting_of_a_network_is_seen_inside() {
    let test = "every_setting_of_a_network_is_seen_inside";
    if !can_run_containers(test) || !has_python(test) {
        return;
    }
    let project = Project::new(&format!(
        "services:
  a:
    {IDLE}
    hostname: box
    domainname: example.test
    dns_search: [example.test]
    dns_opt: ['timeout:3']
    extra_hosts: ['up=host-gateway', 'fixed=192.0.2.9']
    networks:
      main:
        ipv4_address: 10.91.40.77
        mac_address: 02:00:00:00:91:40
        interface_name: lan0
        link_local_ips: [169.254.91.40]
        driver_opts: {{com.docker.network.endpoint.sysctls: net.ipv4.conf.IFNAME.log_martians=1}}
        gw_priority: 1
      side: {{priority: 5}}
      closed:
  b: {{{}, networks: [main, closed], ports: ['80']}}
  alone: {{{IDLE}, networks: [deaf]}}
  too: {{{}, networks: [deaf]}}
networks:
  main:
    driver_opts: {{com.docker.network.driver.mtu: 1400, com.docker.network.bridge.host_binding_ipv4: 127.0.0.1}}
    ipam: {{config: [{{subnet: 10.91.40.0/24, ip_range: 10.91.40.128/28, gateway: 10.91.40.1, aux_addresses: {{x: 10.91.40.128}}}}]}}
  side: {{driver_opts: {{com.docker.network.container_iface_prefix: side}}}}
  closed: {{internal: true}}
  deaf: {{driver_opts: {{com.docker.network.bridge.enable_icc: 'false'}}}}
",
        server(80, "b"),
        server(80, "too")
    ).replace(&format!("    {IDLE}\n"), &format!("    {}\n", IDLE.replace(", stop", "\n    stop").replace(", command", "\n    command"))));
    project.run(&["up", "-d"]).ok();
    ready(&project, &["b", "too"]);
    let links = inside(&project, "a", "ip -o -4 addr show | awk '{print $2, $4}'");
    assert!(links.contains("lan0 10.91.40.77/24") && links.contains("lan0 169.254.91.40/16"), "{links}");
    assert!(links.contains("side0 "), "the network with the highest priority is the first: {links}");
    assert!(links.contains("eth0 "), "a link that has a name or a prefix takes no number: {links}");
    let link = inside(&project, "a", "ip link show lan0");
    assert!(link.contains("02:00:00:00:91:40") && link.contains("mtu 1400"), "{link}");
    assert_eq!(inside(&project, "a", "cat /proc/sys/net/ipv4/conf/lan0/log_martians"), "1");
    let route = inside(&project, "a", "ip route show default");
    assert!(route.contains("via 10.91.40.1 dev lan0"), "{route}");
    let resolv = inside(&project, "a", "cat /etc/resolv.conf");
    assert!(resolv.contains("search example.test") && resolv.contains("timeout:3"), "{resolv}");
    let hosts = inside(&project, "a", "cat /etc/hosts");
    assert!(hosts.contains("192.0.2.9\tfixed") && hosts.contains("box.example.test box"), "{hosts}");
    assert!(hosts.lines().any(|line| line.ends_with("\tup")), "{hosts}");
    // The first address of the range is reserved.
    assert!(inside(&project, "b", "ip -o -4 addr show").contains("10.91.40.129/24"));
    let publishers = project.container("b")["Publishers"].clone();
    assert_eq!(publishers[0]["URL"], "127.0.0.1", "{publishers}");
    let port = u16::try_from(publishers[0]["PublishedPort"].as_u64().unwrap()).unwrap();
    assert_eq!(ask(Ipv4Addr::LOCALHOST, port).unwrap(), "b");
    assert!(ask(Ipv4Addr::new(10, 91, 40, 1), port).is_err(), "published on one address only");
    let too = inside(&project, "alone", &lookup("too"));
    assert!(fails_inside(&project, "alone", &connect(&too, 80)), "containers reach each other without icc");
    project.down();
}

#[test]
fn each_link_has_the_families_of_its_network_and_the_way_out_is_where_both_are() {
    let test = "each_link_has_the_families_of_its_network_and_the_way_out_is_where_both_are";
    if !can_run_containers(test) {
        return;
    }
    let project = Project::new(&format!(
        "services:
  a: {{{IDLE}, networks: {{four: {{priority: 5}}, unused_range: {{}}, with_six: {{}}}}}}
networks:
  four: {{}}
  unused_range: {{ipam: {{config: [{{subnet: 10.91.44.0/24}}, {{subnet: 'fd91:44::/64'}}]}}}}
  with_six: {{enable_ipv6: true}}
"
    ));
    project.run(&["up", "-d"]).ok();
    let off = inside(&project, "a", "cd /proc/sys/net/ipv6/conf; cat default/disable_ipv6 eth[012]/disable_ipv6");
    assert_eq!(
        off.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "1", "0"],
        "default, four, unused_range, with_six"
    );
    let route = inside(&project, "a", "ip -4 route show default");
    assert!(route.contains("dev eth2"), "{route}");
    project.down();
}

/// TCP goes on for minutes with the end of a connection whose other end is gone, and keeps the namespace and its link.
#[test]
fn open_connections_leave_no_link_behind() {
    let test = "open_connections_leave_no_link_behind";
    if !can_run_containers(test)
        || !has_python(test)
        || needs_root(test, "links are in a namespace that goes with them")
    {
        return;
    }
    let program = |script: &str| serde_json::to_string(&["python3", "-u", "-c", script]).unwrap();
    let server = "import socket; server = socket.create_server(('', 80)); open = [server.accept() for _ in range(50)]";
    let client = "import socket, time
open = []
while len(open) < 20:
    try: open.append(socket.create_connection(('server', 80)))
    except OSError: time.sleep(0.01)
print('ready')
time.sleep(1000)";
    let idle = "image: rcompose/host, stop_signal: SIGKILL, command";
    let project = Project::new(&format!(
        "services:\n  server: {{{idle}: {}}}\n  client: {{{idle}: {}, depends_on: [server]}}\n",
        program(server),
        program(client)
    ));
    project.run(&["up", "-d"]).ok();
    ready(&project, &["client"]);
    let folder = project.root().join("data/networks");
    let records = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let record = records.filter(|path| path.extension().is_some()).find_map(|path| std::fs::read(path).ok()).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let ends = record["endpoints"].as_object().unwrap().values();
    let links: Vec<_> =
        ends.map(|end| std::path::Path::new("/sys/class/net").join(end["link"].as_str().unwrap())).collect();
    assert!(links.len() == 2 && links.iter().all(|link| link.exists()), "{links:?}");
    project.down();
    eventually("the links are gone", || links.iter().all(|link| !link.exists()).then_some(()));
}

#[test]
fn containers_join_and_leave_networks_while_they_run() {
    let test = "containers_join_and_leave_networks_while_they_run";
    if !can_run_containers(test) || !has_python(test) {
        return;
    }
    let web = server(8000, "web");
    let project = Project::new(&format!(
        "services:
  web: {{{web}, networks: [front], ports: ['127.0.0.1::8000']}}
  db: {{{IDLE}, networks: [rear]}}
  alone: {{{IDLE}, network_mode: none}}
networks: {{front: {{}}, rear: {{}}}}\n"
    ));
    project.run(&["up", "-d"]).ok();
    ready(&project, &["web"]);
    let port = project.run(&["port", "web", "8000"]).ok().out;
    let port = port.trim().rsplit(':').next().unwrap().parse().unwrap();
    let published = || eventually("the published port", || ask(Ipv4Addr::LOCALHOST, port).ok());
    let links = |service: &str| inside(&project, service, "ls /sys/class/net").split_whitespace().count();
    assert_eq!(links("web"), 2);
    assert_eq!(inside(&project, "db", &lookup("web")), "");

    project.run(&["network", "connect", "rear", "web", "--alias", "joined"]).ok();
    assert_eq!(links("web"), 3);
    assert_eq!(inside(&project, "db", &connect("joined", 8000)), "web");
    assert_eq!(inside(&project, "db", &connect("web", 8000)), "web");
    assert_ne!(inside(&project, "web", &lookup("db")), "");
    assert_eq!(inside(&project, "web", "grep -c $(hostname) /etc/hosts"), "2");
    assert_eq!(published(), "web");
    assert_eq!(project.run(&["plan"]).code, 0, "what has been joined besides is left alone");
    let again = project.run(&["network", "connect", "rear", "web"]).fails(1);
    assert!(again.err.contains("already"), "{}", again.err);
    let nowhere = project.run(&["network", "connect", "nowhere", "web"]).fails(1);
    assert!(nowhere.err.contains("`nowhere` does not exist"), "{}", nowhere.err);
    let none = project.run(&["network", "connect", "rear", "alone"]).fails(1);
    assert!(none.err.contains("network_mode"), "{}", none.err);

    let supervisor = project.role("supervisor")[0];
    kill(supervisor, Signal::SIGKILL);
    eventually("the next supervisor", || project.role("supervisor").first().filter(|pid| **pid != supervisor).copied());
    assert_eq!(inside(&project, "db", &connect("joined", 8000)), "web");

    // As when a `disconnect` is killed between its two records.
    let web = project.container("web")["ID"].as_str().unwrap().to_owned();
    let holding = || {
        let folder = std::fs::read_dir(project.root().join("data/networks")).unwrap();
        // Records alone: what is about to take a record's place is gone in a moment.
        let is_record = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "json");
        let files = folder.map(|entry| entry.unwrap().path()).filter(is_record);
        let holds = |path: &std::path::PathBuf| {
            let record: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            record["leases"].as_object().unwrap().values().any(|holder| holder.as_str().unwrap().starts_with(&web))
        };
        files.filter(holds).collect::<Vec<_>>()
    };
    let before: Vec<_> = holding().into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();
    project.run(&["network", "disconnect", "rear", "web"]).ok();
    assert_eq!((before.len(), holding().len()), (2, 1));
    let supervisor = project.role("supervisor")[0];
    kill(supervisor, Signal::SIGSTOP);
    before.iter().for_each(|(text, path)| std::fs::write(path, text).unwrap());
    assert_eq!(holding().len(), 2);
    kill(supervisor, Signal::SIGKILL);
    eventually("the address is given back", || (holding().len() == 1).then_some(()));
    project.run(&["network", "connect", "rear", "web", "--alias", "joined"]).ok();
    assert_eq!(inside(&project, "db", &connect("joined", 8000)), "web");

    // Killed by the first file that it writes: link and record still agree.
    let next_supervisor = |killed: i32| {
        eventually("the next supervisor", || project.role("supervisor").first().filter(|pid| **pid != killed).copied());
    };
    let supervisor = project.role("supervisor")[0];
    project.run_by(std::path::Path::new("prlimit"), &["--pid", &supervisor.to_string(), "--fsize=0"]).ok();
    project.run(&["network", "disconnect", "rear", "web"]).fails(1);
    next_supervisor(supervisor);
    assert_eq!(inside(&project, "db", &connect("joined", 8000)), "web");
    assert_eq!(links("web"), 3);

    // Killed after the record was written: the next one sees to the rest, also to the way out, which leads elsewhere then.
    let (gateway, hosts) = (
        || inside(&project, "web", "ip route | grep default | cut -d. -f1,2"),
        || inside(&project, "web", "grep -c $(hostname) /etc/hosts"),
    );
    let leads = gateway();
    let containers = std::fs::read_dir(project.root().join("data/projects").join(&project.name).join("containers"));
    let mut folders = containers.unwrap().map(|entry| entry.unwrap());
    let folder = folders.find(|entry| entry.file_name().to_string_lossy().starts_with(&web)).unwrap();
    let config = folder.path().join("config.json");
    let mut without: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    let attachments = without["service"]["container"]["network"]["networks"].as_array_mut().unwrap();
    attachments.retain(|one| one["network"] != "front");
    let supervisor = project.role("supervisor")[0];
    kill(supervisor, Signal::SIGSTOP);
    std::fs::write(&config, without.to_string()).unwrap();
    kill(supervisor, Signal::SIGKILL);
    eventually("the link is gone", || (links("web") == 2).then_some(()));
    eventually("the address is given back", || (holding().len() == 1).then_some(()));
    let elsewhere = gateway();
    assert!(!elsewhere.is_empty() && elsewhere != leads, "{elsewhere}");
    assert_eq!((hosts(), published()), ("1".to_owned(), "web".to_owned()));
    project.run(&["network", "connect", "front", "web"]).ok();
    assert_eq!((hosts(), links("web"), gateway()), ("2".to_owned(), 3, leads));

    // The published port and the default route are on the network that is left.
    let gateway = || inside(&project, "web", "ip route | grep default | cut -d. -f1,2");
    let before = gateway();
    project.run(&["network", "disconnect", "front", "web"]).ok();
    assert_eq!(links("web"), 2);
    assert_ne!(gateway(), before);
    assert_eq!(published(), "web");
    let plan = project.run(&["plan"]).fails(2);
    assert!(plan.out.contains("it is not on network `front` any more"), "{}", plan.out);

    project.run(&["restart", "-t", "0", "web"]).ok();
    ready(&project, &["web"]);
    assert_eq!(links("web"), 2, "a restart changes no networks");
    assert_eq!(inside(&project, "db", &connect("joined", 8000)), "web");
    project.run(&["up", "-d"]).ok();
    ready(&project, &["web"]);
    assert_eq!(links("web"), 2);
    assert_eq!(gateway(), before, "`up` makes it what the file says");
    assert_eq!(inside(&project, "db", &lookup("web")), "");
    project.down();
    project.assert_nothing_left();
}

#[test]
fn sctp_ports_are_published_by_the_kernel_and_by_the_proxy() {
    let test = "sctp_ports_are_published_by_the_kernel_and_by_the_proxy";
    if !can_run_containers(test) || !has_python(test) {
        return;
    }
    let python = |script: &str, arguments: &[&str]| {
        let ran = Command::new("python3").args(["-c", script]).args(arguments).output().unwrap();
        (String::from_utf8_lossy(&ran.stdout).into_owned(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    let (has, _) = python("import socket; socket.socket(2, 1, socket.IPPROTO_SCTP); print('yes')", &[]);
    if has.is_empty() {
        println!("{test}: skipped: the kernel has no SCTP");
        return;
    }
    let command = serde_json::to_string(&["python3", "-c", SCTP_SERVER]).unwrap();
    let project = Project::new(&format!(
        "services:
  web:
    image: rcompose/host
    stop_signal: SIGKILL
    command: {command}
    expose: ['80/sctp']
    ports: ['80/sctp', '127.0.0.1::80/sctp']
  six: {{image: rcompose/host, stop_signal: SIGKILL, command: {command}, ports: ['80/sctp'], networks: [six]}}
  client: {{{IDLE}}}
networks: {{six: {{enable_ipv6: true}}}}
"
    ));
    project.run(&["up", "-d"]).ok();
    ready(&project, &["web", "six"]);
    let published = |service: &str, of: &str| {
        let publishers = project.container(service)["Publishers"].as_array().unwrap().clone();
        let one = publishers.iter().find(|one| one["URL"] == of).unwrap_or_else(|| panic!("{of}: {publishers:?}"));
        assert_eq!(one["Protocol"], "sctp");
        one["PublishedPort"].to_string()
    };
    let (any, local, six) = (published("web", "0.0.0.0"), published("web", "127.0.0.1"), published("six", "0.0.0.0"));
    let asked = project.run(&["port", "--protocol", "sctp", "six", "80"]).ok();
    assert!(asked.out.contains(&six), "{}", asked.out);
    let mut ends = vec![["127.0.0.1", &any], ["127.0.0.1", &local], ["127.0.0.1", &six]];
    if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        // To a container that has IPv6 and to one that has not.
        ends.extend([["::1", &any], ["::1", &six]]);
    }
    let all: Vec<&str> = ends.concat();
    let expected: String = ends.iter().map(|[host, port]| format!("{host} {port}\n")).collect();
    let (answered, errors) = python(SCTP_CLIENT, &all);
    assert_eq!(answered, expected, "{errors}");
    let command = ["exec", "-T", "client", "python3", "-c", SCTP_CLIENT, "web", "80", "six", "80"];
    assert_eq!(project.run(&command).out, "web 80\n", "the other one is on another network");

    // A proxy that has ended would have been told.
    let log = project.root().join("data/projects").join(&project.name).join("supervisor.log");
    let log = std::fs::read_to_string(log).unwrap_or_default();
    assert!(!log.contains("proxy"), "{log}");
    let rival = project.beside(&format!("services: {{w: {{{IDLE}, ports: ['{any}:80/sctp']}}}}\n"));
    let taken = rival.run(&["up", "-d"]).fails(1);
    assert!(taken.err.contains(&format!("{any}/sctp is in use by `")), "{}", taken.err);
    rival.run(&["down"]).ok();
    project.down();
}

#[test]
fn links_of_their_own_on_a_link_of_the_host() {
    let test = "links_of_their_own_on_a_link_of_the_host";
    if !can_run_containers(test) || !has_python(test) || needs_root(test, "the host's links are out of reach") {
        return;
    }
    let ip = |arguments: &str| Command::new("ip").args(arguments.split(' ')).output();
    let parent = format!("rct{}", std::process::id());
    // With the other end up it has a carrier, without which newer kernels carry nothing over it.
    let made = |arguments: String| ip(&arguments).is_ok_and(|made| made.status.success());
    if !made(format!("link add {parent} up type veth peer name {parent}p")) || !made(format!("link set {parent}p up")) {
        println!("{test}: skipped: no link can be made with `ip`");
        return;
    }
    let project = Project::new(&format!(
        "services:
  mac: {{{}, networks: [mac]}}
  mac2: {{{IDLE}, networks: [mac]}}
  tagged: {{{}, networks: [tagged]}}
  tagged2: {{{IDLE}, networks: [tagged]}}
  routed: {{{IDLE}, networks: [routed]}}
  apart: {{{}, networks: [apart]}}
  apart2: {{{IDLE}, networks: [apart]}}
networks:
  mac: {{driver: macvlan, driver_opts: {{parent: {parent}}}, ipam: {{config: [{{subnet: 10.91.41.0/24, gateway: 10.91.41.1}}]}}}}
  tagged: {{driver: ipvlan, driver_opts: {{parent: {parent}.7}}, ipam: {{config: [{{subnet: 10.91.42.0/24}}]}}}}
  routed: {{driver: ipvlan, driver_opts: {{ipvlan_mode: l3, parent: {parent}.9}}, ipam: {{config: [{{subnet: 10.91.43.0/24}}]}}}}
  apart: {{driver: ipvlan, driver_opts: {{ipvlan_flag: private, parent: {parent}.11}}, ipam: {{config: [{{subnet: 10.91.45.0/24}}]}}}}
",
        server(80, "macvlan"),
        server(80, "ipvlan"),
        server(80, "private")
    ));
    let up = project.run(&["up", "-d"]);
    if up.err.contains("Operation not supported") {
        println!("{test}: skipped: the kernel has no macvlan or ipvlan");
    } else {
        up.ok();
        ready(&project, &["mac", "tagged", "apart"]);
        assert_eq!(inside(&project, "mac2", &connect("mac", 80)), "macvlan");
        assert_eq!(inside(&project, "tagged2", &connect("tagged", 80)), "ipvlan");
        assert!(inside(&project, "mac", "ip -d link show eth0").contains("macvlan mode bridge"));
        assert!(inside(&project, "routed", "ip route show default").contains("default dev eth0"));
        assert!(inside(&project, "apart", "ip -d link show eth0").contains("mode l2 private"));
        assert!(fails_inside(&project, "apart2", &connect("apart", 80)));
    }
    project.down();
    let tag = format!("/sys/class/net/{parent}.7");
    let left = std::path::Path::new(&tag).exists();
    ip(&format!("link del {parent}")).unwrap();
    assert!(!left, "the VLAN is left");
}

#[test]
fn what_others_do_to_the_firewall_and_the_routes_is_noticed() {
    let test = "what_others_do_to_the_firewall_and_the_routes_is_noticed";
    if !can_run_containers(test) || !has_python(test) || needs_root(test, "the host's firewall is out of reach") {
        return;
    }
    let nft = |text: &str| Command::new("nft").arg(text).output();
    if !nft("list tables").is_ok_and(|listed| listed.status.success()) {
        println!("{test}: skipped: needs nft");
        return;
    }
    let project = Project::new(&format!(
        "services:\n  web: {{{}, ports: ['80'], networks: [n]}}\n  client: {{{IDLE}, networks: [other]}}\n\
         networks:\n  n: {{ipam: {{config: [{{subnet: 10.91.44.0/24}}]}}, driver_opts: {{com.docker.network.bridge.name: BRIDGE}}}}\n  other:\n",
        server(80, "web")
    ));
    let bridge = format!("rcb{}", std::process::id());
    let file = std::fs::read_to_string(project.folder().join("compose.yaml")).unwrap();
    project.write("compose.yaml", &file.replace("BRIDGE", &bridge));
    project.run(&["up", "-d"]).ok();
    ready(&project, &["web"]);
    let published = project.container("web")["Publishers"][0]["PublishedPort"].as_u64().unwrap();
    let port = u16::try_from(published).unwrap();
    assert_eq!(ask(Ipv4Addr::LOCALHOST, port).unwrap(), "web");
    let tables = String::from_utf8(nft("list tables").unwrap().stdout).unwrap();
    let own = tables.lines().find(|line| line.contains(&format!("rcompose-{}", project.name))).unwrap();
    // As `nft flush ruleset` does.
    assert!(nft(&own.replacen("table", "delete table", 1)).unwrap().status.success());
    eventually("the rules are there again", || ask(Ipv4Addr::LOCALHOST, port).ok());
    // A firewall that drops what is forwarded; other people's containers here are let through.
    let wall = format!("rcwall{}", std::process::id());
    let chain = format!(
        "table ip {wall} {{ chain forward {{ type filter hook forward priority 5; policy drop; \
         iifname != {bridge} oifname != {bridge} accept; }}; }}"
    );
    assert!(nft(&chain).unwrap().status.success());
    let passes =
        || project.run(&["exec", "-T", "client", "sh", "-c", &connect("10.91.44.1", port)]).out.contains("web");
    let let_in = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("the bridge is let through", || passes().then_some(()));
    }));
    let dropped = nft(&format!("delete table ip {wall}")).unwrap();
    assert!(let_in.is_ok() && dropped.status.success());
    // A VPN comes up; with its routes in a table of their own, as WireGuard's are.
    let link = format!("rcv{}", std::process::id());
    let ip = |arguments: &str| Command::new("ip").args(arguments.split(' ')).output().unwrap().status.success();
    let kind = if ip(&format!("link add {link} type wireguard")) { "wireguard" } else { "bridge" };
    if kind == "bridge" {
        println!("{test}: skipped in part: the kernel has no WireGuard");
        assert!(ip(&format!("link add {link} type bridge")));
    }
    let table = if kind == "wireguard" { " table 51820" } else { "" };
    let route = format!("route add 10.91.44.0/22 dev {link}{table}");
    assert!(ip(&format!("link set {link} up")) && ip(&route), "{route}");
    let log = project.root().join("data/projects").join(&project.name).join("supervisor.log");
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("a warning", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            (text.contains("10.91.44.0/22") && text.contains(&link)).then_some(())
        });
    }));
    let up = project.run(&["up", "-d"]);
    let doctor = project.findings().iter().any(|finding| {
        finding["what"] == "networks" && finding["found"].as_str().is_some_and(|found| found.contains(&link))
    });
    ip(&format!("link del {link}"));
    assert!(told.is_ok());
    assert!(up.err.contains("10.91.44.0/22") && doctor, "{}", up.err);
    assert!(!project.run(&["up", "-d"]).ok().err.contains("10.91.44.0/22"), "the VPN is gone");
    project.down();
}

/// As in Docker: of two addresses the first is the gateway's, the second the container's, and none is for broadcasts.
#[test]
fn a_network_of_two_addresses_has_room_for_a_container() {
    let test = "a_network_of_two_addresses_has_room_for_a_container";
    if !can_run_containers(test) || needs_root(test, "its network is not the host's") {
        return;
    }
    let project = Project::new(&format!(
        "services:\n  a: {{{}, networks: [n]}}\nnetworks: {{n: {{ipam: {{config: [{{subnet: 10.91.41.0/31}}]}}}}}}\n",
        server(80, "pair")
    ));
    project.run(&["up", "-d"]).ok();
    eventually("it answers", || {
        let mut text = String::new();
        TcpStream::connect(("10.91.41.1", 80)).ok()?.read_to_string(&mut text).ok()?;
        (text == "pair").then_some(())
    });
    project.down();
    project.assert_nothing_left();
}
