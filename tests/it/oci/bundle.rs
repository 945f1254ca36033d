//! A bundle in a folder of its own, and the runtime called on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const BUSYBOX: &str = "/bin/busybox";

/// Says why and returns whether the test must be left out.
pub(crate) fn cannot_run() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let can = root && Path::new(BUSYBOX).exists();
    if !can {
        println!("skipped: {}", if root { "no /bin/busybox" } else { "needs root" });
    }
    !can
}

pub(crate) struct Bundle {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) config: Value,
    pub(crate) id: String,
}

impl Bundle {
    /// A container that runs `script`; its id is unique on the machine.
    pub(crate) fn new(name: &str, script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Hundreds of tests have just removed theirs; for the same reason, the applets are no files of their own.
        rcompose::base::disk::spread(folder.path());
        let rootfs = folder.path().join("rootfs");
        for part in ["bin", "etc", "dev", "proc", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(part)).unwrap();
        }
        crate::support::copy_program(BUSYBOX, rootfs.join("bin/busybox"));
        let list = Command::new(BUSYBOX).arg("--list").output().unwrap();
        for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|applet| *applet != "busybox") {
            fs::hard_link(rootfs.join("bin/busybox"), rootfs.join("bin").join(applet)).unwrap();
        }
        let id = format!("rcompose-it-{}-{name}", std::process::id());
        Self { folder, config: config(script), id }
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.folder.path().join("rootfs")
    }

    /// A file of this test outside the root.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        fs::write(self.folder.path().join("config.json"), self.config.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rcompose"));
        command.arg("oci").arg("--root").arg(self.folder.path().join("state")).args(arguments);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs one command of the runtime to its end.
    pub(crate) fn oci(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The same, which must succeed; its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.oci(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The same, which must fail; its standard error.
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.oci(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded: {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// Runs the container to its end; what it printed.
    pub(crate) fn run(&self) -> String {
        self.ok(&["run", &self.id])
    }

    /// Creates the container with its output in the file that is returned.
    pub(crate) fn create(&self) -> PathBuf {
        let path = self.outside("output");
        let file = fs::File::create(&path).unwrap();
        let mut command = self.command(&["create", &self.id]);
        let status = command.stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
        assert!(status.success(), "create: {}", fs::read_to_string(&path).unwrap());
        path
    }

    pub(crate) fn start(&self) {
        self.ok(&["start", &self.id]);
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", &self.id])).unwrap()
    }

    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// Waits for the end of the container's first process, whose parent this process need not be.
    pub(crate) fn wait(&self) {
        let pid = self.state()["pid"].as_i64().unwrap();
        let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()) else { return };
        let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
        let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        let mut ended = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut ended, Some(&limit)).unwrap(), 1, "the container goes on");
    }

    /// Has it run another script.
    pub(crate) fn script(&mut self, script: &str) {
        self.config["process"]["args"] = json!(["/bin/sh", "-c", script]);
    }

    /// Sets a member of the configuration, named by a JSON pointer whose parent exists.
    pub(crate) fn set(&mut self, pointer: &str, value: Value) {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        self.config.pointer_mut(parent).unwrap()[name] = value;
    }

    pub(crate) fn push(&mut self, pointer: &str, value: Value) {
        self.config.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.oci(&["delete", "--force", &self.id]);
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// As strict as what Docker makes by default, without a seccomp filter.
fn config(script: &str) -> Value {
    let capabilities = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ];
    let capabilities = capabilities.map(|name| format!("CAP_{name}"));
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "root": { "path": "rootfs" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"] },
            {
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"] },
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "cgroup" },
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
