//! Killing our own processes loses nothing. Every test here really kills.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{self, SIGKILL};

use crate::support::{Project, can_run_containers, eventually, finish, free_port, kill, needs_root};

/// Writes numbered lines for ever and answers on port 80.
const BUSY: &str = r#"exec perl -MIO::Socket -e '
    $| = 1;
    if (fork) { my $i = 0; while (1) { printf "line %d\n", $i++; select undef, undef, undef, 0.0002 } }
    my $t = IO::Socket::INET->new(Listen => 99, LocalPort => 80, ReuseAddr => 1) or die;
    while (my $c = $t->accept) { print $c "ok\n"; close $c }'"#;

fn busy_project(port: u16) -> Project {
    Project::new(&format!(
        "services:
  a: {{image: rcompose/host, command: [sh, -c, {script}], stop_signal: SIGKILL, ports: ['{port}:80']}}
  dies: {{image: rcompose/host, command: [sh, -c, 'sleep 1; exit 42']}}
  again: {{image: rcompose/host, command: [sh, -c, 'echo run; sleep 0.3; exit 1'], restart: always, stop_signal: SIGKILL}}
",
        script = serde_json::to_string(&BUSY.replace('$', "$$")).unwrap()
    ))
}

/// The numbered lines of service `a`: none missing, none twice, in order.
#[track_caller]
fn assert_every_line_once(project: &Project, at_least: usize) {
    let logs = project.run(&["logs", "a", "--no-log-prefix"]).ok().out;
    let numbers: Vec<usize> = logs.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    assert!(numbers.len() >= at_least, "only {} lines", numbers.len());
    let wrong = numbers.iter().enumerate().find(|(index, number)| index != *number);
    assert_eq!(wrong, None, "a line is missing or doubled");
}

/// Connects over and over until told to stop; counts what went wrong.
fn client(
    port: u16,
    stop: Arc<AtomicBool>,
    failures: Arc<AtomicU32>,
    done: Arc<AtomicU32>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let mut text = String::new();
            let answered = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.read_to_string(&mut text)
            });
            if answered.is_err() || text != "ok\n" {
                failures.fetch_add(1, Ordering::Relaxed);
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    })
}

#[test]
fn a_killed_supervisor_loses_no_line_no_request_and_no_status() {
    if !can_run_containers("a_killed_supervisor_loses_no_line_no_request_and_no_status") {
        return;
    }
    if needs_root(
        "a_killed_supervisor_loses_no_line_no_request_and_no_status",
        "a proxy carries ports, and what it is carrying ends with it",
    ) {
        return;
    }
    let port = free_port();
    let project = busy_project(port);
    project.run(&["up", "-d"]).ok();
    eventually("the server answers", || TcpStream::connect(("127.0.0.1", port)).ok());
    let (stop, failures, done) =
        (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
    let loops = client(port, stop.clone(), failures.clone(), done.clone());
    for _ in 0..5 {
        let supervisor = eventually("a supervisor", || project.role("supervisor").first().copied());
        let before = done.load(Ordering::Relaxed);
        eventually("requests go on", || (done.load(Ordering::Relaxed) > before + 20).then_some(()));
        kill(supervisor, SIGKILL);
        let killed = Instant::now();
        eventually("another supervisor", || project.role("supervisor").iter().find(|pid| **pid != supervisor).copied());
        assert!(killed.elapsed() < Duration::from_secs(1), "restarted after {:?}", killed.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    loops.join().unwrap();
    assert_eq!(failures.load(Ordering::Relaxed), 0, "of {} requests", done.load(Ordering::Relaxed));
    eventually("the status of the one that ended meanwhile", || {
        (project.container("dies")["ExitCode"] == 42).then_some(())
    });
    let runs = || project.run(&["logs", "again", "--no-log-prefix"]).ok().out.matches("run").count();
    let before = runs();
    eventually("restarts go on", || (runs() > before).then_some(()));
    project.run(&["stop", "a"]).ok();
    assert_every_line_once(&project, 1000);
    project.down();
}

#[test]
fn containers_outlive_a_killed_keeper() {
    if !can_run_containers("containers_outlive_a_killed_keeper") {
        return;
    }
    let port = free_port();
    let project = busy_project(port);
    project.run(&["up", "-d"]).ok();
    let id = project.container("a")["ID"].clone();
    let keeper = project.role("keeper")[0];
    kill(keeper, SIGKILL);
    eventually("another keeper", || project.role("keeper").iter().find(|pid| **pid != keeper).copied());
    assert_eq!(project.container("a")["ID"], id);
    assert_eq!(project.container("a")["State"], "running");
    eventually("the server answers", || TcpStream::connect(("127.0.0.1", port)).ok());
    eventually("`dies` ends", || (project.container("dies")["State"] == "exited").then_some(()));
    project.run(&["stop", "a"]).ok();
    assert_eq!(project.container("a")["State"], "exited");
    assert_every_line_once(&project, 100);
    project.down();
}

#[test]
fn another_build_takes_over_what_runs() {
    if !can_run_containers("another_build_takes_over_what_runs") {
        return;
    }
    let port = free_port();
    let project = busy_project(port);
    project.run(&["up", "-d"]).ok();
    let id = project.container("a")["ID"].clone();
    let before = (project.role("keeper"), project.role("supervisor"));
    // The same program in another file is another build, as far as anybody can tell.
    let build = project.folder().join("other-build");
    crate::support::copy_program(project.binary(), &build);
    let is_new = |pid: i32| same_file(&format!("/proc/{pid}/exe"), build.to_str().unwrap());
    let said = project.run_by(&build, &["exec", "-T", "a", "echo", "hi"]).ok().out;
    assert_eq!(said, "hi\n");
    let after = eventually("one keeper and one supervisor", || {
        let after = (project.role("keeper"), project.role("supervisor"));
        (after.0.len() == 1 && after.1.len() == 1).then_some(after)
    });
    assert!(!before.0.contains(&after.0[0]) && !before.1.contains(&after.1[0]), "{before:?} {after:?}");
    if !needs_root("another_build_takes_over_what_runs", "programs of keeper and supervisor cannot be looked at") {
        assert!(is_new(after.0[0]) && is_new(after.1[0]), "they are still the old build");
    }
    assert_eq!(project.container("a")["ID"], id);
    eventually("the server answers", || TcpStream::connect(("127.0.0.1", port)).ok());
    project.run_by(&build, &["stop", "a"]).ok();
    // For a moment what is about to execute a probe's program is called a keeper, too.
    eventually("once is enough", || ((project.role("keeper"), project.role("supervisor")) == after).then_some(()));
    assert_every_line_once(&project, 100);
    project.run_by(&build, &["down"]).ok();
    project.assert_nothing_left();
}

fn same_file(a: &str, b: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let [a, b] = [a, b].map(|path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok());
    a.is_some() && a == b
}

#[test]
fn both_killed_while_running_the_next_command_takes_over() {
    if !can_run_containers("both_killed_while_running_the_next_command_takes_over") {
        return;
    }
    let port = free_port();
    let project = busy_project(port);
    project.run(&["up", "-d"]).ok();
    let keeper = project.role("keeper")[0];
    let supervisor = project.role("supervisor")[0];
    kill(keeper, SIGKILL);
    kill(supervisor, SIGKILL);
    eventually("both are gone", || {
        (!project.role("keeper").contains(&keeper) && !project.role("supervisor").contains(&supervisor)).then_some(())
    });
    project.run(&["up", "-d"]).ok();
    eventually("the server answers", || TcpStream::connect(("127.0.0.1", port)).ok());
    assert_eq!(project.container("a")["State"], "running");
    project.down();
}

#[test]
fn both_killed_while_a_run_is_attended_it_goes_on_to_its_end() {
    if !can_run_containers("both_killed_while_a_run_is_attended_it_goes_on_to_its_end") {
        return;
    }
    let project = Project::new("services: {a: {image: rcompose/host, volumes: ['.:/out']}}\n");
    let script = "echo begun; until [ -e /out/go ]; do sleep 0.1; done; echo done";
    let mut run = project.spawn(&["run", "--rm", "-T", "a", "sh", "-c", script]);
    let mut begun = [0; 6];
    run.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    let (keeper, supervisor) = (project.role("keeper")[0], project.role("supervisor")[0]);
    // Neither starts the other one again.
    kill(keeper, Signal::SIGSTOP);
    kill(supervisor, SIGKILL);
    kill(keeper, SIGKILL);
    eventually("both are gone", || {
        (!project.role("keeper").contains(&keeper) && !project.role("supervisor").contains(&supervisor)).then_some(())
    });
    project.write("go", "");
    let ended = eventually("the command ends", || run.try_wait().unwrap());
    // Its status is known where the kernel keeps it.
    assert!([Some(0), Some(255)].contains(&ended.code()), "{ended}");
    assert_eq!(finish(run).out, "done\n");
    assert!(project.ps().is_empty());
    project.down();
}

/// A disk of a few MiB of memory.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "none"]).arg(&at).status();
        assert!(mounted.unwrap().success());
        Self(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_keeps_nobody_from_ending_what_fills_it() {
    let test = "a_full_disk_keeps_nobody_from_ending_what_fills_it";
    if !can_run_containers(test) || needs_root(test, "it mounts a small disk") {
        return;
    }
    let fills = "while :; do head -c 100000 /dev/zero | tr '\\0' x; echo; done";
    let project = Project::new(&format!(
        "services:
  a: {{image: rcompose/host, command: [sh, -c, {}], stop_signal: SIGKILL}}
  b: {{image: rcompose/host, command: [sleep, '1000'], stop_signal: SIGKILL, restart: always}}
",
        serde_json::to_string(fills).unwrap()
    ));
    let disk = SmallDisk::mount(project.root());
    project.run(&["up", "-d"]).ok();
    eventually("the disk is full", || {
        let free = rustix::fs::statvfs(&disk.0).unwrap().f_bavail;
        (free == 0).then_some(())
    });
    project.run(&["ps"]).ok();
    project.run(&["stop", "b"]).ok();
    assert_eq!(project.container("b")["State"], "exited");
    project.run(&["down"]).ok();
    assert_eq!(project.run(&["ps", "-a", "-q"]).ok().out, "");
    drop(disk);
    project.assert_nothing_left();
}

/// The machine's clock was a day ahead when the containers were made.
#[test]
fn a_clock_that_was_set_back_keeps_nothing_from_being_done() {
    if !can_run_containers("a_clock_that_was_set_back_keeps_nothing_from_being_done") {
        return;
    }
    let sleeps = "image: rcompose/host, command: [sleep, '1000'], stop_signal: SIGKILL";
    let project = Project::new(&format!("services:\n  a: {{{sleeps}}}\n  b: {{{sleeps}, restart: always}}\n"));
    project.run(&["up", "-d"]).ok();
    let containers = project.root().join("data/projects").join(&project.name).join("containers");
    for container in std::fs::read_dir(containers).unwrap().map(|entry| entry.unwrap().path()) {
        for (file, time) in [("config.json", "/created_at"), ("state.json", "/run/started_at")] {
            let text = std::fs::read(container.join(file)).unwrap();
            let mut record: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let time = record.pointer_mut(time).unwrap();
            *time = (time.as_i64().unwrap() + 24 * 3600 * 1_000_000_000).into();
            std::fs::write(container.join(file), serde_json::to_vec(&record).unwrap()).unwrap();
        }
    }
    // The next one reads what is on disk.
    let supervisor = project.role("supervisor")[0];
    kill(supervisor, SIGKILL);
    eventually("the next supervisor", || project.role("supervisor").first().filter(|pid| **pid != supervisor).copied());
    let pid = |service: &str| {
        let ran = project.run(&["top", service]).ok().out;
        ran.lines().nth(1).map(|line| line.split_whitespace().nth(3).unwrap().to_owned())
    };
    let before = pid("a");
    project.run(&["restart", "a"]).ok();
    assert_ne!(pid("a"), before, "`restart`");
    let before = pid("b").unwrap();
    kill(before.parse().unwrap(), SIGKILL);
    eventually("its policy starts it again", || pid("b").filter(|now| *now != before));
    let ids = || project.run(&["ps", "-q"]).ok().out.lines().map(str::to_owned).collect::<Vec<_>>();
    let before = ids();
    let plan = project.run(&["up", "--dry-run", "--force-recreate"]).ok();
    assert!(format!("{}{}", plan.out, plan.err).contains("create"), "{} {}", plan.out, plan.err);
    project.run(&["up", "-d", "--force-recreate"]).ok();
    let after = ids();
    assert!(after.len() == 2 && after.iter().all(|id| !before.contains(id)), "{before:?} {after:?}");
    project.run(&["stop"]).ok();
    project.run(&["start"]).ok();
    assert_eq!(project.container("a")["State"], "running");
    project.down();
    project.assert_nothing_left();
}

/// The machine's clock was a day ahead when the containers printed and ended: what is new is told from what is old all the same.
#[test]
fn what_is_new_is_shown_though_the_clock_was_set_back() {
    if !can_run_containers("what_is_new_is_shown_though_the_clock_was_set_back") {
        return;
    }
    let project = Project::new(
        "services:
  first: {image: rcompose/host, command: [sh, -c, 'sleep 0.4; echo said; exit 3']}
  second: {image: rcompose/host, command: [sh, -c, 'sleep 0.8; echo said; exit 4'], depends_on: [first]}
",
    );
    project.run(&["up"]).ok();
    eventually("the supervisor ends", || project.role("supervisor").is_empty().then_some(()));
    let day = 24 * 3600 * 1_000_000_000_i64;
    let folder = project.root().join("data/projects").join(&project.name);
    for container in std::fs::read_dir(folder.join("containers")).unwrap().map(|entry| entry.unwrap().path()) {
        for (file, time) in [("state.json", "/exit/at"), ("exit.json", "/at")] {
            let text = std::fs::read(container.join(file)).unwrap();
            let mut record: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let time = record.pointer_mut(time).unwrap();
            *time = (time.as_i64().unwrap() + day).into();
            std::fs::write(container.join(file), serde_json::to_vec(&record).unwrap()).unwrap();
        }
        let index = container.join("log/stdout.idx");
        let mut records = std::fs::read(&index).unwrap();
        for record in records.as_chunks_mut::<16>().0 {
            let time = record.first_chunk_mut::<8>().unwrap();
            *time = (i64::from_le_bytes(*time) + day).to_le_bytes();
        }
        std::fs::write(&index, records).unwrap();
    }
    let ran = project.run(&["up"]).ok();
    let mut lines: Vec<_> = ran.out.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "Attaching to first-1, second-1",
            "first-1   | said",
            "first-1 exited with code 3",
            "second-1  | said",
            "second-1 exited with code 4",
        ]
    );
    project.down();
    project.assert_nothing_left();
}

/// What lives in another one's network goes with it when its policy starts it anew, and so does what lives with that.
#[test]
fn who_joined_a_namespace_is_restarted_with_its_owner() {
    if !can_run_containers("who_joined_a_namespace_is_restarted_with_its_owner") {
        return;
    }
    let sleeps = "image: rcompose/host, command: [sleep, '1000'], stop_signal: SIGKILL";
    let project = Project::new(&format!(
        "services:
  a: {{{sleeps}, restart: always, ports: ['80']}}
  b: {{{sleeps}, network_mode: 'service:a'}}
  c: {{{sleeps}, ipc: 'service:b'}}
  other: {{{sleeps}}}
"
    ));
    project.run(&["up", "-d"]).ok();
    let pid = |service: &str| {
        let ran = project.run(&["top", service]).out;
        ran.lines().nth(1).map(|line| line.split_whitespace().nth(3).unwrap().to_owned())
    };
    let namespace = |service: &str, kind: &str| std::fs::read_link(format!("/proc/{}/ns/{kind}", pid(service)?)).ok();
    let other = pid("other");
    let mut network = namespace("a", "net").unwrap();
    for _ in 0..2 {
        kill(pid("a").unwrap().parse().unwrap(), SIGKILL);
        network = eventually("a restart into a new network", || namespace("a", "net").filter(|now| *now != network));
        eventually("the network is joined anew", || (namespace("b", "net")? == network).then_some(()));
        eventually("and the other's shared memory", || {
            let (b, c) = (namespace("b", "ipc")?, namespace("c", "ipc")?);
            (b == c).then_some(())
        });
    }
    assert_eq!(pid("other"), other);
    let log = project.root().join("data/projects").join(&project.name).join("supervisor.log");
    let log = std::fs::read_to_string(log).unwrap();
    let (name, reason) = (&project.name, "it is in namespaces that `a` has left");
    assert_eq!(log.matches(&format!("container {name}-b-1 is restarted: {reason}")).count(), 2, "{log}");
    let events = project.run(&["events", "--json", "--since", "1h", "--until", "0s"]).ok().out;
    assert_eq!(events.matches(reason).count(), 2, "{events}");
    // It was told not to take anybody along.
    let before = pid("b");
    project.run(&["restart", "--no-deps", "a"]).ok();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(pid("b"), before);
    project.down();
}

/// The machine crashes in the middle of `up`: both processes are killed at a random moment. The next `up` converges,
/// `down` leaves nothing.
#[test]
fn a_crash_in_the_middle_of_up_is_mended_by_the_next_up() {
    if !can_run_containers("a_crash_in_the_middle_of_up_is_mended_by_the_next_up") {
        return;
    }
    let services: String = (0..6)
        .map(|n| {
            let needs = if n > 2 { format!(", depends_on: [s{}]", n - 3) } else { String::new() };
            format!(
                "  s{n}: {{image: rcompose/host, command: [sleep, '1000'], stop_signal: SIGKILL, volumes: ['v{n}:/v'], \
                 ports: ['80']{needs}}}\n"
            )
        })
        .collect();
    let volumes: String = (0..6).map(|n| format!("  v{n}: {{}}\n")).collect();
    let project = Project::new(&format!("services:\n{services}volumes:\n{volumes}"));
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64 ^ u64::from(std::process::id());
    for round in 0..50 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_micros((seed >> 33) % 120_000);
        let mut up = project
            .command(&["up", "-d"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // The moment of a crash is what the test is about: it is a time, not an event.
        std::thread::sleep(moment);
        kill(up.id() as i32, SIGKILL);
        for role in ["keeper", "supervisor", "keeper", "supervisor"] {
            for pid in project.role(role) {
                kill(pid, SIGKILL);
            }
        }
        up.wait().unwrap();
        let again = project.run(&["up", "-d"]);
        assert_eq!(again.code, 0, "round {round}, killed after {moment:?}:\n{}", again.err);
        let running = project.ps().iter().filter(|container| container["State"] == "running").count();
        assert_eq!(running, 6, "round {round}, killed after {moment:?}");
        let down = project.run(&["down", "-v"]);
        assert_eq!(down.code, 0, "round {round}, killed after {moment:?}:\n{}", down.err);
        project.assert_nothing_left();
    }
}

/// Its own processes know the old place only.
#[test]
fn a_project_whose_state_was_moved_says_so_and_goes_on_when_it_is_back() {
    if !can_run_containers("a_project_whose_state_was_moved_says_so_and_goes_on_when_it_is_back") {
        return;
    }
    let project =
        Project::new("services:\n  a: {image: rcompose/host, command: [sleep, '1000'], stop_signal: SIGKILL}\n");
    project.run(&["up", "-d"]).ok();
    let (root, moved) = (project.root(), project.root().with_extension("moved"));
    std::fs::rename(&root, &moved).unwrap();
    for command in [&["exec", "-T", "a", "true"][..], &["up", "-d"], &["down"]] {
        let refused =
            crate::support::Ran::from(project.command(command).env("RCOMPOSE_ROOT", &moved).output().unwrap());
        let refused = refused.fails(1);
        assert!(refused.err.contains("moved or removed") && refused.err.contains("move it back"), "{}", refused.err);
    }
    // What a supervisor may have made at the old place.
    let _ = std::fs::remove_dir_all(&root);
    std::fs::rename(&moved, &root).unwrap();
    project.run(&["exec", "-T", "a", "true"]).ok();
    project.down();
}
