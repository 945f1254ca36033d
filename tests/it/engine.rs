//! The engine's defaults as a program inside a container sees them: as root, with busybox as the image.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::Spec;
use rcompose::engine::cgroup::{self, Cgroup, Hierarchies};
use rcompose::engine::lower::{Extras, Lowered, Root, Target, lower, lower_exec};
use rcompose::engine::spec::{EtcFiles, ExecOptions, ImageConfig, Request as SpecRequest, build, exec_process};
use rcompose::engine::users::UserDatabase;
use rcompose::init::Overlay;
use rcompose::keeper::{Event, KeeperHandle, Program, Request, SpawnOptions};
use rcompose::spec::ContainerSpec;
use rcompose::spec::container::Ulimit;

const BUSYBOX: &str = "/bin/busybox";

fn can_run() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let can = root && Path::new(BUSYBOX).exists();
    if !can {
        println!("skipped: {}", if root { "no /bin/busybox" } else { "needs root" });
    }
    can
}

/// A keeper, a folder with an image, and a cgroup path of the test's own.
struct World {
    runtime: tokio::runtime::Runtime,
    keeper: KeeperHandle,
    folder: tempfile::TempDir,
    hierarchies: Hierarchies,
    cgroup_path: String,
}

/// A running container.
struct Running {
    spec: Spec,
    group: Cgroup,
    pid: i32,
    pidfd: OwnedFd,
    output: OwnedFd,
}

impl World {
    fn new(name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Takes over when this test ends early: ends at once, so that the keeper ends with the last process.
        let nobody = Program { path: BUSYBOX.into(), argv: vec!["true".into()] };
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_rcompose"));
        let options = SpawnOptions {
            binary,
            project: "test".into(),
            supervisor: nobody,
            held: Vec::new(),
            log: None,
            like: None,
        };
        let socket = rcompose::keeper::spawn_replacement(options).unwrap();
        let keeper = runtime.block_on(async { KeeperHandle::from_fd(socket) }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for part in ["image/bin", "image/etc", "upper", "work", "root"] {
            fs::create_dir_all(folder.path().join(part)).unwrap();
        }
        crate::support::copy_program(BUSYBOX, folder.path().join("image/bin/busybox"));
        symlink("busybox", folder.path().join("image/bin/sh")).unwrap();
        fs::write(folder.path().join("image/etc/passwd"), "app:x:7:8::/home/app:/bin/sh\n").unwrap();
        fs::write(folder.path().join("hosts"), "127.0.0.1 localhost\n").unwrap();
        let cgroup_path = format!("rcompose-engine-{}-{name}/project/container", std::process::id());
        let hierarchies = Hierarchies::detect().unwrap();
        let world = Self { runtime, keeper, folder, hierarchies, cgroup_path };
        assert!(matches!(world.next().0, Event::Welcome { .. }));
        assert!(matches!(world.next().0, Event::Ready));
        world
    }

    fn next(&self) -> (Event, Vec<OwnedFd>) {
        self.runtime.block_on(async {
            let event = tokio::time::timeout(Duration::from_secs(20), self.keeper.recv()).await;
            event.expect("an event in time").unwrap().expect("the keeper lives")
        })
    }

    fn launch(&self, id: &str, lowered: Lowered) -> (i32, Vec<OwnedFd>) {
        let descriptors: Vec<BorrowedFd<'_>> = lowered.descriptors.iter().map(AsFd::as_fd).collect();
        let exit_file = self.folder.path().join(format!("{id}.exit"));
        let launch = Box::new(lowered.launch);
        let request = Request::Launch { id: id.to_owned(), exit_file, oom: None, launch };
        self.runtime.block_on(async { self.keeper.send(&request, &descriptors) }).unwrap();
        match self.next() {
            (Event::Launched { process, .. }, descriptors) => (process.pid, descriptors),
            (other, _) => panic!("{other:?}"),
        }
    }

    /// The exit status, once the process has ended.
    fn exit_code(&self) -> Option<i32> {
        match self.next().0 {
            Event::Exited { id, record } => {
                self.runtime.block_on(async { self.keeper.send(&Request::Release { name: id }, &[]) }).unwrap();
                record.code
            }
            other => panic!("{other:?}"),
        }
    }

    fn start(&self, script: &str, change: impl FnOnce(&mut ContainerSpec)) -> Running {
        let folder = self.folder.path();
        let script = script.split_whitespace().collect::<Vec<_>>().join(" ");
        let entrypoint = ["busybox", "sh", "-c", &script].map(str::to_owned).to_vec();
        let mut container = ContainerSpec { entrypoint: Some(entrypoint), ..ContainerSpec::default() };
        change(&mut container);
        let users = UserDatabase::read(fs::File::open(folder.join("image")).unwrap());
        let request = SpecRequest {
            container: &container,
            image: &ImageConfig::default(),
            users: &users,
            hostname: "box",
            etc: &EtcFiles { hosts: Some(folder.join("hosts")), ..EtcFiles::default() },
            volumes: &[],
            images: &[],
            joined: &[],
            project_dir: folder,
            apparmor: None,
            cgroup_path: &self.cgroup_path,
            unified_cgroups: self.hierarchies.is_unified(),
        };
        let spec = build(&request).unwrap();
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        let (group, _) = Cgroup::create(&self.hierarchies, &self.cgroup_path, &resources).unwrap();
        let overlay = Overlay {
            lower: vec![folder.join("image")],
            upper: folder.join("upper"),
            work: folder.join("work"),
            volatile: true,
        };
        let extras = Extras {
            root: Root::Overlay { at: folder.join("root"), overlay, trees: Vec::new() },
            joined: Vec::new(),
            cgroup: group.entry().unwrap(),
            cgroup_v1: (!self.hierarchies.is_unified()).then_some(group.v1_directories()),
            shared_memory: None,
            stdin: false,
            terminal: None,
            init: container.init,
            lifecycle: None,
        };
        let (pid, mut descriptors) = self.launch("container", lower(&spec, extras).unwrap());
        let pidfd = descriptors.remove(0);
        Running { spec, group, pid, pidfd, output: descriptors.remove(0) }
    }

    /// Runs a script to its end: status and output.
    fn run(&self, script: &str, change: impl FnOnce(&mut ContainerSpec)) -> (Option<i32>, String) {
        let running = self.start(script, change);
        let output = text(running.output);
        let code = self.exit_code();
        running.group.remove().unwrap();
        (code, output)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Ok(group) = Cgroup::open(&self.hierarchies, &self.cgroup_path) {
            let _ = group.kill();
            let _ = group.remove();
        }
        let _ = cgroup::remove_empty(&self.hierarchies, &self.cgroup_path);
        let _ = self.runtime.block_on(async { self.keeper.send(&Request::Finish, &[]) });
    }
}

fn text(output: OwnedFd) -> String {
    let mut text = String::new();
    fs::File::from(output).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_plain_container_is_as_confined_as_dockers() {
    if !can_run() {
        return;
    }
    let world = World::new("plain");
    let script = "
        busybox grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; busybox id; busybox env | busybox sort;
        busybox hostname; busybox pwd; umask; cat=$(busybox cat /proc/self/oom_score_adj); echo oom $cat;
        busybox awk '{print $5, $6}' /proc/self/mountinfo | busybox grep -vE '^/proc/(acpi|asound|scsi|keys|kcore|timer|latency|sched|interrupts|sysrq)|^/sys/(firmware|devices|fs)'
            | busybox sed 's|^/etc/hosts rw,.*|/etc/hosts rw, and what the host says of the place|' | busybox sort;
        busybox ls /dev | busybox grep -v core | busybox tr '\\n' ' ' && echo;
        busybox cat /proc/sys/net/ipv4/ip_unprivileged_port_start;
        busybox mknod /k c 1 11 && busybox head -c1 /k 2>&1;
        busybox unshare -m true 2>&1; busybox mount -t tmpfs x /tmp 2>&1; busybox chroot / /bin/sh -c 'echo chroot';
        (echo x >/proc/sysrq-trigger) 2>/dev/null || echo no sysrq; busybox touch /sys/x 2>&1; busybox cat /proc/keys | busybox wc -c";
    let (code, output) = world.run(script, |_| {});
    expect_test::expect![[r#"
        CapInh:	0000000000000000
        CapPrm:	00000000a80425fb
        CapEff:	00000000a80425fb
        CapBnd:	00000000a80425fb
        CapAmb:	0000000000000000
        NoNewPrivs:	0
        Seccomp:	2
        uid=0 gid=0 groups=0
        HOME=/
        HOSTNAME=box
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        PWD=/
        SHLVL=1
        box
        /
        0022
        oom 0
        / rw,relatime
        /dev rw,nosuid
        /dev/mqueue rw,nosuid,nodev,noexec,relatime
        /dev/pts rw,nosuid,noexec,relatime
        /dev/shm rw,nosuid,nodev,noexec,relatime
        /etc/hosts rw, and what the host says of the place
        /proc rw,nosuid,nodev,noexec,relatime
        /proc/bus ro,nosuid,nodev,noexec,relatime
        /proc/fs ro,nosuid,nodev,noexec,relatime
        /proc/irq ro,nosuid,nodev,noexec,relatime
        /proc/sys ro,nosuid,nodev,noexec,relatime
        /sys ro,nosuid,nodev,noexec,relatime
        fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero 
        0
        head: /k: Operation not permitted
        unshare: unshare(0x20000): Operation not permitted
        mount: permission denied (are you root?)
        chroot
        no sysrq
        touch: /sys/x: Read-only file system
        0
    "#]]
    .assert_eq(&output);
    assert_eq!(code, Some(0));
}

#[test]
fn options_are_in_force() {
    if !can_run() {
        return;
    }
    let world = World::new("options");
    let (_, output) = world.run("busybox id; busybox grep CapEff /proc/self/status; echo $HOME", |container| {
        container.user = Some("app".into());
        container.group_add = vec!["44".into()];
    });
    assert_eq!(output, "uid=7(app) gid=8 groups=8,44\nCapEff:\t0000000000000000\n/home/app\n");

    let (_, output) = world.run(
        "busybox touch /x 2>&1; busybox pwd; busybox grep -E '^(NoNewPrivs|CapBnd)' /proc/self/status; ulimit -n",
        |container| {
            container.read_only = true;
            container.working_dir = Some("/made/here".into());
            container.security_opt = vec!["no-new-privileges:true".into()];
            container.cap_drop = vec!["ALL".into()];
            container.cap_add = vec!["KILL".into()];
            container.ulimits.insert("nofile".into(), Ulimit { soft: 100, hard: 200 });
        },
    );
    assert_eq!(
        output,
        "touch: /x: Read-only file system\n/made/here\nCapBnd:\t0000000000000020\nNoNewPrivs:\t1\n100\n"
    );

    let (_, output) =
        world.run("busybox unshare -m busybox true && echo done", |container| container.privileged = true);
    assert_eq!(output, "done\n");
}

#[test]
fn init_reaps_and_passes_the_status_on() {
    if !can_run() {
        return;
    }
    let world = World::new("init");
    let script = "(busybox sleep 0.05 & exit 0); echo $$; busybox grep -E '^(CapEff|Seccomp:)' /proc/1/status; exit 7";
    let (code, output) = world.run(script, |container| container.init = true);
    assert_eq!((code, output.as_str()), (Some(7), "2\nCapEff:\t00000000a80425fb\nSeccomp:\t2\n"));
}

#[test]
fn exec_is_inside_and_no_less_confined() {
    if !can_run() {
        return;
    }
    let world = World::new("exec");
    let running = world.start("echo up; busybox sleep 60", |_| {});
    let script =
        "busybox grep -E '^(CapBnd|Seccomp:)' /proc/self/status; busybox hostname; busybox unshare -m true 2>&1;
        for kind in ipc mnt net pid uts; do
            test $(busybox readlink /proc/self/ns/$kind) = $(busybox readlink /proc/1/ns/$kind) || echo $kind; done;
        test $(busybox tail -n1 /proc/self/cgroup) = $(busybox tail -n1 /proc/1/cgroup) || echo cgroup";
    let script = script.split_whitespace().collect::<Vec<_>>().join(" ");
    let options =
        ExecOptions { command: ["busybox", "sh", "-c", &script].map(str::to_owned).to_vec(), ..ExecOptions::default() };
    let process = exec_process(&running.spec, &UserDatabase::default(), &options).unwrap();
    let seccomp = running.spec.linux().as_ref().unwrap().seccomp().as_ref();
    let target = Target {
        pid: running.pid,
        pidfd: running.pidfd.as_fd(),
        seccomp,
        described: None,
        personality: None,
        mount_label: None,
    };
    let lowered = lower_exec(&process, target, running.group.entry().unwrap(), false, None).unwrap();
    let (_, mut descriptors) = world.launch("exec", lowered);
    assert_eq!(
        text(descriptors.remove(1)),
        "CapBnd:\t00000000a80425fb\nSeccomp:\t2\nbox\nunshare: unshare(0x20000): Operation not permitted\n"
    );
    assert!(world.exit_code().is_some());
    running.group.kill().unwrap();
    assert_eq!(world.exit_code(), Some(137));
    running.group.remove().unwrap();
}
