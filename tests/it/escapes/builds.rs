//! Builds of hostile Dockerfiles.

use std::fs;

use crate::build::project;
use crate::support::Project;

fn effective_capabilities(project: &Project) -> u64 {
    let status = project.run(&["run", "--rm", "-T", "web", "cat", "/status"]).ok().out;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// CVE-2024-23653: a step takes rights for itself that nobody gave it. Weakened: somebody did.
#[test]
fn a_step_has_the_rights_that_it_was_given() {
    const SYS_ADMIN: u64 = 1 << 21;
    let step = "FROM base\nRUN --security=insecure cat /proc/self/status > /status\n";
    let Some(project) = project("services: {web: {build: .}}\n", step) else { return };
    let refused = project.run(&["build"]).fails(1);
    assert!(refused.err.contains("`--security=insecure` is not allowed"), "{}", refused.err);
    project.write("Dockerfile", "FROM base\nRUN cat /proc/self/status > /status\n");
    project.run(&["build"]).ok();
    assert_eq!(effective_capabilities(&project) & SYS_ADMIN, 0);
    project.write("Dockerfile", step);
    project.write("compose.yaml", "services: {web: {build: {context: ., entitlements: [security.insecure]}}}\n");
    project.run(&["build"]).ok();
    assert_ne!(effective_capabilities(&project) & SYS_ADMIN, 0, "the attack would not be seen to succeed");
    project.down();
}

/// CVE-2024-23651, CVE-2024-23652, CVE-2024-1753 and CVE-2024-9407: the source of a mount, or the place that is made for one, leads to the host's files by
/// links that an earlier stage made. That they do lead there is seen by following them as a naive builder would.
#[test]
fn mounts_of_steps_stay_inside() {
    let Some(project) = project("services: {web: {build: .}}\n", "") else { return };
    let outside = project.folder().parent().unwrap().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "of the host").unwrap();
    fs::create_dir(outside.join("below")).unwrap();
    let stages = "FROM base AS evil\nCOPY link /link\nFROM base\nCOPY link /link\n";
    // A place that was made for a mount is cleared away after the step: by then the way to it leads to the host's empty folder.
    let cleared = format!("RUN --mount=type=tmpfs,target=/m/below mv /m /n && ln -s {} /m || true", outside.display());
    let attacks = [
        cleared.as_str(),
        "RUN --mount=type=bind,from=evil,source=/link,target=/m cat /m/secret > /seen || echo nothing > /seen",
        "RUN --mount=type=bind,from=evil,source=/link/secret,target=/f cat /f > /seen || true",
        "RUN --mount=type=cache,from=evil,source=/link,target=/c echo written > /c/new || true",
        "RUN --mount=type=tmpfs,target=/link/below true",
    ];
    std::os::unix::fs::symlink(&outside, project.folder().join("link")).unwrap();
    assert_eq!(fs::read_to_string(project.folder().join("link/secret")).unwrap(), "of the host");
    // Where a source is not there, a build may end with an error as well.
    for attack in attacks {
        project.write("Dockerfile", &format!("{stages}{attack}\n"));
        let built = project.run(&["build"]);
        if built.code == 0 {
            let seen = project.run(&["run", "--rm", "-T", "web", "sh", "-c", "cat /seen; true"]).ok();
            assert!(!seen.out.contains("of the host"), "{attack}: {}", seen.out);
        } else {
            assert!(built.err.contains("link"), "{attack}: {}", built.err);
        }
        let mut left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["below", "secret"], "{attack}");
    }
    // Cleared away by name.
    fs::remove_dir(project.folder().join("link/below")).unwrap();
    assert!(!outside.join("below").exists());
    project.down();
}
