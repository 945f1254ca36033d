//! What callers of runc rely on beyond the specification, and listeners of system call filters.

use std::fs;
use std::io::{IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use super::bundle::{Bundle, cannot_run, text};

fn detached(bundle: &Bundle, options: &[&str]) {
    let mut command = bundle.command(&[&["run", "--detach"], options, &[&bundle.id]].concat());
    let errors = bundle.outside("errors");
    let status = command.stdout(Stdio::null()).stderr(fs::File::create(&errors).unwrap()).status().unwrap();
    assert!(status.success(), "{}", fs::read_to_string(&errors).unwrap());
}

/// One message with one descriptor, from whoever comes first.
fn receive(listener: &UnixListener) -> (String, OwnedFd) {
    let (connection, _) = listener.accept().unwrap();
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(&connection, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut all) => all.next(),
        _ => None,
    });
    (text(&bytes[..got.bytes]), descriptor.unwrap())
}

/// Runs the command while somebody listens, who lets go of the filter at once: its calls fail with `ENOSYS` then.
fn with_listener(listener: &UnixListener, mut command: Command) -> (Value, Output) {
    std::thread::scope(|scope| {
        let told = scope.spawn(|| receive(listener).0);
        let output = command.output().unwrap();
        assert!(output.stdout.len() > 1, "{}", text(&output.stderr));
        (serde_json::from_str(&told.join().unwrap()).unwrap(), output)
    })
}

#[test]
fn a_listener_gets_the_descriptor_of_the_filter_and_the_state() {
    if cannot_run() {
        return;
    }
    let denied = "mkdir /tmp/new 2>&1; echo $$";
    let said = "mkdir: can't create directory '/tmp/new': Function not implemented\n";
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::new("listener", denied);
        let path = bundle.outside("listener");
        let listener = UnixListener::bind(&path).unwrap();
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
        bundle.set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "more",
                "flags": ["SECCOMP_FILTER_FLAG_TSYNC"],
                "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
            }),
        );
        let (told, output) = with_listener(&listener, bundle.command(&["run", &bundle.id]));
        assert_eq!(text(&output.stdout), format!("{said}1\n"), "{}", text(&output.stderr));
        assert_eq!((&told["fds"], &told["metadata"]), (&json!(["seccompFd"]), &json!("more")));
        let state = &told["state"];
        assert_eq!((&state["id"], &state["status"]), (&json!(bundle.id), &json!("creating")));
        assert!(told["pid"].as_i64().unwrap() > 1 && told["pid"] == state["pid"], "{told}");

        bundle.script("exec sleep 60");
        std::thread::scope(|scope| {
            let first = scope.spawn(|| receive(&listener));
            detached(&bundle, &[]);
            // With the call refused and not asked about, the container's own filter does no harm to what follows.
            drop(first.join().unwrap());
        });
        let exec = bundle.command(&["exec", &bundle.id, "sh", "-c", denied]);
        let (told, output) = with_listener(&listener, exec);
        assert!(text(&output.stdout).starts_with(said), "{}", text(&output.stderr));
        assert_eq!((&told["state"]["status"], &told["pid"]), (&json!("running"), &bundle.state()["pid"]));
        bundle.ok(&["delete", "--force", &bundle.id]);

        drop(listener);
        let error = bundle.fails(&["run", &bundle.id]);
        assert!(error.contains("failed to connect with seccomp agent") && error.contains("listenerPath"), "{error}");
        bundle.set("/linux/seccomp/listenerPath", json!(""));
        assert!(bundle.fails(&["run", &bundle.id]).contains("linux.seccomp.listenerPath"));
        bundle.set("/linux/seccomp/syscalls", json!([]));
        bundle.script("echo fine");
        assert_eq!(bundle.run(), "fine\n");
    }
}

#[test]
fn the_process_is_handed_over_as_a_descriptor() {
    if cannot_run() {
        return;
    }
    let bundle = Bundle::new("pidfd", "exec sleep 60");
    let path = bundle.outside("pidfd");
    let listener = UnixListener::bind(&path).unwrap();
    let pidfd = std::thread::scope(|scope| {
        let received = scope.spawn(|| receive(&listener));
        detached(&bundle, &["--pidfd-socket", path.to_str().unwrap()]);
        received.join().unwrap().1
    });
    rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL).unwrap();
    bundle.wait();
    // There is nobody left to signal, and `--all` finds that right.
    bundle.fails(&["kill", &bundle.id, "TERM"]);
    bundle.ok(&["kill", "--all", &bundle.id, "TERM"]);
}

/// Where the container's v1 group of a controller is; says so when the machine has none.
fn v1_group(bundle: &Bundle, controller: &str) -> Option<std::path::PathBuf> {
    let mount = Path::new("/sys/fs/cgroup").join(controller);
    if !mount.join("cgroup.procs").exists() {
        println!("skipped: no {controller} controller of version 1");
        return None;
    }
    Some(mount.join(&bundle.id))
}

#[test]
fn a_process_is_put_into_a_group_below_the_containers() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("below", "exec sleep 60");
    bundle.set("/linux/cgroupsPath", json!(format!("/{}", bundle.id)));
    detached(&bundle, &[]);
    let exec = |group: &str| bundle.oci(&["exec", "--cgroup", group, &bundle.id, "cat", "/proc/self/cgroup"]);
    for (wrong, words) in [("..", ".. is not a sub cgroup path"), ("none", "none"), ("what:/", "controller `what`")] {
        let output = exec(wrong);
        // Not the status of a program that failed.
        assert_eq!(output.status.code(), Some(255));
        assert!(text(&output.stderr).contains(words), "{wrong}: {}", text(&output.stderr));
    }
    let Some(group) = v1_group(&bundle, "pids") else { return };
    fs::create_dir(group.join("sub")).unwrap();
    let groups = text(&exec("pids:sub").stdout);
    assert!(groups.contains(":pids:/sub\n") && !groups.replace(":pids:/sub", "").contains("/sub"), "{groups}");
    bundle.ok(&["pause", &bundle.id]);
    assert!(bundle.fails(&["exec", &bundle.id, "true"]).contains("cannot exec in a paused container"));
    let waits = bundle.command(&["exec", "--ignore-paused", &bundle.id, "echo", "late"]).stdout(Stdio::piped()).spawn();
    std::thread::sleep(std::time::Duration::from_millis(200));
    bundle.ok(&["resume", &bundle.id]);
    assert_eq!(text(&waits.unwrap().wait_with_output().unwrap().stdout), "late\n");
}

#[test]
fn limits_are_updated_by_option_and_in_an_order_that_the_kernel_takes() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("update", "exec sleep 60");
    let Some(pod) = v1_group(&bundle, "cpu") else { return };
    bundle.set("/linux/cgroupsPath", json!(format!("/{}/one", bundle.id)));
    fs::create_dir(&pod).unwrap();
    fs::write(pod.join("cpu.cfs_quota_us"), "50000").unwrap();
    detached(&bundle, &[]);
    let value = |file: &str| fs::read_to_string(pod.join("one").join(file)).unwrap().trim().to_owned();
    let update = |options: &[&str]| drop(bundle.ok(&[&["update"], options, &[&bundle.id]].concat()));
    bundle.fails(&["update", "--cpu-quota", "60000", &bundle.id]);
    update(&["--cpu-quota", "40000"]);
    // A period that is too short for the quota as it still is.
    update(&["--cpu-period", "10000", "--cpu-quota", "3000"]);
    assert_eq!((value("cpu.cfs_period_us"), value("cpu.cfs_quota_us")), ("10000".to_owned(), "3000".to_owned()));
    if pod.join("cpu.cfs_burst_us").exists() {
        update(&["--cpu-burst", "2000"]);
        assert_eq!(value("cpu.cfs_burst_us"), "2000");
    }
    if pod.join("cpu.idle").exists() {
        update(&["--cpu-idle", "1"]);
        assert_eq!(value("cpu.idle"), "1");
    }
    bundle.ok(&["delete", "--force", &bundle.id]);
    for (controller, mount) in
        fs::read_dir("/sys/fs/cgroup").unwrap().map(|it| it.unwrap()).map(|it| (it.file_name(), it.path()))
    {
        if mount.join(&bundle.id).is_dir() {
            fs::remove_dir(mount.join(&bundle.id)).unwrap_or_else(|error| panic!("{controller:?}: {error}"));
        }
    }
}

#[test]
fn a_bind_that_names_flags_has_just_those() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("bind-flags", "grep ' /there ' /proc/self/mounts | cut -d ' ' -f 4");
    let source = bundle.outside("source");
    fs::create_dir(&source).unwrap();
    bundle.push("/mounts", json!({ "destination": "/there", "type": "bind", "source": source, "options": [] }));
    let last = bundle.config["mounts"].as_array().unwrap().len() - 1;
    let mut seen = |options: Value| {
        bundle.set(&format!("/mounts/{last}/options"), options);
        let runtime = bundle.command(&["run", &bundle.id]);
        let script = format!(
            "mount -t tmpfs x {0}; mount -o remount,bind,ro,nosuid,nodev,noexec,noatime {0}; exec \"$@\"",
            source.display()
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-ec", &script, "-"]).arg(runtime.get_program()).args(runtime.get_args());
        let output = command.current_dir(bundle.folder.path()).stdin(Stdio::null()).output().unwrap();
        let mut flags: Vec<_> = text(&output.stdout).trim().split(',').map(str::to_owned).collect();
        flags.retain(|flag| ["ro", "rw"].contains(&flag.as_str()) || flag.starts_with("no") || flag.ends_with("time"));
        assert!(output.status.success(), "{}", text(&output.stderr));
        flags.join(",")
    };
    assert_eq!(seen(json!(["rbind", "rprivate"])), "ro,nosuid,nodev,noexec,noatime");
    assert_eq!(seen(json!(["bind", "nosuid"])), "rw,nosuid,noatime");
    assert_eq!(seen(json!(["bind", "dev"])), "rw,noatime");
    assert_eq!(seen(json!(["bind", "ro", "relatime"])), "ro,relatime");
    assert_eq!(seen(json!(["bind", "nodiratime"])), "rw,nodiratime,relatime");
}

#[test]
fn owners_of_what_lies_in_the_root_are_mapped_in_a_user_namespace() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("in-root", "stat -c '%u %g' /mapped; ls /mapped");
    for folder in [bundle.folder.path().to_owned(), bundle.rootfs()] {
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mapping = json!([{ "containerID": 0, "hostID": 300_000, "size": 1000 }]);
    bundle.push("/linux/namespaces", json!({ "type": "user" }));
    bundle.set("/linux/uidMappings", mapping.clone());
    bundle.set("/linux/gidMappings", mapping);
    let (source, to) = (bundle.rootfs().join("source"), bundle.rootfs().join("mapped"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(to).unwrap();
    fs::write(source.join("inside"), "").unwrap();
    std::os::unix::fs::chown(&source, Some(7), Some(8)).unwrap();
    let link = bundle.rootfs().join("link");
    // Seen from the host it would lead elsewhere.
    std::os::unix::fs::symlink("/source", &link).unwrap();
    bundle.push(
        "/mounts",
        json!({ "destination": "/mapped", "type": "bind", "source": link, "options": ["bind", "idmap"] }),
    );
    let output = bundle.oci(&["run", &bundle.id]);
    let error = text(&output.stderr);
    if error.contains("id mapping: Invalid argument") {
        return println!("skipped: the file system of {} has no id-mapped mounts", source.display());
    }
    assert_eq!(text(&output.stdout), "7 8\ninside\n", "{error}");
}

#[test]
fn a_scheduler_that_ends_with_a_fork_is_given_to_a_further_process() {
    if cannot_run() {
        return;
    }
    let bundle = Bundle::new("scheduler", "exec sleep 60");
    detached(&bundle, &[]);
    let process = bundle.outside("process.json");
    let wanted = json!({
        "cwd": "/", "args": ["/bin/sleep", "60"], "env": ["PATH=/bin"],
        "scheduler": { "policy": "SCHED_RR", "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"] },
    });
    fs::File::create(&process).unwrap().write_all(wanted.to_string().as_bytes()).unwrap();
    let file = bundle.outside("pid");
    let arguments =
        ["exec", "--detach", "--pid-file", file.to_str().unwrap(), "--process", process.to_str().unwrap(), &bundle.id];
    let mut command = bundle.command(&arguments);
    assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let stat = fs::read_to_string(format!("/proc/{}/stat", fs::read_to_string(file).unwrap())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // proc_pid_stat(5): the 41st is the policy, and SCHED_RR is 2.
    assert_eq!(fields[38], "2");
}
