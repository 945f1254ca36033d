//! What a container says on its way to a person's terminal, and what it can say to the processes that look after it.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rcompose::engine::users::UserDatabase;

use nix::sys::signal::Signal;

use crate::support::{Project, can_run_containers, cgroups_of, eventually, kill, needs_root};

fn shell(script: &str) -> String {
    serde_json::to_string(&["sh", "-c", script]).unwrap()
}

const SERVICE: &str = "image: rcompose/host, stop_signal: SIGKILL";

/// Sets the title of the terminal and clears it.
const ATTACK: &str = r"printf '\033]0;owned\007\033[2J'";

/// Log injection with control characters, by every way on which a container's words get into a message of ours: what it logs is
/// passed on as it is, as Docker does, so a person who reads logs of a hostile container is warned; nobody else is.
#[test]
fn what_a_container_says_does_nothing_to_the_terminal() {
    if !can_run_containers("what_a_container_says_does_nothing_to_the_terminal") {
        return;
    }
    let sick = shell(&format!("{ATTACK}; echo sick; exit 1"));
    let healthcheck = sick.replacen('[', "[\"CMD\",", 1);
    let name = r"/tmp/$(printf 'a\033[2Jb')";
    let named = shell(&format!("cp /bin/sleep \"{name}\"; {ATTACK}; echo; exec \"{name}\" 1000"));
    let project = Project::new(&format!(
        "services:\n  sick: {{{SERVICE}, command: {named}, healthcheck: {{test: {healthcheck}, interval: 100ms, retries: 1}}}}\n  \
         hooked: {{{SERVICE}, command: [sleep, '1000'], post_start: [{{command: {sick}}}]}}\n  \
         dying: {{{SERVICE}, command: {sick}, healthcheck: {{test: [CMD, 'false'], interval: 1h}}}}\n"
    ));
    for (service, word) in [("sick", "unhealthy"), ("hooked", "sick"), ("dying", "exited (1)")] {
        let up = project.run(&["up", "-d", "--wait", service]).fails(1);
        assert!(up.err.contains(word) && !up.err.contains('\u{1b}') && !up.err.contains('\u{7}'), "{:?}", up.err);
    }
    for command in [&["ps", "-a"][..], &["top"], &["ps", "-a", "--no-trunc"]] {
        let shown = project.run(command).ok();
        assert!(!shown.out.contains('\u{1b}') && !shown.err.contains('\u{1b}'), "{command:?}: {:?}", shown.out);
    }
    // The attack is a real one.
    let logged = project.run(&["logs", "--no-log-prefix", "sick"]).ok();
    assert!(logged.out.contains("\u{1b}[2J"), "{:?}", logged.out);
    project.down();
}

/// What a command writes to a terminal that is all of its streams.
fn on_a_terminal(project: &Project, args: &[&str]) -> String {
    let terminal = nix::pty::openpty(None, None).unwrap();
    let stream = || terminal.slave.try_clone().unwrap();
    let mut command = project.command(args);
    // Ours are not asked for.
    command.env("NO_COLOR", "1").stdin(stream()).stdout(stream()).stderr(stream());
    let mut child = command.spawn().unwrap();
    drop((command, terminal.slave));
    let mut written = Vec::new();
    // Its end is an error (EIO).
    let _ = fs::File::from(terminal.master).read_to_end(&mut written);
    child.wait().unwrap();
    String::from_utf8_lossy(&written).into_owned()
}

/// Names, labels and values of a file that somebody else has written, and of what it makes, in whatever a person is shown. Weakened:
/// what a program reads in a pipe, which gets them as they are.
#[test]
fn what_a_file_says_does_nothing_to_the_terminal() {
    if !can_run_containers("what_a_file_says_does_nothing_to_the_terminal") {
        return;
    }
    // Clears the screen, in two ways, and turns the text around.
    let evil = r"\e[2J\u009b2J\u202e";
    let service = format!("{SERVICE}, command: [sleep, '1000']");
    let good = format!(
        "services:\n  a: {{{service}, labels: {{\"k{evil}\": \"v{evil}\"}}}}\n  \
         b: {{{service}, profiles: [\"p{evil}\"], environment: {{\"V{evil}\": \"${{X:-{evil}}}\"}}}}\n"
    );
    let project = Project::new(&good);
    let harmless = |args: &[&str], told: &str| {
        let written = on_a_terminal(&project, args);
        let plain = written.replace("\r\n", "\n");
        let harmless = plain.chars().all(|c| matches!(c, '\n' | '\t') || !c.is_control() && c != '\u{202e}');
        assert!(harmless && written.contains(told), "{args:?}: {written:?}");
    };
    project.run(&["up", "-d", "a"]).ok();
    let events = ["events", "--since", "1h", "--until", "0s"];
    harmless(&events, "u{1b}");
    harmless(&["events", "--json", "--since", "1h", "--until", "0s"], "u001b");
    harmless(&["ps", "--format", "{{.Labels}}"], "u{1b}");
    harmless(&["config", "--profiles"], "u{1b}");
    harmless(&["config", "--variables"], "u{1b}");
    harmless(&["config"], "\\e[2J");
    harmless(&["lint"], "floating-tag");
    let piped = project.run(&events).ok();
    assert!(piped.out.contains("\u{1b}[2J"), "the attack would not be seen to succeed: {:?}", piped.out);
    let wrong = [
        format!("services: {{\"a{evil}\": {{image: x}}}}"),
        format!("services: {{a: {{image: x, \"k{evil}\": 1}}}}"),
        format!("services: {{a: {{image: \"x{evil}\"}}}}"),
        format!("services: {{a: {{image: rcompose/host, container_name: \"n{evil}\"}}}}"),
        format!(
            "services: {{a: {{image: rcompose/host, volumes: ['data:/v']}}}}\nvolumes: {{data: {{external: true, name: \"n{evil}\"}}}}"
        ),
        format!("services: {{a: {{image: \"${{X:?{evil}}}\"}}}}"),
        format!("include: [\"{evil}.yaml\"]"),
    ];
    for file in wrong {
        project.write("compose.yaml", &file);
        harmless(&["--progress", "plain", "up", "-d"], "u{1b}");
    }
    project.write("compose.yaml", &good);
    project.down();
}

/// Looks for the sockets of the project's own processes by every name that the container can learn, and connects to them.
const CONNECT: &str = "import os, socket, sys
names = set(sys.argv[1:])
for line in open('/proc/net/unix'):
    name = line.split()[7:]
    if name and ('rcompose' in name[0] or os.environ['PROJECT'] in name[0]):
        names.add(name[0])
for name in names:
    for way in (name, '/proc/1/root' + name, '/proc/self/cwd' + name, '\\0' + name.lstrip('@')):
        try:
            socket.socket(socket.AF_UNIX).connect(way)
            print('connected', repr(way))
        except OSError:
            pass
print('tried', flush=True)
";

/// A container in the host's network, whose abstract sockets it therefore has, does not reach what looks after it.
#[test]
fn the_control_socket_is_out_of_reach() {
    let test = "the_control_socket_is_out_of_reach";
    if !can_run_containers(test) || needs_root(test, "its sockets are of another user") {
        return;
    }
    for weakened in [false, true] {
        let idle = format!("{SERVICE}, command: [sleep, '1000']");
        let project = Project::new(&format!("services: {{idle: {{{idle}}}}}\n"));
        project.run(&["up", "-d"]).ok();
        let mut sockets = Vec::new();
        find_sockets(&project.root(), &mut sockets);
        assert!(!sockets.is_empty(), "no control socket below {}", project.root().display());
        let mut command = vec!["python3".to_owned(), "-c".to_owned(), CONNECT.to_owned()];
        command.extend(sockets.iter().map(|path| path.display().to_string()));
        let command = serde_json::to_string(&command).unwrap();
        let root = project.root().display().to_string();
        let volumes = if weakened { format!(", volumes: ['{root}:{root}']") } else { String::new() };
        project.write(
            "compose.yaml",
            &format!(
                "services:\n  idle: {{{idle}}}\n  attacker: {{{SERVICE}, network_mode: host, environment: {{PROJECT: {}}}, \
                 command: {command}{volumes}}}\n",
                project.name
            ),
        );
        project.run(&["up", "-d"]).ok();
        let said = eventually("the attack is over", || {
            let said = project.run(&["logs", "--no-log-prefix", "attacker"]).ok().out;
            said.contains("tried").then_some(said)
        });
        assert_eq!(said.contains("connected"), weakened, "weakened: {weakened}: {said}");
        project.down();
    }
}

/// Answers at the control socket in the supervisor's place.
const ANSWER: &str = "import os, socket, sys
path = sys.argv[1]
os.remove(path)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
if sys.argv[2] == 'leaves' and os.fork():
    # Who listens then is another process than who has called listen.
    os.waitpid(-1, 0)
else:
    listener.listen()
    if sys.argv[2] == 'leaves' and not os.fork():
        os.setsid()
    elif sys.argv[2] == 'leaves':
        os._exit(0)
    print('listening', flush=True)
    listener.settimeout(20)
    try:
        while True:
            client = listener.accept()[0]
            client.settimeout(1)
            try:
                if client.recv(65536):
                    print('asked', flush=True)
            except OSError:
                pass
            client.close()
    except OSError:
        pass
    print('over', flush=True)
import time
time.sleep(1000)
";

/// A container that has the project's folder takes the place of the supervisor: nobody tells it anything, be it with the host's
/// pids, among which it is one process like the others. One that may do everything anyway is believed.
#[test]
fn a_container_that_answers_at_the_control_socket_is_told_nothing() {
    let test = "a_container_that_answers_at_the_control_socket_is_told_nothing";
    if !can_run_containers(test) || needs_root(test, "a container of a user has other ids than the user") {
        return;
    }
    const PIDS: &str = ", pid: host";
    const ALL: &str = ", pid: host, privileged: true";
    for (way, more, weakened) in
        [("stays", "", false), ("leaves", "", false), ("stays", PIDS, false), ("stays", ALL, true)]
    {
        let project = Project::new("services: {}");
        let root = project.root().display().to_string();
        let socket = project.root().join("run").join(&project.name).join("control.sock");
        let command = ["python3", "-c", ANSWER, socket.to_str().unwrap(), way];
        project.write(
            "compose.yaml",
            &format!(
                "services:\n  attacker: {{{SERVICE}, command: {}, volumes: ['{root}:{root}']{more}}}\n",
                serde_json::to_string(&command).unwrap()
            ),
        );
        project.run(&["up", "-d"]).ok();
        let logs = || project.run(&["logs", "--no-log-prefix"]).ok().out;
        eventually("the attack", || logs().contains("listening").then_some(()));
        let up = project.run(&["up", "-d", "--force-recreate"]).fails(1);
        assert_eq!(logs().contains("asked"), weakened, "{way}{more}, weakened: {weakened}: {}", logs());
        assert_eq!(up.err.contains("not by the keeper"), !weakened, "{}", up.err);
        // Nobody can be asked to end it.
        for role in ["keeper", "supervisor"] {
            project.role(role).into_iter().for_each(|pid| kill(pid, Signal::SIGKILL));
        }
        for group in cgroups_of(&project.name) {
            kill_all_below(&group);
        }
        eventually("nobody listens", || std::os::unix::net::UnixStream::connect(&socket).is_err().then_some(()));
        project.down();
    }
}

/// Has a program executed in another container, with all capabilities, by way of the control socket; as soon as it is told to.
const COMMAND: &str = "import json, socket, struct, sys
path, container, way = sys.argv[1:]
def ask():
    request = {'exec': {'container': container, 'command': ['true'], 'env': [], 'user': None, 'working_dir': None,
                        'privileged': True, 'terminal': None, 'stdin': False, 'detach': False}}
    request = json.dumps(request).encode()
    supervisor = socket.socket(socket.AF_UNIX)
    supervisor.connect(path)
    supervisor.sendall(struct.pack('<I', len(request)) + request)
    return supervisor.recv(65536)
def fill():
    supervisor = socket.socket(socket.AF_UNIX)
    supervisor.connect(path)
    supervisor.sendall(struct.pack('<I', 200 << 20))
    supervisor.settimeout(1)
    try:
        return 'refused' if supervisor.recv(1) == b'' else 'answered'
    except ConnectionError:
        return 'refused'
    except OSError:
        return 'awaited'
if way == 'unshared':
    import ctypes
    # CLONE_NEWUSER: all capabilities, of another user namespace.
    print('unshared', ctypes.CDLL(None).unshare(0x10000000), flush=True)
print('memory', fill(), ask(), 'over', flush=True)
import time
time.sleep(1000)
";

/// A container that has the project's folder gives orders at the control socket, which runs programs on the host's behalf: be it
/// with the host's pids, with the host's own root to change to, or as root of a user namespace that it made; or it has the supervisor
/// keep memory ready for a long message. One that may do everything anyway is obeyed.
#[test]
fn a_container_that_commands_at_the_control_socket_is_not_obeyed() {
    let test = "a_container_that_commands_at_the_control_socket_is_not_obeyed";
    if !can_run_containers(test) || needs_root(test, "a container of a user has other ids than the user") {
        return;
    }
    if super::lacks_ctypes(test) {
        return;
    }
    let project = Project::new(&format!("services: {{idle: {{{SERVICE}, command: [sleep, '1000']}}}}\n"));
    project.run(&["up", "-d"]).ok();
    let root = project.root().display().to_string();
    let socket = project.root().join("run").join(&project.name).join("control.sock");
    let idle = format!("{}-idle-1", project.name);
    let command =
        |way| serde_json::to_string(&["python3", "-c", COMMAND, socket.to_str().unwrap(), &idle, way]).unwrap();
    let changed = ["chroot", "/host", "python3", "-c", COMMAND, socket.to_str().unwrap(), &idle, "chroot"];
    let changed = serde_json::to_string(&changed).unwrap();
    let attacks = [
        ("pids", format!("command: {}, volumes: ['{root}:{root}']", command("pids"))),
        ("host", format!("command: {}, volumes: ['{root}:{root}'], pid: host", command("host"))),
        ("chroot", format!("command: {changed}, volumes: ['/:/host:ro'], pid: host")),
        (
            "unshared",
            format!(
                "command: {}, volumes: ['{root}:{root}'], pid: host, security_opt: ['seccomp=unconfined']",
                command("unshared")
            ),
        ),
        ("weak", format!("command: {}, volumes: ['{root}:{root}'], pid: host, privileged: true", command("weak"))),
    ];
    let mut services = format!("services:\n  idle: {{{SERVICE}, command: [sleep, '1000']}}\n");
    attacks.iter().for_each(|(name, more)| services.push_str(&format!("  {name}: {{{SERVICE}, {more}}}\n")));
    project.write("compose.yaml", &services);
    project.run(&["up", "-d"]).ok();
    for (name, _) in attacks {
        let said = eventually("the attack is over", || {
            let said = project.run(&["logs", "--no-log-prefix", name]).ok().out;
            said.contains("over").then_some(said)
        });
        assert_eq!(said.contains("started"), name == "weak", "{name}: {said}");
        assert_eq!(said.contains("not obeyed"), name != "weak", "{name}: {said}");
        assert_eq!(said.contains("memory refused"), name != "weak", "{name}: {said}");
        assert!(name != "unshared" || said.contains("unshared 0"), "{said}");
    }
    project.down();
}

/// Who has fewer capabilities than the other one may be in a container. The way out is told, and so is it for a socket whose listener
/// cannot be told, as with a keeper of an early build.
#[test]
fn a_supervisor_that_is_not_trusted_is_told_with_the_way_out() {
    let test = "a_supervisor_that_is_not_trusted_is_told_with_the_way_out";
    if !can_run_containers(test) || needs_root(test, "capabilities are taken away") {
        return;
    }
    let project = Project::new(&format!("services: {{a: {{{SERVICE}, command: [sleep, '1000']}}}}\n"));
    let weakly = |args: &[&str]| {
        let ours = project.command(args);
        let mut command = Command::new("setpriv");
        command
            .args(["--bounding-set", "-sys_time", "--inh-caps", "-sys_time"])
            .arg(ours.get_program())
            .args(ours.get_args());
        command.current_dir(project.folder()).env_clear();
        command.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
        crate::support::Ran::from(command.output().unwrap())
    };
    project.run(&["up", "-d"]).ok();
    let refused = weakly(&["stop"]).fails(1).err;
    assert!(refused.contains("may be in a container: it lacks CAP_SYS_TIME: it is not obeyed"), "{refused}");
    assert!(refused.contains("help: give the command where it may get all capabilities"), "{refused}");
    project.down();
    weakly(&["up", "-d"]).ok();
    let refused = project.run(&["stop"]).fails(1).err;
    let pattern = format!("'^rcompose: (keeper|supervisor) {} '", project.name);
    assert!(refused.contains("may be in a container: it lacks CAP_SYS_TIME, not by the keeper"), "{refused}");
    assert!(refused.contains(&pattern) && refused.contains("fewer capabilities"), "{refused}");
    // What it says to do.
    let remedy = refused.split('`').find(|quoted| quoted.starts_with("pkill ")).unwrap();
    assert!(Command::new("sh").args(["-c", remedy]).status().unwrap().success());
    project.run(&["stop"]).ok();
    assert_eq!(project.container("a")["State"], "exited");
    project.down();

    let folder = project.root().join("run").join(&project.name);
    fs::create_dir_all(&folder).unwrap();
    let script = "import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
child = os.fork()
if child:
    print(child, flush=True)
    os._exit(0)
os.close(1)
os.close(2)
while True:
    listener.accept()
";
    let listens = Command::new("python3").args(["-c", script]).arg(folder.join("control.sock")).output().unwrap();
    let listener: i32 = String::from_utf8(listens.stdout).unwrap().trim().parse().unwrap();
    let refused = project.run(&["up", "-d"]);
    kill(listener, Signal::SIGKILL);
    let refused = refused.fails(1).err;
    assert!(refused.contains("took it over from one that has ended") && refused.contains(&pattern), "{refused}");
    fs::remove_dir_all(&folder).unwrap();
}

fn kill_all_below(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).for_each(|pid| kill(pid, Signal::SIGKILL));
    }
}

fn find_sockets(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            Ok(kind) if kind.is_dir() && !entry.path().ends_with("layers") => find_sockets(&entry.path(), found),
            _ => {}
        }
    }
}

/// A device of the host's in the place of a file, which may do something when it is merely opened (a watchdog starts). Weakened:
/// opened to see what it is.
fn a_device_is_not_opened(file: &Path, read: impl Fn() -> Vec<u8>) {
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::RUSR);
    if rustix::fs::mknodat(rustix::fs::CWD, file, kind, mode, rustix::fs::makedev(1, 3)).is_err() {
        return println!("skipped in part: device nodes need root");
    }
    let opened = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    opened.add_watch(file, AddWatchFlags::IN_OPEN).unwrap();
    assert_eq!(read(), b"");
    assert!(opened.read_events().is_err(), "it was opened");
    if fs::File::open(file).is_ok() {
        assert!(opened.read_events().is_ok(), "the attack would not be seen to succeed");
    }
    fs::remove_file(file).unwrap();
}

/// `/etc/passwd` of an image as a link out of it, as a FIFO that nobody writes to, as a device, as a file without end, as a folder.
#[test]
fn user_databases_of_an_image_are_read_inside_of_it_and_to_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("root"), folder.path().join("passwd"));
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(&outside, "evil:x:0:0::/:/bin/sh\n").unwrap();
    let file = root.join("etc/passwd");
    let read = || UserDatabase::read(fs::File::open(&root).unwrap());
    for target in [outside.clone(), Path::new("../../passwd").to_owned()] {
        symlink(target, &file).unwrap();
        assert!(read().resolve(Some("evil"), &[]).is_err());
        // Weakened: read by name.
        let naive = UserDatabase { passwd: fs::read(&file).unwrap(), group: Vec::new() };
        assert_eq!(naive.resolve(Some("evil"), &[]).unwrap().uid, 0);
        fs::remove_file(&file).unwrap();
    }
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    assert_eq!(read().passwd, b"");
    // Weakened: whoever just reads it waits for ever.
    let naive = Command::new("timeout").args(["0.2", "cat"]).arg(&file).status().unwrap();
    assert_eq!(naive.code(), Some(124));
    fs::remove_file(&file).unwrap();
    a_device_is_not_opened(&file, || read().passwd);
    fs::File::create(&file).unwrap().set_len(1 << 42).unwrap();
    let length = read().passwd.len();
    assert!(length < 64 << 20, "{length} bytes were read");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(read().passwd, b"");
    fs::remove_dir(&file).unwrap();
    // A name with a line break is no line of its own.
    fs::write(&file, "a\nb:x:7:7::/:/\n").unwrap();
    assert!(read().resolve(Some("a\nb"), &[]).is_err());
}
