//! What the kernel offers to whoever may ask: namespaces, mounts, devices, keys, release agents.

use std::fs;

use serde_json::json;

use super::{judge, privileged};
use crate::oci::bundle::{Bundle, cannot_run};

/// What makes CVE-2022-0185 and most holes of the kernel's file systems reachable.
#[test]
fn no_user_namespace_and_no_fsopen() {
    if cannot_run() {
        return;
    }
    let script = "unshare -U true 2>/dev/null && echo unshared; unshare -m true 2>/dev/null && echo unshared; \
        mount -t tmpfs none /tmp 2>/dev/null && echo mounted; true";
    let weaken = |bundle: &mut Bundle| bundle.set("/linux/seccomp", json!(null));
    judge("userns", script, |_| {}, weaken, |_, printed| printed.contains("unshared"));
}

/// CVE-2022-0492, and the classic: a program of the attacker that the kernel runs on the host.
#[test]
fn release_agent_cannot_be_set() {
    if cannot_run() {
        return;
    }
    if !fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - cgroup ") {
        println!("skipped: no cgroup v1 hierarchy");
        return;
    }
    // Opened for writing only: that is what the host's own value survives.
    let script = "unshare -Urm sh -c 'mount -t cgroup -o memory cgroup /tmp && (exec 9>>/tmp/release_agent) && echo open'; \
        mount -t cgroup -o memory cgroup /tmp && (exec 9>>/tmp/release_agent) && echo open; \
        for file in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/notify_on_release; do \
            (exec 9>>$file) && echo open $file; done; true";
    let weaken = |bundle: &mut Bundle| {
        privileged(bundle);
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    };
    judge("release", script, |_| {}, weaken, |_, printed| printed.contains("open"));
}

#[test]
fn devices_of_the_host_cannot_be_opened() {
    if cannot_run() {
        return;
    }
    // Every disk that there is, and what the host has for making more of them. Opened, not read. In /dev, as the root may lie
    // on a file system of the host's that has no devices.
    let script = "cd /dev; mknod t-fuse c 10 229; mknod t-control c 10 237; mknod t-kvm c 10 232; mknod t-mem c 1 1; \
        for name in fuse control kvm mem; do (exec 9<t-$name) && echo open $name; done; \
        tail -n +3 /proc/partitions | while read major minor blocks name; do \
        mknod t-$name b $major $minor && (exec 9<t-$name) && echo open $name; done; true";
    let weaken = |bundle: &mut Bundle| {
        bundle.set("/linux/resources", json!({ "devices": [{ "allow": true, "access": "rwm" }] }));
    };
    judge("devices", script, |_| {}, weaken, |_, printed| printed.contains("open"));
}

#[test]
fn control_groups_cannot_be_changed() {
    if cannot_run() {
        return;
    }
    // Leaving the own group for the root, or lifting a limit.
    let script = "for file in $(find /sys/fs/cgroup -name cgroup.procs -o -name memory.max -o -name memory.limit_in_bytes \
        -o -name devices.allow); do (exec 9>>$file) && echo open $file; done; mkdir /sys/fs/cgroup/new && echo open; true";
    let weaken = |bundle: &mut Bundle| {
        for mount in bundle.config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/sys/fs/cgroup" {
                mount["options"] = json!(["rw", "nosuid", "noexec", "nodev"]);
            }
        }
    };
    judge("groups", script, |_| {}, weaken, |_, printed| printed.contains("open"));
}

/// Without a cgroup namespace a cgroup2 mount would show every group of the host.
#[test]
fn other_control_groups_cannot_be_seen() {
    if cannot_run() {
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    if !mounts.contains(" - cgroup2 ") {
        println!("skipped: no cgroup2 hierarchy");
        return;
    }
    let script = "find /groups -name cgroup.procs | wc -l";
    let without_namespace = |bundle: &mut Bundle| {
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        bundle.push(
            "/mounts",
            json!({ "destination": "/groups", "type": "cgroup2", "source": "cgroup2", "options": ["ro"] }),
        );
    };
    let hierarchy = mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
    let hierarchy = hierarchy.split(' ').nth(4).unwrap().to_owned();
    let weaken = |bundle: &mut Bundle| {
        bundle.config["mounts"].as_array_mut().unwrap().pop();
        bundle.push(
            "/mounts",
            json!({ "destination": "/groups", "type": "bind", "source": hierarchy, "options": ["rbind", "ro"] }),
        );
    };
    judge("see", script, without_namespace, weaken, |_, printed| printed.trim() != "1");
}

/// The keys of whoever started the container: in his session keyring, which processes inherit.
#[test]
fn keys_of_the_caller_stay_outside() {
    if cannot_run() {
        return;
    }
    let Some(python) = Python::find() else {
        println!("skipped: no python3");
        return;
    };
    let add = "import ctypes\nc = ctypes.CDLL(None)\nc.syscall(250, 1, None)\n\
        assert c.syscall(248, b'user', b'rcompose-escape', b'prize', 5, -3) > 0\nimport os, sys\nos.execv(sys.argv[1], sys.argv[1:])\n";
    // KEYCTL_SEARCH in the session keyring, KEYCTL_READ.
    let steal = "import ctypes\nc = ctypes.CDLL(None)\nkey = c.syscall(250, 10, -3, b'user', b'rcompose-escape', 0)\n\
        buffer = ctypes.create_string_buffer(16)\nprint(buffer.value if key > 0 and c.syscall(250, 11, key, buffer, 16) > 0 else 'none')\n";
    for weakened in [false, true] {
        let mut bundle = super::container("keys", "");
        // Without the filter, which would refuse all of it.
        bundle.set("/linux/seccomp", json!(null));
        python.show_in(&mut bundle);
        bundle.set("/process/args", json!(["/usr/bin/python3", "-c", steal]));
        let options: &[&str] = if weakened { &["--no-new-keyring"] } else { &[] };
        let runtime = bundle.command(&[&["run"], options, &[&bundle.id]].concat());
        let mut command = std::process::Command::new("python3");
        command.args(["-c", add]).arg(runtime.get_program()).args(runtime.get_args());
        let output = command.current_dir(bundle.folder.path()).output().unwrap();
        let printed = crate::oci::bundle::text(&output.stdout);
        assert_eq!(printed.contains("prize"), weakened, "weakened: {weakened}: {}", super::everything(&output));
    }
}

/// The host's python3 and what it needs, shown read-only in a container.
struct Python;

impl Python {
    fn find() -> Option<Self> {
        (super::has_ctypes() && cfg!(target_arch = "x86_64")).then_some(Self)
    }

    fn show_in(&self, bundle: &mut Bundle) {
        for folder in ["/usr", "/lib", "/lib64", "/etc"] {
            if std::path::Path::new(folder).exists() {
                bundle.push(
                    "/mounts",
                    json!({
                        "destination": folder, "type": "bind", "source": folder, "options": ["rbind", "ro"],
                    }),
                );
            }
        }
    }
}
