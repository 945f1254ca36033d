//! Every kind of bad input: a clear message on standard error, a status other than 0, nothing half-made.

use std::fs;
use std::process::Stdio;

use crate::support::{Project, can_run_containers};

/// What the file holds, what the message must contain.
const FILES: &[(&str, &[&str])] = &[
    ("", &["compose.yaml", "empty"]),
    ("services: [", &["compose.yaml:"]),
    ("services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n", &["cycle", "a -> b -> a"]),
    ("services:\n  a:\n    image: x\n    enviroment: {A: b}\n", &["compose.yaml:4:5", "enviroment", "`environment`"]),
    ("services:\n  a:\n    image: x\n    ports: ['70000:80']\n", &["compose.yaml:4", "70000"]),
    ("services:\n  a: {build: .}\n", &["compose.yaml:2", "build", "not"]),
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
        project.run(&["down"]).ok();
        project.assert_nothing_left();
    }
}

#[test]
fn a_second_up_at_the_same_time_is_refused() {
    if !can_run_containers("a_second_up_at_the_same_time_is_refused") {
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
    crate::support::eventually("db runs", || {
        project
            .ps()
            .iter()
            .any(|container| container["Service"] == "db" && container["State"] == "running")
            .then_some(())
    });
    let second = project.run(&["up", "-d"]).fails(1);
    assert!(second.err.contains("up"), "{}", second.err);
    project.down();
    assert_ne!(first.wait().unwrap().code(), Some(0));
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
