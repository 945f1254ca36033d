//! Images built by an ordinary user, and containers of them.

use std::process::Command;

use crate::support::Project;

const DOCKERFILE: &str =
    "FROM base\nRUN id -u > /said; cat /proc/1/comm\nCOPY Dockerfile /d/\nENTRYPOINT [\"cat\", \"/said\"]\n";

#[test]
fn an_ordinary_user_builds_and_runs() {
    let test = "build::rootless::an_ordinary_user_builds_and_runs";
    let project = Project::rootless("services:\n  web: {build: .}\n");
    if !crate::rootless::can_be_rootless(&project, test) || !std::path::Path::new("/bin/busybox").exists() {
        return;
    }
    let script = "mkdir -p base/bin && cp /bin/busybox base/bin/ && cd base && \
        for n in sh cat id; do ln -s busybox bin/$n; done && tar -cf ../base.tar .";
    assert!(Command::new("sh").args(["-c", script]).current_dir(project.folder()).status().unwrap().success());
    project.write("Dockerfile", DOCKERFILE);
    project.run(&["image", "import", "base.tar", "base"]).ok();
    let built = project.run(&["run", "--rm", "-T", "web"]).ok();
    assert!(built.out.contains("RUN id -u") && built.out.ends_with("0\n"), "{} {}", built.out, built.err);
    assert!(built.out.contains("steps have this machine's network"), "{}", built.out);
    assert_eq!(project.run(&["build"]).ok().out.matches(" CACHED").count(), 2);
    project.write("Dockerfile", "FROM base\nRUN cat /nothing\n");
    let failed = project.run(&["up", "-d", "--build"]).fails(1);
    assert!(failed.err.contains("Dockerfile:2") && failed.err.contains("exit status 1"), "{}", failed.err);
    project.down();
}
