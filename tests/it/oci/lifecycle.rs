//! The life of a container as `runtime.md` of the specification has it: commands, states, hooks.

use std::fs;

use serde_json::{Value, json};

use super::bundle::{Bundle, cannot_run, text};
use crate::support::eventually;

#[test]
fn a_container_is_created_started_and_deleted() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("lifecycle", "echo started");
    bundle.set("/annotations", json!({ "org.example.key": "value" }));
    let pid_file = bundle.outside("pid");
    let output = bundle.outside("output");
    let file = fs::File::create(&output).unwrap();
    let mut create = bundle.command(&["create", "--pid-file", pid_file.to_str().unwrap(), &bundle.id]);
    assert!(create.stdout(file).status().unwrap().success());
    let state = bundle.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], bundle.id.as_str());
    assert_eq!(state["bundle"], bundle.folder.path().canonicalize().unwrap().to_str().unwrap());
    assert_eq!(state["annotations"]["org.example.key"], "value");
    assert_eq!(state["pid"].to_string(), fs::read_to_string(&pid_file).unwrap());
    assert_eq!(fs::read_to_string(&output).unwrap(), "", "the program runs before its start");

    assert!(bundle.fails(&["create", &bundle.id]).contains("exists already"));
    bundle.start();
    bundle.wait();
    assert_eq!(fs::read_to_string(&output).unwrap(), "started\n");
    assert_eq!(bundle.status(), "stopped");
    assert!(bundle.fails(&["start", &bundle.id]).contains("is stopped, not created"));
    assert!(bundle.fails(&["kill", &bundle.id, "KILL"]).contains("container not running"));
    bundle.ok(&["delete", &bundle.id]);
    assert!(bundle.fails(&["state", &bundle.id]).contains("does not exist"));
    assert!(!bundle.ok(&["list", "-q"]).contains(&bundle.id));
}

#[test]
fn changes_of_the_bundle_after_create_have_no_effect() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("frozen", "echo first");
    let output = bundle.create();
    bundle.set("/process/args", json!(["/bin/echo", "second"]));
    bundle.start();
    bundle.wait();
    assert_eq!(fs::read_to_string(output).unwrap(), "first\n");
}

#[test]
fn what_was_started_is_created_no_longer() {
    if cannot_run() {
        return;
    }
    let bundle = Bundle::new("started", "sleep 60");
    for _ in 0..20 {
        bundle.create();
        bundle.start();
        assert_eq!(bundle.status(), "running");
        bundle.ok(&["delete", "--force", &bundle.id]);
    }
}

/// As the first process of its pid namespace it would not hear of it; what ends no process leaves it as it is.
#[test]
fn what_was_created_and_not_started_is_ended_by_a_signal() {
    if cannot_run() {
        return;
    }
    let bundle = Bundle::new("waiting", "sleep 60");
    for args in [&["TERM"][..], &["INT"], &["--all", "TERM"]] {
        bundle.create();
        bundle.ok(&["kill", &bundle.id, "WINCH"]);
        bundle.ok(&["kill", &bundle.id, "0"]);
        assert_eq!(bundle.status(), "created");
        let (signal, options) = args.split_last().unwrap();
        bundle.ok(&[&["kill"], options, &[bundle.id.as_str(), signal]].concat());
        eventually("it ends", || (bundle.status() == "stopped").then_some(()));
        bundle.ok(&["delete", &bundle.id]);
    }
    bundle.create();
    bundle.start();
    bundle.ok(&["kill", &bundle.id, "HUP"]);
    bundle.ok(&["delete", "--force", &bundle.id]);
}

#[test]
fn run_gives_the_exit_status_and_leaves_nothing() {
    if cannot_run() {
        return;
    }
    let bundle = Bundle::new("status", "exit 3");
    assert_eq!(bundle.oci(&["run", &bundle.id]).status.code(), Some(3));
    assert_eq!(bundle.ok(&["list", "-q"]), "");
    let mut bundle = Bundle::new("missing", "");
    bundle.set("/process/args", json!(["nosuch"]));
    let error = bundle.fails(&["run", &bundle.id]);
    assert!(error.contains("exec: \"nosuch\": executable file not found in $PATH"), "{error}");
    assert_eq!(bundle.ok(&["list", "-q"]), "");
    let groups = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let groups = groups.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    for group in groups {
        let left = format!("{group}/rcompose-oci-{}", bundle.id);
        assert!(!std::path::Path::new(&left).exists(), "{left} is left");
    }
}

#[test]
fn a_running_container_is_signalled_paused_and_entered() {
    if cannot_run() {
        return;
    }
    let bundle = Bundle::new("running", "trap 'exit 5' USR1; echo ready; while :; do sleep 0.02; done");
    let output = bundle.create();
    bundle.start();
    while fs::read_to_string(&output).unwrap().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(
        bundle.ok(&[
            "exec",
            "--env",
            "A=b c",
            "--cwd",
            "/tmp",
            "--user",
            "7:8",
            &bundle.id,
            "sh",
            "-c",
            "echo $A $PWD $(id -u) $(id -g)"
        ]),
        "b c /tmp 7 8\n"
    );
    assert_eq!(bundle.oci(&["exec", &bundle.id, "sh", "-c", "exit 9"]).status.code(), Some(9));
    let error = bundle.fails(&["exec", &bundle.id, "nosuch"]);
    assert!(error.contains("executable file not found in $PATH"), "{error}");
    let pids: Vec<i32> = serde_json::from_str(&bundle.ok(&["ps", "--format", "json", &bundle.id])).unwrap();
    assert!(pids.contains(&i32::try_from(bundle.state()["pid"].as_i64().unwrap()).unwrap()));
    bundle.ok(&["pause", &bundle.id]);
    assert_eq!(bundle.status(), "paused");
    assert!(bundle.fails(&["exec", &bundle.id, "true"]).contains("is paused"));
    bundle.ok(&["resume", &bundle.id]);
    assert_eq!(bundle.status(), "running");
    assert!(bundle.fails(&["delete", &bundle.id]).contains("is running, not stopped"));
    assert!(bundle.fails(&["kill", &bundle.id, "NOSUCH"]).contains("is not a signal"));
    bundle.ok(&["kill", &bundle.id, "USR1"]);
    bundle.wait();
    assert_eq!(bundle.status(), "stopped");
    bundle.ok(&["delete", &bundle.id]);
}

/// Each hook appends its name and the state that it got to a file of the host.
fn with_hooks(bundle: &mut Bundle, kinds: &[&str]) -> std::path::PathBuf {
    let log = bundle.outside("hooks.log");
    for kind in kinds {
        let script = format!("printf '%s %s ' {kind} $(hostname) >>{0}; cat >>{0}; echo >>{0}", log.display());
        let hook =
            json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": 10 });
        if bundle.config.get("hooks").is_none() {
            bundle.set("/hooks", json!({}));
        }
        bundle.set(&format!("/hooks/{kind}"), json!([hook]));
    }
    log
}

#[test]
fn hooks_run_in_their_order_and_places() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("hooks", "true");
    bundle.set("/hostname", json!("inside"));
    let log = with_hooks(&mut bundle, &["prestart", "createRuntime", "createContainer", "poststart", "poststop"]);
    // This one is executed in the container: its file is on a bind mount.
    let shared = bundle.outside("shared");
    fs::create_dir(&shared).unwrap();
    bundle.push("/mounts", json!({ "destination": "/shared", "type": "bind", "source": shared, "options": ["rbind"] }));
    let script = "echo startContainer $(hostname) $(cat) >/shared/log";
    bundle.set(
        "/hooks/startContainer",
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] }]),
    );
    bundle.create();
    assert!(!shared.join("log").exists());
    let pid = bundle.state()["pid"].clone();
    bundle.start();
    bundle.wait();
    bundle.ok(&["delete", &bundle.id]);

    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<(&str, &str, Value)> = log
        .lines()
        .map(|line| {
            let mut parts = line.splitn(3, ' ');
            let (kind, host) = (parts.next().unwrap(), parts.next().unwrap());
            (kind, host, serde_json::from_str(parts.next().unwrap()).unwrap())
        })
        .collect();
    let own = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let seen: Vec<_> = lines.iter().map(|(kind, _, state)| (*kind, state["status"].as_str().unwrap())).collect();
    assert_eq!(
        seen,
        [
            ("prestart", "creating"),
            ("createRuntime", "creating"),
            ("createContainer", "creating"),
            ("poststart", "running"),
            ("poststop", "stopped"),
        ]
    );
    for (kind, host, state) in &lines {
        // The host name is set after the root has been changed, so `createContainer` sees that of the new namespace: ours.
        assert_eq!(*host, own, "{kind}");
        assert_eq!(state["id"], bundle.id.as_str());
        if *kind != "poststop" {
            assert_eq!(state["pid"], pid, "{kind}");
        }
    }
    let inside = fs::read_to_string(shared.join("log")).unwrap();
    assert!(inside.starts_with("startContainer inside {"), "{inside}");
    assert!(inside.contains(&format!("\"pid\":{pid}")), "{inside}");
}

#[test]
fn a_failing_hook_undoes_the_container_and_is_quoted() {
    if cannot_run() {
        return;
    }
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = Bundle::new("failing", "true");
        let log = with_hooks(&mut bundle, &["poststop"]);
        let failing = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "echo no luck >&2; exit 4"] }]);
        bundle.set(&format!("/hooks/{kind}"), failing);
        let error = bundle.fails(&["create", &bundle.id]);
        assert!(error.contains("no luck") && error.contains("exit status: 4"), "{kind}: {error}");
        assert!(error.contains(&format!("error running {kind} hook #0: ")), "{error}");
        assert!(bundle.fails(&["state", &bundle.id]).contains("does not exist"));
        assert!(fs::read_to_string(log).unwrap().starts_with("poststop"), "{kind}");
    }
}

#[test]
fn a_hook_that_takes_too_long_is_ended() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("slow", "true");
    let slow = json!([{ "path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1 }]);
    bundle.set("/hooks", json!({ "createRuntime": slow }));
    assert!(bundle.fails(&["create", &bundle.id]).contains("did not end within 1 s"));
}

#[test]
fn errors_are_written_to_the_callers_log() {
    if cannot_run() {
        return;
    }
    let bundle = Bundle::new("log", "true");
    let log = bundle.outside("log");
    bundle.fails(&["--log", log.to_str().unwrap(), "--log-format", "json", "start", "nosuch"]);
    let line: Value = serde_json::from_str(fs::read_to_string(log).unwrap().trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "container `nosuch` does not exist");
    // Callers look there also for what is wrong with their call.
    let log = bundle.outside("refused");
    bundle.fails(&["--log", log.to_str().unwrap(), "create", "--no-pivot", &bundle.id]);
    assert!(fs::read_to_string(log).unwrap().contains("--no-pivot"));
}

#[test]
fn descriptors_are_handed_over_only_when_asked() {
    if cannot_run() {
        return;
    }
    use std::os::fd::AsRawFd;
    let bundle = Bundle::new("fds", "for fd in 3 4 5 6 7 8 9; do [ -e /proc/self/fd/$fd ] && echo $fd; done; true");
    let secret = fs::File::open("/etc").unwrap();
    let with = |preserve: &str| {
        let fd = secret.as_raw_fd();
        let script = format!("exec 3<&{fd} 4<&{fd}; exec \"$@\"");
        let runtime = bundle.command(&["run", "--preserve-fds", preserve, &bundle.id]);
        let mut shell = std::process::Command::new("/bin/bash");
        shell.args(["-c", &script, "bash"]).arg(runtime.get_program()).args(runtime.get_args());
        rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
        let output = shell.current_dir(bundle.folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(with("0"), "");
    assert_eq!(with("2"), "3\n4\n");
}

#[test]
fn descriptors_that_are_missing_among_those_handed_over_are_nobodys() {
    if cannot_run() {
        return;
    }
    let bundle = Bundle::new("gaps", "ls /proc/self/fd; exec sleep 60");
    let with = |command: &str, after: &[&str]| {
        let runtime = bundle.command(&[&[command, "--detach", "--preserve-fds", "6", &bundle.id], after].concat());
        let script = "exec 3</etc 6</etc 8</etc 4<&- 5<&- 7<&-; exec \"$@\"";
        let mut shell = std::process::Command::new("/bin/bash");
        shell.args(["-c", script, "bash"]).arg(runtime.get_program()).args(runtime.get_args());
        let path = bundle.outside("fds");
        let file = fs::File::create(&path).unwrap();
        shell.stdin(std::process::Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        assert!(shell.current_dir(bundle.folder.path()).status().unwrap().success());
        eventually("the list", || {
            let list = fs::read_to_string(&path).unwrap();
            // ls has the folder itself open, where there is room.
            (list == "0\n1\n2\n3\n4\n6\n8\n").then_some(()).ok_or(list).ok()
        });
    };
    with("run", &[]);
    with("exec", &["/bin/ls", "/proc/self/fd"]);
}

#[test]
fn what_was_never_started_is_deleted_without_force() {
    if cannot_run() {
        return;
    }
    let bundle = Bundle::new("unstarted", "echo started");
    let output = bundle.create();
    let pid = bundle.state()["pid"].as_i64().unwrap();
    bundle.ok(&["delete", &bundle.id]);
    assert!(fs::read_link(format!("/proc/{pid}/exe")).is_err(), "it waits for its start still");
    assert_eq!(fs::read_to_string(output).unwrap(), "");
}

#[test]
fn another_file_than_config_json_is_named_relative_to_the_bundle() {
    if cannot_run() {
        return;
    }
    let bundle = Bundle::new("config", "echo usual");
    let mut other = bundle.config.clone();
    other["process"]["args"] = json!(["/bin/echo", "other"]);
    fs::create_dir(bundle.outside("sub")).unwrap();
    fs::write(bundle.outside("sub/other.json"), other.to_string()).unwrap();
    assert_eq!(bundle.ok(&["run", "--config", "sub/other.json", &bundle.id]), "other\n");
    assert_eq!(bundle.run(), "usual\n");
}

#[test]
fn what_a_container_uses_is_told_in_runcs_words_and_limits_are_taken_away_again() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("events", "dd if=/dev/zero of=/dev/null bs=1k count=2000; exec sleep 1000");
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/{}", bundle.id));
    bundle.config["linux"]["resources"] = json!({"pids": {"limit": 20}, "memory": {"limit": 64 << 20}});
    bundle.create();
    bundle.start();
    let id = bundle.id.clone();
    let stats = || -> Value {
        let event: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", &id])).unwrap();
        assert_eq!((event["type"].as_str(), event["id"].as_str()), (Some("stats"), Some(id.as_str())));
        event["data"].clone()
    };
    eventually("processor time", || (stats()["cpu"]["usage"]["total"].as_u64()? > 0).then_some(()));
    let seen = stats();
    assert_eq!((seen["pids"]["limit"].as_u64(), seen["memory"]["usage"]["limit"].as_u64()), (Some(20), Some(64 << 20)));
    assert!(seen["pids"]["current"].as_u64().unwrap() >= 1 && seen["memory"]["usage"]["usage"].as_u64().unwrap() > 0);
    bundle.ok(&["update", "--pids-limit", "-1", &id]);
    assert_eq!(stats()["pids"]["limit"], 0, "0 is none");
    // Without --stats it goes on until the end.
    let following = bundle.command(&["events", "--interval", "50ms", &id]).stdout(std::process::Stdio::piped()).spawn();
    std::thread::sleep(std::time::Duration::from_millis(300));
    bundle.ok(&["kill", &id, "KILL"]);
    let told = following.unwrap().wait_with_output().unwrap();
    assert!(told.status.success() && String::from_utf8(told.stdout).unwrap().lines().count() >= 2);
    bundle.wait();
    bundle.fails(&["events", "--stats", &id]);
    bundle.ok(&["delete", &id]);
}

/// By a user with one id, outside of any user namespace: the bundle asks for one.
#[test]
fn an_ordinary_user_runs_a_bundle_and_enters_it() {
    if cannot_run() {
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let mut bundle = Bundle::new("ordinary", "id -u; touch /made; exec sleep 1000");
    let ids = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    bundle.config["linux"]["uidMappings"] = ids(nobody.uid.as_raw());
    bundle.config["linux"]["gidMappings"] = ids(nobody.gid.as_raw());
    bundle.config["linux"].as_object_mut().unwrap().remove("resources");
    // Where the build lies may be closed to others.
    let program = bundle.outside("rcompose");
    crate::support::copy_program(env!("CARGO_BIN_EXE_rcompose"), &program);
    let as_nobody = |arguments: &[&str]| {
        // It writes the bundle.
        drop(bundle.command(&[]));
        let mut command = std::process::Command::new("chown");
        command.args(["-R", "nobody"]).arg(bundle.folder.path()).status().unwrap();
        let mut command = std::process::Command::new(&program);
        command.args(["oci", "--root"]).arg(bundle.outside("state-of-nobody")).args(arguments);
        std::os::unix::process::CommandExt::uid(&mut command, nobody.uid.as_raw());
        std::os::unix::process::CommandExt::gid(&mut command, nobody.gid.as_raw());
        command.current_dir(bundle.folder.path()).stdin(std::process::Stdio::null());
        command
    };
    let output = bundle.outside("output");
    let file = fs::File::create(&output).unwrap();
    let mut command = as_nobody(&["run", "--detach", &bundle.id]);
    let status = command.stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
    let said = || fs::read_to_string(&output).unwrap();
    if said().contains("user namespace") && !status.success() {
        return println!("skipped: an ordinary user may make no user namespace here");
    }
    assert!(status.success(), "{}", said());
    eventually("its output", || said().contains("0\n").then_some(()));
    let entered = as_nobody(&["exec", &bundle.id, "sh", "-c", "id -u; ls /made"]).output().unwrap();
    assert_eq!(text(&entered.stdout), "0\n/made\n", "{}", text(&entered.stderr));
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(bundle.rootfs().join("made")).unwrap());
    assert_eq!(owner, nobody.uid.as_raw());
    assert!(as_nobody(&["kill", &bundle.id, "KILL"]).status().unwrap().success());
    eventually("its end", || as_nobody(&["delete", &bundle.id]).output().unwrap().status.success().then_some(()));
}
