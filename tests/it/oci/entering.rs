//! Namespaces, control groups and descriptors of others, and further processes.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::bundle::{Bundle, cannot_run, text};
use crate::support::eventually;

fn open_to_all(bundle: &Bundle) {
    for folder in [bundle.folder.path().to_owned(), bundle.rootfs()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn detached(bundle: &Bundle) {
    let mut command = bundle.command(&["run", "--detach", &bundle.id]);
    let errors = bundle.outside("errors");
    let status = command.stdout(Stdio::null()).stderr(fs::File::create(&errors).unwrap()).status().unwrap();
    assert!(status.success(), "{}", fs::read_to_string(&errors).unwrap());
}

/// A container in a user namespace of its own, and another one that is made in that, as in a pod.
fn two_in_a_user_namespace() -> (Bundle, Bundle) {
    let mut first = Bundle::new("pod", "exec sleep 1000");
    open_to_all(&first);
    let mapping = json!([{ "containerID": 0, "hostID": 300_000, "size": 1000 }]);
    first.push("/linux/namespaces", json!({ "type": "user" }));
    first.set("/linux/uidMappings", mapping.clone());
    first.set("/linux/gidMappings", mapping);
    detached(&first);
    let mut second = Bundle::new("in-pod", "");
    open_to_all(&second);
    let pid = first.state()["pid"].clone();
    second.push("/linux/namespaces", json!({ "type": "user", "path": format!("/proc/{pid}/ns/user") }));
    (first, second)
}

#[test]
fn a_container_is_made_in_the_user_namespace_of_another() {
    if cannot_run() {
        return;
    }
    let (first, mut second) = two_in_a_user_namespace();
    let pid = first.state()["pid"].clone();
    let script = "tr -s ' ' </proc/self/uid_map; readlink /proc/self/ns/user; hostname inside && hostname; \
                  mount -t tmpfs x /tmp && echo mounted";
    second.script(script);
    let all = second.config["process"]["capabilities"]["effective"].as_array().unwrap().clone();
    let all: Vec<Value> = all.into_iter().chain([json!("CAP_SYS_ADMIN")]).collect();
    second.set("/process/capabilities", json!({ "bounding": all, "effective": all, "permitted": all }));
    let user = fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    // What is new is of that namespace: its root may mount and name in there.
    assert_eq!(second.run(), format!(" 0 300000 1000\n{}\ninside\nmounted\n", user.display()));

    // A network that is not of that namespace, with the pids of the other container; and a process that follows there.
    second.script("exec sleep 1000");
    let namespaces = second.config["linux"]["namespaces"].as_array_mut().unwrap();
    for namespace in namespaces.iter_mut() {
        match namespace["type"].as_str().unwrap() {
            "network" => namespace["path"] = json!("/proc/self/ns/net"),
            "pid" => namespace["path"] = json!(format!("/proc/{pid}/ns/pid")),
            "mount" => namespace["path"] = json!(""),
            _ => {}
        }
    }
    let mounts = second.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["type"] != "sysfs" && mount["type"] != "cgroup");
    detached(&second);
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let seen =
        second.ok(&["exec", &second.id, "sh", "-c", "readlink /proc/self/ns/user; readlink /proc/self/ns/net; id -u"]);
    assert_eq!(seen, format!("{}\n{}\n0\n", user.display(), own.display()));
}

#[test]
fn owners_are_shown_as_the_joined_user_namespace_has_them() {
    if cannot_run() {
        return;
    }
    let (_first, mut second) = two_in_a_user_namespace();
    let source = second.outside("source");
    fs::create_dir(&source).unwrap();
    chown(&source, Some(7), Some(8)).unwrap();
    fs::create_dir(second.rootfs().join("mapped")).unwrap();
    second.push(
        "/mounts",
        json!({ "destination": "/mapped", "type": "bind", "source": source, "options": ["bind", "idmap"] }),
    );
    second.script("stat -c '%u %g' /mapped");
    let output = second.oci(&["run", &second.id]);
    let error = text(&output.stderr);
    if error.contains("id mapping: Invalid argument") {
        return println!("skipped: the file system of {} has no id-mapped mounts", source.display());
    }
    assert_eq!(text(&output.stdout), "7 8\n", "{error}");
}

#[test]
fn sockets_that_the_runtime_was_handed_are_the_programs() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("listen", "echo $LISTEN_FDS $LISTEN_PID; cat <&3; cat <&4; ls /proc/self/fd");
    bundle.push("/process/env", json!("LISTEN_FDS=9"));
    let with = |pid: &str, preserve: &str| {
        let runtime = bundle.command(&["run", "--preserve-fds", preserve, &bundle.id]);
        // The number of the shell stays that of what it executes.
        let script = format!("exec 3<<<one 4<<<two 5</etc; export LISTEN_PID={pid} LISTEN_FDS=2; exec \"$@\"");
        let mut shell = Command::new("/bin/bash");
        shell.args(["-c", &script, "bash"]).arg(runtime.get_program()).args(runtime.get_args());
        let output = shell.current_dir(bundle.folder.path()).stdin(Stdio::null()).output().unwrap();
        (text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(with("$$", "0").0, "2 1\none\ntwo\n0\n1\n2\n3\n4\n5\n");
    assert_eq!(with("$$", "1").0, "2 1\none\ntwo\n0\n1\n2\n3\n4\n5\n6\n");
    let (printed, complaint) = with("1", "0");
    assert_eq!(printed, "9\n0\n1\n2\n3\n", "they are somebody else's");
    // Which number it names, and how, is the shell's.
    assert_eq!(complaint.matches("Bad file descriptor").count(), 2, "{complaint}");
}

#[test]
fn an_annotation_keeps_the_callers_groups() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("groups", "grep Groups /proc/self/status; exec sleep 60");
    let groups = |bundle: &Bundle, arguments: &[&str]| {
        let runtime = bundle.command(arguments);
        let mut caller = Command::new("setpriv");
        caller.args(["--groups", "7,8"]).arg(runtime.get_program()).args(runtime.get_args());
        let path = bundle.outside("groups");
        let file = fs::File::create(&path).unwrap();
        let caller = caller.current_dir(bundle.folder.path()).stdin(Stdio::null()).stdout(file.try_clone().unwrap());
        assert!(caller.stderr(file).status().unwrap().success());
        eventually("the groups", || {
            let said = fs::read_to_string(&path).unwrap();
            said.strip_prefix("Groups:").and_then(|list| list.strip_suffix('\n')).map(|list| list.trim().to_owned())
        })
    };
    let exec = ["exec", &bundle.id.clone(), "/bin/grep", "Groups", "/proc/self/status"];
    assert_eq!(groups(&bundle, &["run", "--detach", &bundle.id]), "");
    assert_eq!(groups(&bundle, &exec), "");
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.set("/annotations", json!({ "run.oci.keep_original_groups": "1" }));
    assert_eq!(groups(&bundle, &["run", "--detach", &bundle.id]), "7 8");
    assert_eq!(groups(&bundle, &exec), "7 8");
}

#[test]
fn a_capability_that_nobody_knows_is_left_out_of_exec_with_a_warning() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("exec-cap", "exec sleep 60");
    bundle.set("/process/capabilities", json!({}));
    bundle.create();
    bundle.start();
    let caps = ["--cap", "CAP_NOSUCH", "--cap", "kill"];
    let output =
        bundle.oci(&[&["exec"], &caps[..], &[&bundle.id, "/bin/grep", "CapEff", "/proc/self/status"]].concat());
    assert_eq!(text(&output.stdout), "CapEff:\t0000000000000020\n");
    assert!(text(&output.stderr).contains("CAP_NOSUCH"), "{}", text(&output.stderr));
}

#[test]
fn output_of_a_terminal_that_we_carry_is_the_programs_own() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("carried", "[ -t 1 ] && echo one; echo two");
    bundle.set("/process/terminal", json!(true));
    assert_eq!(bundle.run(), "one\ntwo\n");
}

#[test]
fn a_working_directory_need_only_be_open_to_root() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("cwd", "exec sleep 1000");
    let closed = bundle.rootfs().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    open_to_all(&bundle);
    bundle.set("/process/cwd", json!("/closed"));
    bundle.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    bundle.set("/process/capabilities", json!({}));
    for no_new_privileges in [true, false] {
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
        detached(&bundle);
        let seen = bundle.ok(&["exec", &bundle.id, "sh", "-c", "readlink /proc/1/cwd; readlink /proc/self/cwd; id -u"]);
        assert_eq!(seen, "/closed\n/closed\n1000\n");
        bundle.ok(&["delete", "--force", &bundle.id]);
    }
    // One that only the user may enter will do, too; one that nobody may, not.
    chown(&closed, Some(1000), Some(1000)).unwrap();
    bundle.script("pwd");
    assert_eq!(bundle.run(), "/closed\n");
}

#[test]
fn a_further_process_may_leave_out_what_has_a_default_and_has_the_execution_domain() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("process", "exec sleep 1000");
    bundle.set("/linux/personality", json!({ "domain": "LINUX32" }));
    detached(&bundle);
    // Its nice value may come when it runs already.
    let script = "
        tries=0
        until [ $(cut -d' ' -f19 /proc/$$/stat) = -5 ] || [ $((tries += 1)) = 1000 ]; do :; done
        id -u; uname -m; cut -d' ' -f19 /proc/$$/stat; cut -d' ' -f19,41 /proc/self/stat; :";
    let process = json!({
        "cwd": "/", "args": ["/bin/sh", "-c", script],
        "scheduler": { "policy": "SCHED_OTHER", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"] },
        "capabilities": { "effective": ["CAP_NO_SUCH"] },
    });
    let path = bundle.outside("process.json");
    fs::write(&path, process.to_string()).unwrap();
    let seen = bundle.ok(&["exec", "--process", path.to_str().unwrap(), &bundle.id]);
    let lines: Vec<_> = seen.lines().collect();
    assert!(matches!(lines[..], ["0", "i686" | "armv8l", "-5", "0 0"]), "{seen}: children are as usual again");
    fs::write(&path, r#"{ "cwd": "/", "args": "no list" }"#).unwrap();
    assert!(bundle.fails(&["exec", "--process", path.to_str().unwrap(), &bundle.id]).contains("invalid type"));
}

#[test]
fn processes_are_not_kept_to_the_cpus_of_the_caller() {
    if cannot_run() {
        return;
    }
    let allowed = "grep Cpus_allowed_list /proc/self/status";
    let all = Command::new("sh").args(["-c", allowed]).output().unwrap().stdout;
    let mut bundle = Bundle::new("cpus", allowed);
    let kept_to_one = |bundle: &Bundle, arguments: &[&str]| {
        let runtime = bundle.command(arguments);
        let mut taskset = Command::new("taskset");
        taskset.args(["-c", "0"]).arg(runtime.get_program()).args(runtime.get_args());
        text(&taskset.current_dir(bundle.folder.path()).stdin(Stdio::null()).output().unwrap().stdout)
    };
    assert_eq!(kept_to_one(&bundle, &["run", &bundle.id]), text(&all));
    bundle.script("exec sleep 1000");
    detached(&bundle);
    assert_eq!(kept_to_one(&bundle, &["exec", &bundle.id, "sh", "-c", allowed]), text(&all));
}

#[test]
fn capabilities_that_cannot_be_ambient_are_a_warning() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("ambient", "grep CapAmb /proc/self/status");
    bundle.set("/process/capabilities/inheritable", json!(["CAP_KILL"]));
    bundle.set("/process/capabilities/ambient", json!(["CAP_KILL", "CAP_CHOWN"]));
    let output = bundle.oci(&["run", &bundle.id]);
    assert_eq!(text(&output.stdout), "CapAmb:\t0000000000000020\n");
    let error = text(&output.stderr);
    assert!(error.contains("can't raise ambient capability CAP_CHOWN: it is not inheritable"), "{error}");
    bundle.set("/process/capabilities/ambient", json!([]));
    bundle.script("exec sleep 1000");
    detached(&bundle);
    let exec =
        |more: &[&str]| bundle.ok(&[&["exec"], more, &[&bundle.id, "grep", "CapAmb", "/proc/self/status"]].concat());
    assert_eq!(exec(&[]), "CapAmb:\t0000000000000000\n");
    assert_eq!(exec(&["--cap", "CAP_KILL"]), "CapAmb:\t0000000000000020\n");
}

#[test]
fn what_is_left_of_a_container_in_the_hosts_pids_is_killed() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("left", "sleep 1000 & exec sleep 1000");
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
    detached(&bundle);
    bundle.ok(&["kill", &bundle.id, "0"]);
    let pid = i32::try_from(bundle.state()["pid"].as_i64().unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    bundle.wait();
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    eventually("their end", || {
        let output = bundle.oci(&["kill", &bundle.id, "KILL"]);
        (!output.status.success() && text(&output.stderr).contains("container not running")).then_some(())
    });
    assert!(bundle.fails(&["kill", &bundle.id, "0"]).contains("container not running"));
    // The kernel tells a number that is a thread's now, and one that is being reaped, from one that is nobody's.
    let path = bundle.folder.path().join("state").join(&bundle.id).join("record.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let thread = || {
        record["pid"] = json!(rustix::thread::gettid().as_raw_nonzero().get());
        fs::write(&path, record.to_string()).unwrap();
        assert!(bundle.fails(&["kill", &bundle.id, "0"]).contains("container not running"));
    };
    std::thread::scope(|scope| scope.spawn(thread).join().unwrap());
}

#[test]
fn hooks_in_the_container_are_as_confined_as_its_program() {
    if cannot_run() {
        return;
    }
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::new("filtered-hook", "echo started");
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
        let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99 });
        bundle.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }));
        let hook = |script: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] }]);
        bundle.set("/hooks", json!({ "startContainer": hook("mkdir /made") }));
        let error = bundle.fails(&["run", &bundle.id]);
        assert!(error.contains("Cannot assign requested address"), "{error}");
        bundle.set("/hooks", json!({ "startContainer": hook("touch /touched") }));
        assert_eq!(bundle.run(), "started\n");
        assert!(bundle.rootfs().join("touched").exists());
    }
}

#[test]
fn a_control_group_that_is_in_use_or_frozen_is_refused_and_left_alone() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("group", "exec sleep 1000");
    let group = format!("/rcompose-it-{}-shared", std::process::id());
    bundle.set("/linux/cgroupsPath", json!(group));
    detached(&bundle);
    let mut other = Bundle::new("group-too", "true");
    other.set("/linux/cgroupsPath", json!(group));
    let error = other.fails(&["run", &other.id]);
    assert!(error.contains("is not empty: 1 processes are in `"), "{error}");
    assert_eq!(bundle.status(), "running");
    bundle.ok(&["pause", &bundle.id]);
    let error = other.fails(&["run", &other.id]);
    assert!(error.contains("cgroup unexpectedly frozen"), "{error}");
    bundle.ok(&["resume", &bundle.id]);
    assert_eq!(bundle.status(), "running");
}

/// From there it is the mount namespace's own root that a process which enters the container would start from.
#[test]
fn in_a_chroot_the_containers_root_is_all_that_a_further_process_sees() {
    if cannot_run() {
        return;
    }
    for itself in ["", "mount --bind $root $root;"] {
        let bundle = Bundle::new("chroot", "exec sleep 1000");
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path();
        for folder in ["bin", "proc", "sys", "dev", "bundle", "outer"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        crate::support::copy_program("/bin/busybox", root.join("bin/busybox"));
        crate::support::copy_program(env!("CARGO_BIN_EXE_rcompose"), root.join("bin/rcompose"));
        // It writes the bundle.
        drop(bundle.command(&[]));
        let script = format!(
            "set -e; root={root}; {itself} mount -t proc proc $root/proc; mount --rbind /sys $root/sys
             mount --rbind /dev $root/dev; mount --bind {bundle} $root/bundle
             oci() {{ chroot $root /bin/rcompose oci --root /state \"$@\"; }}
             oci run --detach --bundle /bundle {id} </dev/null >$root/said 2>&1 || cat $root/said
             oci exec {id} ls /; oci exec {id} ls -d /proc/1/root/outer || true; oci delete --force {id}",
            root = root.display(),
            bundle = bundle.folder.path().display(),
            id = bundle.id,
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let seen = text(&output.stdout);
        assert_eq!(seen, "bin\ndev\netc\nproc\nsys\ntmp\n", "{itself}: {}", text(&output.stderr));
    }
}
