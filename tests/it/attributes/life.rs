//! Hooks, and freezing.

use super::shell;
use crate::support::{Project, can_run_containers, cgroups_of, eventually, lacks_controllers, needs_root};

#[test]
fn hooks_run_inside_after_the_start_and_before_the_stop() {
    if !can_run_containers("hooks_run_inside_after_the_start_and_before_the_stop") {
        return;
    }
    let project = Project::new("services: {}");
    let folder = project.folder();
    let idle = shell("echo main >> /out/log; exec sleep 1000").replace("SIGKILL", "SIGTERM");
    project.write(
        "compose.yaml",
        &format!(
            "services:
  a:
    {{{idle}, stop_grace_period: 100ms, environment: {{A: one}}, volumes: ['{}:/out'],
     post_start: [{{command: [sh, -c, 'echo $$A $$B $$(id -u) $$PWD >> /out/log'], user: '7:8', environment: {{B: two}}, working_dir: /usr}},
                  {{command: [sh, -c, 'yes | head -c 300000']}}],
     pre_stop: [{{command: [sh, -c, 'echo bye $$(id -u) >> /out/log']}}]}}
",
            folder.display()
        ),
    );
    std::fs::write(folder.join("log"), "").unwrap();
    let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(folder.join("log"), anybody).unwrap();
    let log = || std::fs::read_to_string(folder.join("log")).unwrap();
    project.run(&["up", "-d"]).ok();
    eventually("the program and the hook", || (log().lines().count() == 2).then_some(()));
    assert!(log().contains("one two 7 /usr\n"), "{}", log());
    project.run(&["stop"]).ok();
    assert!(log().ends_with("bye 0\n"), "{}", log());
    project.run(&["start"]).ok();
    eventually("the hooks again", || (log().lines().count() == 5).then_some(()));
    project.down();
    assert_eq!(log().lines().count(), 6);
}

#[test]
fn a_hook_that_fails_fails_the_command() {
    if !can_run_containers("a_hook_that_fails_fails_the_command") {
        return;
    }
    let idle = shell("exec sleep 1000");
    let project = Project::new(&format!(
        "services:\n  a: {{{idle}, post_start: [{{command: [sh, -c, 'echo no table; exit 3']}}]}}\n  \
         b: {{{idle}, depends_on: [a]}}\n"
    ));
    let up = project.run(&["up", "-d"]).fails(1);
    assert!(up.err.contains("exited with status 3") && up.err.contains("no table"), "{}", up.err);
    assert_eq!(project.container("a")["State"], "running", "it runs all the same");
    assert_eq!(project.container("b")["State"], "created", "what depends on it is held");
    project.down();
}

#[test]
fn a_hook_before_the_stop_that_fails_is_told_and_keeps_nothing_from_being_stopped() {
    if !can_run_containers("a_hook_before_the_stop_that_fails_is_told_and_keeps_nothing_from_being_stopped") {
        return;
    }
    let idle = shell("exec sleep 1000");
    let project =
        Project::new(&format!("services:\n  a: {{{idle}, pre_stop: [{{command: [sh, -c, 'echo no; exit 3']}}]}}\n"));
    project.run(&["up", "-d"]).ok();
    let stopped = project.run(&["stop"]).ok();
    assert!(stopped.err.contains("exited with status 3"), "{}", stopped.err);
    assert_eq!(project.container("a")["State"], "exited");
    project.run(&["start"]).ok();
    project.down();
}

#[test]
fn a_paused_container_stands_still() {
    if !can_run_containers("a_paused_container_stands_still") {
        return;
    }
    if lacks_controllers("a_paused_container_stands_still", &["pids"]) {
        return;
    }
    let idle = shell("exec sleep 1000").replace("SIGKILL", "SIGTERM");
    let check = "healthcheck: {test: [CMD, 'true'], interval: 10ms, timeout: 100ms, retries: 1}";
    let project = Project::new(&format!("services:\n  a: {{{idle}, {check}}}\n  b: {{{idle}}}\n"));
    project.run(&["up", "-d", "--wait"]).ok();
    project.run(&["pause", "a"]).ok();
    let id = project.container("a")["ID"].as_str().unwrap().to_owned();
    let children = cgroups_of(&project.name).into_iter().flat_map(|group| std::fs::read_dir(group).unwrap());
    let mut groups = children.map(|entry| entry.unwrap().path());
    let own = |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&id);
    let group =
        groups.find(|path| own(path) && ["cgroup.events", "freezer.state"].iter().any(|file| path.join(file).exists()));
    let group = group.expect("a group that can be frozen");
    eventually("the kernel says that it is frozen", || {
        let read = |file| std::fs::read_to_string(group.join(file)).unwrap_or_default();
        (read("cgroup.events").contains("frozen 1") || read("freezer.state").contains("FROZEN")).then_some(())
    });
    let listed = project.container("a");
    assert_eq!(listed["State"], "paused");
    assert!(listed["Status"].as_str().unwrap().ends_with("(Paused)"), "{listed}");
    assert_eq!(project.container("b")["State"], "running");
    let exec = project.run(&["exec", "-T", "a", "true"]).fails(1);
    assert!(exec.err.contains("is paused"), "{}", exec.err);
    assert!(project.run(&["pause", "a"]).fails(1).err.contains("already paused"));
    // One that is not paused does not keep the others so.
    assert!(project.run(&["unpause"]).fails(1).err.contains("b-1` is not paused"));
    project.run(&["exec", "-T", "a", "true"]).ok();
    assert_eq!(project.container("a")["Health"], "healthy", "it was probed while it was frozen");
    project.run(&["pause"]).ok();
    project.down();
}

#[test]
fn stats_and_top_tell_what_the_kernel_counts() {
    if !can_run_containers("stats_and_top_tell_what_the_kernel_counts") {
        return;
    }
    if lacks_controllers("stats_and_top_tell_what_the_kernel_counts", &["cpu", "memory", "pids"]) {
        return;
    }
    let busy = shell("sleep 1234 & while :; do :; done");
    // `tail` writes its first byte once it holds all of them.
    let hold =
        shell("head -c 30000000 /dev/zero | tail -c 30000000 | (head -c 1 > /dev/null; echo held; exec sleep 1000)");
    let project = Project::new(&format!(
        "services:\n  busy: {{{busy}, cpus: 0.5, mem_limit: 64m}}\n  idle: {{{hold}, user: '7'}}\n  gone: {{{}}}\n",
        shell("true")
    ));
    project.run(&["up", "-d"]).ok();
    eventually("the memory to be held", || project.run(&["logs", "idle"]).ok().out.contains("held").then_some(()));
    let number = |text: &serde_json::Value| text.as_str().unwrap().trim_end_matches('%').parse::<f64>().unwrap();
    let samples = eventually("a sample of a busy processor", || {
        let lines = project.run(&["stats", "--no-stream", "--format", "json"]).ok().out;
        let samples: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (number(&samples[0]["CPUPerc"]) > 5.0).then_some(samples)
    });
    let [busy, idle] = samples.as_slice() else { panic!("{samples:?}") };
    assert!(number(&busy["CPUPerc"]) < 80.0, "more than its limit: {busy}");
    assert!(busy["MemUsage"].as_str().unwrap().ends_with(" / 64MiB"), "{busy}");
    assert_eq!(busy["PIDs"], "2");
    assert!(idle["MemUsage"].as_str().unwrap().contains("MiB / "), "{idle}");
    assert!(idle["NetIO"].as_str().unwrap().contains('/'), "{idle}");
    let names = project.run(&["stats", "--no-stream", "--format", "{{.Name}}"]).ok().out;
    assert!(names.lines().all(|name| name.starts_with(&project.name)) && !names.is_empty(), "{names}");
    let all = project.run(&["stats", "--no-stream", "-a"]).ok().out;
    assert!(all.lines().count() == 4 && all.starts_with("CONTAINER ID"), "{all}");
    let top = project.run(&["top"]).ok().out;
    let sleeper = top.lines().find(|line| line.ends_with("sleep 1234")).unwrap();
    let fields: Vec<&str> = sleeper.split_whitespace().collect();
    // Root inside is the user outside.
    let owner = std::os::unix::fs::MetadataExt::uid(&project.folder().metadata().unwrap());
    let owner = nix::unistd::User::from_uid(owner.into()).unwrap().unwrap();
    assert_eq!((fields[0], fields[1], fields[2]), ("busy", "1", &*owner.name));
    let status = std::fs::read_to_string(format!("/proc/{}/status", fields[3])).unwrap();
    assert!(status.contains(&format!("PPid:\t{}\n", fields[4])), "{status}");
    assert!(project.run(&["top", "idle"]).ok().out.lines().skip(1).all(|line| line.starts_with("idle")));
    project.run(&["top", "nothing"]).fails(1);
    project.down();
}

#[test]
fn a_control_group_may_lie_elsewhere() {
    if !can_run_containers("a_control_group_may_lie_elsewhere") {
        return;
    }
    if needs_root("a_control_group_may_lie_elsewhere", "groups lie in what systemd has given to the user") {
        return;
    }
    let parent = format!("rcompose-parent-{}", std::process::id());
    let project = Project::new(&format!(
        "services:\n  a: {{{}, cgroup_parent: /{parent}, pids_limit: 77}}\n",
        shell("exec sleep 1000")
    ));
    project.run(&["up", "-d"]).ok();
    let groups = |wanted: &str| -> Vec<std::path::PathBuf> {
        let top = std::path::Path::new("/sys/fs/cgroup");
        let below = std::fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path());
        below.chain([top.to_owned()]).map(|hierarchy| hierarchy.join(wanted)).filter(|path| path.exists()).collect()
    };
    let limit = groups(&parent)
        .iter()
        .flat_map(|group| std::fs::read_dir(group).unwrap())
        .find_map(|entry| std::fs::read_to_string(entry.unwrap().path().join("pids.max")).ok());
    assert_eq!(limit.as_deref(), Some("77\n"));
    assert!(project.run(&["top"]).ok().out.contains("sleep 1000"));
    project.down();
    for group in groups(&parent) {
        // Empty, or it cannot be removed.
        std::fs::remove_dir(group).unwrap();
    }
}

/// Each in a container of its own, in order, before the first replica, when none runs; what depends on the service waits, too.
#[test]
fn pre_start_hooks_run_before_the_first_replica() {
    if !can_run_containers("pre_start_hooks_run_before_the_first_replica") {
        return;
    }
    let project = Project::new("services: {}");
    let write = |second: &str| {
        project.write(
            "compose.yaml",
            &format!(
                "services:
  a:
    {{{}, scale: 2, environment: {{A: one}}, volumes: ['./out:/out', '/anonymous', 'named:/named'], ports: ['80'],
     pre_start: [{{command: [sh, -c, 'test ! -e /named/main; echo first $$A $$B >> /out/log; touch /anonymous/mark'], environment: {{B: two}}}},
                 {{command: [sh, -c, '{second}'], working_dir: /usr, user: '0'}}]}}
  b: {{{}, depends_on: [a], volumes: ['./out:/out']}}
volumes: {{named: {{}}}}
",
                shell("ls /anonymous >> /out/log; touch /named/main; exec sleep 1000"),
                shell("echo dependent >> /out/log; exec sleep 1000"),
            ),
        );
    };
    std::fs::create_dir(project.folder().join("out")).unwrap();
    let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(project.folder().join("out"), anybody).unwrap();
    let log = || std::fs::read_to_string(project.folder().join("out/log")).unwrap_or_default();
    write("echo second $$PWD >> /out/log; sleep 0.3; echo over >> /out/log");
    let plan = project.run(&["plan"]).fails(2);
    assert!(plan.out.contains("`pre_start` of `a`"), "{}", plan.out);
    project.run(&["up", "-d"]).ok();
    eventually("all of them", || log().contains("dependent").then_some(()));
    // The first replica has the volume without a name that the hooks had.
    assert!(log().starts_with("first one two\nsecond /usr\nover\n"), "{}", log());
    eventually("the first replica", || log().contains("mark\n").then_some(()));
    assert_eq!(project.ps().len(), 3, "the hooks' containers are gone: {:?}", project.ps());
    project.run(&["up", "-d", "--scale", "a=3"]).ok();
    assert_eq!(log().matches("first").count(), 1, "one was running");
    project.run(&["restart", "-t", "0", "a"]).ok();
    assert_eq!(log().matches("first").count(), 1, "one after the other is no new beginning");
    project.run(&["stop", "-t", "0", "a"]).ok();
    std::fs::write(project.folder().join("out/log"), "").unwrap();
    project.run(&["start", "a"]).ok();
    assert!(log().starts_with("first one two\nsecond /usr\nover\n"), "{}", log());
    project.run(&["down", "-v", "-t", "0"]).ok();
    std::fs::write(project.folder().join("out/log"), "").unwrap();
    write("echo no table; exit 3");
    let up = project.run(&["up", "-d"]).fails(1);
    assert!(up.err.contains("exit 3") && up.err.contains("no table"), "{}", up.err);
    assert_eq!(log(), "first one two\n", "neither the service nor what depends on it");
    write("echo second >> /out/log");
    project.run(&["up", "-d", "--wait"]).ok();
    assert_eq!(project.ps().len(), 3, "{:?}", project.ps());
    project.down();
}

/// With `per_replica`, each that is started has its own, which sees its volumes and keeps nothing but it from being started.
#[test]
fn pre_start_hooks_run_for_each_replica() {
    if !can_run_containers("pre_start_hooks_run_for_each_replica") {
        return;
    }
    let project = Project::new("services: {}");
    let hook = |after: &str| {
        format!(
            "services:
  a:
    {{{}, scale: 2, volumes: ['./out:/out', '/own'],
     pre_start: [{{command: [sh, -c, 'echo shared >> /out/log']}},
                 {{command: [sh, -c, 'touch /own/mark; echo each >> /out/log'], per_replica: true}},
                 {{command: [sh, -c, '{after}'], per_replica: true}}]}}
",
            shell("ls /own >> /out/log; exec sleep 1000"),
        )
    };
    std::fs::create_dir(project.folder().join("out")).unwrap();
    let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(project.folder().join("out"), anybody).unwrap();
    let log = || std::fs::read_to_string(project.folder().join("out/log")).unwrap_or_default();
    let count = |what: &str| log().lines().filter(|line| *line == what).count();
    project.write("compose.yaml", &hook("true"));
    project.run(&["up", "-d"]).ok();
    eventually("both replicas", || (count("mark") == 2).then_some(()));
    assert_eq!((count("shared"), count("each")), (1, 2), "{}", log());
    project.run(&["up", "-d", "--scale", "a=3"]).ok();
    eventually("the third", || (count("mark") == 3).then_some(()));
    assert_eq!((count("shared"), count("each")), (1, 3), "{}", log());
    project.run(&["down", "-v", "-t", "0"]).ok();
    project.write("compose.yaml", &hook("mkdir /out/taken"));
    project.run(&["up", "-d"]).fails(1);
    let running = || project.run(&["ps", "-q", "--status", "running"]).ok().out.lines().count();
    assert_eq!(running(), 1, "one of them could make the folder: {:?}", project.ps());
    project.down();
}
