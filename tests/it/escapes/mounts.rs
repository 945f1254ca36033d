//! Mount targets and volumes whose names lead elsewhere.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{container, everything};
use crate::oci::bundle::{Bundle, cannot_run, text};
use crate::support::{Project, can_run_containers, eventually, needs_root};

fn hook(script: &str) -> serde_json::Value {
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin"] }])
}

/// CVE-2024-23651 and CVE-2024-23652 in what they have in common: a link of the image above or at a mount's target has the
/// engine make, mount on, or remove files of the host.
#[test]
fn targets_behind_links_are_made_inside() {
    if cannot_run() {
        return;
    }
    let prepared = |name: &str| {
        let mut bundle = container(name, "true");
        let outside = bundle.outside("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "kept").unwrap();
        symlink(&outside, bundle.rootfs().join("absolute")).unwrap();
        symlink("../outside", bundle.rootfs().join("relative")).unwrap();
        symlink("../outside/file", bundle.rootfs().join("file")).unwrap();
        let source = bundle.outside("source");
        fs::write(&source, "source").unwrap();
        bundle.push("/mounts", json!({ "destination": "/absolute/a", "type": "tmpfs", "source": "tmpfs" }));
        bundle.push("/mounts", json!({ "destination": "/relative/b", "type": "tmpfs", "source": "tmpfs" }));
        bundle.push(
            "/mounts",
            json!({ "destination": "/relative/c", "type": "bind", "source": source, "options": ["bind"] }),
        );
        bundle
            .push("/mounts", json!({ "destination": "/file", "type": "bind", "source": source, "options": ["bind"] }));
        bundle
    };
    let bundle = prepared("links");
    let output = bundle.oci(&["run", &bundle.id]);
    assert!(output.status.success(), "{}", everything(&output));
    let names = |bundle: &Bundle| {
        let entries = fs::read_dir(bundle.outside("outside")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&bundle), ["kept"]);
    // Weakened: made by name.
    let mut bundle = prepared("links-naive");
    let root = bundle.rootfs();
    bundle.set("/hooks", json!({ "createRuntime": hook(&format!("mkdir -p {}/relative/b", root.display())) }));
    bundle.oci(&["run", &bundle.id]);
    assert_eq!(names(&bundle), ["b", "kept"]);
}

/// CVE-2021-30465: another container that shares the volume swaps a directory for a link while the engine mounts below it.
#[test]
fn a_target_that_turns_into_a_link_stays_inside() {
    if cannot_run() {
        return;
    }
    let volume_of = |bundle: &mut Bundle| {
        let volume = bundle.outside("volume");
        fs::create_dir_all(volume.join("directory")).unwrap();
        let outside = bundle.outside("outside");
        for name in ["one", "two", "three"] {
            fs::create_dir_all(outside.join(name)).unwrap();
        }
        symlink(format!("../../../../../../../..{}", outside.display()), volume.join("link")).unwrap();
        let bind = json!({ "destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"] });
        bundle.push("/mounts", bind);
        for name in ["one", "two", "three"] {
            let destination = format!("/volume/directory/{name}");
            bundle.push("/mounts", json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" }));
        }
        volume
    };
    // Seen from the container's mount namespace, by the host's names.
    let look = |bundle: &Bundle, seen: &Path| {
        hook(&format!(
            "cd {} && for name in one two three; do [ $(stat -c %d $name) = $(stat -c %d .) ] || echo $name; done >>{}",
            bundle.outside("outside").display(),
            seen.display()
        ))
    };
    let mut bundle = container("swap", "true");
    let volume = volume_of(&mut bundle);
    let seen = bundle.outside("seen");
    bundle.set("/hooks", json!({ "createContainer": look(&bundle, &seen) }));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let folder = fs::File::open(&volume).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&folder, "directory", &folder, "link", exchange).unwrap();
            }
        });
        for _ in 0..40 {
            bundle.oci(&["run", &bundle.id]);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_to_string(&seen).unwrap(), "", "mounted outside");
    assert_eq!(fs::read_dir(bundle.outside("outside")).unwrap().count(), 3, "something was made outside");

    // Weakened: mounted by name.
    let mut bundle = container("swap-naive", "true");
    let volume = volume_of(&mut bundle);
    fs::remove_dir(volume.join("directory")).unwrap();
    fs::rename(volume.join("link"), volume.join("directory")).unwrap();
    let seen = bundle.outside("seen");
    let naive = hook(&format!("mount -t tmpfs tmpfs {}/directory/one", volume.display()))[0].clone();
    bundle.set("/hooks", json!({ "createContainer": [naive, look(&bundle, &seen)[0]] }));
    bundle.oci(&["run", &bundle.id]);
    assert_eq!(fs::read_to_string(&seen).unwrap(), "one\n");
}

/// CVE-2021-25741: the part of a volume that a container gets is exchanged for a link to the host's, by another container that has
/// the volume, between being looked up and being mounted. Weakened: it is looked up by name.
#[test]
fn a_part_of_a_volume_that_turns_into_a_link_stays_inside() {
    let test = "a_part_of_a_volume_that_turns_into_a_link_stays_inside";
    if !can_run_containers(test) || needs_root(test, "what is the host's is the container's, too") {
        return;
    }
    if super::lacks_ctypes(test) {
        return;
    }
    let project = Project::new("");
    let outside = super::outside(&project);
    let script = format!(
        "mkdir /volume/d; echo inside >/volume/d/prize; ln -s {} /volume/l; echo ready; exec python3 -c \"\n\
         import ctypes\nlibc = ctypes.CDLL(None)\n\
         while True: libc.renameat2(-100, b'/volume/d', -100, b'/volume/l', 2)\"",
        outside.display()
    );
    let command = serde_json::to_string(&["sh", "-c", &script]).unwrap();
    let data = project.root().join("data/volumes").join(format!("{}_data", project.name)).join("_data");
    let service = "image: rcompose/host, stop_signal: SIGKILL";
    project.write(
        "compose.yaml",
        &format!(
            "services:\n  attacker: {{{service}, command: {command}, volumes: ['data:/volume']}}\n  \
             victim: {{{service}, volumes: [{{type: volume, source: data, target: /part, volume: {{subpath: d}}}}]}}\n  \
             naive: {{{service}, volumes: ['{}/d:/part']}}\nvolumes: {{data: {{}}}}\n",
            data.display()
        ),
    );
    project.run(&["up", "-d", "attacker"]).ok();
    eventually("the attack", || project.run(&["logs", "attacker"]).ok().out.contains("ready").then_some(()));
    let look = |service| project.run(&["run", "--rm", "-T", service, "cat", "/part/prize"]).out;
    let seen: Vec<_> = (0..30).map(|_| look("victim")).collect();
    assert!(seen.iter().all(|seen| !seen.contains("of the host")), "{seen:?}");
    assert!(seen.iter().any(|seen| seen.contains("inside")), "{seen:?}");
    assert!((0..60).any(|_| look("naive").contains("of the host")), "the attack would not be seen to succeed");
    project.down();
}

/// Whose shared memory another container gets changes its root to a directory in which a link leads to the host's files. Weakened: the
/// memory is looked for by name, below that root.
#[test]
fn shared_memory_is_not_where_a_container_has_changed_its_root_to() {
    if !can_run_containers("shared_memory_is_not_where_a_container_has_changed_its_root_to") {
        return;
    }
    let project = Project::new("services: {}\n");
    let outside = super::outside(&project);
    let change = format!(
        "mkdir -p /x/dev; ln -s {} /x/dev/shm; exec perl -E 'chroot(\"/x\"); $$| = 1; say \"changed\"; sleep 1000'",
        outside.display()
    );
    let change = serde_json::to_string(&["sh", "-c", &change]).unwrap();
    let service = "image: rcompose/host, stop_signal: SIGKILL";
    let look = "cat /dev/shm/prize; grep ' /dev/shm ' /proc/self/mountinfo; echo over";
    project.write(
        "compose.yaml",
        &format!(
            "services:\n  attacker: {{{service}, ipc: shareable, command: {change}}}\n  \
             victim: {{{service}, ipc: 'service:attacker', command: [sh, -c, \"{look}\"]}}\n"
        ),
    );
    project.run(&["up", "-d", "attacker"]).ok();
    let logs = |service| project.run(&["logs", "--no-log-prefix", service]).ok().out;
    eventually("the root is another", || logs("attacker").contains("changed").then_some(()));
    project.run(&["up", "-d", "victim"]).ok();
    let seen = eventually("the look is over", || Some(logs("victim")).filter(|said| said.contains("over")));
    assert!(!seen.contains("of the host") && seen.contains(" - tmpfs "), "{seen}");
    let found = fs::read_dir(project.root().join("data/projects").join(&project.name).join("containers")).unwrap();
    let states = found.map(|folder| fs::read(folder.unwrap().path().join("state.json")).unwrap());
    let mut pids =
        states.filter_map(|state| serde_json::from_slice::<serde_json::Value>(&state).unwrap()["run"]["pid"].as_i64());
    let naive =
        |pid| fs::read_to_string(format!("/proc/{pid}/root/dev/shm/prize")).is_ok_and(|text| text == "of the host");
    assert!(pids.any(naive), "the attack would not be seen to succeed");
    project.down();
}

/// A mount whose target leads to the root hides all that protects, here what is read-only below it.
#[test]
fn the_root_cannot_be_mounted_over() {
    if cannot_run() {
        return;
    }
    let script = "cat /prize; touch /tmp/written && echo unprotected; true";
    let attacker = || {
        let bundle = container("over", script);
        symlink("/", bundle.rootfs().join("self")).unwrap();
        symlink(".", bundle.rootfs().join("here")).unwrap();
        // Has all that a root needs.
        let source = bundle.outside("source");
        let copied = Command::new("cp").arg("-a").args([&bundle.rootfs(), &source]).status().unwrap();
        assert!(copied.success());
        fs::write(source.join("prize"), "prize\n").unwrap();
        (bundle, source)
    };
    for target in ["/", "/self", "/here", "/../..", "/self/../."] {
        let (mut bundle, source) = attacker();
        bundle.push("/linux/readonlyPaths", json!("/tmp"));
        bundle
            .push("/mounts", json!({ "destination": target, "type": "bind", "source": source, "options": ["rbind"] }));
        let output = bundle.oci(&["run", &bundle.id]);
        assert!(text(&output.stderr).contains("leads to the root itself"), "{target}: {}", everything(&output));
        assert!(output.stdout.is_empty() && !output.status.success(), "{target}: {}", everything(&output));
    }
    // Weakened: mounted and entered by name.
    let (bundle, source) = attacker();
    let naive = "mount --bind $ROOT $ROOT && mount --bind -o ro $ROOT/tmp $ROOT/tmp && mount --rbind $SOURCE $ROOT/$TARGET \
        && exec chroot $ROOT /bin/sh -c \"$SCRIPT\"";
    for (target, weakened) in [("tmp", false), ("here", true)] {
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "sh", "-c", naive]).env("SCRIPT", script).env("TARGET", target);
        // The host's may have no `/bin`.
        shell.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let output = shell.env("ROOT", bundle.rootfs()).env("SOURCE", &source).output().unwrap();
        let printed = text(&output.stdout);
        assert_eq!(printed.contains("prize"), weakened, "{target}: {}", everything(&output));
    }
}

/// Mounts made inside must not appear on the host, whatever the host's own propagation is.
#[test]
fn mounts_do_not_spread_to_the_host() {
    if cannot_run() {
        return;
    }
    for (weakened, options) in [(false, vec!["rbind"]), (true, vec!["rbind", "rshared"])] {
        let mut bundle = container("spread", "mkdir -p /volume/inside; mount -t tmpfs none /volume/inside; true");
        super::privileged(&mut bundle);
        let volume = bundle.outside("volume");
        fs::create_dir_all(volume.join("inside")).unwrap();
        let shared = Shared::make(&volume);
        bundle
            .push("/mounts", json!({ "destination": "/volume", "type": "bind", "source": volume, "options": options }));
        let output = bundle.oci(&["run", &bundle.id]);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let inside = volume.join("inside");
        let spread = mounts.lines().any(|line| line.split(' ').nth(4) == inside.to_str());
        drop(shared);
        assert_eq!(spread, weakened, "{}", everything(&output));
    }
}

/// A shared mount on the host for as long as this lives.
struct Shared(std::path::PathBuf);

impl Shared {
    fn make(at: &Path) -> Self {
        rustix::mount::mount_bind(at, at).unwrap();
        rustix::mount::mount_change(at, rustix::mount::MountPropagationFlags::SHARED).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
