//! What a container's processes may do, and what of a container's others may have.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::json;

use super::judge;
use crate::oci::bundle::{Bundle, cannot_run};
use crate::support::{Project, can_run_containers, needs_root};

const SERVICE: &str = "image: rcompose/host, stop_signal: SIGKILL";

/// CVE-2022-24769 and CVE-2022-29162: capabilities in the inheritable set, which a program of the image with such file
/// capabilities gives to a user who is not root. Weakened: they are asked for.
#[test]
fn no_capability_is_inherited() {
    if cannot_run() {
        return;
    }
    let has = |status: &str| !status.contains("CapInh:\t0000000000000000");
    let weaken = |bundle: &mut Bundle| {
        let permitted = bundle.config["process"]["capabilities"]["permitted"].clone();
        bundle.set("/process/capabilities/inheritable", permitted);
    };
    judge("inherit", "cat /proc/self/status", |_| {}, weaken, |_, printed| has(printed));
    let bundle = super::container("inherit-exec", "sleep 60");
    bundle.create();
    bundle.start();
    for options in [&["exec"][..], &["exec", "--cap", "CAP_SYS_PTRACE"]] {
        let status = bundle.ok(&[options, &[&bundle.id, "cat", "/proc/self/status"]].concat());
        assert!(!has(&status) && status.contains("CapInh:"), "{options:?}: {status}");
    }
}

/// CVE-2024-40635: a number that is none, and leaves a process root. Weakened: root was asked for.
#[test]
fn no_number_of_a_user_is_roots() {
    if needs_root("no_number_of_a_user_is_roots", "the container's users are those of its bundle") {
        return;
    }
    let user =
        |uid: u32, gid: u32| move |bundle: &mut Bundle| bundle.set("/process/user", json!({ "uid": uid, "gid": gid }));
    for (uid, gid) in [(u32::MAX, 1000), (1000, u32::MAX)] {
        let is_root = |_: &Bundle, printed: &str| printed.split_whitespace().any(|id| id == "0");
        judge("number", "id -u; id -g", user(uid, gid), user(0, 0), is_root);
    }
}

/// CVE-2022-36109: without its own group among the supplementary ones, a process loses it by executing a program that is another
/// group's (`g+s`), and reads what its own group is denied. Weakened: it gets no supplementary groups.
#[test]
fn the_own_group_stays_with_a_process() {
    let test = "the_own_group_stays_with_a_process";
    if !can_run_containers(test) {
        return;
    }
    let prepare = "cp /bin/cat /volume/cat && chgrp 7 /volume/cat && chmod 2755 /volume/cat && echo prize >/volume/prize \
        && chgrp 1 /volume/prize && chmod 0604 /volume/prize && echo ready; sleep 1000";
    let prepare = serde_json::to_string(&["sh", "-c", prepare]).unwrap();
    let attacker = format!("{SERVICE}, command: [sleep, '1000'], volumes: ['data:/volume']");
    let project = Project::new(&format!(
        "services:\n  root: {{{SERVICE}, command: {prepare}, volumes: ['data:/volume']}}\n  \
         one: {{{attacker}, user: '1:1', group_add: ['9']}}\n  two: {{{attacker}, user: '1'}}\n\
         volumes: {{data: {{}}}}\n"
    ));
    if !project.has_many_ids() {
        println!("{test}: skipped: the user has one id only");
        return;
    }
    project.run(&["up", "-d"]).ok();
    crate::support::eventually("the files are made", || {
        project.run(&["logs", "root"]).ok().out.contains("ready").then_some(())
    });
    let mount = project.run(&["exec", "-T", "one", "grep", " /volume ", "/proc/self/mounts"]).ok().out;
    if mount.contains("nosuid") {
        println!("{test}: skipped: a program takes no group in the temporary folder, which is mounted nosuid");
        return;
    }
    let attack = ["/volume/cat", "/volume/prize"];
    for service in ["one", "two"] {
        // A process that enters, and a first one.
        for way in [&["exec", "-T", service][..], &["run", "--rm", "-T", service]] {
            let read = project.run(&[way, &attack].concat());
            assert!(read.code != 0 && !read.out.contains("prize"), "{way:?}: {}{}", read.out, read.err);
            assert!(read.err.contains("Permission denied"), "{way:?}: {}", read.err);
        }
    }
    let naive = ["exec", "-T", "-u", "0", "one", "setpriv", "--reuid=1", "--regid=1", "--clear-groups"];
    let read = project.run(&[&naive[..], &attack].concat()).ok();
    assert!(read.out.contains("prize"), "the attack would not be seen to succeed: {}{}", read.out, read.err);
    project.down();
}

/// CVE-2021-41091: a user of the host executes a set-id program that root of a container made, in the container's folder. Weakened:
/// the folders are open to everybody.
#[test]
fn users_of_the_host_do_not_get_into_containers_folders() {
    let test = "users_of_the_host_do_not_get_into_containers_folders";
    if !can_run_containers(test) || needs_root(test, "there is another user's program only in root's folders") {
        return;
    }
    let script = "cp /bin/true /suid && chmod 4755 /suid && cp -p /suid /volume/suid && echo made; sleep 1000";
    let command = serde_json::to_string(&["sh", "-c", script]).unwrap();
    let project = Project::new(&format!(
        "services: {{one: {{{SERVICE}, command: {command}, volumes: ['data:/volume']}}}}\nvolumes: {{data: {{}}}}\n"
    ));
    // As a user's home would be, but for the folder of the engine itself.
    fs::set_permissions(project.folder().parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    project.run(&["up", "-d"]).ok();
    crate::support::eventually("the programs are made", || {
        project.run(&["logs", "one"]).ok().out.contains("made").then_some(())
    });
    let listed = Command::new("find").arg(project.root()).args(["-name", "suid", "-perm", "-4000"]).output().unwrap();
    let programs = crate::oci::bundle::text(&listed.stdout);
    assert_eq!(programs.lines().count(), 2, "{programs}");
    let run = |program: &str| Command::new(program).uid(65534).gid(65534).status().is_ok_and(|ended| ended.success());
    for program in programs.lines() {
        assert!(!run(program), "{program}");
    }
    for program in programs.lines() {
        for folder in std::path::Path::new(program).ancestors().skip(1) {
            if folder.starts_with(project.root()) {
                fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        assert!(run(program), "{program}: the attack would not be seen to succeed");
    }
    project.down();
}

/// CVE-2018-15664 and CVE-2021-41089: files are copied by way of a directory that a process of the container exchanges for a link
/// to the host's all the time. Weakened: copied by the name that it has for the host.
#[test]
fn copies_stay_inside_while_directories_turn_into_links() {
    let test = "copies_stay_inside_while_directories_turn_into_links";
    if !can_run_containers(test) || needs_root(test, "what is the host's is the container's, too") {
        return;
    }
    if super::lacks_ctypes(test) {
        return;
    }
    let project = Project::new("");
    let outside = super::outside(&project);
    fs::set_permissions(outside.join("prize"), fs::Permissions::from_mode(0o600)).unwrap();
    let script = format!(
        "mkdir /d; echo inside >/d/prize; ln -s {} /l; echo ready; exec python3 -c \"\n\
         # attack of {}\n\
         import ctypes\nlibc = ctypes.CDLL(None)\n\
         while True: libc.renameat2(-100, b'/d', -100, b'/l', 2)\"",
        outside.display(),
        project.name
    );
    let command = serde_json::to_string(&["sh", "-c", &script]).unwrap();
    project.write("compose.yaml", &format!("services: {{one: {{{SERVICE}, command: {command}}}}}\n"));
    project.write("evil", "of the container");
    project.run(&["up", "-d"]).ok();
    crate::support::eventually("the attack", || project.run(&["logs", "one"]).ok().out.contains("ready").then_some(()));
    let evil = project.folder().join("evil");
    let untouched = || {
        let mode = fs::metadata(outside.join("prize")).unwrap().permissions().mode() & 0o777;
        let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names == ["prize"] && mode == 0o600 && fs::read(outside.join("prize")).unwrap() == b"of the host"
    };
    let mut copied = 0;
    for _ in 0..15 {
        let out = project.run(&["cp", "one:/d/prize", "-"]);
        assert!(!out.out.contains("of the host"), "{}", out.out);
        // What it had first, or what was copied there since.
        copied += usize::from(out.out.contains("inside") || out.out.contains("of the container"));
        project.run(&["cp", evil.to_str().unwrap(), "one:/d/prize"]);
        project.run(&["cp", evil.to_str().unwrap(), "one:/l/new"]);
        assert!(untouched());
    }
    assert!(copied > 0, "nothing was copied at all");
    // Weakened: by name, in which the link is the host's.
    let found = Command::new("pgrep").args(["-nf", &format!("attack of {}", project.name)]).output().unwrap();
    let inside = format!("/proc/{}/root/d/prize", crate::oci::bundle::text(&found.stdout).trim());
    let seen = (0..100_000).any(|_| fs::read_to_string(&inside).is_ok_and(|text| text == "of the host"));
    assert!(seen, "the attack would not be seen to succeed");
    project.down();
}
