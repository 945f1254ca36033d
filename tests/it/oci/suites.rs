//! What the conformance suites of others found.

use std::process::{Command, Stdio};

use serde_json::json;

use super::bundle::{Bundle, cannot_run, text};

/// Has the runtime inherit a descriptor that is not marked to be closed; what the program printed.
fn with_open_file(bundle: &Bundle, arguments: &[&str]) -> String {
    let command = bundle.command(arguments);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec 9</etc/hosts; exec \"$@\"", "-"]).arg(command.get_program()).args(command.get_args());
    let output = shell.current_dir(bundle.folder.path()).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_filter_older_than_what_a_start_needs_stops_nothing_and_leaks_nothing() {
    if cannot_run() {
        return;
    }
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::new("old-filter", "sleep 60");
        let newer = ["openat2", "close_range", "faccessat2"];
        bundle.set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": newer, "action": "SCMP_ACT_ERRNO" }],
            }),
        );
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
        bundle.set("/process/user", json!({ "uid": 7, "gid": 7 }));
        bundle.set("/process/cwd", json!("/tmp"));
        let mut command = bundle.command(&["run", "--detach", &bundle.id]);
        assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
        let exec = ["exec", &bundle.id, "/bin/sh", "-c", "pwd; ls /proc/self/fd"];
        assert_eq!(with_open_file(&bundle, &exec), "/tmp\n0\n1\n2\n3\n", "{no_new_privileges}");
        bundle.ok(&["delete", "--force", &bundle.id]);
        bundle.set("/process/args", json!(["/bin/sh", "-c", "pwd; ls /proc/self/fd"]));
        assert_eq!(with_open_file(&bundle, &["run", &bundle.id]), "/tmp\n0\n1\n2\n3\n", "{no_new_privileges}");
    }
}

#[test]
fn a_device_that_is_there_already_is_taken_and_another_file_there_is_an_error() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("device-twice", "ls -l /here");
    bundle.set("/linux/devices", json!([{ "path": "/here", "type": "c", "major": 1, "minor": 3, "fileMode": 438 }]));
    assert!(bundle.run().starts_with("crw-rw-rw-"));
    assert!(bundle.run().starts_with("crw-rw-rw-"));
    bundle.set("/linux/devices/0/minor", json!(5));
    assert!(bundle.fails(&["run", &bundle.id]).contains("/here"));
}

#[test]
fn a_kernel_parameter_of_the_host_is_refused() {
    if cannot_run() {
        return;
    }
    let parameters = [
        ("net.core.somaxconn", "network"),
        ("kernel.msgmax", "ipc"),
        ("kernel.domainname", "uts"),
        ("vm.swappiness", ""),
        // In any namespace: there is a word of its own for it.
        ("kernel.hostname", ""),
    ];
    for (name, namespace) in parameters {
        let mut bundle = Bundle::new("host-sysctl", "true");
        bundle.set("/linux/sysctl", json!({ name: "4096" }));
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| one["type"] != namespace);
        bundle.config.as_object_mut().unwrap().remove("hostname");
        assert!(bundle.fails(&["run", &bundle.id]).contains(name));
    }
}

#[test]
fn a_capability_that_nobody_knows_is_a_warning() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("unknown-capability", "sleep 60");
    bundle.set("/process/capabilities/bounding", json!(["CAP_KILL", "CAP_OF_TOMORROW"]));
    let said = bundle.outside("said");
    let mut command = bundle.command(&["run", "--detach", &bundle.id]);
    command.stdout(Stdio::null()).stderr(std::fs::File::create(&said).unwrap());
    assert!(command.status().unwrap().success());
    assert!(std::fs::read_to_string(said).unwrap().contains("CAP_OF_TOMORROW"));
    let bounding = bundle.ok(&["exec", &bundle.id, "grep", "CapBnd", "/proc/self/status"]);
    assert_eq!(bounding, "CapBnd:\t0000000000000020\n");
}

#[test]
fn the_environment_has_a_home_and_each_name_once() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("home", "");
    std::fs::write(bundle.rootfs().join("etc/passwd"), "seven:x:7:7::/home/seven:/bin/sh\n").unwrap();
    bundle.set("/process/user", json!({ "uid": 7, "gid": 7 }));
    bundle.set("/process/args", json!(["/bin/env"]));
    bundle.set("/process/env", json!(["ONE=1", "PATH=/bin", "ONE=2", "HOME="]));
    assert_eq!(bundle.run(), "PATH=/bin\nONE=2\nHOME=/home/seven\n");
    bundle.set("/process/env", json!(["HOME=/else"]));
    assert_eq!(bundle.run(), "HOME=/else\n");
}

#[test]
fn a_paused_container_can_be_killed_and_deleted() {
    if cannot_run() {
        return;
    }
    for how in [["kill", "KILL"], ["delete", "--force"]] {
        let mut bundle = Bundle::new("paused", "sleep 60");
        bundle.set("/linux/cgroupsPath", json!(format!("/{}", bundle.id)));
        bundle.set("/process/args", json!(["/bin/sleep", "60"]));
        let mut command = bundle.command(&["run", "--detach", &bundle.id]);
        assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
        bundle.ok(&["pause", &bundle.id]);
        match how {
            ["kill", signal] => {
                bundle.ok(&["kill", &bundle.id, signal]);
                bundle.wait();
                assert_eq!(bundle.status(), "stopped");
            }
            [command, force] => drop(bundle.ok(&[command, force, &bundle.id])),
        }
    }
}

#[test]
fn a_hook_without_an_environment_inherits_one() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("hook-environment", "cat /seen");
    bundle.push("/process/env", json!("OWN=container"));
    let outside = bundle.outside("seen");
    let script = format!("echo $OWN > {}", outside.display());
    bundle.set(
        "/hooks",
        json!({
            "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }],
            "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", "echo $OWN > /seen"] }],
        }),
    );
    let output = bundle.command(&["run", &bundle.id]).env("OWN", "caller").output().unwrap();
    assert_eq!(text(&output.stdout), "container\n", "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "caller\n");
}
