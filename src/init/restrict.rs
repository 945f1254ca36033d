//! What takes rights away: identity, capabilities, limits; and sysctls.

use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{self, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::process::Resource;
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use super::Rlimit;
use super::fault::{At, Fault, fault};

/// Magic of procfs (`<linux/magic.h>`).
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// The host's /proc, seen to be procfs: what is written below it never depends on the container's files.
pub(super) fn host_proc() -> Result<OwnedFd, Fault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = fs::open("/proc", flags, Mode::empty()).at("/proc")?;
    if u64::try_from(fs::fstatfs(&proc).at("/proc")?.f_type) != Ok(PROC_SUPER_MAGIC) {
        return fault(libc::EINVAL, "/proc is not procfs");
    }
    Ok(proc)
}

pub(super) fn sysctl(proc: &OwnedFd, name: &str, value: &str) -> Result<(), Fault> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let path = format!("sys/{}", name.replace('.', "/"));
    let file = fs::openat2(proc, &*path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve).at(name)?;
    std::fs::File::from(file).write_all(value.as_bytes()).at(name)
}

pub(super) fn oom_score(proc: &OwnedFd, score: i32) -> Result<(), Fault> {
    let file = fs::openat(proc, "self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    std::fs::File::from(file.at("oom_score_adj")?).write_all(score.to_string().as_bytes()).at("oom_score_adj")
}

/// Takes effect with the next `execve` (AppArmor's interface to tasks, in proc(5) as `attr/exec`).
pub(super) fn apparmor(proc: &OwnedFd, profile: &str) -> Result<(), Fault> {
    let open = |path: &str| fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    // Before Linux 5.8 the file was shared with other security modules.
    let file = open("thread-self/attr/apparmor/exec").or_else(|_| open("thread-self/attr/exec"));
    let mut file = std::fs::File::from(file.at("AppArmor")?);
    file.write_all(format!("exec {profile}").as_bytes()).at(format!("AppArmor profile `{profile}`"))
}

/// Takes effect with the next `execve` (SELinux's interface to tasks, in proc(5)), and at once for keyrings that are made.
pub(super) fn process_label(proc: &OwnedFd, label: &str) -> Result<(), Fault> {
    let set = |attribute| write_attribute(proc, attribute, label).at(format!("SELinux label `{label}`"));
    set("keycreate").and_then(|()| set("exec"))
}

/// The next `execve` leaves the label as it is.
pub(super) fn forget_process_label(proc: &OwnedFd) -> std::io::Result<()> {
    write_attribute(proc, "exec", "\n")
}

fn write_attribute(proc: &OwnedFd, name: &str, value: &str) -> std::io::Result<()> {
    let path = format!("thread-self/attr/{name}");
    let file = fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    std::fs::File::from(file).write_all(value.as_bytes())
}

pub(super) fn rlimit(resource: Rlimit, soft: u64, hard: u64) -> Result<(), Fault> {
    let kind = match resource {
        Rlimit::As => Resource::As,
        Rlimit::Core => Resource::Core,
        Rlimit::Cpu => Resource::Cpu,
        Rlimit::Data => Resource::Data,
        Rlimit::Fsize => Resource::Fsize,
        Rlimit::Locks => Resource::Locks,
        Rlimit::Memlock => Resource::Memlock,
        Rlimit::Msgqueue => Resource::Msgqueue,
        Rlimit::Nice => Resource::Nice,
        Rlimit::Nofile => Resource::Nofile,
        Rlimit::Nproc => Resource::Nproc,
        Rlimit::Rss => Resource::Rss,
        Rlimit::Rtprio => Resource::Rtprio,
        Rlimit::Rttime => Resource::Rttime,
        Rlimit::Sigpending => Resource::Sigpending,
        Rlimit::Stack => Resource::Stack,
    };
    let limit = |value| (value != u64::MAX).then_some(value);
    let new = rustix::process::Rlimit { current: limit(soft), maximum: limit(hard) };
    rustix::process::setrlimit(kind, new).at(format!("{resource:?}"))
}

pub(super) fn groups(proc: &OwnedFd, groups: &[u32]) -> Result<(), Fault> {
    let groups: Vec<Gid> = groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    match thread::set_thread_groups(&groups) {
        // A namespace of one user has no other groups to give or to take.
        Err(Errno::PERM) if are_groups_fixed(proc) => Ok(()),
        set => set.at("groups"),
    }
}

/// Whether nobody in this user namespace can change his groups: it was made by a user without privileges over them.
fn are_groups_fixed(proc: &OwnedFd) -> bool {
    let file = fs::openat(proc, "self/setgroups", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let text = file.ok().and_then(|file| std::io::read_to_string(std::fs::File::from(file)).ok());
    text.is_some_and(|text| text.trim() == "deny")
}

/// The root of the user namespace that this process has just come into.
pub(super) fn become_root() -> Result<(), Fault> {
    match thread::set_thread_groups(&[]) {
        // A user who may not drop groups has none that this namespace knows.
        Ok(()) | Err(Errno::PERM) => {}
        Err(error) => return Err(error).at("groups"),
    }
    thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).at("group 0 of the user namespace")?;
    thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).at("user 0 of the user namespace")
}

/// The streams become the user's, so that it may open /dev/stdout again; then it becomes that user.
pub(super) fn identity(uid: u32, gid: u32) -> Result<(), Fault> {
    // To the kernel the last number means the user that this process is: root.
    if [uid, gid].contains(&u32::MAX) {
        return fault(libc::EINVAL, "4294967295 is the number of nobody");
    }
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for stream in streams {
        let status = fs::fstat(stream).at("standard streams")?;
        // /dev/null is the host's.
        let device =
            FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice && fs::major(status.st_rdev) == 1;
        if !device && status.st_uid != uid {
            match fs::fchown(stream, Some(user), None) {
                // A stream that the caller chose, and that is not ours to give away.
                Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::ROFS) => {}
                Err(error) => return Err(error).at("standard streams"),
            }
        }
    }
    thread::set_keep_capabilities(true).at("keeping capabilities")?;
    thread::set_thread_res_gid(group, group, group).at(format!("group {gid}"))?;
    thread::set_thread_res_uid(user, user, user).at(format!("user {uid}"))
}

/// The masks of [`super::Step::Capabilities`].
pub(super) struct Masks {
    pub(super) bounding: u64,
    pub(super) permitted: u64,
    pub(super) effective: u64,
    pub(super) inheritable: u64,
    pub(super) ambient: u64,
}

/// Changing the user cleared the effective set. Returns what it is now.
pub(super) fn regain_capabilities() -> Result<CapabilitySet, Fault> {
    let mut now = thread::capabilities(None).at("capget")?;
    now.effective = now.permitted;
    thread::set_capabilities(None, now).at("capset")?;
    Ok(now.effective)
}

pub(super) fn capabilities(masks: &Masks) -> Result<(), Fault> {
    let set = CapabilitySet::from_bits_retain;
    // Dropping from the bounding set needs CAP_SETPCAP.
    let held = regain_capabilities()?;
    for number in 0..64 {
        let one = set(1 << number);
        if masks.bounding & (1 << number) != 0 {
            continue;
        }
        match thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(Errno::INVAL) => break,
            // Without CAP_SETPCAP only what is in the set is missed.
            Err(error) => match thread::capability_is_in_bounding_set(one) {
                Ok(true) => return Err(error).at(format!("capability {number}")),
                Ok(false) => {}
                Err(_) => break,
            },
        }
    }
    // A kernel that does not have a capability, or a parent that lacks it, cannot give it.
    let sets = CapabilitySets {
        effective: set(masks.effective) & held,
        permitted: set(masks.permitted) & held,
        inheritable: set(masks.inheritable) & held,
    };
    thread::set_capabilities(None, sets).at("capset")?;
    thread::clear_ambient_capability_set().at("ambient capabilities")?;
    for number in (0..64).filter(|number| masks.ambient & held.bits() & (1 << number) != 0) {
        thread::configure_capability_in_ambient_set(set(1 << number), true)
            .at(format!("ambient capability {number}"))?;
    }
    Ok(())
}
