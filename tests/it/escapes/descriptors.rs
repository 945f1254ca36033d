//! What a container's process inherits.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::{container, everything};
use crate::oci::bundle::{Bundle, cannot_run, text};

/// Runs the bundle with descriptor 3 open on a directory of the host, as a caller that leaks it.
fn run_leaking(bundle: &Bundle, options: &[&str]) -> std::process::Output {
    leaking(bundle, &bundle.command(&[&["run"], options, &[&bundle.id]].concat()))
}

/// The same with any command.
fn leaking(bundle: &Bundle, command: &Command) -> std::process::Output {
    let mut shell = Command::new("/bin/sh");
    let script = format!("exec 3<{}; exec \"$@\"", bundle.folder.path().display());
    shell.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    shell.current_dir(bundle.folder.path()).output().unwrap()
}

#[test]
fn no_descriptor_is_left_open() {
    if cannot_run() {
        return;
    }
    // The third is that of the listing itself.
    let script = "cd /proc/self/fd; for fd in *; do [ $fd -gt 2 ] && [ -d $fd/ ] && ls $fd/prize; done; cat /proc/self/fd/*/prize; true";
    for (weakened, options) in [(false, ["--preserve-fds", "0"]), (true, ["--preserve-fds", "1"])] {
        let bundle = container("leak", script);
        fs::write(bundle.outside("prize"), "prize").unwrap();
        let output = run_leaking(&bundle, &options);
        assert_eq!(text(&output.stdout).contains("prize"), weakened, "{}", everything(&output));
    }
}

/// CVE-2024-21626: the working directory is a descriptor that the engine holds while it sets up.
#[test]
fn the_working_directory_is_inside() {
    if cannot_run() {
        return;
    }
    let script = "cat prize ../prize ../../prize 2>/dev/null; cat ../../../../../../..$PRIZE 2>/dev/null; true";
    let attempt = |cwd: &str, options: &[&str]| {
        let mut bundle = container("cwd", script);
        let prize = bundle.outside("prize");
        fs::write(&prize, "prize").unwrap();
        bundle.push("/process/env", json!(format!("PRIZE={}", prize.display())));
        bundle.set("/process/cwd", json!(cwd));
        // The same through a link of the image.
        std::os::unix::fs::symlink(cwd, bundle.rootfs().join("link")).unwrap();
        let direct = run_leaking(&bundle, options);
        bundle.set("/process/cwd", json!("/link"));
        let linked = run_leaking(&bundle, options);
        [direct, linked]
    };
    for number in 3..24 {
        for place in ["self", "thread-self", "1"] {
            if place != "self" && number > 12 {
                continue;
            }
            for output in attempt(&format!("/proc/{place}/fd/{number}"), &[]) {
                assert!(!text(&output.stdout).contains("prize"), "{number}: {}", everything(&output));
            }
        }
    }
    // Weakened: the caller leaks a directory on purpose, and the program goes there.
    let mut bundle = container("cwd-weak", "cd -P /proc/self/fd/3 && cat prize; true");
    fs::write(bundle.outside("prize"), "prize").unwrap();
    bundle.set("/linux/seccomp", json!(null));
    let output = run_leaking(&bundle, &["--preserve-fds", "1"]);
    assert!(text(&output.stdout).contains("prize"), "{}", everything(&output));
}

/// The same for a process that enters. Weakened: the naive way in, which keeps what its caller has open.
#[test]
fn a_process_that_enters_has_its_working_directory_inside() {
    if cannot_run() {
        return;
    }
    let bundle = container("exec-cwd", "sleep 60");
    fs::write(bundle.outside("prize"), "prize").unwrap();
    bundle.create();
    bundle.start();
    for number in 3..24 {
        let cwd = format!("/proc/self/fd/{number}");
        let command = bundle.command(&["exec", "--cwd", &cwd, &bundle.id, "cat", "prize", "../prize", "../../prize"]);
        let output = leaking(&bundle, &command);
        assert!(!text(&output.stdout).contains("prize"), "{number}: {}", everything(&output));
    }
    let mut naive = Command::new("nsenter");
    naive.args(["-t", &bundle.state()["pid"].to_string(), "-m", "-p", "-r"]);
    naive.args(["/bin/sh", "-c", "cd -P /proc/self/fd/3 && /bin/cat prize"]);
    let output = leaking(&bundle, &naive);
    assert!(text(&output.stdout).contains("prize"), "{}", everything(&output));
}
