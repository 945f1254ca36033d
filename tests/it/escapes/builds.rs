//! Builds of hostile Dockerfiles.

use std::fs;
use std::process::Command;

use crate::build::project;
use crate::oci::bundle::text;
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

/// A step's mount, and what a naive builder does for it: by name, from the stage's folder `$STAGE` to the step's root `$ROOT`.
const MOUNTS: [(&str, &str); 6] = [
    (
        "--mount=type=bind,from=evil,source=/link,target=/m cat /m/secret > /seen || echo nothing > /seen",
        "mkdir $ROOT/m; mount --bind $STAGE/link $ROOT/m; cat $ROOT/m/secret",
    ),
    (
        "--mount=type=bind,from=evil,source=/link/secret,target=/f cat /f > /seen || true",
        "touch $ROOT/f; mount --bind $STAGE/link/secret $ROOT/f; cat $ROOT/f",
    ),
    (
        "--mount=type=cache,from=evil,source=/link,target=/c echo written > /c/new || true",
        "mkdir $ROOT/c; mount --bind $STAGE/link $ROOT/c; echo written > $ROOT/c/new",
    ),
    (
        "--mount=type=cache,id=../../../../../../../../../../..$OUTSIDE,target=/c cp /c/secret /seen || true",
        "mkdir $ROOT/c; mount --bind $STAGE/../../../../../../../../../../..$OUTSIDE $ROOT/c; cat $ROOT/c/secret",
    ),
    ("--mount=type=tmpfs,target=/link/made true", "mkdir -p $ROOT/link/made; mount -t tmpfs none $ROOT/link/made"),
    // A place that was made for a mount is cleared away after the step: by then the way to it leads to the host's empty folder.
    (
        "--mount=type=tmpfs,target=/m/below mv /m /n && ln -s $OUTSIDE /m || true",
        "mkdir -p $ROOT/m/below; mount -t tmpfs none $ROOT/m/below; umount $ROOT/m/below; mv $ROOT/m $ROOT/n; \
         ln -s $OUTSIDE $ROOT/m; rmdir $ROOT/m/below",
    ),
];

/// CVE-2024-23651, CVE-2024-23652, CVE-2024-1753, CVE-2024-9407 and CVE-2024-9675: the source of a mount, or the place that is made
/// for one, leads to the host's files by links that an earlier stage made, or by what a cache is called. Weakened: mounts are made and cleared away by name.
#[test]
fn mounts_of_steps_stay_inside() {
    let Some(project) = project("services: {web: {build: .}}\n", "") else { return };
    let outside = project.folder().parent().unwrap().join("outside");
    let make_outside = || {
        fs::create_dir_all(outside.join("below")).unwrap();
        fs::write(outside.join("secret"), "of the host").unwrap();
    };
    make_outside();
    let succeeds = |seen: &str| {
        let mut left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        seen.contains("of the host") || left != ["below", "secret"]
    };
    let stages = "FROM base AS evil\nCOPY link /link\nFROM base\nCOPY link /link\n";
    std::os::unix::fs::symlink(&outside, project.folder().join("link")).unwrap();
    for (attack, naive) in MOUNTS {
        let attack = attack.replace("$OUTSIDE", outside.to_str().unwrap());
        project.write("Dockerfile", &format!("{stages}RUN {attack}\n"));
        let built = project.run(&["build"]);
        if built.code == 0 {
            let seen = project.run(&["run", "--rm", "-T", "web", "sh", "-c", "cat /seen; true"]).ok();
            assert!(!succeeds(&seen.out), "{attack}: {}", seen.out);
        } else {
            // Where a source is not there, a build may end with an error as well.
            assert!(built.err.contains("link"), "{attack}: {}", built.err);
            assert!(!succeeds(""), "{attack}");
        }
        // Weakened, in a mount namespace that ends with it.
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&outside, root.path().join("link")).unwrap();
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "sh", "-c", naive]).env("OUTSIDE", &outside);
        let output = shell.env("ROOT", root.path()).env("STAGE", project.folder()).output().unwrap();
        assert!(succeeds(&text(&output.stdout)), "{attack}: the attack would not be seen to succeed: {output:?}");
        fs::remove_dir_all(&outside).unwrap();
        make_outside();
    }
    project.down();
}
