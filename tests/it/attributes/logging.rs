//! `logging`.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::shell;
use crate::support::{Project, can_run_containers, eventually, needs_root};

/// Bytes on disk of what a project's containers have printed.
fn on_disk(project: &Project) -> u64 {
    let containers = project.root().join("data/projects").join(&project.name).join("containers");
    let folders = std::fs::read_dir(containers).unwrap().map(|entry| entry.unwrap().path().join("log"));
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap());
    files.map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}

#[test]
fn no_more_is_kept_than_the_options_say() {
    if !can_run_containers("no_more_is_kept_than_the_options_say") {
        return;
    }
    let flood = shell("i=0; while [ $i -lt 20000 ]; do echo line $i of a flood; i=$((i+1)); done; echo over");
    let project = Project::new(&format!(
        "services:\n  a: {{{flood}, logging: {{driver: json-file, options: {{max-size: 100k, max-file: '2'}}}}}}\n"
    ));
    project.run(&["up", "-d"]).ok();
    let last = |project: &Project| project.run(&["logs", "--no-log-prefix", "-n", "1"]).ok().out;
    eventually("the last line", || (last(&project) == "over\n").then_some(()));
    let held = on_disk(&project);
    assert!((64 << 10..300 << 10).contains(&held), "{held} bytes are kept");
    let lines = project.run(&["logs", "--no-log-prefix"]).ok().out;
    assert!(lines.len() < 210_000 && lines.len() > 90_000, "{} bytes", lines.len());
    project.down();
}

#[test]
fn output_goes_to_the_syslog_that_is_named() {
    if !can_run_containers("output_goes_to_the_syslog_that_is_named") {
        return;
    }
    if needs_root("output_goes_to_the_syslog_that_is_named", "the files of this test are root's") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("syslog");
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let talk = shell("echo hello; echo trouble >&2");
    let project = Project::new(&format!(
        "services:\n  a: {{{talk}, logging: {{driver: syslog, options: {{syslog-address: 'unixgram://{}', \
         syslog-facility: local0, tag: '{{{{.Name}}}}'}}}}}}\n",
        path.display()
    ));
    project.run(&["up", "-d"]).ok();
    let mut received = Vec::new();
    for _ in 0..2 {
        let mut bytes = [0; 500];
        let length = server.recv(&mut bytes).unwrap();
        received.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
    }
    received.sort();
    let tag = format!(" {}-a-1[", project.name);
    assert!(received[0].starts_with("<131>") && received[0].contains(&tag), "{received:?}");
    assert!(received[0].ends_with("]: trouble\n"), "{received:?}");
    assert!(received[1].starts_with("<134>") && received[1].ends_with("]: hello\n"), "{received:?}");
    assert!(project.run(&["logs"]).ok().out.contains("hello"), "it is kept here as well");
    drop(server);
    std::fs::remove_file(&path).unwrap();
    let refused = project.run(&["up", "-d", "--force-recreate"]).fails(1);
    assert!(refused.err.contains("the log service"), "{}", refused.err);
    project.down();
}

#[test]
fn what_is_not_to_be_kept_is_not_shown() {
    if !can_run_containers("what_is_not_to_be_kept_is_not_shown") {
        return;
    }
    let project = Project::new(&format!("services:\n  a: {{{}, logging: {{driver: none}}}}\n", shell("echo hello")));
    let up = project.run(&["up"]).ok();
    assert!(up.out.contains("hello"), "an attached `up` shows it: {}", up.out);
    let logs = project.run(&["logs"]).ok();
    assert!(!logs.out.contains("hello") && logs.err.contains("is not shown"), "{}{}", logs.out, logs.err);
    project.down();
}
