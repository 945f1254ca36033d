//! Networks, seen from inside containers and in the kernel's state.

use std::io::Read;
use std::net::{IpAddr, Ipv6Addr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use crate::support::{Project, can_run_containers, eventually};

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

/// A shell command that connects, prints what it is told, and gives up after a second.
fn connect(host: &str, port: u16) -> String {
    format!(
        "python3 -c \"import socket; print(socket.create_connection(('{host}', {port}), 1).recv(99).decode())\" 2>/dev/null"
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
    if !can_run_containers(test) || !has_python(test) {
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
    assert!(fails_inside(&owner, "other", "getent hosts web"));
    guest.run(&["start", "web"]).ok();
    ready(&guest, &["web"]);
    assert_eq!(inside(&owner, "other", &connect("web", 80)), "web of the guest");
    owner.run(&["down", "-t", "0"]).fails(1);
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
    if !can_run_containers(test) || !has_python(test) {
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
        assert_eq!(ask(std::net::Ipv4Addr::LOCALHOST, port).unwrap(), service);
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
