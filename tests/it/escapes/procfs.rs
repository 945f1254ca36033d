//! /proc and /sys: what must not be written to, and what stands in for it.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::{container, everything, judge, privileged};
use crate::oci::bundle::{Bundle, cannot_run, text};

/// Opens for writing, which is what is refused; nothing is written.
const OPEN_FOR_WRITING: &str = "
    for file in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger /proc/sys/vm/drop_caches \
        /proc/sys/fs/binfmt_misc/register /proc/sys/kernel/hotplug /sys/kernel/uevent_helper /sys/kernel/mm/ksm/run \
        /sys/kernel/profiling /sys/power/disk; do
        (exec 9>>$file) 2>/dev/null && echo $file
    done; true";

#[test]
fn kernel_settings_cannot_be_written() {
    if cannot_run() {
        return;
    }
    let writable_sys = |bundle: &mut Bundle| {
        privileged(bundle);
        bundle.set("/mounts/3/options", json!(["nosuid", "noexec", "nodev"]));
    };
    judge("settings", OPEN_FOR_WRITING, |_| {}, writable_sys, |_, printed| !printed.is_empty());
}

#[test]
fn protected_paths_cannot_be_uncovered() {
    if cannot_run() {
        return;
    }
    let script = "umount /proc/sys /proc/kcore; mount -o remount,rw /proc/sys; mount -t proc proc /tmp; \
        (exec 9>>/proc/sys/kernel/core_pattern) && echo open; (exec 9>>/tmp/sys/kernel/core_pattern) && echo open; \
        head -c 1 /proc/kcore | wc -c; true";
    let weaken = |bundle: &mut Bundle| {
        let (masked, readonly) =
            (bundle.config["linux"]["maskedPaths"].clone(), bundle.config["linux"]["readonlyPaths"].clone());
        privileged(bundle);
        bundle.set("/linux/maskedPaths", masked);
        bundle.set("/linux/readonlyPaths", readonly);
    };
    judge("uncover", script, |_| {}, weaken, |_, printed| printed.contains("open"));
}

#[test]
fn memory_of_the_kernel_and_keys_are_masked() {
    if cannot_run() {
        return;
    }
    let script = "for file in /proc/kcore /proc/keys /proc/timer_list; do [ -s $file ] && echo $file; \
        [ -n \"$(head -c 1 $file)\" ] && echo $file; done; true";
    let weaken = |bundle: &mut Bundle| bundle.set("/linux/maskedPaths", json!([]));
    judge("masked", script, |_| {}, weaken, |_, printed| printed.contains("/proc/keys"));
}

/// CVE-2019-19921, CVE-2023-27561: /proc of the image is a link, so that what is protected is not what is used.
#[test]
fn proc_cannot_be_elsewhere() {
    if cannot_run() {
        return;
    }
    for sys in ["/proc", "/sys"] {
        let move_it = |bundle: &mut Bundle| {
            let volume = bundle.outside("volume");
            fs::create_dir_all(volume.join("real")).unwrap();
            bundle.config["mounts"].as_array_mut().unwrap().insert(
                0,
                json!({ "destination": "/volume", "type": "bind", "source": volume, "options": ["rbind", "rw"] }),
            );
            let place = bundle.rootfs().join(sys.trim_start_matches('/'));
            fs::remove_dir(&place).unwrap();
            symlink("volume/real", place).unwrap();
        };
        let script = "ls /volume/real/ >/dev/null; (exec 9>>/volume/real/sys/kernel/core_pattern) && echo open; true";
        let mut bundle = container("elsewhere", script);
        move_it(&mut bundle);
        let output = bundle.oci(&["run", &bundle.id]);
        assert!(!output.status.success(), "{sys}: {}", everything(&output));
    }
    // Weakened: mounted where the link leads to, as engines did. Nothing there is protected.
    let mut bundle = container("elsewhere-naive", "(exec 9>>/volume/real/sys/kernel/core_pattern) && echo open; true");
    let volume = bundle.outside("volume");
    fs::create_dir_all(volume.join("real")).unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/proc");
    mounts.push(json!({ "destination": "/volume", "type": "bind", "source": volume, "options": ["rbind", "rw"] }));
    mounts.push(json!({ "destination": "/volume/real", "type": "proc", "source": "proc" }));
    bundle.set("/linux/maskedPaths", json!([]));
    bundle.set("/linux/readonlyPaths", json!([]));
    let output = bundle.oci(&["run", &bundle.id]);
    assert!(text(&output.stdout).contains("open"), "{}", everything(&output));
}

/// CVE-2025-31133: the null device that masks is a link to what the attacker wants to write to.
#[test]
fn a_false_null_device_masks_nothing() {
    if cannot_run() {
        return;
    }
    // /dev is the image's own directory.
    let own_dev = |bundle: &mut Bundle| {
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        mounts.push(json!({
            "destination": "/dev", "type": "bind", "source": "rootfs/own-dev", "options": ["rbind"],
        }));
        fs::create_dir(bundle.rootfs().join("own-dev")).unwrap();
        symlink("/proc/sys/kernel/core_pattern", bundle.rootfs().join("own-dev/null")).unwrap();
    };
    let script = "(exec 9>>/proc/keys) && echo open; (exec 9>>/proc/sys/kernel/core_pattern) && echo open; true";
    judge(
        "null",
        script,
        own_dev,
        |bundle| {
            // The naive way: what the link leads to is bound over the masked file.
            bundle.set("/linux/maskedPaths", json!([]));
            bundle.set("/linux/readonlyPaths", json!([]));
        },
        |_, printed| printed.contains("open"),
    );
    // And a null device that is another device.
    let mut bundle = container("null-zero", "true");
    own_dev(&mut bundle);
    fs::remove_file(bundle.rootfs().join("own-dev/null")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    let zero = rustix::fs::makedev(1, 5);
    let path = bundle.rootfs().join("own-dev/null");
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::CharacterDevice, mode, zero).unwrap();
    let error = bundle.fails(&["run", &bundle.id]);
    assert!(error.contains("is not the null device"), "{error}");
}

/// CVE-2025-52565: /dev/console is a link to a protected file, on which the terminal is bound before it is protected.
#[test]
fn a_false_console_is_not_mounted_on() {
    if cannot_run() {
        return;
    }
    let with_console = |target: Option<&str>| {
        let mut bundle = container("console", "grep -c ' /proc/sys/kernel/core_pattern ' /proc/self/mountinfo; true");
        bundle.set("/process/terminal", json!(true));
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev");
        fs::create_dir_all(bundle.rootfs().join("dev/pts")).unwrap();
        if let Some(target) = target {
            symlink(target, bundle.rootfs().join("dev/console")).unwrap();
        }
        bundle.oci(&["run", &bundle.id])
    };
    let output = with_console(Some("/proc/sys/kernel/core_pattern"));
    assert!(!output.status.success(), "{}", everything(&output));
    let output = with_console(None);
    assert!(output.status.success(), "{}", everything(&output));
    // Weakened: what is bound is found by a name that the attacker has made a link, as engines did.
    let mut bundle = container("console-naive", "(exec 9>>/console) && echo open; true");
    symlink("/proc/sys/kernel/core_pattern", bundle.outside("pts")).unwrap();
    bundle.push(
        "/mounts",
        json!({
            "destination": "/console", "type": "bind", "source": bundle.outside("pts"), "options": ["bind"],
        }),
    );
    let output = bundle.oci(&["run", &bundle.id]);
    assert!(text(&output.stdout).contains("open"), "{}", everything(&output));
}

/// CVE-2019-16884 and CVE-2025-52881: a volume over a part of /proc takes the engine's writes for itself.
#[test]
fn writes_to_procfs_go_to_procfs() {
    if cannot_run() {
        return;
    }
    let script = "cat /proc/sys/net/ipv4/ip_forward";
    let mut bundle = container("redirected", script);
    let false_proc = bundle.outside("false");
    fs::create_dir(&false_proc).unwrap();
    let prize = bundle.outside("prize");
    fs::write(&prize, "untouched").unwrap();
    fs::write(false_proc.join("ip_forward"), "attacker's").unwrap();
    symlink(&prize, false_proc.join("conf")).unwrap();
    bundle.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    bundle.push(
        "/mounts",
        json!({
            "destination": "/proc/sys/net/ipv4", "type": "bind", "source": false_proc, "options": ["rbind"],
        }),
    );
    let output = bundle.oci(&["run", &bundle.id]);
    let forward = fs::read_to_string(false_proc.join("ip_forward")).unwrap();
    assert_eq!(forward, "attacker's", "{}", everything(&output));
    assert_eq!(fs::read_to_string(&prize).unwrap(), "untouched");
    // Weakened: a hook of the container writes by name, as engines did.
    let mut bundle = container("redirected-naive", "true");
    let false_proc = bundle.outside("false");
    fs::create_dir(&false_proc).unwrap();
    fs::write(false_proc.join("ip_forward"), "attacker's").unwrap();
    bundle.push(
        "/mounts",
        json!({
            "destination": "/proc/sys/net/ipv4", "type": "bind", "source": false_proc, "options": ["rbind"],
        }),
    );
    bundle.set("/linux/readonlyPaths", json!([]));
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"], "env": ["PATH=/bin"] }]);
    bundle.set("/hooks", json!({ "startContainer": hook }));
    let output = bundle.oci(&["run", &bundle.id]);
    let forward = fs::read_to_string(false_proc.join("ip_forward")).unwrap();
    assert_eq!(forward, "1\n", "{}", everything(&output));
}
