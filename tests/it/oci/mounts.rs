//! Mounts as higher tools ask for them, and as hooks find them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::{Value, json};

use super::bundle::{Bundle, cannot_run};

fn mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn tmpfs(target: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options })
}

fn bind(source: &std::path::Path, target: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": "bind", "source": source, "options": options })
}

/// Libraries of GPUs come into containers like that.
#[test]
fn hooks_find_the_root_under_its_path_and_what_they_mount_there_stays() {
    if cannot_run() {
        return;
    }
    let given = tempfile::NamedTempFile::new().unwrap();
    fs::write(given.path(), "given\n").unwrap();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = Bundle::new("hooks-root", "cat /lib/given; ls -d /dev/pts; cat /tmp/here");
        let (root, given) = (bundle.rootfs(), given.path().display());
        let work = format!(
            "mkdir {0}/lib && touch {0}/lib/given && mount --bind {given} {0}/lib/given && ls {0}/proc/self {0}/dev/null",
            root.display()
        );
        let script = match kind {
            // In the container's namespaces already, and in its root.
            "createContainer" => format!("cat >/dev/null; {work}; echo here >tmp/here"),
            _ => format!(
                "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); nsenter -m -t $pid sh -ec '{work}'; \
                 echo here >{}/tmp/here",
                root.display()
            ),
        };
        let environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"];
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-ec", script], "env": environment });
        bundle.set("/hooks", json!({ kind: [hook] }));
        assert_eq!(bundle.run(), "given\n/dev/pts\nhere\n", "{kind}");
        assert_eq!(
            fs::read_to_string(root.join("lib/given")).unwrap(),
            "",
            "{kind}: it is the container's mount alone"
        );
    }
}

#[test]
fn a_tmpfs_has_the_mode_of_its_directory_unless_told_otherwise() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("tmpfs-mode", "stat -c %a /there /told /new/below");
    for name in ["there", "told"] {
        fs::create_dir(bundle.rootfs().join(name)).unwrap();
        mode(&bundle.rootfs().join(name), 0o710);
    }
    bundle.push("/mounts", tmpfs("/there", &["nosuid"]));
    bundle.push("/mounts", tmpfs("/told", &["mode=1500"]));
    bundle.push("/mounts", tmpfs("/new/below", &[]));
    assert_eq!(bundle.run(), "710\n1500\n1777\n");
    let under = fs::metadata(bundle.rootfs().join("told")).unwrap().permissions().mode();
    assert_eq!(under & 0o7777, 0o710, "the directory itself is as it was");
}

/// podman asks for it with every `--tmpfs`.
#[test]
fn a_tmpfs_begins_with_what_is_there_when_asked() {
    if cannot_run() {
        return;
    }
    let script = "stat -c '%n %a %u' /data /data/sub /data/file; cat /data/link; stat -f -c %T /data; touch /data/new";
    let mut bundle = Bundle::new("copy-up", script);
    let data = bundle.rootfs().join("data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("file"), "content\n").unwrap();
    symlink("/data/file", data.join("link")).unwrap();
    mode(&data.join("sub"), 0o757);
    mode(&data.join("file"), 0o640);
    mode(&data, 0o711);
    std::os::unix::fs::chown(data.join("file"), Some(5), Some(5)).unwrap();
    bundle.push("/mounts", tmpfs("/data", &["nosuid", "nodev", "tmpcopyup"]));
    let copied = "/data 711 0\n/data/sub 757 0\n/data/file 640 5\ncontent\ntmpfs\n";
    assert_eq!(bundle.run(), copied);
    assert!(!data.join("new").exists());
    let last = bundle.config["mounts"].as_array().unwrap().len() - 1;
    bundle.config["mounts"][last] = tmpfs("/data", &["ro", "tmpcopyup"]);
    bundle.script("cat /data/file; touch /data/new || echo read-only");
    assert_eq!(bundle.run(), "content\nread-only\n");
    bundle.push("/mounts", json!({ "destination": "/p", "type": "proc", "source": "p", "options": ["tmpcopyup"] }));
    assert!(bundle.fails(&["run", &bundle.id]).contains("`tmpcopyup` of a `proc` mount"));
}

#[test]
fn a_read_only_tmpfs_is_filled_before() {
    if cannot_run() {
        return;
    }
    let script = "ls /dev/null /dev/pts/ptmx /some/below; for in in /dev /some; do touch $in/x || echo read-only; done";
    let mut bundle = Bundle::new("read-only-dev", script);
    let dev = bundle.config["mounts"].as_array_mut().unwrap();
    let dev = dev.iter_mut().find(|mount| mount["destination"] == "/dev").unwrap();
    dev["options"].as_array_mut().unwrap().push(json!("ro"));
    bundle.push("/mounts", tmpfs("/some", &["ro"]));
    let file = bundle.outside("file");
    fs::write(&file, "").unwrap();
    bundle.push("/mounts", bind(&file, "/some/below", &["bind"]));
    assert_eq!(bundle.run(), "/dev/null\n/dev/pts/ptmx\n/some/below\nread-only\nread-only\n");
}

#[test]
fn options_hold_for_the_mounts_below_when_they_say_so() {
    if cannot_run() {
        return;
    }
    let script = "awk '$5 ~ \"^/(all|one)\" { print $5, $6 }' /proc/self/mountinfo";
    let mut bundle = Bundle::new("recursive", script);
    let source = bundle.rootfs().join("source");
    fs::create_dir(&source).unwrap();
    bundle.push("/mounts", tmpfs("/source", &["noatime", "nosuid", "nodev"]));
    bundle.push("/mounts", tmpfs("/source/below", &["noatime", "nosuid", "nodev"]));
    let all = ["rbind", "rnoexec", "rsuid", "rstrictatime", "rdev", "rro", "rnosymfollow"];
    bundle.push("/mounts", bind(&source, "/all", &all));
    bundle.push("/mounts", bind(&source, "/one", &["rbind", "nodiratime", "noexec"]));
    let strict = "ro,noexec,nosymfollow";
    let expected = format!(
        "/all {strict}\n/all/below {strict}\n/one rw,noexec,nodiratime,relatime\n\
         /one/below rw,nosuid,nodev,noatime\n"
    );
    assert_eq!(bundle.run(), expected);
}

#[test]
fn a_source_below_the_root_shows_what_is_mounted_there() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("order", "cat /copy/file /own/path");
    let (root, host) = (bundle.rootfs(), bundle.outside("host"));
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "mounted\n").unwrap();
    fs::create_dir(root.join("first")).unwrap();
    fs::write(root.join("first/file"), "covered\n").unwrap();
    bundle.push("/mounts", bind(&host, "/first", &["bind"]));
    bundle.push("/mounts", bind(&root.join("first"), "/copy", &["rbind"]));
    // A target with the root's own path before it.
    bundle.push("/mounts", bind(&host.join("file"), root.join("own/path").to_str().unwrap(), &["bind"]));
    assert_eq!(bundle.run(), "mounted\nmounted\n");
    // No link in the root leads to a source outside of it.
    symlink("../../../../../etc", root.join("out")).unwrap();
    bundle.push("/mounts", bind(&root.join("out"), "/etc-of-host", &["rbind"]));
    bundle.script("ls /etc-of-host");
    assert_eq!(bundle.run(), "", "it is the container's own /etc");
}

#[test]
fn a_dev_of_the_host_is_left_as_it_is() {
    if cannot_run() {
        return;
    }
    // The other one, which is filled otherwise, is covered.
    let mut bundle = Bundle::new("dev-of-host", "[ -c /dev/null ] && ls /dev/shm >/dev/null && echo there");
    bundle.push("/mounts", json!({ "destination": "/dev", "type": "none", "source": "/dev", "options": ["rbind"] }));
    bundle.set(
        "/linux/devices",
        json!([{ "path": "/dev/rcompose-test", "type": "c", "major": 1, "minor": 3, "fileMode": 438 }]),
    );
    assert_eq!(bundle.run(), "there\n");
    assert!(!std::path::Path::new("/dev/rcompose-test").exists());
}

/// podman mounts systemd's hierarchy there.
#[test]
fn something_is_mounted_below_read_only_control_groups() {
    if cannot_run() {
        return;
    }
    let script = "cat /sys/fs/cgroup/more/file; mkdir /sys/fs/cgroup/x 2>/dev/null || echo read-only";
    let mut bundle = Bundle::new("below-groups", script);
    let more = bundle.outside("more");
    fs::create_dir(&more).unwrap();
    fs::write(more.join("file"), "below\n").unwrap();
    let groups = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] });
    bundle.push("/mounts", groups);
    // In cgroup2 there is no room for a directory.
    if !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        bundle.push("/mounts", bind(&more, "/sys/fs/cgroup/more", &["bind"]));
        assert_eq!(bundle.run(), "below\nread-only\n");
    }
}
