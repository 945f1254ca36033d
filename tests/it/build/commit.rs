//! `export` and `commit`: a container's files, and what it has become as an image.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::project;

const COMPOSE: &str = "services:
  web:
    image: base
    command: [sh, -c, 'echo made > /tmp/made; rm /bin/env; sleep 1000']
    environment: {A: b}
    user: '0:0'
    labels: {x: y}
    volumes: ['kept:/kept']
    stop_grace_period: 0s
volumes: {kept: {}}
";

fn listed(archive: &std::path::Path) -> Vec<String> {
    let output = Command::new("tar").arg("-tf").arg(archive).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_files_of_a_container_are_exported_whether_it_runs_or_not() {
    let Some(project) = project(COMPOSE, "") else { return };
    project.run(&["up", "-d"]).ok();
    project.run(&["exec", "-T", "web", "sh", "-c", "echo in > /kept/file; ln /tmp/made /tmp/again"]).ok();
    let archive = project.folder().join("out.tar");
    for state in ["running", "stopped"] {
        project.run(&["export", "web", "-o", "out.tar"]).ok();
        let names = listed(&archive);
        for there in ["bin/busybox", "tmp/made", "tmp/again", "kept/"] {
            assert!(names.iter().any(|name| name == there), "{state}: {there} is missing: {names:?}");
        }
        for gone in ["bin/env", "kept/file", "proc/self"] {
            assert!(!names.iter().any(|name| name.starts_with(gone)), "{state}: {gone} is there");
        }
        project.run(&["stop"]).ok();
    }
    let piped = project.command(&["export", "web"]).output().unwrap();
    assert_eq!(piped.stdout, fs::read(&archive).unwrap(), "the same archive on standard output");
    // What was exported is a root file system.
    project.run(&["image", "import", "-m", "by hand", "out.tar", "again"]).ok();
    assert_eq!(project.run(&["image", "inspect", "-f", "{{.Comment}}", "again"]).ok().out, "by hand\n");
    assert!(project.run(&["export", "other"]).fails(1).err.contains("no such service"));
    assert!(project.run(&["export", "--index", "7", "web"]).fails(1).err.contains("no container found"));
    project.down();
}

#[test]
fn a_container_becomes_an_image_that_does_what_it_did() {
    let Some(project) = project(COMPOSE, "") else { return };
    project.run(&["up", "-d"]).ok();
    project
        .run(&[
            "exec",
            "-T",
            "web",
            "sh",
            "-c",
            "mkdir /opt; rm -r /tmp; mkdir /tmp; echo new > /tmp/new; echo in > /kept/file",
        ])
        .ok();
    let args =
        ["commit", "-a", "me", "-m", "why", "-c", "CMD [\"cat\", \"/tmp/new\"]", "-c", "ENV C=d", "web", "team/made:1"];
    let said = project.run(&args).ok().err;
    assert!(said.contains("Committed as sha256:"), "{said}");
    assert_eq!(project.container("web")["State"], "running", "it was let go");
    let shown = project.run(&["image", "inspect", "team/made:1"]).ok().out;
    let image: Value = serde_json::from_str::<Value>(&shown).unwrap()[0].clone();
    let config = &image["Config"];
    assert_eq!((&image["Author"], &image["Comment"]), (&"me".into(), &"why".into()));
    assert_eq!(config["Cmd"], serde_json::json!(["cat", "/tmp/new"]));
    assert_eq!(config["Env"], serde_json::json!(["A=b", "C=d"]));
    assert_eq!((&config["Labels"]["x"], &config["Labels"]["com.docker.compose.service"]), (&"y".into(), &"web".into()));
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    let history = project.run(&["image", "history", "--no-trunc", "team/made:1"]).ok().out;
    assert!(history.contains("echo made > /tmp/made") && history.contains("why"), "{history}");
    let other = project.beside(
        "services:\n  one: {image: 'team/made:1'}\n  two: {image: 'team/made:1', command: [sh, -c, 'ls / /tmp /bin /kept | cat']}\n",
    );
    assert_eq!(other.run(&["run", "--rm", "-T", "one"]).ok().out, "new\n");
    let files = other.run(&["run", "--rm", "-T", "two"]).ok().out;
    let has = |name: &str| files.lines().any(|line| line == name);
    assert!(has("opt") && has("kept") && has("new") && !has("made") && !has("env") && !has("file"), "{files}");
    other.run(&["down", "-v"]).ok();
    crate::support::eventually("the end of its supervisor", || other.role("supervisor").is_empty().then_some(()));
    drop(other);
    project.run(&["stop"]).ok();
    project.run(&["commit", "--pause=false", "web"]).ok();
    assert!(project.run(&["commit", "-c", "RUN x", "web"]).fails(1).err.contains("`RUN`"));
    assert!(project.run(&["commit", "web", "Not A Name"]).fails(1).err.contains("not an image name"));
    let dry = project.run(&["--dry-run", "commit", "web", "team/dry"]).ok();
    assert!(dry.err.contains("Committing") && !project.run(&["image", "ls"]).ok().out.contains("team/dry"));
    project.down();
}

#[test]
fn the_machines_own_image_is_neither_exported_nor_committed() {
    let compose = "services:\n  web: {image: rcompose/host, command: sleep 1000, stop_grace_period: 0s}\n";
    let Some(project) = project(compose, "") else { return };
    project.run(&["up", "-d"]).ok();
    for args in [&["export", "-o", "x.tar", "web"][..], &["commit", "web", "x"][..]] {
        let error = project.run(args).fails(1).err;
        assert!(error.contains("rcompose/host") && error.contains("made from this machine"), "{error}");
    }
    project.down();
}
