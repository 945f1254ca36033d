//! Containers that another OCI runtime makes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::sys::signal::Signal;

use super::shell;
use crate::support::{Project, Ran, can_run_containers, eventually, kill, needs_root};

/// A project in which `runtime: other` is a program that notes its calls and hands them to runc.
struct Other {
    project: Project,
    path: String,
}

impl Other {
    fn new(test: &str, compose: &str) -> Option<Self> {
        if !can_run_containers(test) || needs_root(test, "what runtimes can do depends on the host") {
            return None;
        }
        if Command::new("runc").arg("--version").output().is_err() {
            println!("{test}: skipped: no runc");
            return None;
        }
        let project = Project::new(compose);
        let folder = project.folder();
        let script = format!("#!/bin/sh\necho \"$@\" >> '{}/calls'\nexec runc \"$@\"\n", folder.display());
        fs::write(folder.join("other"), script).unwrap();
        fs::set_permissions(folder.join("other"), fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        Some(Self { project, path })
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.project.command(args).env("PATH", &self.path).output().unwrap().into()
    }

    fn calls(&self, verb: &str) -> usize {
        let calls = fs::read_to_string(self.project.folder().join("calls")).unwrap_or_default();
        calls.lines().filter(|line| line.split(' ').any(|word| word == verb)).count()
    }

    fn down(&self) {
        self.run(&["down", "-t", "0"]).ok();
        self.project.assert_nothing_left();
    }
}

#[test]
fn another_runtime_makes_the_container_and_all_else_stays_ours() {
    let script = shell("echo out; echo err >&2; trap 'exit 7' TERM; while :; do sleep 0.05; done");
    let compose = format!(
        "services:\n  a: {{{}, runtime: other, mem_limit: 48m, environment: {{A: one}}}}\n  b: {{{}}}\n",
        script.replace("SIGKILL", "SIGTERM"),
        shell("exec sleep 1000")
    );
    let Some(other) = Other::new("another_runtime_makes_the_container_and_all_else_stays_ours", &compose) else {
        return;
    };
    let project = &other.project;
    other.run(&["up", "-d"]).ok();
    assert_eq!((other.calls("create"), other.calls("start")), (1, 1));
    let logs = || project.run(&["logs", "--no-log-prefix", "a"]).ok().out;
    eventually("its output", || (logs().contains("out\n") && logs().contains("err\n")).then_some(()));
    let inside = project.run(&["exec", "-T", "a", "sh", "-c", "echo $A; tr '\\0' ' ' < /proc/1/cmdline"]).ok();
    assert!(inside.out.starts_with("one\nsh -c "), "{}", inside.out);
    let found = project.run(&["exec", "-T", "b", "getent", "hosts", "a"]).ok();
    assert!(found.out.contains("172.") || found.out.contains("192.") || found.out.contains("10."), "{}", found.out);
    let stats = project.run(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}"]).ok();
    assert!(stats.out.lines().any(|line| line.contains("-a-1") && line.ends_with("/ 48MiB")), "{}", stats.out);
    project.run(&["pause", "a"]).ok();
    project.run(&["unpause", "a"]).ok();
    // It is nobody's child by then, and is found all the same.
    for role in ["keeper", "supervisor"] {
        project.role(role).into_iter().for_each(|pid| kill(pid, Signal::SIGKILL));
    }
    other.run(&["up", "-d"]).ok();
    assert_eq!(other.calls("create"), 1, "it went on");
    other.run(&["restart", "a"]).ok();
    assert_eq!((other.calls("create"), other.calls("delete")), (2, 1));
    other.run(&["stop", "a"]).ok();
    assert_eq!(project.container("a")["ExitCode"], 7);
    other.down();
}

/// Both ways: in one that it makes, and of one that it has made.
#[test]
fn another_runtime_gives_the_memory_of_the_container_whose_ipc_is_joined() {
    let idle = shell("exec sleep 1000");
    let compose = format!(
        "services:
  a: {{{idle}, ipc: shareable}}
  b: {{{idle}, runtime: other, ipc: 'service:a', depends_on: [a]}}
  c: {{{idle}, runtime: other, ipc: shareable}}
  d: {{{idle}, ipc: 'service:c', depends_on: [c]}}
  e: {{{idle}, runtime: other, ipc: 'service:a', tmpfs: ['/dev/shm:size=1m'], depends_on: [a]}}\n"
    );
    let test = "another_runtime_gives_the_memory_of_the_container_whose_ipc_is_joined";
    let Some(other) = Other::new(test, &compose) else { return };
    other.run(&["up", "-d"]).ok();
    let inside = |service: &str, script: &str| other.run(&["exec", "-T", service, "sh", "-c", script]).ok().out;
    for (owner, guest) in [("a", "b"), ("c", "d")] {
        inside(owner, "echo theirs > /dev/shm/file");
        let said = inside(guest, "cat /dev/shm/file; echo ours > /dev/shm/file; grep -c ' /dev/shm ' /proc/mounts");
        assert_eq!(said, "theirs\n1\n", "{guest}");
        assert_eq!(inside(owner, "cat /dev/shm/file"), "ours\n", "{guest}");
    }
    assert_eq!(inside("e", "ls /dev/shm; grep -c ' /dev/shm ' /proc/mounts"), "1\n");
    other.down();
}

#[test]
fn another_runtime_gives_a_terminal() {
    let compose =
        format!("services:\n  a: {{{}, runtime: other, tty: true}}\n", shell("tty; stty size; exec sleep 1000"));
    let Some(other) = Other::new("another_runtime_gives_a_terminal", &compose) else { return };
    other.run(&["up", "-d"]).ok();
    let logs = || other.project.run(&["logs", "--no-log-prefix"]).ok().out;
    eventually("its output", || logs().contains("24 80").then_some(()));
    assert!(logs().contains("/dev/pts/0"), "{}", logs());
    other.down();
}

#[test]
fn another_runtime_has_our_init_process_too() {
    let script = shell(
        "tr '\\0' ' ' < /proc/1/cmdline; echo; (sleep 0.2 & exec true); trap 'echo term; exit 7' TERM; sleep 1; \
         cat /proc/[0-9]*/status | grep -c '^State:.Z'; cat /proc/$$/stat | cut -d ' ' -f 4; echo x > /sbin/docker-init; echo ready; \
         while :; do sleep 0.05; done",
    );
    let compose = format!(
        "services:\n  a: {{{}, runtime: other, init: true}}\n  b: {{{}, runtime: other, init: true, tty: true}}
  c: {{image: rcompose/host, command: [not-there], runtime: other, init: true}}\n",
        script.replace("SIGKILL", "SIGTERM"),
        shell("exec sh -c 'stty size; exec kill -9 $$'"),
    );
    let Some(other) = Other::new("another_runtime_has_our_init_process_too", &compose) else { return };
    let project = &other.project;
    other.run(&["up", "-d"]).ok();
    let logs = |service: &str| project.run(&["logs", "--no-log-prefix", service]).ok().out;
    let said = eventually("its output", || Some(logs("a")).filter(|said| said.contains("\nready")));
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("/sbin/docker-init reaper-process -- sh -c "), "{said}");
    assert_eq!(lines[1..3], ["0", "1"], "nobody is left a zombie, and the program is its child: {said}");
    assert!(said.contains("Read-only file system") || said.contains("Text file busy"), "{said}");
    eventually("the other ends", || {
        let exited = |service: &str| project.container(service)["State"] == "exited";
        (exited("b") && exited("c")).then_some(())
    });
    assert_eq!(project.container("b")["ExitCode"], 137);
    assert!(logs("b").contains("24 80"), "{}", logs("b"));
    assert_eq!(project.container("c")["ExitCode"], 127);
    assert_eq!(logs("c"), "cannot execute `not-there`: No such file or directory\n");
    other.run(&["stop", "a"]).ok();
    assert_eq!(project.container("a")["ExitCode"], 7);
    assert!(logs("a").ends_with("term\n"), "{}", logs("a"));
    other.down();
}

#[test]
fn what_another_runtime_complains_about_is_told() {
    let compose = "services:\n  a: {image: rcompose/host, command: [/not/there], runtime: other}\n";
    let Some(other) = Other::new("what_another_runtime_complains_about_is_told", compose) else { return };
    let up = other.run(&["up", "-d"]).fails(1);
    assert!(up.err.contains("`other ") && up.err.contains("/not/there"), "{}", up.err);
    other.down();
}

#[test]
fn a_runtime_that_is_not_there_is_told_before_anything_is_made() {
    if !can_run_containers("a_runtime_that_is_not_there_is_told_before_anything_is_made") {
        return;
    }
    let project = Project::new("services:\n  a: {image: rcompose/host, runtime: no-such-runtime}\n");
    let up = project.run(&["up", "-d"]).fails(1);
    assert!(up.err.contains("there is no runtime `no-such-runtime`"), "{}", up.err);
    assert!(project.ps().is_empty());
    project.down();
}

#[test]
fn mounts_spread_from_and_to_containers_of_another_runtime() {
    let test = "mounts_spread_from_and_to_containers_of_another_runtime";
    let Some(other) = Other::new(test, "services: {}") else { return };
    let host = tempfile::tempdir().unwrap();
    let none: Option<&str> = None;
    let mount = |path: &std::path::Path| {
        nix::mount::mount(Some("t"), path, Some("tmpfs"), nix::mount::MsFlags::empty(), none).unwrap();
    };
    mount(host.path());
    nix::mount::mount(none, host.path(), none, nix::mount::MsFlags::MS_SHARED, none).unwrap();
    ["inner", "outer"].iter().for_each(|name| fs::create_dir(host.path().join(name)).unwrap());
    let script = shell(
        "mount -t tmpfs t /shared/inner && touch /shared/inner/marker /shared/go; \
         until [ -e /shared/outer/marker ]; do sleep 0.05; done; \
         for at in shared slave private; do [ -e /$at/outer/marker ] && echo $at; done; echo over",
    );
    let source = host.path().display();
    let text = format!(
        "services:\n  a: {{{script}, runtime: other, cap_add: [SYS_ADMIN], \
         volumes: ['{source}:/shared:rshared', '{source}:/slave:rslave', '{source}:/private']}}\n"
    );
    other.project.write("compose.yaml", &text);
    other.run(&["up", "-d"]).ok();
    eventually("the container's mount", || host.path().join("go").exists().then_some(()));
    let inner = host.path().join("inner/marker").exists();
    mount(&host.path().join("outer"));
    fs::write(host.path().join("outer/marker"), "").unwrap();
    let logs = || other.project.run(&["logs", "--no-log-prefix"]).ok().out;
    let said = eventually("its output", || Some(logs()).filter(|said| said.contains("over")));
    other.down();
    for name in ["inner", "outer"] {
        nix::mount::umount2(&host.path().join(name), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
    nix::mount::umount2(host.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert!(inner, "the container's mount is not the host's");
    assert_eq!(said, "shared\nslave\nover\n");
}
