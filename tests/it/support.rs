//! A place of its own for each test: its own root directory, projects with unique names, and a clean-up that also runs
//! when the test fails.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

/// Longest a condition may take to come true before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A project in a temporary folder, under a root of its own.
pub(crate) struct Project {
    folder: tempfile::TempDir,
    root: PathBuf,
    pub(crate) name: String,
    /// Who runs the commands, when it is not the user of the test.
    user: Option<nix::unistd::User>,
    /// How long the clean-up waits before it takes `down` for hung, and half of it for keeper and supervisor.
    hangs_after: Duration,
}

/// Names the ordinary user that tests run `rcompose` as, when they are started by root.
const USER: &str = "RCOMPOSE_TEST_USER";

/// The user of [`USER`].
fn chosen_user() -> Option<nix::unistd::User> {
    let name = std::env::var(USER).ok().filter(|_| nix::unistd::geteuid().is_root())?;
    Some(nix::unistd::User::from_name(&name).unwrap().unwrap_or_else(|| panic!("{USER}: there is no user {name}")))
}

/// What came out of a finished command.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// True when the test can make containers here; says why not otherwise.
pub(crate) fn can_run_containers(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    println!("{test}: skipped: needs root");
    false
}

/// Whether the test can run as the user that was chosen for the commands; says why not otherwise.
pub(crate) fn needs_root(test: &str, why: &str) -> bool {
    let other = chosen_user().is_some();
    if other {
        println!("{test}: skipped: as an ordinary user, {why}");
    }
    other
}

/// Whether systemd gives the commands' user no control groups with these controllers; says so. It gives root all.
pub(crate) fn lacks_controllers(test: &str, wanted: &[&str]) -> bool {
    let Some(user) = chosen_user() else { return false };
    let manager = format!("/sys/fs/cgroup/user.slice/user-{0}.slice/user@{0}.service", user.uid);
    let given = fs::read_to_string(Path::new(&manager).join("cgroup.controllers")).unwrap_or_default();
    let missing = wanted.iter().filter(|wanted| given.split_whitespace().all(|one| one != **wanted));
    let missing: Vec<&str> = missing.copied().collect();
    if !missing.is_empty() {
        println!("{test}: skipped: as an ordinary user, there are no control groups with {}", missing.join(", "));
    }
    !missing.is_empty()
}

impl Project {
    /// A project with this `compose.yaml`.
    pub(crate) fn new(compose: &str) -> Self {
        Self::of(compose, chosen_user())
    }

    /// A project of an ordinary user: the one that was chosen, or `nobody`, who has no subordinate ids.
    pub(crate) fn rootless(compose: &str) -> Self {
        let nobody = || nix::unistd::User::from_name("nobody").unwrap();
        let root = nix::unistd::geteuid().is_root();
        Self::of(compose, chosen_user().or_else(nobody).filter(|_| root))
    }

    fn of(compose: &str, user: Option<nix::unistd::User>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::Builder::new().prefix("rcompose-test-").tempdir().unwrap();
        // Hundreds of tests have just removed theirs.
        rcompose::base::disk::spread(folder.path());
        fs::create_dir(folder.path().join("project")).unwrap();
        let root = folder.path().join("root");
        let project = Self { folder, root, name, user, hangs_after: Duration::from_secs(10) };
        project.give(project.folder.path());
        project.give(&project.folder());
        if project.user.is_some() {
            // Where the build lies may be closed to others.
            let (from, to) = (env!("CARGO_BIN_EXE_rcompose"), project.binary());
            if fs::hard_link(from, &to).is_err() {
                copy_program(from, &to);
            }
        }
        project.write("compose.yaml", compose);
        project
    }

    /// Another project of the same user under the same root directory. It must go first.
    pub(crate) fn beside(&self, compose: &str) -> Self {
        let mut other = Self::of(compose, self.user.clone());
        other.root.clone_from(&self.root);
        other
    }

    /// The program under test.
    pub(crate) fn binary(&self) -> PathBuf {
        match self.user {
            Some(_) => self.folder.path().join("rcompose"),
            None => env!("CARGO_BIN_EXE_rcompose").into(),
        }
    }

    /// Makes it the commands' user's.
    pub(crate) fn give(&self, path: &Path) {
        if let Some(user) = &self.user {
            std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
    }

    /// What `doctor` finds for the commands' user.
    pub(crate) fn findings(&self) -> Vec<serde_json::Value> {
        let mut command = self.command(&[]);
        let doctor = command.args(["doctor", "--format", "json"]).output().unwrap();
        serde_json::from_slice(&doctor.stdout).unwrap()
    }

    /// Whether the commands are run by the user of the test, who is root where containers can be made.
    pub(crate) fn is_roots(&self) -> bool {
        self.user.is_none()
    }

    /// Whether the commands' user has more than one id for containers.
    pub(crate) fn has_many_ids(&self) -> bool {
        let text = fs::read_to_string("/etc/subuid").unwrap_or_default();
        let own = nix::unistd::geteuid();
        let own = nix::unistd::User::from_uid(own).unwrap().filter(|_| !own.is_root());
        let name = self.user.as_ref().or(own.as_ref()).map(|user| format!("{}:", user.name));
        name.is_none_or(|name| text.lines().any(|line| line.starts_with(&name)))
    }

    /// The folder that holds `compose.yaml`.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.root.clone()
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.folder().join(file), text).unwrap();
        self.give(&self.folder().join(file));
    }

    /// `rcompose ARGS` about this project, not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_of(&self.binary(), args)
    }

    /// The same by another binary, such as a shell that runs [`Project::binary`].
    pub(crate) fn command_of(&self, binary: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command.args(args);
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command.current_dir(self.folder()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.folder.path()).env("RCOMPOSE_ROOT", self.root());
        // What a log-in gives, and with it the user's systemd.
        let session = self.user.as_ref().map(|user| PathBuf::from(format!("/run/user/{}", user.uid)));
        if let Some(session) = session.filter(|session| session.join("systemd/private").exists()) {
            command.env("XDG_RUNTIME_DIR", session);
        }
        // Not `-p`, with which the file would be left out by what is about containers.
        command.env("COMPOSE_PROJECT_NAME", &self.name);
        command.stdin(Stdio::null());
        command
    }

    /// Runs `rcompose ARGS` to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// The same by another binary.
    pub(crate) fn run_by(&self, binary: &Path, args: &[&str]) -> Ran {
        self.command_of(binary, args).output().unwrap().into()
    }

    /// Starts `rcompose ARGS`, output to pipes.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Objects of `ps --format json`, one-offs and stopped ones too.
    pub(crate) fn ps(&self) -> Vec<serde_json::Value> {
        let listed = self.run(&["ps", "-a", "--format", "json"]).ok();
        listed.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The one container of a service, as `ps` shows it.
    #[track_caller]
    pub(crate) fn container(&self, service: &str) -> serde_json::Value {
        let all = self.ps();
        let found = all.iter().find(|container| container["Service"] == service);
        found.unwrap_or_else(|| panic!("no container of {service} in {all:?}")).clone()
    }

    /// Pids of this project's own processes with that role.
    pub(crate) fn role(&self, role: &str) -> Vec<i32> {
        role_of(&self.name, role)
    }

    /// Takes the project down and checks that nothing of it is left.
    #[track_caller]
    pub(crate) fn down(&self) {
        self.run(&["down", "-v", "-t", "0", "--remove-orphans"]).ok();
        self.assert_nothing_left();
    }

    /// Waits until nothing of the project is left on the machine; what is left after a while fails the test.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn left(&self) -> Vec<String> {
        left(&self.name, &self.root)
    }
}

/// What is left on the machine of the project `name`, whose root is `root`.
fn left(name: &str, root: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for role in ["keeper", "supervisor", "uplink"] {
        left.extend(role_of(name, role).iter().map(|pid| format!("{role} {pid}")));
    }
    let text = root.to_string_lossy().into_owned();
    left.extend(processes().filter(|(_, words)| words.contains(&text)).map(|(pid, words)| format!("{pid} {words}")));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(&text)).map(|line| format!("mount {line}")));
    let containers = root.join("data/projects").join(name).join("containers");
    left.extend(entries(&containers).into_iter().map(|name| format!("container {name}")));
    let records = entries(&root.join("data/networks")).into_iter().filter(|name| name.ends_with(".json"));
    left.extend(records.map(|name| format!("network {name}")));
    let volumes = entries(&root.join("data/volumes")).into_iter().filter(|name| !name.starts_with('.'));
    left.extend(volumes.map(|name| format!("volume {name}")));
    let alias = |link: &String| fs::read_to_string(format!("/sys/class/net/{link}/ifalias")).unwrap_or_default();
    let links = entries(Path::new("/sys/class/net")).into_iter();
    left.extend(links.filter(|link| alias(link).starts_with(name)).map(|link| format!("link {link}")));
    left.extend(cgroups_of(name).into_iter().map(|path| format!("cgroup {}", path.display())));
    if !left.is_empty() {
        return left;
    }
    // Last, as it is a process each time. The command is there to look with; the engine does without it.
    if let Ok(tables) = Command::new("nft").args(["list", "tables"]).output() {
        let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
        let wanted = format!("rcompose-{}", name);
        left.extend(tables.lines().filter(|line| line.contains(&wanted)).map(str::to_owned));
    }
    left
}

/// Pids of a project's own processes with that role.
fn role_of(name: &str, role: &str) -> Vec<i32> {
    // With the space behind it, or `x1` would be `x10`, too.
    let wanted = format!("rcompose: {role} {name} ");
    processes().filter(|(_, words)| format!("{words} ").starts_with(&wanted)).map(|(pid, _)| pid).collect()
}

impl Drop for Project {
    /// Leaves nothing on the machine, wherever the test has failed.
    fn drop(&mut self) {
        let cleared = self.clear();
        if !self.ends() || !cleared {
            // They hang, or the file is one that nothing can be done with: the next ones clear away what these have made.
            self.kill_all();
            self.hangs_after = PATIENCE;
            let _ = fs::write(self.folder().join("compose.yaml"), "services: {}\n");
            self.clear();
            if !self.ends() {
                self.kill_all();
            }
        }
        // Of a supervisor that was killed here: it would stay while containers do.
        self.role("uplink").into_iter().for_each(|pid| kill(pid, Signal::SIGKILL));
        for group in cgroups_of(&self.name) {
            println!("still there: {}", group.display());
            remove_group(&group);
        }
    }
}

impl Project {
    /// `down`, unless it hangs.
    fn clear(&self) -> bool {
        let mut command = self.command(&["down", "-v", "-t", "0", "--remove-orphans"]);
        let Ok(mut child) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else { return false };
        let end = Instant::now() + self.hangs_after;
        loop {
            match child.try_wait() {
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                Ok(None) => drop(child.kill()),
                ended => return ended.is_ok_and(|status| status.is_some_and(|status| status.success())),
            }
        }
    }

    /// Whether keeper and supervisor end: they do once nothing is left, and with them what they have made.
    fn ends(&self) -> bool {
        let end = Instant::now() + self.hangs_after / 2;
        let lives = || ["supervisor", "keeper"].iter().any(|role| !self.role(role).is_empty());
        while lives() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        !lives()
    }

    /// The keeper first, or it starts another supervisor, which starts another keeper.
    fn kill_all(&self) {
        while let Some(pid) = ["keeper", "supervisor"].iter().find_map(|role| self.role(role).first().copied()) {
            kill(pid, Signal::SIGKILL);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Ends what is in a control group, and removes it with those below it.
fn remove_group(group: &Path) {
    for below in entries(group).iter().map(|name| group.join(name)).filter(|path| path.is_dir()) {
        remove_group(&below);
    }
    let end = Instant::now() + Duration::from_secs(5);
    while fs::remove_dir(group).is_err() && Instant::now() < end {
        for pid in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
            kill(pid.parse().unwrap(), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A project whose test fails leaves nothing, whatever its file says by then and even if its supervisor hangs.
#[test]
fn a_test_that_fails_leaves_nothing_on_the_machine() {
    if !can_run_containers("a_test_that_fails_leaves_nothing_on_the_machine") {
        return;
    }
    for hangs in [false, true] {
        let sleeps = "image: rcompose/host, command: [sleep, '1000'], ports: ['80'], mem_limit: 64m";
        let mut project = Project::new(&format!("services:\n  a: {{{sleeps}}}\n  b: {{{sleeps}}}\n"));
        project.run(&["up", "-d"]).ok();
        project.write("compose.yaml", "services: [");
        if hangs {
            project.hangs_after = Duration::from_secs(1);
            kill(project.role("supervisor")[0], Signal::SIGSTOP);
        }
        let (name, root) = (project.name.clone(), project.root());
        drop(project);
        assert_eq!(left(&name, &root), Vec::<String>::new(), "{hangs}");
    }
}

/// Copies a program that is going to be executed. Another process does it: what is open here for writing, another test's child has
/// for a moment, too, and then the copy cannot be executed.
#[track_caller]
pub(crate) fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    assert!(Command::new("cp").arg(from.as_ref()).arg(to.as_ref()).status().unwrap().success());
}

/// A port that is free, and that neither the kernel nor rcompose gives to somebody who takes any: theirs begin at 32768.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(64);
    loop {
        let port = 20_000 + (first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000) as u16;
        let is_free = std::net::TcpListener::bind(("0.0.0.0", port)).is_ok()
            && std::net::UdpSocket::bind(("0.0.0.0", port)).is_ok();
        if is_free {
            return port;
        }
    }
}

/// Waits until `condition` gives something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal to a process by number.
pub(crate) fn kill(pid: i32, signal: Signal) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
}

/// Reads a child's standard output to its end, and its status.
pub(crate) fn finish(mut child: Child) -> Ran {
    let mut out = String::new();
    let mut err = String::new();
    if let Some(mut stream) = child.stdout.take() {
        let _ = stream.read_to_string(&mut out);
    }
    if let Some(mut stream) = child.stderr.take() {
        let _ = stream.read_to_string(&mut err);
    }
    let code = child.wait().unwrap().code().unwrap_or(-1);
    Ran { code, out, err }
}

fn processes() -> impl Iterator<Item = (i32, String)> {
    entries(Path::new("/proc")).into_iter().filter_map(|name| {
        let pid = name.parse().ok()?;
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&arguments).replace('\0', " ")))
    })
}

fn entries(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Control groups named after the project, in any hierarchy, and in what systemd has given to a user.
pub(crate) fn cgroups_of(project: &str) -> Vec<PathBuf> {
    fn below(group: &Path, project: &str, found: &mut Vec<PathBuf>) {
        let ours = group.file_name().is_some_and(|name| name.to_string_lossy().starts_with("rcompose"));
        for name in entries(group) {
            let path = group.join(&name);
            if ours && name == project {
                found.push(path);
            } else if path.is_dir() {
                below(&path, project, found);
            }
        }
    }
    let mut found = Vec::new();
    below(Path::new("/sys/fs/cgroup/user.slice"), project, &mut found);
    for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
        let hierarchy = Path::new("/sys/fs/cgroup").join(hierarchy);
        for parent in entries(&hierarchy).iter().filter(|name| name.starts_with("rcompose")) {
            found.extend([hierarchy.join(parent).join(project)].into_iter().filter(|path| path.exists()));
        }
        if hierarchy.file_name().is_some_and(|name| name.to_string_lossy().starts_with("rcompose")) {
            found.extend([hierarchy.join(project)].into_iter().filter(|path| path.exists()));
        }
    }
    found
}
