//! The keeper with real containers: as root, with busybox as their only program.

use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcompose::init::{
    BindSource, CgroupEntry, Cleared, DeviceKind, Launch, LaunchFailure, MountFlags, Namespace, NamespaceKind, Overlay,
    RecursiveFlags, Stdio, Step,
};
use rcompose::keeper::{Event, ExitRecord, KeeperHandle, Program, Request, SpawnOptions};
use rcompose::sys::message::{self, Wait};
use rcompose::sys::process::send_signal;

const BUSYBOX: &str = "/bin/busybox";
const KINDS: [NamespaceKind; 6] = [
    NamespaceKind::Pid,
    NamespaceKind::Net,
    NamespaceKind::Mount,
    NamespaceKind::Uts,
    NamespaceKind::Ipc,
    NamespaceKind::Cgroup,
];

fn can_run() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let can = root && Path::new(BUSYBOX).exists();
    if !can {
        println!("skipped: {}", if root { "no /bin/busybox" } else { "needs root" });
    }
    can
}

/// A runtime, a keeper whose supervisor is this test, and a folder.
struct World {
    runtime: tokio::runtime::Runtime,
    keeper: KeeperHandle,
    folder: tempfile::TempDir,
}

fn options(supervisor: Program, held: Vec<(String, BorrowedFd<'_>)>) -> SpawnOptions<'_> {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_rcompose"));
    SpawnOptions { binary, project: "test".to_owned(), supervisor, held, log: None, like: None }
}

/// Takes over when this test process ends early: ends at once, so that the keeper ends with the last process.
/// A keeper for this process. Inside a runtime.
fn attach(options: SpawnOptions<'_>) -> std::io::Result<KeeperHandle> {
    KeeperHandle::from_fd(rcompose::keeper::spawn_replacement(options)?)
}

fn nobody() -> Program {
    Program { path: BUSYBOX.into(), argv: vec!["true".into()] }
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let keeper = runtime.block_on(async { attach(options(nobody(), Vec::new())) }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in ["lower/bin", "upper", "work", "merged"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        crate::support::copy_program(BUSYBOX, folder.path().join("lower/bin/busybox"));
        symlink("busybox", folder.path().join("lower/bin/sh")).unwrap();
        let world = Self { runtime, keeper, folder };
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

    fn send(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) {
        self.runtime.block_on(async { self.keeper.send(request, descriptors) }).unwrap();
    }

    fn lower(&self, path: &str) -> PathBuf {
        self.folder.path().join("lower").join(path)
    }

    /// Asks for a launch; the exit file is `ID.exit` in the folder.
    fn start(&self, id: &str, launch: Launch, descriptors: &[BorrowedFd<'_>]) {
        let exit_file = self.folder.path().join(format!("{id}.exit"));
        self.send(&Request::Launch { id: id.to_owned(), exit_file, oom: None, launch: launch.into() }, descriptors);
    }

    fn launched(&self) -> Vec<OwnedFd> {
        match self.next() {
            (Event::Launched { .. }, descriptors) => descriptors,
            (other, _) => panic!("{other:?}"),
        }
    }

    fn failed(&self) -> LaunchFailure {
        match self.next().0 {
            Event::LaunchFailed { failure, .. } => failure,
            other => panic!("{other:?}"),
        }
    }

    fn exited(&self) -> ExitRecord {
        match self.next().0 {
            Event::Exited { id, record } => {
                let text = fs::read(self.folder.path().join(format!("{id}.exit"))).expect("the exit file comes first");
                assert_eq!(serde_json::from_slice::<ExitRecord>(&text).unwrap(), record);
                record
            }
            other => panic!("{other:?}"),
        }
    }

    /// Runs a script in a new container to its end: status and output.
    fn run(&self, script: &str) -> (Option<i32>, String) {
        self.start("run", self.container(&["sh", "-c", script]), &[]);
        let output = text(self.launched().remove(1));
        let record = self.exited();
        self.send(&Request::Release { name: "run".to_owned() }, &[]);
        (record.code, output)
    }

    fn container(&self, argv: &[&str]) -> Launch {
        let folder = self.folder.path();
        let overlay = Overlay {
            lower: vec![folder.join("lower")],
            upper: folder.join("upper"),
            work: folder.join("work"),
            volatile: true,
        };
        let mut steps = vec![
            Step::IsolateMounts { slave: false },
            Step::RootOverlay { at: folder.join("merged"), overlay },
            mount("proc", "/proc", ""),
            mount("tmpfs", "/dev", "mode=755,size=64k"),
            mount("devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620"),
            Step::Device {
                target: "/dev/null".to_owned(),
                kind: DeviceKind::Char,
                major: 1,
                minor: 3,
                mode: 0o666,
                uid: 0,
                gid: 0,
            },
            Step::MaskPath { target: "/proc/version".to_owned() },
            Step::MaskPath { target: "/proc/acpi".to_owned() },
            Step::ReadonlyPath { target: "/proc/sys".to_owned() },
            Step::PivotRoot,
            Step::Hostname("inside".to_owned()),
            Step::OomScoreAdj(0),
        ];
        steps.extend(end(argv));
        Launch {
            namespaces: KINDS.map(Namespace::New).to_vec(),
            cgroup: CgroupEntry::default(),
            stdio: Stdio::Pipes { stdin: false },
            pipe_label: None,
            steps,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for id in ["one", "two"] {
            self.send(&Request::Signal { id: id.to_owned(), signal: 9 }, &[]);
        }
        self.send(&Request::Finish, &[]);
        self.runtime.block_on(async {
            let gone = async { while self.keeper.recv().await.unwrap().is_some() {} };
            tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the keeper finishes");
        });
    }
}

fn mount(fstype: &str, target: &str, data: &str) -> Step {
    let flags = MountFlags { no_suid: true, ..MountFlags::default() };
    let (fstype, target, data) = (fstype.to_owned(), target.to_owned(), data.to_owned());
    Step::Mount { source: fstype.clone(), fstype, target, flags, data, copy_up: false }
}

/// The last steps of every launch here.
fn end(argv: &[&str]) -> Vec<Step> {
    let argv = argv.iter().map(|part| CString::new(*part).unwrap()).collect();
    let kept = 0b1010_1000_0000_0100_0010_1111_1011;
    vec![
        Step::WorkingDirectory { target: "/".to_owned(), create: false, last: true },
        Step::Capabilities { bounding: kept, permitted: kept, effective: kept, inheritable: 0, ambient: 0 },
        Step::NoNewPrivileges,
        Step::Exec { argv, env: vec![c"PATH=/nowhere:/bin".to_owned()] },
    ]
}

fn text(end: OwnedFd) -> String {
    let mut text = String::new();
    fs::File::from(end).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn runs_to_its_end_in_its_own_world() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let script = "busybox hostname; echo $$; busybox ls /proc/self/fd; busybox ls /; busybox cat /proc/net/dev | busybox wc -l
        echo x > /proc/sys/kernel/domainname; busybox wc -c < /proc/version
        busybox grep -E 'CapBnd|NoNewPrivs|SigBlk|SigIgn' /proc/self/status; busybox cat /proc/self/oom_score_adj; exit 7";
    let (code, output) = world.run(script);
    // The descriptor of the listing itself is 3.
    let expected = "inside\n1\n0\n1\n2\n3\nbin\ndev\nproc\n3\n0\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n\
        CapBnd:\t000000000a8042fb\nNoNewPrivs:\t1\n0\n";
    assert_eq!((code, output.as_str()), (Some(7), expected));
}

#[test]
fn a_signal_is_told_as_128_and_its_number() {
    if !can_run() {
        return;
    }
    let world = World::new();
    world.start("one", world.container(&["busybox", "sleep", "30"]), &[]);
    world.launched();
    world.send(&Request::Signal { id: "one".to_owned(), signal: 9 }, &[]);
    assert_eq!(world.exited().code, Some(137));
}

#[test]
fn a_failing_step_is_named() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let mut launch = world.container(&["missing"]);
    let last = launch.steps.len() - 1;
    world.start("a", launch.clone(), &[]);
    assert_eq!(world.failed(), LaunchFailure { step: Some(last), errno: libc::ENOENT, detail: "missing".to_owned() });

    launch.steps[last] = Step::Exec { argv: vec![c"/proc".to_owned()], env: Vec::new() };
    world.start("b", launch.clone(), &[]);
    assert_eq!(world.failed(), LaunchFailure { step: Some(last), errno: libc::EACCES, detail: "/proc".to_owned() });

    launch.steps[2] = mount("nosuchfs", "/proc", "");
    world.start("c", launch, &[]);
    assert_eq!(world.failed(), LaunchFailure { step: Some(2), errno: libc::ENODEV, detail: "nosuchfs".to_owned() });
}

#[test]
fn links_of_an_image_do_not_lead_out() {
    if !can_run() {
        return;
    }
    let world = World::new();
    symlink("/", world.lower("proc")).unwrap();
    world.start("a", world.container(&["sh"]), &[]);
    assert_eq!(world.failed().step, Some(2));
    fs::remove_file(world.lower("proc")).unwrap();

    symlink("../../../..", world.lower("up")).unwrap();
    symlink("/etc/passwd", world.lower("file")).unwrap();
    let source = fs::File::open("/dev/null").unwrap();
    for (target, place) in [("/up/made/here", "upper/made/here"), ("/file", "upper/etc/passwd")] {
        let mut launch = world.container(&["busybox", "true"]);
        let (flags, target) = (MountFlags::default(), target.to_owned());
        let bind = Step::Bind {
            source: BindSource::Host(0),
            target,
            recursive: false,
            flags,
            clear: Cleared::default(),
            recursive_flags: RecursiveFlags::default(),
            propagation: None,
            id_map: None,
        };
        launch.steps.insert(2, bind);
        world.start("b", launch, &[source.as_fd()]);
        world.launched();
        assert_eq!(world.exited().code, Some(0));
        assert!(world.folder.path().join(place).exists(), "{place}");
    }

    let mut launch = world.container(&["sh"]);
    launch.steps.insert(2, mount("tmpfs", "/up", ""));
    world.start("c", launch, &[]);
    assert_eq!(world.failed().errno, libc::EINVAL);
}

#[test]
fn another_process_enters_a_running_container() {
    if !can_run() {
        return;
    }
    let world = World::new();
    world.start("one", world.container(&["busybox", "sleep", "30"]), &[]);
    let pidfd = world.launched().remove(0);
    let mut launch = Launch {
        namespaces: KINDS.iter().map(|&kind| Namespace::Join(kind, 0)).collect(),
        cgroup: CgroupEntry::default(),
        stdio: Stdio::Pipes { stdin: true },
        pipe_label: None,
        steps: vec![Step::NewSession],
    };
    launch.steps.extend(end(&[
        "sh",
        "-c",
        "busybox hostname; busybox cat; echo $PPID; busybox tr '\\0' ' ' < /proc/1/cmdline",
    ]));
    world.start("two", launch, &[pidfd.as_fd()]);
    let mut ends = world.launched();
    let input = ends.remove(3);
    fs::File::from(input).write_all(b"read\n").unwrap();
    world.send(&Request::Release { name: "stdin:two".to_owned() }, &[]);
    assert_eq!(text(ends.remove(1)), "inside\nread\n0\nbusybox sleep 30 ");
    assert_eq!(world.exited().code, Some(0));
    send_signal(&pidfd, 9).unwrap();
    assert_eq!(world.exited().code, Some(137));
}

#[test]
fn a_terminal_has_its_size_and_takes_another() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let script = "busybox stty size; busybox ls -l /proc/self/fd/0 | busybox sed 's/.*-> //'; test -c /dev/console && echo console
        trap 'busybox stty size; exit 3' WINCH; echo ready; while :; do read line; done";
    let mut launch = world.container(&["sh", "-c", script]);
    launch.stdio = Stdio::Terminal { rows: 11, columns: 22 };
    let pivot = launch.steps.iter().position(|step| matches!(step, Step::PivotRoot)).unwrap();
    launch.steps.splice(pivot..pivot, [Step::Console { bind_console: true }, Step::TerminalSession]);
    world.start("one", launch, &[]);
    let mut master = fs::File::from(world.launched().remove(1));
    let mut seen = String::new();
    let mut more = |until: &str| {
        while !seen.contains(until) {
            let mut buffer = [0; 256];
            let length = master.read(&mut buffer).unwrap();
            seen.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            if until == "ready" && seen.contains(until) {
                let size = rustix::termios::Winsize { ws_row: 33, ws_col: 44, ws_xpixel: 0, ws_ypixel: 0 };
                rustix::termios::tcsetwinsize(&master, size).unwrap();
                master.write_all(b"\n").unwrap();
            }
        }
        seen.clone()
    };
    let first = more("ready");
    assert!(first.starts_with("11 22\r\n/dev/pts/0\r\nconsole\r\nready"), "{first}");
    more("33 44");
    assert_eq!(world.exited().code, Some(3));
}

#[test]
fn a_reaper_forwards_signals_and_collects_orphans() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let script = "trap 'echo got; exit 5' TERM; (busybox sleep 0.01 & ) ; busybox sleep 0.2; busybox cat /proc/[0-9]*/stat | busybox grep -c ') Z'
        busybox cat /proc/1/comm; busybox ls /proc/1/fd; echo direct > /proc/1/fd/1;  echo $$; while :; do busybox sleep 0.05; done";
    let mut launch = world.container(&["sh", "-c", script]);
    let last = launch.steps.len() - 1;
    launch.steps.insert(last, Step::Reaper);
    world.start("one", launch, &[]);
    let mut output = fs::File::from(world.launched().remove(1));
    let mut buffer = [0; 64];
    let mut seen = String::new();
    while !seen.ends_with("direct\n2\n") {
        let length = output.read(&mut buffer).unwrap();
        assert!(length > 0, "{seen}");
        seen.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    world.send(&Request::Signal { id: "one".to_owned(), signal: libc::SIGTERM }, &[]);
    output.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "0\nrcompose-init\n0\n1\n2\ndirect\n2\ngot\n");
    assert_eq!(world.exited().code, Some(5));
}

#[test]
fn a_killed_keeper_is_replaced_and_adopts() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    world.start("one", world.container(&["sh", "-c", "busybox sleep 1; exit 9"]), &[]);
    let (pidfd, pid) = match world.next() {
        (Event::Launched { process, .. }, mut descriptors) => (descriptors.remove(0), process.pid),
        other => panic!("{other:?}"),
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let keeper: i32 = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let comm = fs::read_to_string(format!("/proc/{keeper}/comm")).unwrap();
    assert_eq!(comm, "rcompose-keeper\n");
    let exe = rustix::fs::statvfs(format!("/proc/{keeper}/exe")).unwrap();
    assert!(exe.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY), "its program cannot be written to");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper), nix::sys::signal::Signal::SIGKILL).unwrap();
    world.runtime.block_on(async {
        assert!(world.keeper.recv().await.unwrap().is_none(), "its end is seen");
    });
    world.keeper = world.runtime.block_on(async { attach(options(nobody(), Vec::new())) }).unwrap();
    let exit_file = world.folder.path().join("one.exit");
    world.send(&Request::Adopt { id: "one".to_owned(), pid, exit_file, oom: None }, &[pidfd.as_fd()]);
    assert!(matches!(world.next().0, Event::Welcome { .. }));
    assert!(matches!(world.next().0, Event::Ready));
    let code = world.exited().code;
    // Known as long as the process is a zombie, and from Linux 6.15 on for ever.
    assert!(code == Some(9) || code.is_none() && !kernel_tells(), "{code:?}");
}

fn kernel_tells() -> bool {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

/// Not a test: the supervisor of the next one, which the keeper starts.
#[test]
#[ignore = "a process of `a_killed_supervisor_gets_everything_back`"]
fn fake_supervisor() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let keeper = KeeperHandle::from_stdin().unwrap();
        let mut seen = Vec::new();
        let mut test = None;
        let mut ready = false;
        while let Some((event, mut descriptors)) = keeper.recv().await.unwrap() {
            match event {
                Event::Held { name } if name == "test" => test = descriptors.pop(),
                // The launch comes from the test, over its own socket.
                Event::Ready => {
                    seen.push(format!("pid {}", std::process::id()));
                    message::send(test.as_ref().unwrap(), seen.join("\n").as_bytes(), &[], Wait::Yes).unwrap();
                    let (bytes, _) = message::receive(test.as_ref().unwrap(), Wait::Yes).unwrap().unwrap();
                    keeper.send(&serde_json::from_slice(&bytes).unwrap(), &[]).unwrap();
                    ready = true;
                }
                Event::Exited { .. } if ready => std::process::exit(0),
                other => {
                    let line = match &other {
                        Event::Welcome { processes } => format!("welcome {}", processes.len()),
                        Event::Held { name } => format!("held {name} {}", descriptors.len()),
                        Event::Exited { id, record } => format!("exited {id} {:?}", record.code),
                        other => format!("{other:?}"),
                    };
                    if matches!(other, Event::Launched { .. }) {
                        message::send(test.as_ref().unwrap(), b"launched", &[], Wait::Yes).unwrap();
                    }
                    seen.push(line);
                }
            }
        }
    });
}

#[test]
fn a_killed_supervisor_gets_everything_back() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let (ours, theirs) = message::pair().unwrap();
    let path = std::env::current_exe().unwrap();
    let argv = ["it", "keeper::fake_supervisor", "--exact", "--ignored"].map(Into::into).to_vec();
    rcompose::keeper::spawn(options(Program { path, argv }, vec![("test".to_owned(), theirs.as_fd())])).unwrap();
    drop(theirs);
    let hear = || String::from_utf8(message::receive(&ours, Wait::Yes).unwrap().unwrap().0).unwrap();
    let say = |request: &Request| {
        message::send(&ours, &serde_json::to_vec(request).unwrap(), &[], Wait::Yes).unwrap();
    };
    let first = hear();
    let (events, pid) = first.rsplit_once("\npid ").unwrap();
    assert_eq!(events, "welcome 0");
    let exit_file = world.folder.path().join("one.exit");
    let launch = world.container(&["busybox", "sleep", "30"]).into();
    say(&Request::Launch { id: "one".to_owned(), exit_file, oom: None, launch });
    assert_eq!(hear(), "launched");
    let kill = |pid: &str| {
        let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    };
    kill(pid);
    let second = hear();
    let (events, pid) = second.rsplit_once("\npid ").unwrap();
    assert_eq!(events, "welcome 1\nheld stdio:one 3");
    kill(pid);
    let third = hear();
    let (events, _) = third.rsplit_once("\npid ").unwrap();
    assert_eq!(events, "welcome 1\nheld stdio:one 3");
    say(&Request::Signal { id: "one".to_owned(), signal: 9 });
    assert!(message::receive(&ours, Wait::Yes).unwrap().is_none(), "keeper and supervisor end when nothing runs");
}

#[test]
fn children_enter_their_v1_cgroup_before_they_run() {
    let hierarchy = Path::new("/sys/fs/cgroup/pids");
    if !can_run() {
        return;
    }
    if !hierarchy.join("cgroup.procs").exists() {
        return println!("skipped: no cgroup v1");
    }
    let world = World::new();
    let group = hierarchy.join(format!("rcompose-test-{}", std::process::id()));
    fs::create_dir(&group).unwrap();
    let procs = fs::OpenOptions::new().write(true).open(group.join("cgroup.procs")).unwrap();
    let mut launch = world.container(&["sh", "-c", "busybox grep pids /proc/self/cgroup"]);
    launch.cgroup.v1 = vec![0];
    world.start("one", launch, &[procs.as_fd()]);
    let output = text(world.launched().remove(1));
    let code = world.exited().code;
    fs::remove_dir(&group).unwrap();
    // The cgroup namespace was taken inside the group: it is the root.
    assert!(output.ends_with(":pids:/\n"), "{output}");
    assert_eq!(code, Some(0));
}

#[test]
fn children_are_born_in_their_v2_cgroup() {
    if !can_run() {
        return;
    }
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let Some(hierarchy) = places.iter().find(|place| Path::new(place).join("cgroup.controllers").exists()) else {
        return println!("skipped: no cgroup v2");
    };
    let world = World::new();
    let group = Path::new(hierarchy).join(format!("rcompose-test-{}", std::process::id()));
    fs::create_dir(&group).unwrap();
    let folder = fs::File::open(&group).unwrap();
    let mut launch = world.container(&["busybox", "sleep", "30"]);
    launch.cgroup.v2 = Some(0);
    world.start("one", launch, &[folder.as_fd()]);
    let pidfd = world.launched().remove(0);
    let inside = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    send_signal(&pidfd, 9).unwrap();
    world.exited();
    fs::remove_dir(&group).unwrap();
    assert_eq!(inside.lines().count(), 1);
}

#[test]
fn many_launches_at_once() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let started = std::time::Instant::now();
    let mut names = Vec::new();
    for number in 0..20 {
        let mut launch = world.container(&["busybox", "true"]);
        let folder = world.folder.path().join(number.to_string());
        for name in ["upper", "work", "merged"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        let (upper, work) = (folder.join("upper"), folder.join("work"));
        let overlay = Overlay { lower: vec![world.lower("")], upper, work, volatile: true };
        launch.steps[1] = Step::RootOverlay { at: folder.join("merged"), overlay };
        world.start(&number.to_string(), launch, &[]);
        names.push(number.to_string());
    }
    let mut ended = 0;
    while ended < 20 {
        match world.next().0 {
            Event::Launched { .. } => {}
            Event::Exited { record, .. } => {
                assert_eq!(record.code, Some(0));
                ended += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    println!("20 containers to their end: {:?}", started.elapsed());
}

#[test]
fn restrictions_hold_for_an_ordinary_user() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let script = "busybox id -u; busybox id -G; busybox pwd; echo out > /proc/self/fd/1
        busybox touch /made 2>/dev/null || echo read-only; busybox touch /data/made 2>/dev/null || echo bound read-only
        busybox grep -E 'CapPrm|CapEff|CapAmb|Seccomp:' /proc/self/status; ulimit -n; umask";
    let mut launch = world.container(&["sh", "-c", script]);
    let pivot = launch.steps.iter().position(|step| matches!(step, Step::PivotRoot)).unwrap();
    let flags = MountFlags { read_only: true, ..MountFlags::default() };
    let bind = Step::Bind {
        source: BindSource::Host(0),
        target: "/data".to_owned(),
        recursive: true,
        flags,
        clear: Cleared::default(),
        recursive_flags: RecursiveFlags { set: libc::MOUNT_ATTR_RDONLY, clear: 0 },
        propagation: None,
        id_map: None,
    };
    launch.steps.insert(pivot, bind);
    launch.steps.insert(pivot + 2, Step::ReadonlyRoot);
    let exec = launch.steps.pop().unwrap();
    launch.steps.truncate(launch.steps.len() - 3);
    let port = 1 << 10;
    // BPF_RET | BPF_K, SECCOMP_RET_ALLOW.
    let allow = [&6_u16.to_ne_bytes()[..], &[0, 0], &0x7fff_0000_u32.to_ne_bytes()].concat();
    launch.steps.extend([
        Step::WorkingDirectory { target: "/proc".to_owned(), create: false, last: true },
        Step::Rlimit { resource: rcompose::init::Rlimit::Nofile, soft: 77, hard: 88 },
        Step::Umask(0o27),
        Step::Seccomp { filters: vec![allow], flags: 0, listener: None },
        Step::Groups(vec![1000, 7]),
        Step::Identity { uid: 1000, gid: 1000 },
        Step::Capabilities { bounding: port, permitted: port, effective: port, inheritable: port, ambient: port },
        exec,
    ]);
    let data = fs::File::open(world.folder.path()).unwrap();
    world.start("one", launch, &[data.as_fd()]);
    let output = text(world.launched().remove(1));
    let expected = "1000\n1000 7\n/proc\nout\nread-only\nbound read-only\nCapPrm:\t0000000000000400\n\
        CapEff:\t0000000000000400\nCapAmb:\t0000000000000400\nSeccomp:\t2\n77\n0027\n";
    assert_eq!(output, expected);
    assert_eq!(world.exited().code, Some(0));
}

#[test]
fn layers_with_long_and_odd_names_are_mounted() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let long = world.folder.path().join("l".repeat(200)).join(format!("a:b,c\\d{}", "e".repeat(100)));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("found"), "yes").unwrap();
    for odd in ["odd:,\\ upper", "odd:,\\ work"] {
        fs::create_dir(world.folder.path().join(odd)).unwrap();
    }
    for (lower, first) in [(vec![long, world.lower("")], "yes"), (vec![world.lower("")], "no")] {
        let mut launch = world.container(&["sh", "-c", "busybox cat /found 2>/dev/null || echo -n no"]);
        let folder = world.folder.path();
        let (upper, work) = (folder.join("odd:,\\ upper"), folder.join("odd:,\\ work"));
        launch.steps[1] =
            Step::RootOverlay { at: folder.join("merged"), overlay: Overlay { lower, upper, work, volatile: true } };
        world.start("one", launch, &[]);
        let output = match world.next() {
            (Event::Launched { .. }, mut descriptors) => text(descriptors.remove(1)),
            (other, _) => panic!("{other:?}"),
        };
        assert_eq!(output, first);
        assert_eq!(world.exited().code, Some(0));
        world.send(&Request::Release { name: "one".to_owned() }, &[]);
    }
}
