//! Other firewalls beside containers, each in a network of its own with a second machine on it: the machine of the test keeps
//! its rules.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::support::{Project, Ran, can_run_containers, eventually, needs_root};

const HOST: &str = "198.18.0.1";
const NEIGHBOUR: &str = "198.18.0.2";
const PORT: &str = "18080";

/// Says a word to whoever connects.
const SERVER: &str = "import socket, sys
tcp = socket.create_server(('', int(sys.argv[1])))
print('ready', flush=True)
while True:
    peer, _ = tcp.accept()
    peer.sendall(sys.argv[2].encode())
    peer.close()
";

/// Made for the test: namespaces, with what firewalls write to being copies.
const MACHINE: &str = "set -e
mount -t tmpfs none /run
mkdir /run/cgroup /run/dbus /run/firewalld
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs none /sys
mount --rbind /run/cgroup /sys/fs/cgroup
umount -l /run/cgroup
for folder in /etc /var/lib/ufw; do
    [ ! -d $folder ] || { mkdir -p /run/copy$folder; cp -a $folder/. /run/copy$folder; mount --bind /run/copy$folder $folder; }
done
mount -t tmpfs none /var/log
ip link set lo up
exec 3<&0
unshare -n sh -c 'echo $$ >/run/neighbour; exec cat' <&3 >/dev/null &
while ! [ -s /run/neighbour ] || [ \"$(readlink /proc/self/ns/net)\" = \"$(readlink /proc/$(cat /run/neighbour)/ns/net)\" ]; do sleep 0.01; done
ip link add wire type veth peer name wire netns $(cat /run/neighbour)
ip addr add HOST/24 dev wire
ip link set wire up
nsenter -t $(cat /run/neighbour) -n sh -c 'ip link set lo up; ip addr add NEIGHBOUR/24 dev wire; ip link set wire up'
ip route add default via NEIGHBOUR
echo ready
cat
";

/// A machine with an own network. It is gone when this is.
struct Machine {
    shell: Child,
    /// Its processes read from it, and end with it.
    _life: ChildStdin,
}

impl Machine {
    fn new() -> Self {
        let script = MACHINE.replace("HOST", HOST).replace("NEIGHBOUR", NEIGHBOUR);
        let mut shell = Command::new("unshare")
            .args(["-n", "-m", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let life = shell.stdin.take().unwrap();
        Self { shell, _life: life }
    }

    fn enter(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.shell.id().to_string(), "-n", "-m", "--"]).args(words);
        command
    }

    /// Runs a command on it.
    #[track_caller]
    fn does(&self, words: &str) -> String {
        let ran = Ran::from(self.enter(&words.split(' ').collect::<Vec<_>>()).output().unwrap());
        assert_eq!(ran.code, 0, "{words}: {}{}", ran.out, ran.err);
        ran.out
    }

    /// Feeds nft.
    #[track_caller]
    fn nft(&self, rules: &str) {
        let ran = Ran::from(self.enter(&["nft", rules]).output().unwrap());
        assert_eq!(ran.code, 0, "{rules}: {}", ran.err);
    }

    /// `rcompose` on it.
    fn run(&self, project: &Project, args: &[&str]) -> Ran {
        let plain = project.command(args);
        let mut command = self.enter(&[]);
        command.arg(plain.get_program()).args(plain.get_args()).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("COMPOSE_FILE", project.folder().join("compose.yaml"));
        command.stdin(Stdio::null()).output().unwrap().into()
    }

    /// A server on the neighbour, or here.
    fn serve(&self, neighbour: bool, port: &str, word: &str) -> Server {
        let pid = self.does("cat /run/neighbour");
        let mut command = match neighbour {
            true => self.enter(&["nsenter", "-t", pid.trim(), "-n"]),
            false => self.enter(&[]),
        };
        let mut server = command.args(["python3", "-c", SERVER, port, word]).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        Server(server)
    }

    /// Looks until everything is reached that should be. Right after a change it may not.
    #[track_caller]
    fn all_is_reached(&self, project: &Project, when: &str) {
        let client = |host: &str, port: &str| {
            let run = self.run(project, &["exec", "-T", "client", "python3", "-c", &connect(host, port)]);
            run.out.trim().to_owned()
        };
        let from = |before: &[&str], host: &str| {
            let script = connect(host, PORT);
            Ran::from(self.enter(&[before, &["python3", "-c", &script]].concat()).output().unwrap())
                .out
                .trim()
                .to_owned()
        };
        let pid = self.does("cat /run/neighbour");
        let neighbour = ["nsenter", "-t", pid.trim(), "-n"];
        eventually(&format!("{when}: what should be reached is"), || {
            let found = [
                client("web", "80"),
                client(NEIGHBOUR, "7000"),
                client(HOST, PORT),
                from(&[], "127.0.0.1"),
                from(&[], HOST),
                from(&neighbour, HOST),
            ];
            let all = found == ["web", "neighbour", "web", "web", "web", "web"];
            if !all {
                println!("{when}: {found:?}");
            }
            all.then_some(())
        });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Python script that connects, and prints what it is told or nothing.
fn connect(host: &str, port: &str) -> String {
    format!(
        "import socket
try: print(socket.create_connection(('{host}', {port}), 3).recv(99).decode())
except OSError: pass"
    )
}

fn project() -> Project {
    let idle = "image: rcompose/host, stop_signal: SIGKILL";
    let server = serde_json::to_string(&["python3", "-c", SERVER, "80", "web"]).unwrap();
    Project::new(&format!(
        "services:\n  web: {{{idle}, command: {server}, ports: ['{PORT}:80']}}\n  client: {{{idle}, command: [sleep, '1000']}}\n"
    ))
}

fn has(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').any(|folder| std::path::Path::new(folder).join(program).exists())
}

fn can(test: &str, programs: &[&str]) -> bool {
    if !can_run_containers(test) || needs_root(test, "the host's firewall is out of reach") {
        return false;
    }
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !has(program)).collect();
    if !missing.is_empty() {
        println!("{test}: skipped: needs {}", missing.join(", "));
    }
    missing.is_empty()
}

/// Rules of other tables than ours that name one of our bridges.
fn left(machine: &Machine) -> String {
    let rules = machine.does("nft list ruleset");
    rules.lines().filter(|line| line.contains("rc-")).collect()
}

#[test]
fn a_chain_that_ends_in_a_reject_or_is_legacy_lets_containers_through() {
    let test = "a_chain_that_ends_in_a_reject_or_is_legacy_lets_containers_through";
    if !can(test, &["nft", "python3"]) {
        return;
    }
    let machine = Machine::new();
    let project = project();
    let _server = machine.serve(true, "7000", "neighbour");
    machine.nft(
        "table ip wall { chain pass { type filter hook forward priority 0; policy accept; \
         ct state established accept; ip daddr 203.0.113.9 drop; counter reject; }; }",
    );
    let legacy = has("iptables-legacy");
    if legacy {
        machine.does("iptables-legacy -P FORWARD DROP");
    } else {
        println!("{test}: skipped: iptables-legacy is not installed");
    }
    assert!(machine.run(&project, &["up", "-d"]).ok().err.contains("Started"));
    machine.all_is_reached(&project, "from the start");
    machine.nft("flush ruleset");
    machine.all_is_reached(&project, "without any rule");
    machine.nft("table inet late { chain pass { type filter hook forward priority 5; reject; }; }");
    machine.all_is_reached(&project, "with a late one");
    machine.run(&project, &["down", "-t", "0"]).ok();
    assert_eq!(left(&machine), "");
    if legacy {
        assert_eq!(machine.does("iptables-legacy -S FORWARD"), "-P FORWARD DROP\n");
    }
    project.assert_nothing_left();
}

#[test]
fn a_firewall_that_nobody_can_change_is_named_with_what_to_do() {
    let test = "a_firewall_that_nobody_can_change_is_named_with_what_to_do";
    if !can(test, &["nft", "python3"]) {
        return;
    }
    let machine = Machine::new();
    let project = project();
    // Belongs to this process, as firewalld's does.
    let mut owner = machine.enter(&["nft", "-i"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut input = owner.stdin.take().unwrap();
    let table = "add table inet firewalld { flags owner; }
add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; }
add rule inet firewalld filter_FORWARD reject\n";
    input.write_all(table.as_bytes()).unwrap();
    eventually("the table", || machine.does("nft list ruleset").contains("reject").then_some(()));
    let up = machine.run(&project, &["up", "-d"]).ok();
    let remedy = "firewall-cmd --zone=trusted --add-interface=rc-";
    assert!(up.err.contains(remedy), "{}", up.err);
    let doctor = machine.run(&project, &["doctor"]);
    assert!(doctor.out.contains("`inet firewalld filter_FORWARD`"), "{}", doctor.out);
    assert!(doctor.out.contains("systemctl restart dbus firewalld"), "{}", doctor.out);
    drop(input);
    owner.wait().unwrap();
    machine.run(&project, &["down", "-t", "0"]).ok();
    project.assert_nothing_left();
}

#[test]
fn containers_run_beside_ufw() {
    let test = "containers_run_beside_ufw";
    if !can(test, &["nft", "python3", "ufw"]) {
        return;
    }
    let machine = Machine::new();
    let project = project();
    let _server = machine.serve(true, "7000", "neighbour");
    machine.does("ufw --force enable");
    assert!(machine.does("iptables -S FORWARD").contains("-P FORWARD DROP"));
    machine.run(&project, &["up", "-d"]).ok();
    machine.all_is_reached(&project, "enabled before");
    machine.does("ufw reload");
    machine.all_is_reached(&project, "reloaded");
    machine.does("ufw --force disable");
    machine.all_is_reached(&project, "disabled");
    machine.does("ufw --force enable");
    machine.all_is_reached(&project, "enabled while containers run");
    machine.run(&project, &["down", "-t", "0"]).ok();
    assert_eq!(left(&machine), "");
    project.assert_nothing_left();
}

#[test]
fn containers_run_beside_firewalld() {
    let test = "containers_run_beside_firewalld";
    if !can(test, &["nft", "python3", "firewalld", "firewall-cmd", "dbus-daemon"]) {
        return;
    }
    for backend in ["nftables", "iptables"] {
        if backend == "iptables" && !has("iptables") {
            println!("{test}: skipped: needs iptables for that backend");
            continue;
        }
        let machine = Machine::new();
        let project = project();
        let _servers = [machine.serve(true, "7000", "neighbour"), machine.serve(false, "9000", "host")];
        machine.run(&project, &["up", "-d"]).ok();
        machine.all_is_reached(&project, "without it");
        machine.does(&format!("sed -i s/^FirewallBackend=.*/FirewallBackend={backend}/ /etc/firewalld/firewalld.conf"));
        let mut bus = machine.enter(&["dbus-daemon", "--system", "--nofork"]).spawn().map(Server).unwrap();
        eventually("the bus", || {
            let there = machine.enter(&["test", "-S", "/run/dbus/system_bus_socket"]).status().unwrap();
            there.success().then_some(())
        });
        let mut daemon = machine.enter(&["firewalld", "--nofork", "--nopid"]).spawn().map(Server).unwrap();
        eventually("firewalld", || {
            machine.enter(&["firewall-cmd", "--state"]).output().unwrap().status.success().then_some(())
        });
        for change in ["started", "--reload", "--complete-reload"] {
            if change.starts_with('-') {
                machine.does(&format!("firewall-cmd {change}"));
            }
            machine.all_is_reached(&project, &format!("{backend}: {change}"));
            let gateway = "import os; print(os.popen(\"ip route\").read().split()[2])";
            let host = machine.run(&project, &["exec", "-T", "client", "python3", "-c", gateway]).ok();
            let asked =
                machine.run(&project, &["exec", "-T", "client", "python3", "-c", &connect(host.out.trim(), "9000")]);
            assert_eq!(asked.out.trim(), "host", "{backend}: {change}: as with Docker, containers reach the host");
        }
        machine.run(&project, &["down", "-t", "0"]).ok();
        assert_eq!(left(&machine), "");
        project.assert_nothing_left();
        let _ = (daemon.0.kill(), bus.0.kill());
    }
}
