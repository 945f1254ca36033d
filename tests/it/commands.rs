//! Commands and flags as a person gives them to `docker compose`, with real containers of the host image.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Project, Ran, can_run_containers, eventually, finish, kill};

const IDLE: &str = "image: rcompose/host, command: [sleep, '1000'], stop_signal: SIGKILL";

/// `rcompose -p OTHER ARGS` with the same root and folder.
fn beside(project: &Project, other: &str, args: &[&str]) -> Ran {
    project.command(&["-p", other]).args(args).output().unwrap().into()
}

#[test]
fn a_folder_entered_through_a_link_is_called_as_the_link_is() {
    let project = Project::new("services: {a: {image: x}}\n");
    let link = project.folder().join("other-name");
    std::os::unix::fs::symlink(project.folder(), &link).unwrap();
    let name = |pwd: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rcompose"));
        command.args(["config", "--format", "json"]).current_dir(&link).env("PWD", pwd);
        let ran = Ran::from(command.output().unwrap()).ok();
        serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(name(&link), "other-name");
    let own = name(&project.folder());
    assert_ne!(own, "other-name");
    assert_eq!(name(Path::new("/")), own, "a variable that names another folder says nothing");
    assert_eq!(name(&link.join("../other-name")), own);
}

#[test]
fn a_project_that_is_named_is_what_exists_of_it() {
    if !can_run_containers("a_project_that_is_named_is_what_exists_of_it") {
        return;
    }
    let project = Project::new(&format!("services:\n  a: {{{IDLE}}}\n  b: {{{IDLE}}}\n"));
    let name = project.name.clone();
    let files = [format!("services:\n  z: {{{IDLE}}}\n"), "services: [".to_owned()];
    for file in files {
        project.write("compose.yaml", &format!("services:\n  a: {{{IDLE}}}\n  b: {{{IDLE}}}\n"));
        project.run(&["up", "-d"]).ok();
        project.write("compose.yaml", &file);
        assert_eq!(beside(&project, &name, &["ps", "-q"]).ok().out.lines().count(), 2);
        beside(&project, &name, &["exec", "-T", "a", "true"]).ok();
        beside(&project, &name, &["stop", "a"]).ok();
        assert_eq!(beside(&project, &name, &["ps", "--services"]).ok().out, "b\n");
        beside(&project, &name, &["down"]).ok();
        assert_eq!(beside(&project, &name, &["ps", "-a", "-q"]).ok().out, "");
    }
    // By the variable a file that cannot be loaded is left out.
    project.run(&["ps"]).ok();
    project.write("compose.yaml", &format!("services:\n  a: {{{IDLE}}}\n"));
    beside(&project, &name, &["-f", "compose.yaml", "ps", "nosuch"]).fails(1);
    project.assert_nothing_left();
}

#[test]
fn run_takes_volumes_ports_files_and_entrypoints() {
    if !can_run_containers("run_takes_volumes_ports_files_and_entrypoints") {
        return;
    }
    let project = Project::new(&format!(
        "services:\n  a: {{{IDLE}, environment: {{A: one, B: one, C: one}}, volumes: ['data:/data']}}\nvolumes: {{data: {{}}}}\n"
    ));
    project.write("vars", "B=two\nC=two\n");
    let script = "echo $A $B $C; ls /mine; echo x > /data/file; echo y > /more/file";
    let args = [
        "run",
        "--rm",
        "-T",
        "-e",
        "C=three",
        "--env-from-file",
        "vars",
        "-v",
        "./:/mine:ro",
        "-v",
        "data:/data",
        "-v",
        "more:/more",
        "-l",
        "a=b",
        "a",
        "sh",
        "-c",
        script,
    ];
    let ran = project.run(&args).ok();
    assert_eq!(ran.out.lines().next(), Some("one two three"));
    assert!(ran.out.contains("compose.yaml"), "{}", ran.out);
    let again = project.run(&["run", "--rm", "-T", "-v", "more:/more", "a", "cat", "/data/file", "/more/file"]).ok();
    assert_eq!(again.out, "x\ny\n");
    let raw = project.run(&["run", "--rm", "-T", "a", "printf", "one\\ntwo"]).ok();
    assert_eq!(raw.out, "one\ntwo", "not a byte more than the program wrote");
    let quoted = project.run(&["run", "--rm", "-T", "--entrypoint", "sh -c 'echo \"a  b\"'", "a"]).ok();
    assert_eq!(quoted.out, "a  b\n");
    project.run(&["run", "--rm", "-T", "-v", "/a::b", "a"]).fails(1);
    project.run(&["run", "--rm", "-T", "-p", "nonsense", "a"]).fails(1);
    assert!(project.ps().is_empty(), "a run that could not be left something");
    // What only `run` named is not the project's, so it stays.
    project.run(&["down", "-v"]).ok();
    assert!(project.root().join("data/volumes/more").exists());
    beside(&project, &project.name, &["-f", "compose.yaml", "down", "-v"]).ok();
    std::fs::remove_file(project.folder().join("compose.yaml")).unwrap();
    project.run(&["down", "-v"]).ok();
    project.assert_nothing_left();
}

/// As docker compose ends: what cannot be executed, and what is no folder to work in.
/// Whoever pipes a dump through `run` gets all of it, whatever the log may hold, and a question without a line's end at once.
#[test]
fn run_hands_on_every_byte_as_it_comes() {
    if !can_run_containers("run_hands_on_every_byte_as_it_comes") {
        return;
    }
    let logging = "logging: {options: {max-size: 1m, max-file: '1'}}";
    let project = Project::new(&format!("services:\n  a: {{{IDLE}, {logging}}}\n"));
    let run = |command: &str| {
        let mut command = project.command(&["run", "--rm", "-T", "a", "sh", "-c", command]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut child = run("head -c 300000000 /dev/zero");
    let mut output = child.stdout.take().unwrap();
    let (mut bytes, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        let read = output.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        bytes += read;
        // Slower than the container.
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((bytes, child.wait().unwrap().code()), (300_000_000, Some(0)));
    let mut child = run("printf 'name? '; read -r name; printf \"hello $name\"");
    let mut question = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut question).unwrap();
    child.stdin.take().unwrap().write_all(b"you\n").unwrap();
    let mut rest = String::new();
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!((&question, rest.as_str()), (b"name? ", "hello you"));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    project.down();
}

#[test]
fn programs_that_are_none_end_with_the_statuses_of_docker() {
    if !can_run_containers("programs_that_are_none_end_with_the_statuses_of_docker") {
        return;
    }
    let project = Project::new(&format!("services:\n  a: {{{IDLE}}}\n  b: {{{IDLE}, init: true}}\n"));
    project.run(&["up", "-d", "a"]).ok();
    for (words, status, said) in [
        (&["a", "not-there"][..], 127, "there is no `not-there`"),
        (&["a", "/not/there"], 127, "there is no `/not/there`"),
        (&["a", "/etc/passwd"], 126, "may not be executed"),
        (&["a", "/etc"], 126, "a directory has no program"),
        (&["-w", "/missing", "a", "ls"], 127, "there is no directory `/missing`"),
        (&["-w", "/etc/passwd", "a", "ls"], 127, "`/etc/passwd` is a file"),
    ] {
        let ran = project.run(&[&["exec", "-T"], words].concat()).fails(status);
        assert!(ran.err.contains(said), "{words:?}: {}", ran.err);
    }
    // With an init process the container begins, and that ends in the program's place.
    for (service, program, status) in [("a", "not-there", 1), ("b", "not-there", 127), ("b", "/etc/passwd", 126)] {
        let ran = project.run(&["run", "--rm", "-T", service, program]).fails(status);
        assert!(ran.err.contains(program), "{}", ran.err);
    }
    let piped = project.run(&["run", "--rm", "-t", "a", "tty"]).fails(1);
    assert!(piped.err.contains("the input device is not a TTY"), "{}", piped.err);
    assert_eq!(project.ps().len(), 1, "a run that could not be left something");
    project.down();
}

/// The labels of a one-off container are docker compose's, and names are those of docker-compose 1 where that is asked for.
#[test]
fn names_and_labels_are_those_of_docker_compose() {
    if !can_run_containers("names_and_labels_are_those_of_docker_compose") {
        return;
    }
    let project = Project::new(&format!(
        "services:\n  a: {{{IDLE}, volumes: ['data:/data']}}\n  b: {{build: .}}\nvolumes: {{data: {{}}}}\n"
    ));
    let name = &project.name;
    let images = project.run(&["--compatibility", "config", "--images"]).ok().out;
    assert!(images.contains(&format!("{name}_b")), "{images}");
    project.run(&["--compatibility", "up", "-d", "a"]).ok();
    let one_off = project.run(&["--compatibility", "run", "-d", "a"]).ok().out;
    let shown = project.run(&["ps", "-a", "--format", "{{.Name}} {{.Labels}}"]).ok().out;
    let labels = |which: &str| shown.lines().find(|line| line.starts_with(which)).unwrap_or_else(|| panic!("{shown}"));
    let long = labels(&format!("{name}_a_1 "));
    assert!(long.contains("compose.container-number=1") && long.contains("compose.depends_on="), "{long}");
    assert!(project.root().join(format!("data/projects/{name}")).exists() && !one_off.is_empty());
    let short = labels(&format!("{name}_a_run_"));
    assert!(short.contains("compose.slug=") && !short.contains("container-number"), "{short}");
    // What is there keeps its name; what comes anew has the one that is asked for.
    let up = project.run(&["up", "-d", "--scale", "a=2", "a"]).ok();
    assert!(up.err.contains(&format!("{name}-a-2")) && !up.err.contains(&format!("{name}-a-1")), "{}", up.err);
    project.down();
}

#[test]
fn create_scale_port_volumes_and_wait() {
    if !can_run_containers("create_scale_port_volumes_and_wait") {
        return;
    }
    let project = Project::new(&format!(
        "services:
  web: {{{IDLE}, ports: ['127.0.0.1::80'], volumes: ['data:/data'], depends_on: [db]}}
  db: {{{IDLE}}}
volumes: {{data: {{}}}}
"
    ));
    project.run(&["create"]).ok();
    assert!(project.ps().iter().all(|container| container["State"] == "created"));
    project.run(&["up", "-d"]).ok();
    let port = project.run(&["port", "web", "80"]).ok().out;
    assert!(port.starts_with("127.0.0.1:"), "{port}");
    let missing = project.run(&["port", "web", "81"]).fails(1);
    assert!(missing.err.contains("80/tcp"), "{}", missing.err);
    let scaled = project.run(&["scale", "db=3"]).ok();
    assert!(!scaled.err.contains("orphan"), "{}", scaled.err);
    project.run(&["up", "-d", "--remove-orphans", "--scale", "db=1", "db"]).ok();
    assert_eq!(project.ps().len(), 2, "a service that was not named is no orphan");
    let names = project.run(&["ps", "--format", "{{.Service}}={{upper .State}}"]).ok().out;
    assert_eq!(names, "db=RUNNING\nweb=RUNNING\n");
    assert_eq!(project.run(&["volumes", "-q"]).ok().out, format!("{}_data\n", project.name));
    let waiting = project.spawn(&["wait", "web"]);
    // It has nothing to say until the end, so what it waits for may come before or after.
    project.run(&["kill", "web"]).ok();
    let waited = finish(waiting);
    let before = waited.code == 1 && waited.err.contains("no containers");
    assert!(before || (waited.code == 137 && waited.out.contains("exited with status code 137")), "{}", waited.err);
    assert!(project.run(&["kill", "web"]).ok().err.contains("no container to kill"));
    assert!(project.run(&["kill", "-s", "NONSENSE"]).fails(1).err.contains("invalid signal: NONSENSE"));
    project.down();
}

#[test]
fn dry_runs_change_nothing() {
    if !can_run_containers("dry_runs_change_nothing") {
        return;
    }
    let project = Project::new(&format!("services:\n  a: {{{IDLE}}}\n"));
    project.run(&["up", "-d"]).ok();
    let id = project.container("a")["ID"].clone();
    for command in ["down", "stop", "restart", "kill"] {
        let ran = project.run(&[command, "--dry-run"]).ok();
        let line = format!(" DRY-RUN MODE -  Container {}-a-1  ", project.name);
        assert!(ran.err.contains(&line), "{command}: {}", ran.err);
    }
    project.run(&["rm", "-fs", "--dry-run"]).ok();
    project.run(&["run", "--dry-run", "a"]).ok();
    project.run(&["exec", "--dry-run", "a", "true"]).fails(1);
    let after = project.ps();
    assert_eq!((after.len(), &after[0]["ID"], &after[0]["State"]), (1, &id, &"running".into()));
    project.down();
}

#[test]
fn an_interrupt_ends_the_change_and_keeps_what_is_made() {
    if !can_run_containers("an_interrupt_ends_the_change_and_keeps_what_is_made") {
        return;
    }
    let never = "healthcheck: {test: [CMD, 'false'], interval: 100s, retries: 100}";
    let project = Project::new(&format!(
        "services:\n  db: {{{IDLE}, {never}}}\n  web: {{{IDLE}, depends_on: {{db: {{condition: service_healthy}}}}}}\n"
    ));
    let up = project.spawn(&["up", "-d"]);
    eventually("db runs", || {
        let running = |one: &serde_json::Value| one["Service"] == "db" && one["State"] == "running";
        project.ps().iter().any(running).then_some(())
    });
    kill(i32::try_from(up.id()).unwrap(), Signal::SIGINT);
    let ran = finish(up).fails(130);
    assert!(ran.err.contains("web-1  Canceled"), "{}", ran.err);
    assert_eq!(project.container("db")["State"], "running");
    assert_eq!(project.container("web")["State"], "created");
    project.run(&["up", "-d", "--no-deps", "web"]).ok();
    project.down();
}

#[test]
fn a_client_that_is_killed_changes_nothing_for_the_project() {
    if !can_run_containers("a_client_that_is_killed_changes_nothing_for_the_project") {
        return;
    }
    let slow = "healthcheck: {test: [CMD, test, -e, /tmp/go], interval: 100ms, retries: 100}";
    let project = Project::new(&format!(
        "services:\n  db: {{{IDLE}, {slow}}}\n  web: {{{IDLE}, depends_on: {{db: {{condition: service_healthy}}}}}}\n"
    ));
    let mut up = project.spawn(&["up", "-d"]);
    eventually("db runs", || {
        let running = |one: &serde_json::Value| one["Service"] == "db" && one["State"] == "running";
        project.ps().iter().any(running).then_some(())
    });
    up.kill().unwrap();
    up.wait().unwrap();
    project.run(&["exec", "-T", "db", "touch", "/tmp/go"]).ok();
    eventually("the change goes on", || (project.container("web")["State"] == "running").then_some(()));
    project.down();
}

#[test]
fn a_signal_to_run_reaches_its_container() {
    if !can_run_containers("a_signal_to_run_reaches_its_container") {
        return;
    }
    let project = Project::new("services:\n  a: {image: rcompose/host}\n");
    let script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done";
    let run = project.spawn(&["run", "--rm", "-T", "a", "sh", "-c", script]);
    eventually("the program is ready", || {
        let ready = |one: &serde_json::Value| one["State"] == "running";
        let name = project.ps().into_iter().find(ready)?["Name"].as_str()?.to_owned();
        let logs = project.root().join("data/projects").join(&project.name).join("containers");
        let folder = std::fs::read_dir(logs).ok()?.next()?.ok()?.path().join("log");
        let ready = std::fs::read_dir(folder).ok()?.any(|file| {
            let text = file.ok().and_then(|file| std::fs::read(file.path()).ok()).unwrap_or_default();
            text.starts_with(b"ready")
        });
        ready.then_some(name)
    });
    kill(i32::try_from(run.id()).unwrap(), Signal::SIGINT);
    let ran = finish(run).fails(5);
    assert_eq!(ran.out, "ready\ncaught\n");
    project.down();
}

#[test]
fn a_container_name_is_one_projects() {
    if !can_run_containers("a_container_name_is_one_projects") {
        return;
    }
    let project = Project::new("services: {}\n");
    let name = format!("{}-only", project.name);
    project.write("compose.yaml", &format!("services:\n  a: {{{IDLE}, container_name: {name}}}\n"));
    project.run(&["up", "-d"]).ok();
    let other = format!("{}b", project.name);
    let refused = beside(&project, &other, &["up", "-d"]).fails(1);
    assert!(refused.err.contains(&name) && refused.err.contains(&format!("`{}`", project.name)), "{}", refused.err);
    assert_eq!(beside(&project, &other, &["ps", "-aq"]).ok().out, "");
    beside(&project, &other, &["down"]).ok();
    project.down();
}

#[test]
fn a_name_given_to_run_is_taken_once() {
    if !can_run_containers("a_name_given_to_run_is_taken_once") {
        return;
    }
    let project = Project::new(&format!("services:\n  a: {{{IDLE}}}\n"));
    project.run(&["run", "-d", "--name", "named", "a", "sleep", "1000"]).ok();
    for again in [&["run", "-d", "--name", "named", "a"][..], &["run", "--rm", "--name", "named", "a", "true"]] {
        let refused = project.run(again).fails(1);
        assert!(refused.err.contains("container name `named` is in use"), "{}", refused.err);
    }
    let refused = beside(&project, "other", &["run", "--rm", "--name", "named", "a", "true"]).fails(1);
    assert!(refused.err.contains("`named` is already in use by project"), "{}", refused.err);
    beside(&project, "other", &["down"]).ok();
    // Neither the refusals nor a stop of the services have touched it.
    project.run(&["up", "-d"]).ok();
    project.run(&["stop"]).ok();
    project.run(&["rm", "-f"]).ok();
    assert_eq!(project.run(&["ps", "-a", "--format", "{{.Name}} {{.State}}"]).ok().out, "named running\n");
    project.down();
}

#[test]
fn a_crash_loop_is_seen_and_stopped() {
    if !can_run_containers("a_crash_loop_is_seen_and_stopped") {
        return;
    }
    let project = Project::new(
        "services:\n  a: {image: rcompose/host, command: [sh, -c, 'echo x; exit 3'], restart: always}\n  b: {image: rcompose/host}\n",
    );
    project.run(&["up", "-d", "a"]).ok();
    let state = || project.run(&["ps", "--format", "{{.State}} {{.Status}}", "a"]).ok().out;
    let looping = || {
        eventually("the wait for a restart", || state().starts_with("restarting Restarting (3) ").then_some(()));
        assert!(project.run(&["ls"]).ok().out.contains("restarting(1)") || !state().starts_with("restarting"));
    };
    // Long enough waits to hit one of them.
    std::thread::sleep(Duration::from_millis(1500));
    looping();
    for (command, why) in [("pause", "is restarting, wait"), ("unpause", "is not paused")] {
        let refused =
            eventually("a try while it waits", || Some(project.run(&[command, "a"])).filter(|ran| ran.code == 1));
        assert!(refused.err.contains(why), "{}", refused.err);
    }
    for end in [&["stop"][..], &["kill", "a"]] {
        looping();
        project.run(end).ok();
        let lines = || project.run(&["logs"]).ok().out.lines().count();
        let before = lines();
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!((lines(), state()), (before, String::new()), "{end:?}");
        // What was not made yet keeps nothing from being started.
        project.run(&["start"]).ok();
        std::thread::sleep(Duration::from_millis(1500));
    }
    project.run(&["start", "b"]).fails(1);
    project.down();
}

#[test]
fn a_published_port_moves_to_another_service() {
    if !can_run_containers("a_published_port_moves_to_another_service") {
        return;
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let with = |service: &str| format!("  {service}: {{{IDLE}, ports: ['127.0.0.1:{free}:80']}}\n");
    let without = |service: &str| format!("  {service}: {{{IDLE}}}\n");
    let project = Project::new(&format!("services:\n{}{}", with("a"), without("b")));
    project.run(&["up", "-d"]).ok();
    project.write("compose.yaml", &format!("services:\n{}{}", without("a"), with("b")));
    project.run(&["up", "-d"]).ok();
    assert_eq!(project.run(&["port", "b", "80"]).ok().out, format!("127.0.0.1:{free}\n"));
    // A service that has been renamed.
    project.write("compose.yaml", &format!("services:\n{}", with("c")));
    project.run(&["up", "-d"]).fails(1);
    project.run(&["up", "-d", "--remove-orphans"]).ok();
    project.run(&["up", "-d", "-V"]).ok();
    assert_eq!(project.run(&["port", "c", "80"]).ok().out, format!("127.0.0.1:{free}\n"));
    project.down();
}

#[test]
fn lists_name_what_the_host_calls_by_other_names() {
    if !can_run_containers("lists_name_what_the_host_calls_by_other_names") {
        return;
    }
    let project = Project::new(&format!(
        "services:\n  a: {{{IDLE}, volumes: ['data:/data', '/anonymous'], networks: [far], labels: {{a.b: c}}}}\nvolumes: {{data: \
         {{name: own-name}}}}\nnetworks: {{far: {{name: far-away}}}}\n"
    ));
    project.run(&["up", "-d", "--no-start"]).ok();
    let ps = |template: &str| project.run(&["ps", "-a", "--format", template]).ok().out;
    assert_eq!(ps("{{.State}} {{.Networks}} {{.LocalVolumes}} {{.Label \"a.b\"}}"), "created far-away 2 c\n");
    let mounts = ps("{{.Mounts}}");
    assert!(mounts.contains("own-name") && mounts.contains('…'), "{mounts}");
    project.run(&["start"]).ok();
    let ls = |filter: &str| project.run(&["ls", "-q", "--filter", filter]).ok().out;
    assert_eq!(ls(&format!("name=^{}$", project.name)), format!("{}\n", project.name));
    assert_eq!(ls("name=^nosuch$"), "");
    project.run(&["ls", "--filter", "name=("]).fails(1);
    project.run(&["up", "--wait", "--abort-on-container-exit"]).fails(1);
    let pulled = project.run(&["pull", "--policy", "missing"]).ok();
    assert_eq!(pulled.err, " a  Skipped - Image is already present locally\n");
    project.down();
}

#[test]
fn completions_know_the_commands() {
    let project = Project::new("services: {}\n");
    for shell in ["bash", "zsh", "fish"] {
        let script = project.run(&["completion", shell]).ok().out;
        assert!(script.contains("remove-orphans") && script.contains("scale"), "{shell}");
    }
    project.run(&["completion", "nonsense"]).fails(1);
}

#[test]
fn files_are_copied_in_and_out() {
    if !can_run_containers("files_are_copied_in_and_out") {
        return;
    }
    let project = Project::new(&format!("services:\n  a: {{{IDLE}, scale: 2}}\n"));
    project.run(&["up", "-d"]).ok();
    let here = project.folder();
    std::fs::create_dir_all(here.join("tree/inner")).unwrap();
    project.write("tree/inner/file", "text");
    project.run(&["cp", "tree", "a:/tmp"]).ok();
    for index in ["1", "2"] {
        let read = project.run(&["exec", "-T", "--index", index, "a", "cat", "/tmp/tree/inner/file"]).ok();
        assert_eq!(read.out, "text", "a copy goes to every container");
    }
    project.run(&["exec", "-T", "a", "ln", "-s", "/etc", "/tmp/tree/link"]).ok();
    let out = project.run(&["cp", "a:/tmp/tree/.", "back"]).ok();
    assert!(out.err.contains("copy") && out.err.contains("Copied"), "{}", out.err);
    assert_eq!(std::fs::read_to_string(here.join("back/inner/file")).unwrap(), "text");
    assert_eq!(std::fs::read_link(here.join("back/link")).unwrap(), Path::new("/etc"));
    assert!(project.run(&["cp", "a:/tmp/tree/inner/file", "-"]).ok().out.contains("text"));
    // What is mounted in the container stays there, as with docker.
    let refused = project.run(&["cp", "tree/inner/file", "a:/etc/hosts"]).fails(1);
    assert!(refused.err.contains("`hosts`: something is mounted there"), "{}", refused.err);
    project.run(&["exec", "-T", "a", "grep", " /etc/hosts ", "/proc/mounts"]).ok();
    // More directories than may be open at once.
    (0..100).for_each(|number| std::fs::create_dir_all(here.join(format!("many/{number}"))).unwrap());
    let few = "ulimit -n 50; \"$0\" cp many a:/tmp && \"$0\" cp a:/tmp/many again";
    project.run_by(Path::new("sh"), &["-c", few, project.binary().to_str().unwrap()]).ok();
    assert!(here.join("again/99").is_dir());
    for (from, to) in [("a:/nope", "x"), ("nope", "a:/x"), ("x", "y"), ("tree", "a:/etc/hostname"), ("tree", "none:/x")]
    {
        let ran = project.run(&["cp", from, to]).fails(1);
        assert!(ran.err.contains("error:"), "{from} {to}: {}", ran.err);
    }
    project.down();
}

/// With what is mounted there of volumes and the host, as docker does; what is made when a container starts is not there.
#[test]
fn files_of_containers_that_do_not_run_are_copied() {
    let test = "files_of_containers_that_do_not_run_are_copied";
    if !can_run_containers(test) {
        return;
    }
    let project = Project::new(&format!(
        "services:
  a: {{{IDLE}, volumes: ['data:/vol', './bind:/bind', './bind:/closed:ro', /anon, './single:/single'], tmpfs: [/tmpf]}}
  r: {{{IDLE}, read_only: true}}
volumes: {{data: {{}}}}\n"
    ));
    let here = project.folder();
    std::fs::create_dir(here.join("bind")).unwrap();
    project.give(&here.join("bind"));
    project.write("single", "kept");
    let inside = |script: &str| project.run(&["exec", "-T", "a", "sh", "-c", script]).ok().out;
    let idle = || project.role("supervisor").is_empty().then_some(());
    project.run(&["create"]).ok();
    for state in ["created", "exited"] {
        assert_eq!(project.container("a")["State"], state);
        project.write("file", state);
        for to in ["/etc/new", "/vol/file", "/bind/file", "/anon/file"] {
            project.run(&["cp", "file", &format!("a:{to}")]).ok();
            project.run(&["cp", &format!("a:{to}"), "back"]).ok();
            assert_eq!(std::fs::read_to_string(here.join("back")).unwrap(), state, "{to}");
            assert!(!Path::new(to).exists(), "{to} is on this machine");
        }
        assert_eq!(std::fs::read_to_string(here.join("bind/file")).unwrap(), state);
        for to in ["a:/closed/other", "r:/etc/new"] {
            let refused = project.run(&["cp", "file", to]).fails(1);
            assert!(refused.err.contains("Read-only file system"), "{to}: {}", refused.err);
        }
        project.run(&["cp", "file", "a:/single"]).fails(1);
        project.run(&["cp", "a:/tmpf/made", "back"]).fails(1);
        // Nobody starts it meanwhile; and a supervisor's end is the end of what it has mounted.
        let hold = || {
            let mut copying = project.command(&["cp", "-", "a:/srv"]);
            let copying = copying.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let mounted = || {
                let keeper = *project.role("keeper").first()?;
                let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).ok()?;
                let mounts = |pid| std::fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap_or_default();
                children.split_whitespace().any(|pid| mounts(pid).contains(" /vol ")).then_some(())
            };
            eventually("it is mounted", mounted);
            copying
        };
        let copying = hold();
        let start = project.spawn(&["start", "a"]);
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(project.container("a")["State"], state);
        assert!(finish(copying).code == 0 && finish(start).code == 0);
        assert_eq!(inside("cat /etc/new /vol/file /bind/file /anon/file /single"), state.repeat(4) + "kept");
        inside("touch /tmpf/made; ln -sf /etc /srv/link");
        project.run(&["stop", "a"]).ok();
        project.run(&["cp", "file", "a:/srv/link/escaped"]).ok();
        assert!(!Path::new("/etc/escaped").exists());
        project.run(&["cp", "a:/etc/escaped", "back"]).ok();
        let mut copying = hold();
        kill(project.role("supervisor")[0], Signal::SIGKILL);
        drop(copying.stdin.take());
        copying.wait().unwrap();
        eventually("nobody stays", idle);
    }
    project.down();
}

#[test]
fn events_tell_what_happened() {
    if !can_run_containers("events_tell_what_happened") {
        return;
    }
    let project = Project::new(&format!("services:\n  a: {{{IDLE}}}\n  b: {{{IDLE}}}\n"));
    let mut following = project.spawn(&["events", "--json", "a"]);
    project.run(&["up", "-d"]).ok();
    project.run(&["stop", "a"]).ok();
    let past = project.run(&["events", "--json", "--since", "1h", "--until", "0s", "a"]).ok();
    let actions: Vec<String> = past
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .inspect(|event| assert_eq!(event["service"], "a"))
        .map(|event| event["action"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(actions, ["create", "start", "kill", "die", "stop"]);
    let mut out = std::io::BufReader::new(following.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert!(line.contains("\"create\"") && line.contains("a-1"), "{line}");
    kill(i32::try_from(following.id()).unwrap(), Signal::SIGTERM);
    following.wait().unwrap();
    project.down();
}

#[test]
fn a_hundred_thousand_lines_come_through_an_attached_up() {
    if !can_run_containers("a_hundred_thousand_lines_come_through_an_attached_up") {
        return;
    }
    let project = Project::new("services:\n  a: {image: rcompose/host, command: [seq, '100000']}\n");
    let ran = project.run(&["up", "--no-log-prefix"]).ok();
    let numbers = ran.out.lines().filter_map(|line| line.parse::<u32>().ok());
    assert!(numbers.eq(1..=100_000), "{} lines", ran.out.lines().count());
    project.down();
}

#[test]
fn watch_brings_changes_into_containers() {
    if !can_run_containers("watch_brings_changes_into_containers") {
        return;
    }
    let watch = "develop: {watch: [
      {action: sync, path: ./src, target: /app, ignore: ['*.log'], initial_sync: true},
      {action: sync+exec, path: ./conf, target: /etc/app.conf, exec: {command: [touch, /tmp/reloaded]}},
      {action: restart, path: ./again}]}";
    let project = Project::new(&format!("services:\n  a: {{{IDLE}, {watch}}}\n"));
    std::fs::create_dir_all(project.folder().join("src/sub")).unwrap();
    for (file, text) in [("src/sub/first", "one"), ("conf", "old"), ("again", "")] {
        project.write(file, text);
    }
    let mut watching = project.spawn(&["watch"]);
    let inside = |path: &str| {
        let ran = project.run(&["exec", "-T", "a", "cat", path]);
        (ran.code == 0).then_some(ran.out)
    };
    eventually("what is there already", || inside("/app/sub/first").filter(|text| text == "one"));
    let other = project.run(&["watch", "--no-up"]).fails(1);
    assert!(other.err.contains("already being watched"), "{}", other.err);
    project.write("src/ignored.log", "x");
    project.write("src/sub/second", "two");
    eventually("a new file", || inside("/app/sub/second").filter(|text| text == "two"));
    assert_eq!(inside("/app/ignored.log"), None);
    std::fs::remove_file(project.folder().join("src/sub/first")).unwrap();
    eventually("a file that goes", || inside("/app/sub/first").is_none().then_some(()));
    project.write("conf", "new");
    eventually("a single file", || inside("/etc/app.conf").filter(|text| text == "new"));
    eventually("its command", || inside("/tmp/reloaded"));
    project.run(&["exec", "-T", "a", "sh", "-c", "echo > /dev/shm/before"]).ok();
    project.write("again", "now");
    eventually("a restart", || {
        let gone = inside("/dev/shm/before").is_none();
        (gone && project.container("a")["State"] == "running").then_some(())
    });
    let file = std::fs::read_to_string(project.folder().join("compose.yaml")).unwrap();
    project.write("compose.yaml", "services: [");
    project.write("src/sub/third", "three");
    eventually("a change while the file is half written", || inside("/app/sub/third"));
    std::fs::remove_dir_all(project.folder().join("src")).unwrap();
    eventually("a folder that goes", || inside("/app/sub/third").is_none().then_some(()));
    std::fs::create_dir(project.folder().join("src")).unwrap();
    project.write("src/fourth", "four");
    eventually("a folder that is made again", || inside("/app/fourth"));
    project.write("src/fifth", "five");
    eventually("a change in it", || inside("/app/fifth"));
    project.write("compose.yaml", &file);
    watching.kill().unwrap();
    watching.wait().unwrap();
    project.down();
    project.write("compose.yaml", &format!("services:\n  a: {{{IDLE}}}\n"));
    assert!(project.run(&["watch", "--no-up"]).fails(1).err.contains("develop.watch"));
}

/// That nothing more can be written is no fault of the logs; whoever reads and has seen enough is no fault at all.
#[test]
fn logs_that_cannot_be_written_say_so() {
    if !can_run_containers("logs_that_cannot_be_written_say_so") {
        return;
    }
    let lines = "image: rcompose/host, command: [seq, '100000']";
    let project = Project::new(&format!("services:\n  a: {{{lines}}}\n"));
    project.run(&["up", "-d"]).ok();
    eventually("its end", || (project.container("a")["State"] == "exited").then_some(()));
    for args in [&["logs"][..], &["logs", "-f"], &["logs", "--tail", "1"], &["ps"], &["config"], &["up"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ran: Ran = project.command(args).stdout(full).output().unwrap().into();
        let said = ran.fails(1).err.lines().last().unwrap().to_owned();
        assert_eq!(said, "error: cannot write to standard output: No space left on device", "{args:?}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran: Ran = project.command(args).stdout(writer).output().unwrap().into();
        let said = ran.ok().err;
        assert!(said.is_empty() || args == ["up"], "{args:?}: {said}");
    }
    project.down();
}

/// Files that come out of a container keep their owners and all bits with `-a`; else they are the copier's, and no set-id programs.
#[test]
fn cp_keeps_what_it_may_of_a_mode() {
    use std::os::unix::fs::PermissionsExt;
    if !can_run_containers("cp_keeps_what_it_may_of_a_mode") {
        return;
    }
    let make = "mkdir -p /srv/d/sub && cd /srv/d && echo x > f && chmod 6755 f && echo y > g && chmod 1777 g && chmod 3777 sub \
                && echo z > sub/h && chmod 4711 sub/h && exec sleep 1000";
    let project = Project::new(&format!(
        "services: {{a: {{image: rcompose/host, stop_signal: SIGKILL, command: [sh, -c, '{make}']}}}}\n"
    ));
    project.run(&["up", "-d"]).ok();
    eventually("the files", || {
        (project.run(&["exec", "-T", "a", "test", "-u", "/srv/d/sub/h"]).code == 0).then_some(())
    });
    for (index, args) in [&["cp", "a:/srv/d"][..], &["cp", "-a", "a:/srv/d"], &["cp", "a:/srv/d/."]].iter().enumerate()
    {
        let to = project.folder().join(format!("out{index}"));
        let args: Vec<&str> = args.iter().copied().chain([to.to_str().unwrap()]).collect();
        project.run(&args).ok();
        for (file, mode) in [("f", 0o6755), ("g", 0o1777), ("sub", 0o3777), ("sub/h", 0o4711)] {
            let found = std::fs::metadata(to.join(file)).unwrap().permissions().mode() & 0o7777;
            let kept = if args.contains(&"-a") { 0o7777 } else { 0o1777 };
            assert_eq!(found, mode & kept, "{args:?}: {file} has {found:o}");
        }
    }
    project.down();
}
