//! The same commands as an ordinary user. Started by root, they run as the user that `RCOMPOSE_TEST_USER` names, or as
//! `nobody`, who has no subordinate ids: then everything belongs to one user.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use crate::support::{Project, eventually, kill};

/// Whether this machine lets an ordinary user make namespaces; says why not otherwise.
pub(crate) fn can_be_rootless(project: &Project, test: &str) -> bool {
    let findings = project.findings();
    let lacks = |what: &str| findings.iter().find(|one| one["what"] == what && one["state"] == "lack").cloned();
    match lacks("kernel").or_else(|| lacks("namespaces, overlay and nftables")) {
        Some(lack) => {
            println!("{test}: skipped: {}", lack["found"]);
            false
        }
        None => true,
    }
}

fn service(script: &str, more: &str) -> String {
    let script = serde_json::to_string(&script.replace('$', "$$")).unwrap();
    format!("{{image: rcompose/host, command: [sh, -c, {script}], stop_signal: SIGKILL{more}}}")
}

/// A web server with one page, on a port of the host.
fn web() -> String {
    service("cd /srv; echo served > page; exec python3 -m http.server 80", ", ports: ['80']")
}

fn idle() -> String {
    service("exec sleep 1000", ", volumes: ['data:/data', './shared:/shared']")
}

fn ask(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.contains("served").then_some(answer)
}

/// The one published port of a service.
fn port_of(project: &Project, service: &str) -> u16 {
    let container = project.container(service);
    let published = container["Publishers"].as_array().unwrap();
    u16::try_from(published[0]["PublishedPort"].as_u64().unwrap()).unwrap()
}

/// A web server and somebody to ask it.
fn pair() -> Project {
    Project::rootless(&format!("services:\n  web: {}\n  client: {}\nvolumes: {{data: {{}}}}\n", web(), idle()))
}

#[test]
fn containers_meet_are_reached_and_leave_nothing() {
    let project = pair();
    if !can_be_rootless(&project, "rootless::containers_meet_are_reached_and_leave_nothing") {
        return;
    }
    project.run(&["up", "-d"]).ok();
    let port = port_of(&project, "web");
    eventually("an answer on the published port", || ask(port));
    let page = "import urllib.request as u; print(u.urlopen('http://web/page').read())";
    let inside = project.run(&["exec", "-T", "client", "python3", "-c", page]).ok();
    assert!(inside.out.contains("served"), "names do not lead to containers");
    let make = "id -u; touch /shared/made /data/made; echo told";
    assert_eq!(project.run(&["exec", "-T", "client", "sh", "-c", make]).ok().out, "0\ntold\n");
    let made = fs::metadata(project.folder().join("shared/made")).unwrap();
    let ours = fs::metadata(project.folder()).unwrap();
    assert_eq!(made.uid(), ours.uid(), "what root of a container makes in a bind mount is not the caller's");
    project.run(&["run", "--rm", "-T", "client", "sh", "-c", "test -e /data/made && exit 7"]).fails(7);
    // With its last process the project's network namespace goes; what is started again finds its network anew.
    project.run(&["stop", "-t", "0"]).ok();
    eventually("the end of the keeper", || project.role("keeper").is_empty().then_some(()));
    project.run(&["start"]).ok();
    eventually("an answer on the published port", || ask(port_of(&project, "web")));
    project.down();
}

#[test]
fn users_of_an_image_are_users_of_their_own_or_the_error_says_why_not() {
    let other = service("touch /data/theirs; exec sleep 1000", ", user: '33', volumes: ['./data:/data']");
    let project = Project::rootless(&format!("services:\n  other: {other}\n"));
    if !can_be_rootless(&project, "rootless::users_of_an_image_are_users_of_their_own_or_the_error_says_why_not") {
        return;
    }
    let data = project.folder().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, PermissionsExt::from_mode(0o777)).unwrap();
    let up = project.run(&["up", "-d"]);
    if project.has_many_ids() {
        up.ok();
        let theirs = data.join("theirs");
        eventually("the file", || theirs.exists().then_some(()));
        assert_ne!(fs::metadata(&theirs).unwrap().uid(), fs::metadata(project.folder()).unwrap().uid());
    } else {
        let up = up.fails(1);
        assert!(up.err.contains("subordinate ids") && up.err.contains("doctor"), "{}", up.err);
    }
    project.down();
}

#[test]
fn killing_any_process_loses_neither_containers_nor_ports_nor_names() {
    let project = pair();
    if !can_be_rootless(&project, "rootless::killing_any_process_loses_neither_containers_nor_ports_nor_names") {
        return;
    }
    project.run(&["up", "-d"]).ok();
    let port = port_of(&project, "web");
    eventually("an answer on the published port", || ask(port));
    let before = project.container("web")["ID"].clone();
    let way_out = || way_out(&project);
    let first = way_out();
    for roles in [&["supervisor"][..], &["keeper"], &["keeper", "supervisor"]] {
        // Both at once can be taken over only while something holds the network.
        if roles.len() > 1 && first.is_none() {
            println!("skipped: without a way out nothing holds the network when keeper and supervisor are killed");
            continue;
        }
        for pid in roles.iter().flat_map(|role| project.role(role)) {
            kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        let asked = || project.run(&["exec", "-T", "client", "getent", "hosts", "web"]);
        eventually("names again", || (asked().code == 0).then_some(()));
        eventually("an answer on the published port", || ask(port));
        assert_eq!(project.container("web")["ID"], before);
    }
    if let Some(first) = first {
        kill(first, nix::sys::signal::Signal::SIGKILL);
        eventually("a new way out", || way_out().filter(|pid| *pid != first));
    }
    project.down();
}

/// The process that is the way out, as it is written down.
fn way_out(project: &Project) -> Option<i32> {
    let text = fs::read_to_string(project.root().join("run").join(&project.name).join("uplink.json")).ok()?;
    let uplink: serde_json::Value = serde_json::from_str(&text).ok()?;
    uplink["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())
}

/// The first processes of the project's containers.
fn first_processes(project: &Project) -> Vec<i32> {
    let folder = project.root().join("data/projects").join(&project.name).join("containers");
    let states = fs::read_dir(folder).unwrap().filter_map(|entry| {
        let text = fs::read_to_string(entry.ok()?.path().join("state.json")).ok()?;
        let state: serde_json::Value = serde_json::from_str(&text).ok()?;
        state["run"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())
    });
    states.collect()
}

/// Nobody of ours is left who could end it: it stays as long as containers may need it, and no longer.
#[test]
fn the_way_out_of_a_killed_project_ends_with_its_containers() {
    let test = "rootless::the_way_out_of_a_killed_project_ends_with_its_containers";
    for next in [None, Some(&["down", "-v", "-t", "0"][..]), Some(&["up", "-d"])] {
        let project = pair();
        if !can_be_rootless(&project, test) {
            return;
        }
        project.run(&["up", "-d"]).ok();
        let Some(first) = way_out(&project) else {
            println!("{test}: skipped: there is no way out on this machine");
            return project.down();
        };
        let programs = programs_of(first);
        assert!(!programs.is_empty(), "the way out is a program that its holder has started");
        let ours = ["keeper", "supervisor"].iter().flat_map(|role| project.role(role));
        for pid in ours.collect::<Vec<_>>() {
            kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_secs(3));
        let lives = |pid: i32| fs::metadata(format!("/proc/{pid}")).is_ok();
        assert!(lives(first), "containers may need it");
        match next {
            Some(command) => {
                project.run(command).ok();
                assert!(command[0] == "down" || way_out(&project) == Some(first), "a way out that is there is used");
                project.down();
            }
            None => first_processes(&project).into_iter().for_each(|pid| kill(pid, nix::sys::signal::Signal::SIGKILL)),
        }
        eventually("its end", || (!lives(first) && !programs.iter().any(|pid| lives(*pid))).then_some(()));
        project.down();
    }
}

/// The processes that a process has started.
fn programs_of(parent: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// A listener on an address of this machine that containers do not have themselves.
fn outside() -> Option<TcpListener> {
    let addresses = nix::ifaddrs::getifaddrs().ok()?.filter_map(|one| Some(one.address?.as_sockaddr_in()?.ip()));
    let primary = UdpSocket::bind("0.0.0.0:0").ok()?;
    primary.connect("192.0.2.77:9").ok()?;
    let primary = primary.local_addr().ok()?.ip();
    // pasta gives the primary address to the containers' side, too.
    let mut others = addresses.filter(|address| !address.is_loopback() && IpAddr::V4(*address) != primary);
    TcpListener::bind((others.next()?, 0)).ok()
}

#[test]
fn the_outside_is_reached_where_a_program_for_it_is_installed() {
    let test = "rootless::the_outside_is_reached_where_a_program_for_it_is_installed";
    let project = pair();
    if !can_be_rootless(&project, test) {
        return;
    }
    let lack = project.findings().into_iter().find(|one| one["what"] == "way out" && one["state"] == "lack");
    let up = project.run(&["up", "-d"]).ok();
    if let Some(lack) = lack {
        assert!(up.err.contains("cannot reach the outside") && up.err.contains("doctor"), "{}", up.err);
        println!("{test}: skipped: {}", lack["found"]);
    } else if let Some(listener) = outside() {
        let address = listener.local_addr().unwrap();
        let connect = format!("import socket; socket.create_connection(('{}', {}), 10)", address.ip(), address.port());
        project.run(&["exec", "-T", "client", "python3", "-c", &connect]).ok();
    } else {
        println!("{test}: skipped: this machine has one address only");
    }
    project.down();
}

#[test]
fn limits_are_applied_or_named() {
    let limited = service("cat /sys/fs/cgroup/memory.max; exec sleep 1000", ", mem_limit: 64m");
    let project = Project::rootless(&format!("services:\n  limited: {limited}\n"));
    if !can_be_rootless(&project, "rootless::limits_are_applied_or_named") {
        return;
    }
    let given = !project.findings().iter().any(|one| one["what"] == "control groups" && one["state"] == "lack");
    let up = project.run(&["up", "-d"]).ok();
    if given {
        eventually("the limit", || project.run(&["logs"]).ok().out.contains("67108864").then_some(()));
    } else {
        assert!(up.err.contains("`mem_limit` is not applied"), "{}", up.err);
    }
    project.down();
}

/// Wherever the groups are that the keeper was given, and without any.
#[test]
fn stats_and_top_tell_of_containers() {
    let project = Project::rootless(&format!("services:\n  busy: {}\n", service("sleep 1001 & exec sleep 1002", "")));
    if !can_be_rootless(&project, "rootless::stats_and_top_tell_of_containers") {
        return;
    }
    project.run(&["up", "-d"]).ok();
    let rows = || project.run(&["top"]).ok().out;
    eventually("both processes", || (rows().contains("sleep 1001") && rows().contains("sleep 1002")).then_some(()));
    let stats = project.run(&["stats", "--no-stream", "--format", "json"]).ok().out;
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["PIDs"], "2", "{stats}");
    assert!(!stats["MemUsage"].as_str().unwrap().starts_with("0B"), "{stats}");
    project.down();
}

#[test]
fn an_archive_is_unpacked_and_removed_again() {
    let project = Project::rootless("services:\n  it: {image: made, command: [/bin/true]}\n");
    if !can_be_rootless(&project, "rootless::an_archive_is_unpacked_and_removed_again") {
        return;
    }
    let mut archive = tar::Builder::new(Vec::new());
    let owners: &[u64] = if project.has_many_ids() { &[0, 33] } else { &[0] };
    for owner in owners {
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o600);
        header.set_uid(*owner);
        header.set_gid(*owner);
        archive.append_data(&mut header, format!("of-{owner}"), &b"hello"[..]).unwrap();
    }
    fs::write(project.folder().join("root.tar"), archive.into_inner().unwrap()).unwrap();
    project.run(&["image", "import", "root.tar", "made"]).ok();
    project.run(&["image", "save", "-o", "again.tar", "made"]).ok();
    assert!(fs::metadata(project.folder().join("again.tar")).unwrap().len() > 1024);
    project.run(&["image", "rm", "made"]).ok();
    let failed = project.run(&["up", "-d"]).fails(1);
    assert!(failed.err.contains("made"), "{}", failed.err);
}

#[test]
fn a_port_that_another_project_has_is_told_with_its_name() {
    let web = service("exec sleep 1000", ", ports: ['80']");
    let project = Project::rootless(&format!("services:\n  web: {web}\n"));
    if !can_be_rootless(&project, "rootless::a_port_that_another_project_has_is_told_with_its_name") {
        return;
    }
    project.run(&["up", "-d"]).ok();
    let port = port_of(&project, "web");
    let rival = service("exec sleep 1000", &format!(", ports: ['{port}:80']"));
    let rival = project.beside(&format!("services:\n  web: {rival}\n"));
    let taken = rival.run(&["up", "-d"]).fails(1);
    assert!(taken.err.contains(&format!("{port}/tcp is in use by `")), "{}", taken.err);
    assert!(taken.err.contains(&format!("it belongs to project `{}`", project.name)), "{}", taken.err);
    rival.run(&["down"]).ok();
    project.down();
}
