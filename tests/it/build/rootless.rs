//! Images built by an ordinary user, and containers of them.

use std::process::Command;

use crate::support::{Project, Ran};

const DOCKERFILE: &str =
    "FROM base\nRUN id -u > /said; cat /proc/1/comm\nCOPY Dockerfile /d/\nENTRYPOINT [\"cat\", \"/said\"]\n";

/// Busybox and some of its links, as the image `base`.
fn import_base(project: &Project) {
    let script = "mkdir -p base/bin && cp /bin/busybox base/bin/ && cd base && \
        for n in sh cat id sleep; do ln -s busybox bin/$n; done && tar -cf ../base.tar .";
    assert!(Command::new("sh").args(["-c", script]).current_dir(project.folder()).status().unwrap().success());
    project.run(&["image", "import", "base.tar", "base"]).ok();
}

#[test]
fn an_ordinary_user_builds_and_runs() {
    let test = "build::rootless::an_ordinary_user_builds_and_runs";
    let project = Project::rootless("services:\n  web: {build: .}\n");
    if !crate::rootless::can_be_rootless(&project, test) || !std::path::Path::new("/bin/busybox").exists() {
        return;
    }
    import_base(&project);
    project.write("Dockerfile", DOCKERFILE);
    let built = project.run(&["run", "--rm", "-T", "web"]).ok();
    assert!(built.out.contains("RUN id -u") && built.out.ends_with("0\n"), "{} {}", built.out, built.err);
    assert!(built.out.contains("steps have this machine's network"), "{}", built.out);
    assert_eq!(project.run(&["build"]).ok().out.matches(" CACHED").count(), 2);
    project.write("Dockerfile", "FROM base\nRUN cat /nothing\n");
    let failed = project.run(&["up", "-d", "--build"]).fails(1);
    assert!(failed.err.contains("Dockerfile:2") && failed.err.contains("exit status 1"), "{}", failed.err);
    project.down();
}

#[test]
fn what_cannot_be_frozen_is_copied_with_a_warning() {
    let test = "build::rootless::what_cannot_be_frozen_is_copied_with_a_warning";
    let compose = "services:\n  web: {image: base, command: sleep 1000, stop_grace_period: 0s}\n";
    let project = Project::rootless(compose);
    if !crate::rootless::can_be_rootless(&project, test) || !std::path::Path::new("/bin/busybox").exists() {
        return;
    }
    import_base(&project);
    // Without the user's systemd there are no control groups.
    let alone = |args: &[&str]| Ran::from(project.command(args).env_remove("XDG_RUNTIME_DIR").output().unwrap()).ok();
    alone(&["up", "-d"]);
    alone(&["exec", "-T", "web", "sh", "-c", "echo in > /file"]);
    let said = alone(&["commit", "web", "made"]).err;
    assert!(said.contains("warning:") && said.contains("goes on while it is copied"), "{said}");
    project.write("compose.yaml", "services: {web: {image: made, command: cat /file}}\n");
    assert_eq!(project.run(&["run", "--rm", "-T", "web"]).ok().out, "in\n");
    project.down();
}
