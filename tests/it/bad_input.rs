//! Every kind of bad input: a clear message on standard error, a status other than 0, nothing half-made.

use std::fs;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::{Project, can_run_containers, eventually, kill, needs_root};

/// What the file holds, what the message must contain.
const FILES: &[(&str, &[&str])] = &[
    ("", &["compose.yaml", "empty"]),
    ("services: [", &["compose.yaml:"]),
    ("services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n", &["cycle", "a -> b -> a"]),
    ("services:\n  a:\n    image: x\n    enviroment: {A: b}\n", &["compose.yaml:4:5", "enviroment", "`environment`"]),
    ("services:\n  a:\n    image: x\n    ports: ['70000:80']\n", &["compose.yaml:4", "70000"]),
    ("services:\n  a:\n    image: x\n    mem_limit: 1k\n", &["compose.yaml:4", "6 MiB"]),
    ("services:\n  a:\n    image: x\n    env_file: missing.env\n", &["compose.yaml:4", "missing.env"]),
    ("services:\n  a:\n    image: x\n    volumes: ['data:/x']\n", &["data"]),
];

#[test]
fn a_bad_file_is_an_error_with_its_place() {
    for (text, expected) in FILES {
        let project = Project::new(text);
        let ran = project.run(&["up", "-d"]).fails(1);
        for part in *expected {
            assert!(ran.err.contains(part), "{text:?}: {part:?} is not in\n{}", ran.err);
        }
        assert!(ran.out.is_empty());
        project.assert_nothing_left();
    }
}

#[test]
fn a_file_that_is_none() {
    let project = Project::new("services: {a: {image: x}}\n");
    fs::create_dir(project.folder().join("folder")).unwrap();
    fs::write(project.folder().join("binary"), [0, 159, 146, 150, 0, 1]).unwrap();
    for file in ["missing.yaml", "folder", "binary"] {
        let ran = project.run(&["-f", file, "up", "-d"]).fails(1);
        assert!(ran.err.contains(file), "{file}:\n{}", ran.err);
    }
    let ran = project.run(&["up", "-d", "b"]).fails(1);
    assert!(ran.err.contains("no such service") && ran.err.contains('b'), "{}", ran.err);
    project.assert_nothing_left();
}

#[test]
fn what_cannot_start_is_said_and_undone() {
    if !can_run_containers("what_cannot_start_is_said_and_undone") {
        return;
    }
    let cases: &[(&str, &[&str])] = &[
        ("image: no-such-image:1", &["no-such-image:1", "compose.yaml:1"]),
        ("image: rcompose/host, command: [no-such-program]", &["no-such-program", "a"]),
        (
            "image: rcompose/host, command: [./compose.yaml], working_dir: /x, volumes: ['.:/x']",
            &["compose.yaml", "executed"],
        ),
        ("image: rcompose/host, command: ['true'], user: nobody-here", &["nobody-here", "/etc/passwd"]),
        ("image: rcompose/host, command: ['true'], working_dir: /etc/passwd", &["/etc/passwd", "is a file"]),
        ("image: rcompose/host, command: ['true'], volumes: ['./compose.yaml:/etc']", &["/etc", "directory", "file"]),
        ("image: rcompose/host, command: ['true'], volumes: ['.:/etc/passwd']", &["/etc/passwd", "directory", "file"]),
        (
            "image: rcompose/host, command: ['true'], volumes: [{type: bind, source: ./missing, target: /x, bind: {create_host_path: false}}]",
            &["missing", "/x"],
        ),
    ];
    for (service, expected) in cases {
        let project = Project::new(&format!("services: {{a: {{{service}}}}}\n"));
        let ran = project.run(&["up", "-d"]).fails(1);
        for part in expected.iter().filter(|part| !part.starts_with("compose.yaml")) {
            assert!(ran.err.contains(part), "{service:?}: {part:?} is not in\n{}", ran.err);
        }
        assert!(!ran.err.contains("os error"), "a bare error number in\n{}", ran.err);
        project.run(&["down"]).ok();
        project.assert_nothing_left();
    }
}

#[test]
fn another_up_at_the_same_time_is_refused() {
    if !can_run_containers("another_up_at_the_same_time_is_refused") {
        return;
    }
    let project = Project::new(
        "services:
  db:
    {image: rcompose/host, command: [sleep, '1000'], stop_signal: SIGKILL,
     healthcheck: {test: [CMD, 'false'], interval: 100s, retries: 100}}
  web: {image: rcompose/host, command: [sleep, '1000'], depends_on: {db: {condition: service_healthy}}}
",
    );
    let mut first = project.command(&["up", "-d"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("db runs", || {
        project
            .ps()
            .iter()
            .any(|container| container["Service"] == "db" && container["State"] == "running")
            .then_some(())
    });
    // The same, another one, and one that would stay.
    for args in [&["up", "-d"][..], &["up", "-d", "--force-recreate"], &["up"]] {
        let second = project.run(args).fails(1);
        assert!(second.err.contains("`up` refused: `up` of the same project is still running"), "{}", second.err);
        assert!(second.err.contains("help: it began") && second.err.lines().count() == 2, "{}", second.err);
    }
    project.down();
    assert_ne!(first.wait().unwrap().code(), Some(0));
}

/// One error and the way out, before anything runs, in place of one for each container.
#[test]
fn too_few_descriptors_are_told_once() {
    if !can_run_containers("too_few_descriptors_are_told_once") {
        return;
    }
    let services: String =
        (0..20).map(|n| format!("  s{n}: {{image: rcompose/host, command: [sleep, '1000']}}\n")).collect();
    let project = Project::new(&format!("services:\n{services}"));
    // A process that is still there has the limits of whoever started it.
    let alone = || {
        eventually("no process of the project is left", || {
            (project.role("supervisor").is_empty() && project.role("keeper").is_empty()).then_some(())
        });
    };
    let limited = |limit: u32, args: &str| {
        let binary = project.binary();
        let script = format!("ulimit -n {limit}; exec {} {args}", binary.display());
        alone();
        project.run_by(std::path::Path::new("sh"), &["-c", &script])
    };
    let errors = |ran: &crate::support::Ran| ran.err.lines().filter(|line| line.starts_with("error: ")).count();
    let refused = limited(100, "up -d").fails(1);
    assert!(errors(&refused) == 1 && refused.err.contains("descriptors"), "{}", refused.err);
    assert!(refused.err.contains("ulimit -Hn") && !refused.err.contains("Started"), "{}", refused.err);
    project.assert_nothing_left();
    // Too few for the project's own processes.
    for limit in [8, 12] {
        let refused = limited(limit, "up -d").fails(1);
        assert!(refused.err.contains(&format!("may have {limit} open files")), "{}", refused.err);
    }
    // What has been made already is not counted before: then the way out is told once.
    limited(100, "create").fails(1);
    alone();
    project.run(&["create"]).ok();
    let refused = limited(60, "start").fails(1);
    assert!(refused.err.contains("Too many open files"), "{}", refused.err);
    assert_eq!(refused.err.matches("ulimit -Hn").count(), 1, "{}", refused.err);
    project.down();
    // What could be started leaves enough for whoever asks, and for a successor of the supervisor.
    for limit in [100, 130] {
        alone();
        project.run(&["create"]).ok();
        let refused = limited(limit, "start").fails(1);
        assert_eq!(refused.err.matches("ulimit -Hn").count(), 1, "{}", refused.err);
        let running = || project.ps().iter().filter(|one| one["State"] == "running").count();
        let started = running();
        assert!((1..10).contains(&started), "{started} run with {limit}");
        let supervisor = project.role("supervisor")[0];
        kill(supervisor, Signal::SIGKILL);
        eventually("the next supervisor", || {
            project.role("supervisor").first().filter(|pid| **pid != supervisor).copied()
        });
        let one = project.ps().iter().find(|one| one["State"] == "running").unwrap()["Service"].clone();
        project.run(&["exec", "-T", one.as_str().unwrap(), "true"]).ok();
        assert_eq!(running(), started);
        project.down();
    }
    // A keeper that could not take over what runs is not started.
    project.run(&["up", "-d"]).ok();
    // Stopped first: each of them starts the other one again.
    let both = [project.role("keeper")[0], project.role("supervisor")[0]];
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        both.into_iter().for_each(|pid| kill(pid, signal));
    }
    alone();
    let refused = limited(60, "down").fails(1);
    assert!(errors(&refused) == 1 && refused.err.contains("ulimit -Hn"), "{}", refused.err);
    assert_eq!(project.ps().iter().filter(|one| one["State"] == "running").count(), 20);
    project.down();
    // Those that run when no descriptor is left to take them over with are not forgotten.
    for limit in [280, 290, 300, 310, 320, 330] {
        limited(limit, "up -d");
        project.down();
    }
    // Enough of them, also for what starts take for a moment.
    limited(600, "up -d").ok();
    project.down();
}

/// `create` takes it for nothing to do, as in the reference.
#[test]
fn up_of_no_service_is_an_error() {
    let project = Project::new("services:\n  a: {image: rcompose/host, profiles: [x]}\n");
    for args in [&["up"][..], &["up", "-d"], &["up", "--no-start"], &["up", "--dry-run"], &["plan"]] {
        let ran = project.run(args).fails(1);
        assert_eq!(ran.err, "error: no service selected\n");
    }
    project.run(&["create"]).ok();
    project.run(&["down"]).ok();
    project.assert_nothing_left();
}

/// It may be any program of the user's, and stay there for ever.
#[test]
fn who_says_nothing_at_the_control_socket_keeps_no_supervisor() {
    if !can_run_containers("who_says_nothing_at_the_control_socket_keeps_no_supervisor") {
        return;
    }
    let project =
        Project::new("services:\n  a: {image: rcompose/host, command: [sleep, '1000'], stop_signal: SIGKILL}\n");
    project.run(&["up", "-d"]).ok();
    let socket = project.root().join("run").join(&project.name).join("control.sock");
    let silent = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let mut half = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    std::io::Write::write_all(&mut half, &[9, 0, 0, 0, b'{']).unwrap();
    project.down();
    drop((silent, half));
}

/// Whoever can open it can lock it, and keep everybody's commands waiting.
#[test]
fn nobody_else_can_hold_a_projects_lock() {
    if !can_run_containers("nobody_else_can_hold_a_projects_lock") {
        return;
    }
    let project =
        Project::new("services:\n  a: {image: rcompose/host, command: [sleep, '1000'], stop_signal: SIGKILL}\n");
    project.run(&["up", "-d"]).ok();
    let lock = project.root().join("run").join(&project.name).join("lock");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&lock).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    project.down();
}

/// The record of what was to be made does not outlive it, and who waits in vain is told once.
#[test]
fn a_network_that_cannot_be_made_leaves_nothing() {
    if !can_run_containers("a_network_that_cannot_be_made_leaves_nothing") {
        return;
    }
    let project = Project::new(
        "services:
  a: {image: rcompose/host, command: [sleep, '1000'], networks: [n], healthcheck: {test: 'true'}}
  b: {image: rcompose/host, command: [sleep, '1000'], networks: [n], depends_on: {a: {condition: service_healthy}}}
networks:
  n: {driver: macvlan, driver_opts: {parent: nosuchlink}}
",
    );
    let refused = project.run(&["up", "-d", "--wait"]).fails(1);
    for name in ["a-1", "b-1"] {
        let told = format!("{}-{name}  Canceled", project.name);
        assert_eq!(refused.err.matches(&told).count(), 1, "{}", refused.err);
    }
    eventually("nothing is left", || {
        (!project.root().join("data/projects").join(&project.name).exists()).then_some(())
    });
    project.run(&["down"]).ok();
    project.assert_nothing_left();
}

#[test]
fn no_permission_is_said() {
    if !nix::unistd::geteuid().is_root() {
        println!("no_permission_is_said: skipped: needs root to become nobody");
        return;
    }
    use std::os::unix::process::CommandExt;
    let project = Project::new("services: {a: {image: rcompose/host, command: ['true']}}\n");
    fs::create_dir_all(project.root()).unwrap();
    let mut command = project.command(&["up", "-d"]);
    // The test folders are readable by their owner only, so the file itself is what nobody may not read.
    let ran: crate::support::Ran = command
        .uid(65534)
        .gid(65534)
        .output()
        .map(Into::into)
        .unwrap_or(crate::support::Ran { code: 1, out: String::new(), err: "permission".into() });
    let ran = ran.fails(1);
    assert!(ran.err.contains("permission") || ran.err.contains("by root only"), "{}", ran.err);
}

#[test]
fn names_and_variables_that_make_no_sense() {
    let project = Project::new("services: {a: {image: x}}\n");
    fs::remove_file(project.folder().join("compose.yaml")).unwrap();
    let with = |variable: &str, value: &str| -> crate::support::Ran {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rcompose"));
        command.args(["ps", "-a"]).current_dir(project.folder()).env_clear().env("RCOMPOSE_ROOT", project.root());
        command.env(variable, value).stdin(Stdio::null()).output().unwrap().into()
    };
    for (variable, value) in [
        ("COMPOSE_PROJECT_NAME", "../../etc"),
        ("COMPOSE_ANSI", "sometimes"),
        ("COMPOSE_PROGRESS", "sometimes"),
        ("COMPOSE_PARALLEL_LIMIT", "many"),
        ("COMPOSE_FILE", "missing-file.yaml"),
        ("COMPOSE_ENV_FILES", "missing-file.env"),
    ] {
        let ran = with(variable, value).fails(1);
        assert!(ran.err.contains(value) && ran.out.is_empty(), "{variable}: {}", ran.err);
    }
    assert!(!project.root().exists(), "something was made");
}

#[test]
fn a_port_that_somebody_has_is_said_before_anything_is_made() {
    if !can_run_containers("a_port_that_somebody_has_is_said_before_anything_is_made") {
        return;
    }
    if needs_root("a_port_that_somebody_has_is_said_before_anything_is_made", "root's processes cannot be named") {
        return;
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let service = |port: u16| format!("image: rcompose/host, command: [sleep, '1000'], ports: ['127.0.0.1:{port}:80']");
    let project = Project::new(&format!("services: {{a: {{{}}}}}\n", service(port)));
    let ran = project.run(&["up", "-d"]).fails(1);
    let own = format!("(process {})", std::process::id());
    assert!(ran.err.contains(&port.to_string()) && ran.err.contains(&own), "{}", ran.err);
    drop(taken);
    let ran = project.run(&["up", "-d", "--scale", "a=2"]).fails(1);
    assert!(ran.err.contains("both want to publish") && ran.err.contains(&port.to_string()), "{}", ran.err);
    assert!(project.ps().is_empty());
    project.run(&["down"]).ok();
    project.assert_nothing_left();
}

#[test]
fn an_unhealthy_dependency_shows_its_check_and_its_output() {
    if !can_run_containers("an_unhealthy_dependency_shows_its_check_and_its_output") {
        return;
    }
    let project = Project::new(
        "services:
  db:
    {image: rcompose/host, command: [sh, -c, 'echo out of luck; exec sleep 1000'], stop_signal: SIGKILL,
     healthcheck: {test: [CMD, sh, -c, 'echo no answer; exit 7'], interval: 100ms, retries: 1}}
  web: {image: rcompose/host, command: [sleep, '1000'], depends_on: {db: {condition: service_healthy}}}
",
    );
    let ran = project.run(&["up", "-d"]).fails(1);
    for part in ["unhealthy", "exit status 7", "no answer", "out of luck", "web -> db", "web-1  Canceled"] {
        assert!(ran.err.contains(part), "{part:?} is not in\n{}", ran.err);
    }
    project.down();
}

/// How long the project's one container ran.
fn lifetime(project: &Project) -> Option<std::time::Duration> {
    let events = project.run(&["events", "--json", "--since", "1h", "--until", "0s"]).ok().out;
    let events: Vec<serde_json::Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let at = |action: &str| {
        let event = events.iter().find(|event| event["action"] == action)?;
        Some(event["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap())
    };
    Some(at("die")?.duration_since(at("start")?).unsigned_abs())
}

#[test]
fn waiting_for_one_that_dies_at_once_fails() {
    if !can_run_containers("waiting_for_one_that_dies_at_once_fails") {
        return;
    }
    let project = Project::new("services: {a: {image: rcompose/host, command: [sh, -c, 'echo dying; exit 3']}}\n");
    let ran = project.run(&["up", "--wait"]);
    if ran.code == 0 {
        let lived = eventually("its end", || lifetime(&project));
        assert!(lived.as_millis() >= 500, "it was up though it lived for {lived:?} only");
        println!("waiting_for_one_that_dies_at_once_fails: skipped: this machine takes {lived:?} to end a program");
    } else {
        assert!(ran.err.contains("exited (3)") && ran.err.contains("dying"), "{}", ran.err);
    }
    project.down();
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    if !can_run_containers("a_full_disk_is_said_and_leaves_nothing") {
        return;
    }
    if needs_root("a_full_disk_is_said_and_leaves_nothing", "the disk of this test is root's") {
        return;
    }
    let service = "image: rcompose/host, command: [sleep, '1000'], stop_signal: SIGKILL";
    let project = Project::new(&format!(
        "services:\n  a: {{{service}, volumes: ['data:/data']}}\n  b: {{{service}}}\nvolumes: {{data: {{}}}}\n"
    ));
    let disk = Disk::mount(&project.root(), "size=8m");
    project.run(&["up", "-d"]).ok();
    project.run(&["down", "-v"]).ok();
    let filler = project.root().join("filler");
    for free in [0, 2, 4, 8, 16, 24] {
        let mut fill = fs::File::create(&filler).unwrap();
        let page = [1; 4096];
        while std::io::Write::write_all(&mut fill, &page).is_ok() {}
        fill.set_len(fill.metadata().unwrap().len().saturating_sub(free * 4096)).unwrap();
        let ran = project.run(&["up", "-d"]);
        if ran.code != 0 {
            assert_eq!(ran.code, 1, "{}", ran.err);
            let said = ran.err.to_lowercase();
            assert!(said.contains("no space left"), "with {free} pages free:\n{}", ran.err);
        }
        // The room is free when nobody has the file open any more.
        drop(fill);
        fs::remove_file(&filler).unwrap();
        project.run(&["down", "-v", "-t", "0"]).ok();
        gone(&project);
    }
    project.run(&["up", "-d"]).ok();
    project.run(&["down", "-v", "-t", "0"]).ok();
    gone(&project);
    drop(disk);
    project.assert_nothing_left();
}

/// Waits until neither processes nor containers of the project are left. A record that could not be written to its end
/// may stay; the next command deals with it.
fn gone(project: &Project) {
    eventually("keeper, supervisor and containers go", || {
        let processes = project.role("keeper").len() + project.role("supervisor").len();
        let containers = project.root().join("data/projects").join(&project.name).join("containers");
        let none = fs::read_dir(containers).map_or(true, |mut entries| entries.next().is_none());
        (processes == 0 && none).then_some(())
    });
}

/// A small disk of its own, gone with the test.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(at: &std::path::Path, options: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options)).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_current_folder_that_is_gone_is_said_to_be() {
    let project = Project::new("services: {}\n");
    let script = format!("mkdir gone && cd gone && rmdir ../gone && exec {} ps", project.binary().display());
    let mut command = std::process::Command::new("sh");
    let ran = crate::support::Ran::from(command.args(["-c", &script]).current_dir(project.folder()).output().unwrap());
    let ran = ran.fails(1);
    assert!(ran.err.contains("cannot find the current folder") && ran.err.contains("`cd` into"), "{}", ran.err);
    assert!(!ran.err.contains("os error"), "{}", ran.err);
}
