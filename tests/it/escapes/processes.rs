//! Processes that come into a container from outside, and those that are there.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::{container, judge};
use crate::oci::bundle::{Bundle, cannot_run};
use crate::support::{Project, can_run_containers, eventually, finish, kill, needs_root};

/// Looks through every process it can see for the host's files and memory, until it is told to stop.
const LOOK_INTO: &str = "
    echo ready >/tmp/ready
    while ! [ -e /tmp/stop ]; do
        for process in /proc/[0-9]*; do
            [ $process = /proc/1 ] && continue
            for way in root cwd; do
                cat $process/$way$PRIZE 2>/dev/null && echo \"through $process/$way\"
            done
            for fd in $process/fd/*; do
                [ -d $fd/ ] && ls $fd/ | grep prize && echo \"through $fd\"
            done 2>/dev/null
        done
    done";

/// CVE-2016-9962: while a process enters the container it still has what is the host's. With the right to look into any
/// process of the container, which debuggers are given.
#[test]
fn a_process_that_enters_cannot_be_looked_into() {
    if cannot_run() {
        return;
    }
    for weakened in [false, true] {
        let mut bundle = container("look", LOOK_INTO);
        for set in ["bounding", "effective", "permitted"] {
            bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_SYS_PTRACE"));
        }
        let prize = bundle.outside("prize");
        fs::write(&prize, "prize\n").unwrap();
        bundle.push("/process/env", json!(format!("PRIZE={}", prize.display())));
        let output = bundle.create();
        bundle.start();
        while !bundle.rootfs().join("tmp/ready").exists() {
            std::thread::yield_now();
        }
        if weakened {
            // The naive way: into the pid namespace, and only then into the rest.
            let pid = bundle.state()["pid"].to_string();
            let naive = format!("sleep 1; exec nsenter -t {pid} -m -r -w /bin/true");
            let status = Command::new("nsenter").args(["-t", &pid, "-p", "sh", "-c", &naive]).status();
            assert!(status.unwrap().success());
        } else {
            for _ in 0..40 {
                bundle.ok(&["exec", &bundle.id, "true"]);
            }
        }
        fs::write(bundle.rootfs().join("tmp/stop"), "").unwrap();
        bundle.wait();
        let seen = fs::read_to_string(output).unwrap();
        assert_eq!(seen.contains("prize"), weakened, "weakened: {weakened}: {seen}");
    }
}

#[test]
fn processes_of_the_host_cannot_be_seen_or_signalled() {
    if cannot_run() {
        return;
    }
    let script = "for process in /proc/[0-9]*; do [ ${process#/proc/} -gt 30 ] && cat $process/environ 2>/dev/null | tr '\\0' '\\n'; \
        done | grep ^RCOMPOSE_PRIZE=; kill -0 $HOST_PID 2>/dev/null && echo reached; true";
    let prepare = |bundle: &mut Bundle| {
        bundle.push("/process/env", json!(format!("HOST_PID={}", std::process::id())));
    };
    let weaken = |bundle: &mut Bundle| {
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    };
    judge("signal", script, prepare, weaken, |_, printed| printed.contains("reached"));
}

/// A container's process ends, and its number becomes that of a process of the host, before the supervisor hears of it: what is to
/// run in the container, such as its health check, would run where that one is.
#[test]
fn a_number_that_somebody_else_has_got_leads_nowhere() {
    let test = "a_number_that_somebody_else_has_got_leads_nowhere";
    if !can_run_containers(test) || needs_root(test, "numbers are chosen") {
        return;
    }
    let project =
        Project::new("services:\n  a: {image: rcompose/host, command: [sleep, '1000'], stop_signal: SIGKILL}\n");
    project.run(&["up", "-d"]).ok();
    let found = fs::read_dir(project.root().join("data/projects").join(&project.name).join("containers")).unwrap();
    let state = found.map(|folder| folder.unwrap().path().join("state.json")).next().unwrap();
    let state: serde_json::Value = serde_json::from_slice(&fs::read(state).unwrap()).unwrap();
    let pid = i32::try_from(state["run"]["pid"].as_i64().unwrap()).unwrap();
    let supervisor = project.role("supervisor")[0];
    kill(supervisor, Signal::SIGSTOP);
    let asking = project.spawn(&["exec", "-T", "a", "cat", "/proc/self/mountinfo"]);
    // It sends its wish and waits.
    std::thread::sleep(Duration::from_millis(700));
    kill(pid, Signal::SIGKILL);
    eventually("its end", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    let mut other = eventually("the number", || {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        if other.id() == pid.cast_unsigned() {
            return Some(other);
        }
        other.kill().and_then(|()| other.wait()).unwrap();
        None
    });
    kill(supervisor, Signal::SIGCONT);
    let ran = finish(asking);
    other.kill().and_then(|()| other.wait()).unwrap();
    // The container's end may also be heard of first.
    assert!(
        ran.code != 0 && (ran.err.contains("has ended") || ran.err.contains("does not run")),
        "{}{}",
        ran.out,
        ran.err
    );
    project.down();
}

/// What `ps` and `list` print must not do anything to the caller's terminal.
#[test]
fn names_of_processes_are_printed_without_control_characters() {
    if cannot_run() {
        return;
    }
    let bundle = container("names", "printf '\\033[2Jx\\n' >/proc/self/comm; echo ready >/tmp/ready; sleep 60 & wait");
    bundle.create();
    bundle.start();
    while !bundle.rootfs().join("tmp/ready").exists() {
        std::thread::yield_now();
    }
    let listed = bundle.ok(&["ps", &bundle.id]);
    assert!(listed.contains("[2Jx") && !listed.contains('\u{1b}'), "{listed:?}");
    // The attack is a real one: as the kernel has the name.
    let name = fs::read_to_string(format!("/proc/{}/comm", bundle.state()["pid"])).unwrap();
    assert!(name.contains("\u{1b}[2Jx"), "{name:?}");
}
