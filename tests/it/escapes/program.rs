//! The engine's own program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::container;
use crate::oci::bundle::{Bundle, cannot_run, text};

/// Waits for a process of another program, takes hold of that program, and writes to it once it has ended.
const OVERWRITE: &str = "
    echo ready >/tmp/ready
    i=0
    while [ $i -lt 4000 ]; do
        for process in /proc/[0-9]*; do
            exe=$(readlink $process/exe) || continue
            case $exe in /bin/*) continue ;; esac
            # A failure would end this shell.
            (exec 9<$process/exe) 2>/dev/null || continue
            exec 9<$process/exe
            echo $exe >/tmp/caught
            kill -9 ${process#/proc/}
            while [ -e $process ]; do usleep 1000; done
            attempt=0
            while [ $attempt -lt 500 ]; do
                if echo OVERWRITTEN 2>/dev/null >/proc/self/fd/9; then exit 0; fi
                # What can never be written to says so at once; what is being executed says that for a while.
                (echo >/proc/self/fd/9) 2>&1 | grep -q Read-only && exit 1
                attempt=$((attempt + 1)); usleep 10000
            done
            exit 1
        done
        i=$((i + 1)); usleep 1000
    done";

/// CVE-2019-5736: a process that enters executes `#!/proc/self/exe`, which is the engine's program; somebody in the container
/// opens it through /proc and overwrites it.
#[test]
fn the_program_cannot_be_overwritten() {
    if cannot_run() {
        return;
    }
    assert!(!is_overwritten(false));
    assert!(is_overwritten(true));
}

/// Whether the attack on our program, or on one that does not protect itself, has succeeded.
fn is_overwritten(weakened: bool) -> bool {
    let mut bundle = container("program", OVERWRITE);
    // The strongest attacker that still is one.
    bundle.push("/process/capabilities/effective", json!("CAP_SYS_PTRACE"));
    bundle.push("/process/capabilities/permitted", json!("CAP_SYS_PTRACE"));
    bundle.push("/process/capabilities/bounding", json!("CAP_SYS_PTRACE"));
    let program = bundle.outside("busybox");
    let original = if weakened { "/bin/busybox" } else { env!("CARGO_BIN_EXE_rcompose") };
    crate::support::copy_program(original, &program);
    // Executed, the one waits for a project on its standard input, the other for somebody to write to the FIFO. Busybox goes
    // by the name that it is called by.
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, bundle.rootfs().join("fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    std::os::unix::fs::symlink("/proc/self/exe", bundle.rootfs().join("busybox")).unwrap();
    let interpreter = if weakened { "/busybox cat" } else { "/proc/self/exe config" };
    let attack = bundle.rootfs().join("attack");
    fs::write(&attack, format!("#!{interpreter}\n")).unwrap();
    fs::set_permissions(&attack, fs::Permissions::from_mode(0o755)).unwrap();
    bundle.create();
    bundle.start();
    while !bundle.rootfs().join("tmp/ready").exists() {
        std::thread::yield_now();
    }
    let before = fs::read(&program).unwrap();
    let mut entered = enter(&bundle, &program, weakened);
    bundle.wait();
    drop(entered.stdin.take());
    let output = entered.wait_with_output().unwrap();
    let caught = fs::read_to_string(bundle.rootfs().join("tmp/caught"));
    assert!(caught.is_ok(), "the attacker never saw it: {} {}", output.status, text(&output.stderr));
    fs::read(&program).unwrap() != before
}

/// Has `/attack` executed in the container by the program at `path`: with our runtime, or by busybox as a naive one.
fn enter(bundle: &Bundle, program: &Path, naive: bool) -> Child {
    let mut command = Command::new(program);
    if naive {
        let pid = bundle.state()["pid"].to_string();
        command.args(["nsenter", "-t", &pid, "-m", "-p", "--", "/attack", "/fifo"]);
    } else {
        let runtime = bundle.command(&["exec", "-e", "COMPOSE_FILE=-", &bundle.id, "/attack"]);
        command.args(runtime.get_args());
    }
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    streams.current_dir(bundle.folder.path()).spawn().unwrap()
}

/// CVE-2019-14271: a helper that runs in the container's root loads from there what it needs. Our program loads nothing.
#[test]
fn nothing_is_loaded_from_a_container() {
    const PT_DYNAMIC: u32 = 2;
    const PT_INTERP: u32 = 3;
    let kinds = |path: &str| {
        let bytes = fs::read(path).unwrap();
        let number = |at: usize, size: usize| {
            bytes[at..at + size].iter().rev().fold(0_usize, |value, byte| value << 8 | usize::from(*byte))
        };
        let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        (0..count).map(|index| number(table + index * size, 4) as u32).collect::<Vec<_>>()
    };
    let own = kinds(env!("CARGO_BIN_EXE_rcompose"));
    assert!(!own.contains(&PT_INTERP), "the program needs a loader");
    // A program that does: the table is read rightly.
    let shell = kinds("/bin/sh");
    assert!(shell.contains(&PT_INTERP) && shell.contains(&PT_DYNAMIC));
    let python = Command::new("python3").args(["-c", "import sys; print(sys.path[-1])"]).output();
    let Ok(library) = python.map(|output| text(&output.stdout)) else {
        println!("nothing_is_loaded_from_a_container: skipped in part: no python3");
        return;
    };
    // Weakened: a helper that changes to the container's root and needs something only then.
    let root = tempfile::tempdir().unwrap();
    let evil = root.path().join(library.trim().trim_start_matches('/'));
    fs::create_dir_all(&evil).unwrap();
    fs::write(evil.join("needed_later.py"), "print('of the container')\n").unwrap();
    let helper = "import os, sys\nos.chroot(sys.argv[1])\nos.chdir('/')\nimport needed_later\n";
    let helper = Command::new("python3").args(["-c", helper]).arg(root.path()).output().unwrap();
    assert!(!nix::unistd::geteuid().is_root() || text(&helper.stdout).contains("of the container"), "{helper:?}");
}
