//! Hooks, and freezing.

use super::shell;
use crate::support::{Project, can_run_containers, cgroups_of, eventually};

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
fn a_paused_container_stands_still() {
    if !can_run_containers("a_paused_container_stands_still") {
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
    project.run(&["unpause"]).fails(1);
    project.run(&["unpause", "a"]).ok();
    project.run(&["exec", "-T", "a", "true"]).ok();
    assert_eq!(project.container("a")["Health"], "healthy", "it was probed while it was frozen");
    project.run(&["pause"]).ok();
    project.down();
}
