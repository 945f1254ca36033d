use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use oci_spec::runtime::{LinuxDeviceCgroupBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder};
use rustix::event::{PollFd, PollFlags};

use super::*;

/// The machine's hierarchies, when we may make groups in them.
fn hierarchies(test: &str) -> Option<Hierarchies> {
    match Hierarchies::detect() {
        Ok(found) if rustix::process::geteuid().is_root() => Some(found),
        Ok(_) => {
            println!("skipped: {test}: needs root");
            None
        }
        Err(error) => {
            println!("skipped: {test}: {error}");
            None
        }
    }
}

/// A group path that is this test's own, removed at the end whatever happens.
struct Scratch {
    hierarchies: Hierarchies,
    path: String,
}

impl Scratch {
    fn new(hierarchies: &Hierarchies, name: &str) -> Self {
        let path = format!("rcompose-test-{}-{name}/project/container", std::process::id());
        Self { hierarchies: hierarchies.clone(), path }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Ok(group) = Cgroup::open(&self.hierarchies, &self.path) {
            let _ = group.kill();
            let _ = group.remove();
        }
        let _ = remove_empty(&self.hierarchies, &self.path);
    }
}

/// A shell that waits for a line before it runs the script, put into the group meanwhile.
fn run_in(group: &Cgroup, script: &str) -> Child {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("read go; {script}")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    enter(group, &child);
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    child
}

fn enter(group: &Cgroup, child: &Child) {
    let entry = group.entry().unwrap();
    let pid = child.id().to_string();
    if let Some(v2) = entry.v2 {
        let flags = rustix::fs::OFlags::WRONLY;
        let procs = rustix::fs::openat(&v2, "cgroup.procs", flags, rustix::fs::Mode::empty()).unwrap();
        rustix::io::write(&procs, pid.as_bytes()).unwrap();
    }
    for procs in entry.v1 {
        rustix::io::write(&procs, pid.as_bytes()).unwrap();
    }
}

fn denying_devices() -> LinuxResources {
    let deny = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build().unwrap();
    LinuxResourcesBuilder::default().devices(vec![deny]).build().unwrap()
}

/// Without cgroup2, to exercise v1 on a hybrid machine.
fn v1_only(hierarchies: &Hierarchies) -> Hierarchies {
    Hierarchies { v1: hierarchies.v1.clone(), ..Hierarchies::default() }
}

fn check_devices(hierarchies: &Hierarchies, name: &str) {
    let scratch = Scratch::new(hierarchies, name);
    let (group, _) = Cgroup::create(hierarchies, &scratch.path, &denying_devices()).unwrap();
    let node = format!("/tmp/rcompose-{name}-{}", std::process::id());
    // /dev/kmsg (1:11) is a device that nobody is given.
    let script = format!(
        "echo x >/dev/null && echo null; mknod {node} c 1 11 && echo made; head -c0 {node} 2>/dev/null && echo read; rm -f {node}"
    );
    let output = run_in(&group, &script).wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "null\nmade\n");
    group.remove().unwrap();
    remove_empty(hierarchies, &scratch.path).unwrap();
    assert!(Cgroup::open(hierarchies, &scratch.path).unwrap().v2.is_none());
}

#[test]
fn devices_are_refused_by_an_ebpf_program() {
    let Some(found) = hierarchies("devices_are_refused_by_an_ebpf_program") else { return };
    if found.v2.is_none() {
        println!("skipped: devices_are_refused_by_an_ebpf_program: no cgroup2 mounted");
        return;
    }
    check_devices(&found, "devices-v2");
}

#[test]
fn devices_are_refused_by_v1() {
    let Some(found) = hierarchies("devices_are_refused_by_v1") else { return };
    if !found.v1.contains_key("devices") {
        println!("skipped: devices_are_refused_by_v1: no v1 devices controller mounted");
        return;
    }
    check_devices(&v1_only(&found), "devices-v1");
}

fn check_kill(hierarchies: &Hierarchies, name: &str) {
    let scratch = Scratch::new(hierarchies, name);
    let (group, _) = Cgroup::create(hierarchies, &scratch.path, &LinuxResources::default()).unwrap();
    let mut child = run_in(&group, "sleep 100 & sleep 100");
    group.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    group.remove().unwrap();
    remove_empty(hierarchies, &scratch.path).unwrap();
    let top = scratch.path.split('/').next().unwrap().to_owned();
    let left = Cgroup::open(hierarchies, &top).unwrap();
    assert!(left.v2.is_none() && left.v1.is_empty(), "left: {left:?}");
}

#[test]
fn kill_ends_all_and_nothing_is_left() {
    let Some(found) = hierarchies("kill_ends_all_and_nothing_is_left") else { return };
    if !found.v1.is_empty() {
        check_kill(&v1_only(&found), "kill-v1");
    }
    if found.v2.is_some() {
        check_kill(&found, "kill-v2");
    }
}

#[test]
fn limits_are_in_force() {
    let Some(found) = hierarchies("limits_are_in_force") else { return };
    let scratch = Scratch::new(&found, "limits");
    let pids = LinuxPidsBuilder::default().limit(1).build().unwrap();
    let resources = LinuxResourcesBuilder::default().pids(pids).build().unwrap();
    let (group, left_out) = match Cgroup::create(&found, &scratch.path, &resources) {
        Err(CgroupError::NoController { .. }) => {
            println!("skipped: limits_are_in_force: no pids controller");
            return;
        }
        made => made.unwrap(),
    };
    assert!(left_out.is_empty());
    let output = run_in(&group, "(true) 2>/dev/null && echo forked; true").wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[test]
fn a_refused_value_is_named_and_leaves_nothing() {
    let Some(found) = hierarchies("a_refused_value_is_named_and_leaves_nothing") else { return };
    if !found.v1.contains_key("cpuset") && !found.v2.as_ref().is_some_and(|v2| v2.controllers.contains("cpuset")) {
        println!("skipped: a_refused_value_is_named_and_leaves_nothing: no cpuset controller");
        return;
    }
    let scratch = Scratch::new(&found, "refused");
    let cpu = oci_spec::runtime::LinuxCpuBuilder::default().cpus("9999").build().unwrap();
    let resources = LinuxResourcesBuilder::default().cpu(cpu).build().unwrap();
    let error = Cgroup::create(&found, &scratch.path, &resources).unwrap_err();
    assert!(error.to_string().starts_with("the kernel refuses `9999` for `/sys/fs/cgroup/"), "{error}");
    let left = Cgroup::open(&found, &scratch.path).unwrap();
    assert!(left.v2.is_none() && left.v1.is_empty(), "left: {left:?}");
}

#[test]
fn paths_stay_inside() {
    for path in ["", "/x", "a/../b", "a//b", "."] {
        assert!(matches!(check(path), Err(CgroupError::BadPath(_))), "{path}");
    }
}

#[test]
fn frozen_processes_do_not_run() {
    let Some(found) = hierarchies("frozen_processes_do_not_run") else { return };
    let variants = [("v1", v1_only(&found), !found.v1.is_empty()), ("v2", found.clone(), found.v2.is_some())];
    for (name, hierarchies, _) in variants.into_iter().filter(|(.., there)| *there) {
        let scratch = Scratch::new(&hierarchies, &format!("freeze-{name}"));
        let (group, _) = Cgroup::create(&hierarchies, &scratch.path, &LinuxResources::default()).unwrap();
        let mut child = Command::new("sh")
            .arg("-c")
            .arg("read go; echo on")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        enter(&group, &child);
        group.freeze().unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let output = child.stdout.take().unwrap();
        let mut waiting = [PollFd::new(&output, PollFlags::IN)];
        let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        assert_eq!(rustix::event::poll(&mut waiting, Some(&moment)).unwrap(), 0, "{name}: it went on");
        group.thaw().unwrap();
        assert_eq!(io::read_to_string(output).unwrap(), "on\n", "{name}");
        assert!(child.wait().unwrap().success());
        group.remove().unwrap();
    }
}
