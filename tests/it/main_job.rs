//! The main job as its users do it: the built binary, real containers of the host image.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{
    Project, Ran, can_run_containers, eventually, finish, free_port, kill, lacks_controllers, needs_root,
};

/// A service that runs a shell script; a `$` in it is the shell's, not Compose's.
fn shell(script: &str) -> String {
    format!("image: rcompose/host, command: [sh, -c, {}]", serde_json::to_string(&script.replace('$', "$$")).unwrap())
}

#[test]
fn up_runs_what_the_file_says_and_down_leaves_nothing() {
    if !can_run_containers("up_runs_what_the_file_says_and_down_leaves_nothing") {
        return;
    }
    let web = shell("echo hello; exec sleep 1000");
    let project = Project::new(&format!("services:\n  web: {{{web}, stop_signal: SIGKILL}}\n"));
    let up = project.run(&["up", "-d"]).ok();
    let container = format!("{}-web-1", project.name);
    assert!(up.err.contains(&format!("Container {container}  Started")), "{}", up.err);
    let state = project.container("web");
    assert_eq!(state["Name"], container.as_str());
    assert_eq!(state["State"], "running");
    eventually("the container's output", || {
        project.run(&["logs", "--no-log-prefix"]).ok().out.contains("hello").then_some(())
    });
    let again = project.run(&["up", "-d"]).ok();
    assert!(again.err.contains(&format!("Container {container}  Running")), "{}", again.err);
    assert_eq!(project.container("web")["ID"], state["ID"], "an unchanged container was replaced");
    project.down();
}

#[test]
fn a_changed_service_is_replaced_and_the_plan_says_why() {
    if !can_run_containers("a_changed_service_is_replaced_and_the_plan_says_why") {
        return;
    }
    let file = |mode: &str| {
        let (web, db) = (shell("exec sleep 1000"), shell("exec sleep 1000"));
        format!(
            "services:\n  web: {{{web}, stop_signal: SIGKILL, environment: {{MODE: {mode}}}}}\n  \
             db: {{{db}, stop_signal: SIGKILL}}\n"
        )
    };
    let project = Project::new(&file("dev"));
    project.run(&["plan"]).fails(2);
    project.run(&["up", "-d"]).ok();
    project.run(&["plan"]).ok();
    let (web, db) = (project.container("web"), project.container("db"));
    project.write("compose.yaml", &file("prod"));
    let plan = project.run(&["plan"]).fails(2);
    assert!(
        plan.out.contains("environment.MODE") && plan.out.contains("dev") && plan.out.contains("prod"),
        "{}",
        plan.out
    );
    let dry = project.run(&["up", "-d", "--dry-run"]).ok();
    assert!(dry.out.contains("environment.MODE"), "{}", dry.out);
    assert_eq!(project.container("web")["ID"], web["ID"], "a dry run changed something");
    project.run(&["up", "-d"]).ok();
    assert_ne!(project.container("web")["ID"], web["ID"]);
    assert_eq!(project.container("db")["ID"], db["ID"]);
    project.down();
}

#[test]
fn dependencies_gate_the_start() {
    if !can_run_containers("dependencies_gate_the_start") {
        return;
    }
    let migrate = shell("sleep 0.3; echo migrated > /data/done");
    let db = shell("sleep 0.3; touch /tmp/ready; exec sleep 1000");
    let web = shell("cat /data/done; exec sleep 1000");
    let project = Project::new(&format!(
        "services:
  migrate: {{{migrate}, volumes: ['data:/data']}}
  db:
    {{{db}, stop_signal: SIGKILL, healthcheck: {{test: [CMD, test, -e, /tmp/ready], interval: 100s}}}}
  web:
    {{{web}, stop_signal: SIGKILL, volumes: ['data:/data'], depends_on: {{
      migrate: {{condition: service_completed_successfully}}, db: {{condition: service_healthy}}}}}}
volumes: {{data: {{}}}}
"
    ));
    let begin = Instant::now();
    project.run(&["up", "-d"]).ok();
    assert!(begin.elapsed() < Duration::from_secs(50), "the first probe waited for the interval");
    assert_eq!(project.container("db")["Health"], "healthy");
    assert_eq!(project.container("migrate")["ExitCode"], 0);
    eventually("web reads what migrate wrote", || {
        project.run(&["logs", "web", "--no-log-prefix"]).ok().out.contains("migrated").then_some(())
    });
    project.down();
}

#[test]
fn a_dependency_that_fails_is_explained() {
    if !can_run_containers("a_dependency_that_fails_is_explained") {
        return;
    }
    let (migrate, web) = (shell("echo no such table >&2; exit 3"), shell("exec sleep 1000"));
    let project = Project::new(&format!(
        "services:
  migrate: {{{migrate}}}
  web: {{{web}, depends_on: {{migrate: {{condition: service_completed_successfully}}}}}}
"
    ));
    let up = project.run(&["up", "-d"]).fails(1);
    assert!(up.err.contains("migrate") && up.err.contains('3') && up.err.contains("no such table"), "{}", up.err);
    let attached = project.run(&["up"]).fails(1);
    assert!(attached.out.contains("migrate-1 exited with code 3\n"), "{}", attached.out);
    project.down();
}

#[test]
fn without_names_a_command_is_about_services_of_active_profiles() {
    if !can_run_containers("without_names_a_command_is_about_services_of_active_profiles") {
        return;
    }
    let idle = shell("exec sleep 1000");
    let project = Project::new(&format!(
        "services:
  a: {{{idle}, stop_signal: SIGKILL}}
  p: {{{idle}, stop_signal: SIGKILL, profiles: [x]}}
"
    ));
    project.run(&["--profile", "x", "up", "-d"]).ok();
    let frozen = !lacks_controllers("without_names_a_command_is_about_services_of_active_profiles", &["pids"]);
    let commands = [&["restart"][..], &["pause"], &["unpause"], &["kill"], &["start"], &["stop"], &["rm", "-f"]];
    for command in commands.into_iter().filter(|command| frozen || !command[0].ends_with("pause")) {
        let said = project.run(command).ok();
        assert!(said.err.contains("-a-1") && !said.err.contains("-p-1"), "{command:?}: {}", said.err);
    }
    let said = finish(project.command(&["restart"]).current_dir("/").stderr(Stdio::piped()).spawn().unwrap()).err;
    assert!(said.contains("-p-1  Started"), "{said}");
    let left = project.run(&["down"]).ok();
    assert!(left.err.contains("-p-1]") && left.err.contains("--profile '*'"), "{}", left.err);
    assert_eq!(project.container("p")["State"], "running");
    project.run(&["--profile", "x", "down"]).ok();
    project.assert_nothing_left();
}

#[test]
fn services_find_each_other_by_name_and_alias() {
    if !can_run_containers("services_find_each_other_by_name_and_alias") {
        return;
    }
    let idle = shell("exec sleep 1000");
    let project = Project::new(&format!(
        "services:
  a: {{{idle}, stop_signal: SIGKILL}}
  b: {{{idle}, stop_signal: SIGKILL, networks: {{default: {{aliases: [other]}}}}}}
  c: {{{idle}, stop_signal: SIGKILL, networks: [apart]}}
networks: {{apart: {{}}}}
"
    ));
    project.run(&["up", "-d"]).ok();
    for name in ["b", "other", &format!("{}-b-1", project.name)] {
        let found = project.run(&["exec", "-T", "a", "getent", "hosts", name]).ok();
        // Whatever pool still has room on this machine.
        assert!(["172.", "192.168.", "10."].iter().any(|pool| found.out.starts_with(pool)), "{name}: {}", found.out);
    }
    assert_ne!(project.run(&["exec", "-T", "a", "getent", "hosts", "c"]).code, 0, "networks are not apart");
    project.down();
}

#[test]
fn exec_passes_streams_status_user_and_environment() {
    if !can_run_containers("exec_passes_streams_status_user_and_environment") {
        return;
    }
    let idle = shell("exec sleep 1000");
    let project = Project::new(&format!("services:\n  a: {{{idle}, stop_signal: SIGKILL, environment: {{A: one}}}}\n"));
    project.run(&["up", "-d"]).ok();
    let ran = project.run(&["exec", "-T", "-e", "B=two", "-w", "/usr", "a", "sh", "-c", "echo $A $B $PWD; exit 7"]);
    assert_eq!(ran.fails(7).out, "one two /usr\n");
    assert_eq!(project.run(&["exec", "-T", "-u", "1:2", "a", "id", "-u"]).ok().out, "1\n");
    let mut command = project.command(&["exec", "-T", "a", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    assert_eq!(finish(child).ok().out, "through\n");
    project.run(&["exec", "-T", "a", "no-such-program"]).fails(127);
    project.down();
}

#[test]
fn volumes_outlive_down_and_go_with_v() {
    if !can_run_containers("volumes_outlive_down_and_go_with_v") {
        return;
    }
    let job = shell("cat /data/count 2>/dev/null; echo again >> /data/count");
    let project =
        Project::new(&format!("services:\n  a: {{{job}, volumes: ['data:/data']}}\nvolumes: {{data: {{}}}}\n"));
    for round in 0..3 {
        let ran = project.run(&["run", "--rm", "-T", "a"]).ok();
        assert_eq!(ran.out.matches("again").count(), round, "{}", ran.out);
        project.run(&["down"]).ok();
    }
    project.down();
}

#[test]
fn published_ports_answer_on_every_host_address() {
    if !can_run_containers("published_ports_answer_on_every_host_address") {
        return;
    }
    if needs_root("published_ports_answer_on_every_host_address", "projects do not know each other's ports") {
        return;
    }
    let (tcp, udp) = (free_port(), free_port());
    // perl is in every Debian system; it stands for a server here.
    let server = r#"exec perl -MIO::Socket -e '
        my $u = IO::Socket::INET->new(Proto => "udp", LocalPort => 90) or die;
        if (fork) { while ($u->recv(my $b, 100)) { $u->send("udp " . $b) } }
        my $t = IO::Socket::INET->new(Listen => 99, LocalPort => 80, ReuseAddr => 1) or die;
        while (my $c = $t->accept) { print $c "tcp\n"; close $c }'"#;
    let project = Project::new(&format!(
        "services:\n  a: {{{}, stop_signal: SIGKILL, ports: ['{tcp}:80', '{udp}:90/udp']}}\n  b: {{{}, stop_signal: SIGKILL}}\n",
        shell(server),
        shell("exec sleep 1000")
    ));
    project.run(&["up", "-d"]).ok();
    let read = |address: &str| -> Option<String> {
        let mut text = String::new();
        let mut stream = TcpStream::connect((address, tcp)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.read_to_string(&mut text).ok()?;
        (!text.is_empty()).then_some(text)
    };
    assert_eq!(eventually("tcp by 127.0.0.1", || read("127.0.0.1")), "tcp\n");
    assert_eq!(eventually("tcp by ::1", || read("::1")), "tcp\n");
    for address in host_addresses() {
        assert_eq!(eventually("tcp by the host's address", || read(&address)), "tcp\n");
        let from_container = format!("exec 3<>/dev/tcp/{address}/{tcp}; cat <&3");
        assert_eq!(project.run(&["exec", "-T", "b", "bash", "-c", &from_container]).ok().out, "tcp\n");
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let answer = eventually("udp by 127.0.0.1", || {
        socket.send_to(b"ping", ("127.0.0.1", udp)).ok()?;
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    });
    assert_eq!(answer, "udp ping");
    let other = Project::new(&format!("services:\n  a: {{{}, ports: ['{tcp}:80']}}\n", shell("exec sleep 1000")));
    let refused = other.run(&["up", "-d"]).fails(1);
    assert!(refused.err.contains(&tcp.to_string()) && refused.err.contains(&project.name), "{}", refused.err);
    assert!(other.ps().is_empty(), "something was made in spite of the conflict");
    other.down();
    project.down();
}

/// The machine's own IPv4 addresses but loopback.
fn host_addresses() -> Vec<String> {
    let addresses = nix::ifaddrs::getifaddrs().unwrap();
    let addresses = addresses.filter(|interface| interface.interface_name.starts_with('e'));
    addresses.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip().to_string())).collect()
}

#[test]
fn restart_policies_and_exit_codes() {
    if !can_run_containers("restart_policies_and_exit_codes") {
        return;
    }
    let project = Project::new(&format!(
        "services:
  always: {{{}, restart: always, stop_signal: SIGKILL}}
  twice: {{{}, restart: 'on-failure:2'}}
  once: {{{}}}
",
        shell("echo run; sleep 0.05; exit 1"),
        shell("echo run; exit 5"),
        shell("exit 7")
    ));
    project.run(&["up", "-d"]).ok();
    eventually("two restarts of `twice`", || {
        let runs = project.run(&["logs", "twice", "--no-log-prefix"]).ok().out.matches("run").count();
        let ended = project.container("twice")["State"] == "exited";
        (ended && runs == 3).then_some(())
    });
    assert_eq!(project.container("twice")["ExitCode"], 5);
    assert_eq!(project.container("once")["ExitCode"], 7);
    eventually("three runs of `always`", || {
        (project.run(&["logs", "always", "--no-log-prefix"]).ok().out.matches("run").count() >= 3).then_some(())
    });
    project.run(&["stop"]).ok();
    assert_eq!(project.container("always")["State"], "exited");
    project.down();
}

#[test]
fn attached_up_shows_prefixed_output_and_stops_on_interrupt() {
    if !can_run_containers("attached_up_shows_prefixed_output_and_stops_on_interrupt") {
        return;
    }
    let chatty = shell("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done");
    let project = Project::new(&format!("services:\n  a: {{{chatty}}}\n"));
    let mut child = project.spawn(&["up"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let first = lines.find(|line| line.contains("ready")).unwrap();
    assert!(first.starts_with("a-1") && first.contains("| ready"), "{first}");
    kill(child.id() as i32, Signal::SIGINT);
    assert!(lines.any(|line| line.contains("bye")), "the last words are missing");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(project.container("a")["State"], "exited");
    project.down();
}

#[test]
fn attached_up_ends_when_all_containers_have_ended() {
    if !can_run_containers("attached_up_ends_when_all_containers_have_ended") {
        return;
    }
    let project = Project::new(&format!("services:\n  a: {{{}}}\n", shell("echo one; echo two >&2; exit 3")));
    let up = project.run(&["up"]).ok();
    assert!(up.out.starts_with("Attaching to a-1\n"), "{}", up.out);
    assert!(up.out.contains("| one") && up.out.contains("a-1 exited with code 3"), "{}", up.out);
    // An ordinary user may have no way out here, and is told.
    let told: Vec<_> = up.err.lines().filter(|line| !line.starts_with("warning: ")).collect();
    let last =
        told.last_chunk().map(|[created, line]: &[_; 2]| created.ends_with("-a-1  Created") && *line == "a-1  | two");
    assert_eq!(last, Some(true), "what comes between the output: {}", up.err);
    project.down();
}

#[test]
fn wait_scale_stop_start_kill_rm() {
    if !can_run_containers("wait_scale_stop_start_kill_rm") {
        return;
    }
    let idle = shell("exec sleep 1000");
    let project = Project::new(&format!(
        "services:\n  a: {{{idle}, stop_signal: SIGKILL, healthcheck: {{test: 'true', interval: 1s}}}}\n"
    ));
    let waited = project.run(&["up", "--wait", "--scale", "a=3"]).ok().err;
    for words in ["-a-3  Started", "-a-3  Waiting", "-a-3  Healthy"] {
        assert!(waited.contains(words), "{words}: {waited}");
    }
    let none = project.run(&["logs", "--index", "4", "a"]).fails(1).err;
    assert!(none.contains("service `a` is not running container #4"), "{none}");
    assert_eq!(project.ps().len(), 3);
    assert!(project.ps().iter().all(|container| container["Health"] == "healthy"));
    project.run(&["up", "-d", "--scale", "a=1"]).ok();
    assert_eq!(project.ps().len(), 1);
    project.run(&["kill", "-s", "KILL"]).ok();
    eventually("the killed container is gone", || (project.container("a")["State"] == "exited").then_some(()));
    assert_eq!(project.container("a")["ExitCode"], 137);
    project.run(&["start"]).ok();
    assert_eq!(project.container("a")["State"], "running");
    let pid = |project: &Project| project.run(&["exec", "-T", "a", "cat", "/proc/1/stat"]).ok().out;
    let before = pid(&project);
    project.run(&["restart", "-t", "0"]).ok();
    assert_ne!(pid(&project), before);
    project.run(&["stop"]).ok();
    project.run(&["rm", "-f"]).ok();
    assert!(project.ps().is_empty());
    project.down();
}

#[test]
fn run_gives_the_status_and_leaves_nothing_with_rm() {
    if !can_run_containers("run_gives_the_status_and_leaves_nothing_with_rm") {
        return;
    }
    let project = Project::new("services:\n  job: {image: rcompose/host, command: ['false']}\n");
    project.run(&["run", "--rm", "-T", "job"]).fails(1);
    let ran = project
        .run(&["run", "--rm", "-T", "-e", "X=1", "job", "sh", "-c", "echo out $X; echo err >&2; exit 9"])
        .fails(9);
    assert_eq!(ran.out, "out 1\n");
    assert!(ran.err.contains("err\n"), "{}", ran.err);
    // Nobody waits for this one, so the supervisor removes it, and its volumes.
    let id = project.run(&["run", "-d", "--rm", "-v", "/anonymous", "job", "true"]).ok().out;
    assert_eq!(id.trim().len(), 64, "{id}");
    eventually("its removal", || project.run(&["ps", "-aq"]).ok().out.is_empty().then_some(()));
    project.run(&["down"]).ok();
    project.assert_nothing_left();
}

#[test]
fn attach_ends_when_its_container_is_removed() {
    if !can_run_containers("attach_ends_when_its_container_is_removed") {
        return;
    }
    let idle = shell("echo here; exec sleep 1000");
    let project = Project::new(&format!("services: {{a: {{{idle}, stop_signal: SIGKILL}}}}\n"));
    for _ in 0..3 {
        project.run(&["up", "-d"]).ok();
        let attached = project.spawn(&["attach", "a"]);
        // It is about to follow, or does.
        std::thread::sleep(Duration::from_millis(300));
        project.run(&["down"]).ok();
        let code = finish(attached).code;
        assert!(code == 137 || code == 255, "{code}");
    }
    project.assert_nothing_left();
}

#[test]
fn up_ends_when_somebody_takes_the_project_down() {
    if !can_run_containers("up_ends_when_somebody_takes_the_project_down") {
        return;
    }
    let idle = shell("echo here; exec sleep 1000");
    let project = Project::new(&format!("services: {{a: {{{idle}, stop_signal: SIGKILL}}}}\n"));
    for _ in 0..5 {
        let attached = project.spawn(&["up"]);
        let there = || project.run(&["ps", "-q", "--status", "running"]).out;
        eventually("the container runs", || (there().trim().len() == 64).then_some(()));
        project.run(&["down"]).ok();
        let done = finish(attached);
        // It may have been about to say that all is up.
        let interrupted = done.err.contains("`up` was interrupted by `down`");
        assert!(interrupted || done.code == 0, "{} {} {}", done.code, done.out, done.err);
    }
    project.assert_nothing_left();
}

#[test]
fn the_same_command_from_two_terminals_is_done_once() {
    if !can_run_containers("the_same_command_from_two_terminals_is_done_once") {
        return;
    }
    let until = |file: &str| format!("while [ ! -e /go/{file} ]; do sleep 0.01; done");
    let project = Project::new(&format!(
        "services:
  a: {{{}, volumes: ['./go:/go']}}
  b: {{{}, volumes: ['./go:/go'], depends_on: {{a: {{condition: service_completed_successfully}}}}}}
",
        shell(&until("up")),
        shell(&format!("trap 'touch /go/asked; {}; exit' TERM; while :; do sleep 0.05; done", until("end"))),
    ));
    let gate = project.folder().join("go");
    std::fs::create_dir(&gate).unwrap();
    project.give(&gate);
    let first = project.spawn(&["up", "-d"]);
    let running = || project.run(&["ps", "-q", "--status", "running"]).ok().out;
    eventually("the change is under way", || (!running().is_empty()).then_some(()));
    // Of `up`, the second one is told; the one who gave it can look at what the first one makes.
    let second = project.run(&["up", "-d"]).fails(1);
    assert!(second.err.contains("`up` refused: `up` of the same project is still running"), "{}", second.err);
    project.write("go/up", "");
    let first = finish(first).ok();
    assert!(first.err.contains("-b-1  Created"), "{}", first.err);
    assert_eq!(project.container("b")["State"], "running");
    for command in [&["restart", "b"][..], &["down"]] {
        let first = project.spawn(command);
        eventually("it is being stopped", || gate.join("asked").exists().then_some(()));
        let mut second = project.spawn(command);
        let mut told = BufReader::new(second.stderr.take().unwrap()).lines().map(Result::unwrap);
        let said = format!("waiting for the `{}` of the same project", command[0]);
        assert!(told.any(|line| line.contains(&said)), "{command:?}");
        project.write("go/end", "");
        assert!(!told.any(|line| line.contains(&said)), "{command:?}: said twice");
        assert!(second.wait().unwrap().success());
        finish(first).ok();
        for file in ["asked", "end"] {
            std::fs::remove_file(gate.join(file)).unwrap();
        }
    }
    project.assert_nothing_left();
}

#[test]
fn the_umask_of_the_caller_is_not_the_containers() {
    if !can_run_containers("the_umask_of_the_caller_is_not_the_containers") {
        return;
    }
    for mask in ["077", "000"] {
        let sleeps = shell("exec sleep 1000");
        let project = Project::new(&format!("services: {{a: {{{sleeps}, user: '65534'}}}}\n"));
        let masked = |args: &[&str]| {
            let script = format!("umask {mask}; exec \"$@\"");
            let mut shell = project.command_of(std::path::Path::new("/bin/sh"), &["-c", &script, "sh"]);
            Ran::from(shell.arg(project.binary()).args(args).output().unwrap())
        };
        masked(&["up", "-d"]).ok();
        let modes = project.run(&["exec", "-T", "a", "stat", "-c", "%a", "/", "/etc/hosts", "/etc/resolv.conf"]).ok();
        assert_eq!(modes.out, "755\n644\n644\n", "umask {mask}");
        masked(&["config", "-o", "mine.yaml"]).ok();
        let mode = project.folder().join("mine.yaml").metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if mask == "077" { 0o600 } else { 0o666 }, "the caller's own file, umask {mask}");
        project.down();
    }
}

#[test]
fn following_logs_ends_with_the_last_container() {
    if !can_run_containers("following_logs_ends_with_the_last_container") {
        return;
    }
    let (short, long) = (shell("echo early"), shell("exec sleep 1000"));
    let project = Project::new(&format!("services:\n  short: {{{short}}}\n  long: {{{long}}}\n"));
    project.run(&["up", "-d"]).ok();
    let mut following = project.command(&["logs", "-f", "--no-log-prefix"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("early"), "it goes on while another one runs");
    project.run(&["kill", "long"]).ok();
    assert_eq!(lines.last().as_deref(), Some("long-1 exited with code 137"));
    assert!(following.wait().unwrap().success());
    project.down();
}

/// The keeper writes of the end at once; what the container printed last may still be on its way into the file.
#[test]
fn a_followed_line_is_not_cut_where_the_container_ended() {
    if !can_run_containers("a_followed_line_is_not_cut_where_the_container_ended") {
        return;
    }
    let two_halves = shell("echo begin; printf half; while [ ! -e /go/now ]; do sleep 0.01; done; echo ' and half'");
    let project = Project::new(&format!("services:\n  a: {{{two_halves}, volumes: ['./go:/go']}}\n"));
    std::fs::create_dir(project.folder().join("go")).unwrap();
    project.run(&["up", "-d"]).ok();
    let folder = project.root().join("data/projects").join(&project.name).join("containers");
    let container = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let log = || std::fs::metadata(container.join("log/stdout.log")).ok();
    eventually("the first half", || log().filter(|file| file.len() == "begin\nhalf".len() as u64));
    let mut following = project.command(&["logs", "-f", "--no-log-prefix"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("begin"));
    let supervisor = project.role("supervisor")[0];
    kill(supervisor, Signal::SIGSTOP);
    project.write("go/now", "");
    eventually("the keeper's word of the end", || container.join("exit.json").exists().then_some(()));
    // Time for whoever follows to look.
    project.run(&["logs"]).ok();
    kill(supervisor, Signal::SIGCONT);
    assert_eq!(lines.collect::<Vec<_>>(), ["half and half", "a-1 exited with code 0"]);
    assert!(following.wait().unwrap().success());
    project.down();
}

#[test]
fn what_is_replaced_leaves_the_disk_while_the_project_goes_on() {
    if !can_run_containers("trash") {
        return;
    }
    let project = Project::new(
        "services:\n  a: {image: rcompose/host, command: [sh, -c, 'echo x > /made; exec sleep 1000'], stop_signal: SIGKILL}\n",
    );
    project.run(&["up", "-d"]).ok();
    project.run(&["up", "-d", "--force-recreate"]).ok();
    let trash = project.root().join("data/trash");
    assert!(trash.is_dir());
    eventually("the trash is emptied", || (std::fs::read_dir(&trash).unwrap().count() == 0).then_some(()));
    assert_eq!(project.run(&["ps", "-q"]).ok().out.lines().count(), 1);
    project.down();
}
