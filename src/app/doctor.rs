//! What this host lacks for running containers as the present user, what that costs, and what mends it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::mount::{FsOpenFlags, fsopen};

use crate::engine::apparmor;
use crate::engine::selinux::{self, Absent, Policy};
use crate::keeper::scope;
use crate::network::Networks;
use crate::network::firewall;
use crate::network::foreign;
use crate::network::outside;
use crate::network::routes;
use crate::network::uplink::{self, Program};
use crate::state::Roots;
use crate::sys::process::{self, SingleThreaded};
use crate::sys::userns::{self, Mapping};
use crate::ui::doctor::{Finding, State};

/// Looks at everything. Changes nothing.
pub fn examine(roots: &Roots) -> Vec<Finding> {
    let system = System::read();
    let root = rustix::process::geteuid().is_root();
    let mut findings = vec![kernel()];
    if root {
        findings.extend([engine(&probe(false)), hierarchies()]);
        findings.extend(firewalls());
        findings.extend(hidden_networks(roots));
    } else {
        let mapping = Mapping::of_this_user();
        findings.extend([helpers(&mapping, &system), ids(&mapping, &system), engine(&probe(true))]);
        findings.extend([delegation(&system), way_out(&system), ports()]);
        findings.extend(lingering(&system));
    }
    findings.extend(selinux(&system));
    if root {
        findings.extend(apparmor(&system));
    }
    findings
}

/// What commands depend on.
struct System {
    user: String,
    uid: u32,
    /// `ID` and `ID_LIKE` of os-release(5).
    family: String,
}

impl System {
    fn read() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let ids = release.lines().filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")));
        let family = ids.map(|ids| ids.trim_matches('"')).collect::<Vec<_>>().join(" ");
        Self { user: userns::user_name(uid).unwrap_or_else(|| uid.to_string()), uid, family }
    }

    /// The command that installs a package; its names in the families of Debian, Fedora, Arch, SUSE and Alpine.
    fn install(&self, [debian, fedora, arch, suse, alpine]: [&str; 5]) -> String {
        let is = |names: &[&str]| self.family.split(' ').any(|family| names.contains(&family));
        match () {
            () if is(&["debian", "ubuntu"]) => format!("sudo apt-get install {debian}"),
            () if is(&["fedora", "rhel", "centos"]) => format!("sudo dnf install {fedora}"),
            () if is(&["arch"]) => format!("sudo pacman -S {arch}"),
            () if is(&["suse", "opensuse"]) => format!("sudo zypper install {suse}"),
            () if is(&["alpine"]) => format!("sudo apk add {alpine}"),
            () => format!("install the package `{debian}`"),
        }
    }
}

fn ok(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, state: State::Ok, found: found.into(), cost: None, mend: None }
}

fn lack(what: &'static str, found: impl Into<String>, cost: &str, mend: impl Into<String>) -> Finding {
    let (found, cost, mend) = (found.into(), Some(cost.to_owned()), Some(mend.into()));
    Finding { what, state: State::Lack, found, cost, mend }
}

fn note(finding: Finding) -> Finding {
    Finding { state: State::Note, ..finding }
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if version >= (5, 12) {
        return ok("kernel", format!("Linux {release}"));
    }
    lack("kernel", format!("Linux {release}"), "containers cannot be started", "install a kernel of 5.12 or later")
}

fn helpers(mapping: &Mapping, system: &System) -> Finding {
    let what = "newuidmap and newgidmap";
    let cost = "all files of containers belong to one user; services that change to another user fail";
    let package = ["uidmap", "shadow-utils", "shadow", "shadow", "shadow-uidmap"];
    let Some(helpers) = &mapping.helpers else {
        return lack(what, "not installed", cost, system.install(package));
    };
    let privileged = |path: &&PathBuf| {
        let set_user = fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o4000 != 0);
        let mut value = [0; 64];
        set_user || rustix::fs::getxattr(path.as_path(), "security.capability", &mut value[..]).is_ok()
    };
    match helpers.iter().find(|path| !privileged(path)) {
        Some(path) => {
            let path = path.display();
            lack(what, format!("`{path}` has no rights of its own"), cost, format!("sudo chmod u+s {path}"))
        }
        None => ok(what, helpers.each_ref().map(|path| path.display().to_string()).join(", ")),
    }
}

fn ids(mapping: &Mapping, System { user, .. }: &System) -> Finding {
    let what = "subordinate ids";
    let count = |ranges: &[userns::Range]| ranges.iter().map(|range| u64::from(range.count)).sum::<u64>();
    let (uids, gids) = (count(&mapping.uids), count(&mapping.gids));
    let found = format!("{uids} users, {gids} groups");
    // Behind all that are given away already.
    let ends = ["/etc/subuid", "/etc/subgid"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let end = |line: &str| {
        let mut fields = line.split(':').skip(1).filter_map(|field| field.trim().parse::<u32>().ok());
        Some(fields.next()?.saturating_add(fields.next()?))
    };
    let first = ends.iter().flat_map(|text| text.lines()).filter_map(end).max().unwrap_or(0).max(100_000);
    let last = first.saturating_add(65535);
    let mend = format!("sudo usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {user}");
    if uids == 0 || gids == 0 {
        let cost = "all files of containers belong to one user; services that change to another user fail";
        return lack(what, found, cost, mend);
    }
    if uids < 65536 || gids < 65536 {
        return note(lack(what, found, "images with higher user ids cannot be unpacked", mend));
    }
    ok(what, found)
}

/// How far a process gets that does what keeper and supervisor do.
struct Probed {
    ordinary: bool,
    /// What it could not do.
    failed: Option<(Trial, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    Users,
    Mounts,
    Overlay,
    Network,
    Firewall,
}

const TRIALS: [Trial; 5] = [Trial::Users, Trial::Mounts, Trial::Overlay, Trial::Network, Trial::Firewall];

/// Tries in a process of its own.
fn probe(ordinary: bool) -> Probed {
    let tried = (|| -> io::Result<Option<(Trial, String)>> {
        let single = SingleThreaded::check()?;
        let (mut answer, mut tell) = io::pipe()?;
        let Some(child) = process::fork(single)? else {
            drop(answer);
            for (number, trial) in TRIALS.into_iter().enumerate() {
                if let Err(error) = attempt(trial, ordinary, single) {
                    // When nobody reads it, nobody is left.
                    let _ = io::Write::write_all(&mut tell, format!("{number}{error}").as_bytes());
                    break;
                }
            }
            process::exit_now(0);
        };
        drop(tell);
        let text = io::read_to_string(&mut answer)?;
        let pid = rustix::process::Pid::from_raw(child);
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty())?;
        let failed = text.split_at_checked(1);
        Ok(failed.and_then(|(number, error)| Some((*TRIALS.get(number.parse::<usize>().ok()?)?, error.to_owned()))))
    })();
    let failed = tried.unwrap_or_else(|error| Some((Trial::Users, error.to_string())));
    Probed { ordinary, failed }
}

fn attempt(trial: Trial, ordinary: bool, single: SingleThreaded) -> io::Result<()> {
    match trial {
        Trial::Users if ordinary => userns::become_root(single),
        Trial::Users => Ok(()),
        Trial::Mounts => userns::new_mounts(),
        Trial::Overlay => Ok(fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map(drop)?),
        Trial::Network => outside::settle(None).map(drop),
        // Takes away what is not there: asks nftables for no more than to be there.
        Trial::Firewall => firewall::remove("doctor").map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            io::Error::other(format!("{error}{}", cause.unwrap_or_default()))
        }),
    }
}

fn engine(probed: &Probed) -> Finding {
    let what = "namespaces, overlay and nftables";
    let Some((trial, error)) = &probed.failed else {
        let whose = if probed.ordinary { "usable by this user" } else { "usable" };
        return ok(what, whose);
    };
    let mend = match trial {
        Trial::Users | Trial::Mounts => namespaces_switch(),
        Trial::Overlay => "sudo modprobe overlay".to_owned(),
        Trial::Network => "use a kernel with CONFIG_NET_NS".to_owned(),
        Trial::Firewall => "sudo modprobe nf_tables".to_owned(),
    };
    lack(what, format!("{trial:?}: {error}"), "containers cannot be started", mend)
}

/// The setting that forbids user namespaces.
fn namespaces_switch() -> String {
    let value = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let switches = [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user.max_user_namespaces", "0", "15000"),
    ];
    let off = switches
        .iter()
        .find(|(name, off, _)| value(&format!("/proc/sys/{}", name.replace('.', "/"))).as_deref() == Some(*off));
    match off {
        Some((name, _, on)) => format!("sudo sysctl -w {name}={on}"),
        None => "use a kernel with CONFIG_USER_NS, outside of a sandbox that forbids user namespaces".to_owned(),
    }
}

/// Those of others.
fn firewalls() -> Vec<Finding> {
    let what = "firewall";
    let barriers = match foreign::barriers() {
        Ok(barriers) => barriers,
        // What nftables lacks is told with the engine.
        Err(_) => return Vec::new(),
    };
    let cost =
        "containers reach nothing but the containers of their networks, and published ports are reached from nowhere";
    let finding = |barrier: foreign::Barrier| match barrier.shut {
        None => ok(what, format!("{} drops what is forwarded; networks are let through", barrier.chain)),
        Some((why, mend)) => lack(what, format!("{} drops what is forwarded: {why}", barrier.chain), cost, mend),
    };
    if barriers.is_empty() {
        return vec![ok(what, "none drops what is forwarded")];
    }
    barriers.into_iter().map(finding).collect()
}

/// Networks that were there before a route of the host, a VPN's for example.
fn hidden_networks(roots: &Roots) -> Vec<Finding> {
    // Records that cannot be read are what the commands about them tell.
    let records = Networks::new(roots.data.join("networks")).list().unwrap_or_default();
    let clashes = records.iter().filter(|record| record.ready).flat_map(|record| {
        let project = record.project.clone();
        routes::clashes(record).unwrap_or_default().into_iter().map(move |clash| (project.clone(), clash))
    });
    let cost = "containers do not reach what the route leads to, or the host does not reach the containers";
    let mend = |project| format!("rcompose -p {project} down, then up; or set `ipam.config.subnet`");
    clashes.map(|(project, clash)| note(lack("networks", clash, cost, mend(project)))).collect()
}

const UNIFIED: &str = "/sys/fs/cgroup/cgroup.controllers";

fn hierarchies() -> Finding {
    let what = "control groups";
    if let Ok(controllers) = fs::read_to_string(UNIFIED) {
        return ok(what, format!("version 2: {}", controllers.trim()));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup")) {
        return ok(what, "version 1");
    }
    lack(what, "not mounted", "containers cannot be started", "sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup")
}

fn delegation(System { user, uid, .. }: &System) -> Finding {
    let what = "control groups";
    let cost = "limits (`mem_limit`, `cpus`, `pids_limit` and others) are not applied, and `pause` does not work";
    if !Path::new(UNIFIED).exists() {
        let mend = "boot with `systemd.unified_cgroup_hierarchy=1` on the kernel's command line";
        return lack(what, "version 1, which is root's alone", cost, mend);
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    if !runtime.is_some_and(|folder| folder.join("systemd/private").exists()) {
        let mend = format!("sudo loginctl enable-linger {user}, then log in anew (not with `su`)");
        return lack(what, "no systemd of this user's to ask", cost, mend);
    }
    if userns::program("systemd-run").is_none() {
        return lack(what, "systemd-run is not installed", cost, "install systemd's programs");
    }
    match scope::controllers() {
        Ok(given) => {
            let service = format!("/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers");
            controllers(&given, &fs::read_to_string(service).unwrap_or_default(), *uid)
        }
        Err(error) => {
            let mend = format!("sudo systemctl restart user@{uid} (it ends what this user's systemd runs)");
            lack(what, format!("no scope can be made: {error}"), cost, mend)
        }
    }
}

/// `given` are the controllers of a scope that is made now, `service` those of the user's systemd, which hands on what it had when
/// it was started: it goes on over log-outs when it lingers.
fn controllers(given: &str, service: &str, uid: u32) -> Finding {
    let what = "control groups";
    let has = |list: &str, name: &str| list.split_whitespace().any(|one| one == name);
    let missing: Vec<&str> =
        ["cpu", "cpuset", "io", "memory", "pids"].into_iter().filter(|name| !has(given, name)).collect();
    let found = format!("systemd gives this user: {}", given.trim());
    if missing.is_empty() {
        return ok(what, found);
    }
    let restart = format!("sudo systemctl restart user@{uid} (it ends what this user's systemd runs)");
    let mend = if missing.iter().all(|name| has(service, name)) {
        restart
    } else {
        format!(
            "printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo install -D -m 644 /dev/stdin \
             /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload && {restart}"
        )
    };
    let cost = format!("limits of {} are not applied", missing.join(", "));
    let finding = lack(what, found, &cost, mend);
    if ["cpu", "memory", "pids"].iter().any(|needed| missing.contains(needed)) { finding } else { note(finding) }
}

fn way_out(system: &System) -> Finding {
    let what = "way out";
    let cost = "containers reach each other and are reached through published ports, but cannot reach the outside";
    let installed = Program::installed();
    if installed.is_empty() {
        return lack(what, "neither pasta nor slirp4netns is installed", cost, system.install(["passt"; 5]));
    }
    let names = installed.iter().map(|program| match program {
        Program::Pasta(path) | Program::Slirp(path) => path.display().to_string(),
    });
    let names = names.collect::<Vec<_>>().join(", ");
    match uplink::check_tap() {
        Ok(()) => ok(what, names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            lack(what, format!("{names}, but no `/dev/net/tun`"), cost, "sudo modprobe tun")
        }
        Err(error) => lack(what, format!("{names}, but `/dev/net/tun`: {error}"), cost, "sudo chmod 666 /dev/net/tun"),
    }
}

fn ports() -> Finding {
    let start = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    let first: u16 = start.trim().parse().unwrap_or(1024);
    let found = format!("from {first} on");
    if first <= 80 {
        return ok("published ports", found);
    }
    let cost = format!("ports below {first} cannot be published");
    note(lack("published ports", found, &cost, "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80"))
}

/// Nothing to say where there is no SELinux.
fn apparmor(system: &System) -> Option<Finding> {
    let what = "AppArmor";
    if !apparmor::is_enabled() {
        return None;
    }
    if apparmor::has_parser() {
        return Some(ok(what, format!("containers run under `{}`", apparmor::DEFAULT)));
    }
    let packages = ["apparmor", "apparmor-parser", "apparmor", "apparmor-parser", "apparmor"];
    let cost = "containers run without a profile";
    Some(note(lack(what, "`apparmor_parser` is not installed", cost, system.install(packages))))
}

fn selinux(system: &System) -> Option<Finding> {
    let what = "SELinux";
    let mode = if selinux::is_enforcing() { "enforcing" } else { "permissive" };
    match Policy::of_host() {
        Err(Absent::Disabled) => None,
        Err(Absent::TurnedOff) => Some(ok(
            what,
            format!("{mode}, without labels for containers (`selinux-enabled` in `/etc/docker/daemon.json`)"),
        )),
        Err(Absent::NoTypes) => {
            let packages =
                ["selinux-policy-default", "container-selinux", "refpolicy-arch", "container-selinux", "refpolicy"];
            let cost = "containers are not confined by SELinux, and `z` and `Z` of volumes have no effect";
            let found = format!("{mode}, but its policy has nothing for containers");
            Some(note(lack(what, found, cost, system.install(packages))))
        }
        Ok(policy) => {
            let found = format!("{mode}, containers run as {}", policy.kind());
            if policy.shares_new_files() {
                return Some(ok(what, found));
            }
            let found = format!("{found}, but its policy has no default range for new files");
            let cost = "files that one container makes in a volume are closed to the others, also with `z`";
            let mend = "echo '(defaultrange (file dir lnk_file fifo_file sock_file) target low)' > shared-files.cil && \
                        sudo semodule -i shared-files.cil";
            Some(note(lack(what, found, cost, mend)))
        }
    }
}

/// Whether containers outlive the last log-out, where systemd would end them.
fn lingering(System { user, .. }: &System) -> Option<Finding> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let what = "after log-out";
    if Path::new("/var/lib/systemd/linger").join(user).exists() {
        return Some(ok(what, "this user's processes go on"));
    }
    let found = "systemd ends this user's processes";
    Some(note(lack(what, found, "containers end with the last log-out", format!("sudo loginctl enable-linger {user}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_scope_gets_counts_and_not_what_systemd_could_give() {
        let all = "cpuset cpu io memory pids\n";
        assert_eq!(controllers(all, all, 1000).state, State::Ok);
        let few = controllers("cpu memory pids\n", "cpu memory pids\n", 1000);
        assert_eq!((few.state, few.cost.as_deref()), (State::Note, Some("limits of cpuset, io are not applied")));
        assert!(few.mend.unwrap().contains("delegate.conf"));
        // The user's systemd was started before it was given them.
        let old = controllers("cpu memory pids\n", all, 1000);
        assert_eq!(old.state, State::Note);
        assert!(old.mend.unwrap().starts_with("sudo systemctl restart user@1000 "));
        assert_eq!(controllers("pids\n", all, 1000).state, State::Lack);
    }
}
