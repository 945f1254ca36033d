//! User namespaces: how an ordinary user becomes root of mounts, networks and processes of their own.
//!
//! Who is root already stays as is. Everything else asks the kernel where it is ([`Ids::of_this_process`],
//! [`owns`]), so that nothing has to be told, and root inside somebody else's container is treated as what it is.
//! See user_namespaces(7), subuid(5), newuidmap(1).
#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use super::process::{self, SingleThreaded};

/// The control group below one that was given to a user, for the processes that are no container's.
pub const OWN_GROUP: &str = "rcompose";

/// Which user and group ids this process can give to files and take on itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// The machine's: not in a user namespace.
    Host,
    /// A user namespace with ranges of its own: files can belong to many users, but not be device nodes.
    Mapped,
    /// A user namespace that has one user: itself, root.
    Single,
}

/// What [`Ids::of_this_process`] has found, counted from 1; 0: nobody has asked in this user namespace.
static KNOWN: AtomicU8 = AtomicU8::new(0);

impl Ids {
    /// Asks the kernel, once: a child that has gone on into another mount namespace knows what its parent did.
    /// Unreadable: as if there were no namespaces, and the system call that needs one says so.
    pub fn of_this_process() -> Self {
        static ALL: [Ids; 3] = [Ids::Host, Ids::Mapped, Ids::Single];
        if let Some(known) = usize::from(KNOWN.load(Ordering::Relaxed)).checked_sub(1).and_then(|at| ALL.get(at)) {
            return *known;
        }
        let Ok(map) = fs::read_to_string("/proc/self/uid_map") else { return Self::Host };
        let ids = Self::parse(&map);
        let at = ALL.iter().position(|one| *one == ids).unwrap_or_default();
        KNOWN.store(u8::try_from(at + 1).unwrap_or_default(), Ordering::Relaxed);
        ids
    }

    fn parse(uid_map: &str) -> Self {
        let lines =
            || uid_map.lines().map(|line| line.split_whitespace().filter_map(|field| field.parse::<u64>().ok()));
        let whole = u64::from(u32::MAX);
        let counts: Vec<u64> = lines().filter_map(|mut fields| fields.nth(2)).collect();
        let first = lines().next().map(Iterator::collect::<Vec<_>>);
        match counts.iter().sum() {
            0 | 1 => Self::Single,
            count if count >= whole && first.is_some_and(|first| first.starts_with(&[0, 0])) => Self::Host,
            _ => Self::Mapped,
        }
    }
}

/// The highest group id that this process's user namespace has, when it has all below it.
pub fn highest_gid() -> u32 {
    let map = fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    let end = |line: &str| {
        let mut fields = line.split_whitespace().filter_map(|field| field.parse::<u64>().ok());
        Some(fields.next()? + fields.nth(1)?)
    };
    let end = map.lines().filter_map(end).max().unwrap_or(1);
    u32::try_from(end.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// Whether a namespace of this process (`net`, `mnt` …) belongs to the user namespace it is in: only then may its root
/// change things there. A kernel that cannot tell is taken at root's word.
///
/// # Errors
/// When /proc cannot be read.
pub fn owns(kind: &str) -> io::Result<bool> {
    /// `_IO(0xb7, 0x1)` of `<linux/nsfs.h>`, see ioctl_nsfs(2).
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    let namespace = File::open(format!("/proc/thread-self/ns/{kind}"))?;
    // SAFETY: the request takes no argument; what it returns is a new descriptor or -1.
    let owner = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS as _) };
    if owner < 0 {
        // EPERM: it lies outside of what this process can see. ENOTTY: the kernel is too old to tell.
        return Ok(io::Error::last_os_error().raw_os_error() != Some(libc::EPERM));
    }
    // SAFETY: the kernel has just made this descriptor, which nothing else owns.
    let owner = File::from(unsafe { OwnedFd::from_raw_fd(owner) });
    let ours = fs::metadata("/proc/thread-self/ns/user")?;
    let owner = owner.metadata()?;
    Ok((owner.dev(), owner.ino()) == (ours.dev(), ours.ino()))
}

/// A stretch of subordinate ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: u32,
    pub count: u32,
}

/// The ranges that `/etc/subuid` or `/etc/subgid` gives to a user, by name or number.
pub fn ranges(text: &str, uid: u32, name: Option<&str>) -> Vec<Range> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let who = fields.next()?;
        let ours = name == Some(who) || who.parse() == Ok(uid);
        let range = Range { first: fields.next()?.parse().ok()?, count: fields.next()?.parse().ok()? };
        (ours && range.count > 0).then_some(range)
    };
    text.lines().filter_map(range).collect()
}

/// The name of a user in `/etc/passwd`.
pub fn user_name(uid: u32) -> Option<String> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    found.map(str::to_owned)
}

/// What an ordinary user has to map ids with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub uids: Vec<Range>,
    pub gids: Vec<Range>,
    /// The set-user-id programs `newuidmap` and `newgidmap`.
    pub helpers: Option<[PathBuf; 2]>,
}

impl Mapping {
    /// Of the user that this process runs as.
    pub fn of_this_user() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let name = user_name(uid);
        let read = |path: &str| ranges(&fs::read_to_string(path).unwrap_or_default(), uid, name.as_deref());
        let helpers = program("newuidmap").zip(program("newgidmap")).map(|(uids, gids)| [uids, gids]);
        Self { uids: read("/etc/subuid"), gids: read("/etc/subgid"), helpers }
    }

    /// The programs to run, when there is more than the user's own id to map.
    fn many(&self) -> Option<&[PathBuf; 2]> {
        self.helpers.as_ref().filter(|_| !self.uids.is_empty() && !self.gids.is_empty())
    }
}

/// Finds a program by the `PATH` of this process, or where administrators' programs lie.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from));
    folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Makes this process root of a new user namespace: id 0 is the user, 1 and up are the user's subordinate ids as far as
/// there are any. Files it makes as id 0 are the user's.
///
/// # Errors
/// The kernel does not let users make namespaces, or the ids cannot be mapped.
pub fn become_root(single: SingleThreaded) -> io::Result<()> {
    KNOWN.store(0, Ordering::Relaxed);
    let mapping = Mapping::of_this_user();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let Some(helpers) = mapping.many() else {
        unshare(libc::CLONE_NEWUSER)?;
        return map_self(uid, gid);
    };
    // Only a process that stays outside can map more ids than the caller's own.
    let pid = std::process::id();
    let (mut ready, mut unshared) = io::pipe()?;
    let (mut answer, mut mapped) = io::pipe()?;
    let Some(child) = process::fork(single)? else {
        drop((unshared, answer));
        let done = ready.read_exact(&mut [0]).and_then(|()| {
            map(&helpers[0], pid, uid, &mapping.uids)?;
            map(&helpers[1], pid, gid, &mapping.gids)
        });
        let text = done.err().map(|error| error.to_string()).unwrap_or_default();
        // Nobody else could be told.
        let _ = mapped.write_all(text.as_bytes());
        process::exit_now(0);
    };
    drop((ready, mapped));
    let entered = unshare(libc::CLONE_NEWUSER).and_then(|()| unshared.write_all(b"u"));
    drop(unshared);
    let mut failure = String::new();
    let answered = answer.read_to_string(&mut failure);
    let _ = rustix::process::waitpid(rustix::process::Pid::from_raw(child), rustix::process::WaitOptions::empty());
    entered?;
    answered?;
    if failure.is_empty() { Ok(()) } else { Err(io::Error::other(failure)) }
}

/// A new user namespace with these mappings (the lines of `uid_map` and `gid_map`), in which nobody is.
///
/// # Errors
/// `EPERM`, and `EINVAL` for mappings that are none.
pub fn with_mapping(users: &str, groups: &str) -> io::Result<File> {
    let holder = process::clone_idle(libc::CLONE_NEWUSER)?;
    let mapped = fs::write(format!("/proc/{}/uid_map", holder.pid), users)
        .and_then(|()| fs::write(format!("/proc/{}/gid_map", holder.pid), groups))
        .and_then(|()| File::open(format!("/proc/{}/ns/user", holder.pid)));
    process::send_signal(&holder.pidfd, libc::SIGKILL)?;
    rustix::process::waitpid(rustix::process::Pid::from_raw(holder.pid), rustix::process::WaitOptions::empty())?;
    mapped
}

/// The user namespace that a process lives in.
///
/// # Errors
/// The process is gone, or another user's.
pub fn of(pid: i32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/ns/user"))
}

/// Joins a user namespace of this user's, as its root.
///
/// # Errors
/// It is not there, or another user's.
pub fn join(namespace: &Path) -> io::Result<()> {
    KNOWN.store(0, Ordering::Relaxed);
    process::enter_namespace(File::open(namespace)?, libc::CLONE_NEWUSER)
}

/// Takes a mount namespace of its own: a copy of the present one.
///
/// # Errors
/// `EPERM`.
pub fn new_mounts() -> io::Result<()> {
    unshare(libc::CLONE_NEWNS)
}

fn unshare(flag: i32) -> io::Result<()> {
    // SAFETY: no memory is passed; the caller's other values stay valid in every new namespace.
    let result = unsafe { libc::unshare(flag) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The user's own ids alone, which needs no privilege but to give up setgroups(2).
fn map_self(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn map(helper: &Path, pid: u32, own: u32, ranges: &[Range]) -> io::Result<()> {
    let mut command = Command::new(helper);
    command.arg(pid.to_string()).args(["0".to_owned(), own.to_string(), "1".to_owned()]);
    let mut inside = 1_u32;
    for Range { first, count } in ranges {
        command.args([inside, *first, *count].map(|number| number.to_string()));
        inside = inside.saturating_add(*count);
    }
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("`{}` failed: {said}", helper.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_maps_are_told_apart() {
        assert_eq!(Ids::parse("         0          0 4294967295\n"), Ids::Host);
        assert_eq!(Ids::parse("0 1000 1\n"), Ids::Single);
        assert_eq!(Ids::parse("0 1000 1\n1 100000 65536\n"), Ids::Mapped);
        assert_eq!(Ids::parse(""), Ids::Single);
    }

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "# comment\nann:100000:65536\nbob:200000:10\n1000:300000:5\nann:bad:1\nann:400000:0\n";
        let range = |first, count| Range { first, count };
        assert_eq!(ranges(text, 1000, Some("ann")), [range(100_000, 65536), range(300_000, 5)]);
        assert_eq!(ranges(text, 7, Some("bob")), [range(200_000, 10)]);
        assert!(ranges(text, 7, None).is_empty());
    }
}
