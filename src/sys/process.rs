//! Making, watching and ending processes.
#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use rustix::process::{Pid, WaitOptions};

/// Proof that this process had one thread when it was asked.
///
/// Who holds one starts no threads: only then may a forked child run ordinary code (no other thread can hold a lock,
/// such as the allocator's, at the moment of the fork).
#[derive(Clone, Copy, Debug)]
pub struct SingleThreaded(());

impl SingleThreaded {
    /// # Errors
    /// When /proc cannot be read, or this process has more than one thread.
    pub fn check() -> io::Result<Self> {
        if fs::read_dir("/proc/self/task")?.count() == 1 {
            Ok(Self(()))
        } else {
            Err(io::Error::other("this process has several threads"))
        }
    }
}

/// Bit 33 of the flags; the constant of the `libc` crate is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// A child that was made, and a descriptor that names it.
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// `clone3(2)` as a fork: the child runs `body`, with every descriptor closed but 0 to 2 and those in `keep`,
/// and ends with the status it returns.
///
/// `namespaces` are `CLONE_NEW*` flags; `cgroup` is a cgroup2 directory for the child to be born in.
///
/// # Errors
/// Whatever `clone3(2)` says; the child then does not exist.
pub fn clone_child(
    _: SingleThreaded,
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
    keep: &[RawFd],
    body: impl FnOnce() -> i32,
) -> io::Result<Child> {
    match clone_process(namespaces, cgroup, libc::SIGCHLD)? {
        Some(child) => Ok(child),
        None => {
            close_all_but(keep);
            exit_now(body())
        }
    }
}

/// [`clone_child`] from within namespaces that this process cannot come back from: a process in between goes there with
/// `enter`, and has its child be this one's.
///
/// # Errors
/// As there, and those of `enter`.
pub fn clone_child_from(
    single: SingleThreaded,
    enter: impl FnOnce() -> io::Result<()>,
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
    keep: &[RawFd],
    body: impl FnOnce() -> i32,
) -> io::Result<Child> {
    let (mut answer, mut tell) = io::pipe()?;
    let Some(between) = fork(single)? else {
        let flags = namespaces | u64::from(libc::CLONE_PARENT.unsigned_abs());
        let made = enter().and_then(|()| clone_process(flags, cgroup, 0));
        let told = match made {
            Ok(None) => {
                close_all_but(keep);
                exit_now(body())
            }
            Ok(Some(child)) => child.pid,
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        };
        // When nobody reads it, nobody is left.
        let _ = tell.write_all(&told.to_ne_bytes());
        exit_now(0);
    };
    drop(tell);
    let mut told = [0; 4];
    let answered = answer.read_exact(&mut told);
    let _ = rustix::process::waitpid(Pid::from_raw(between), WaitOptions::empty());
    answered?;
    let pid = i32::from_ne_bytes(told);
    if pid < 0 {
        return Err(io::Error::from_raw_os_error(-pid));
    }
    // Ours, and not reaped: the number is still its own.
    let name = Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Child { pid, pidfd: rustix::process::pidfd_open(name, rustix::process::PidfdFlags::empty())? })
}

/// A child in new namespaces that does nothing until it is killed, and does not outlive this thread.
///
/// # Errors
/// Whatever `clone3(2)` says.
pub fn clone_idle(namespaces: i32) -> io::Result<Child> {
    match clone_process(u64::from(namespaces.unsigned_abs()), None, libc::SIGCHLD)? {
        Some(child) => Ok(child),
        // Nothing but system calls: other threads of the parent may have held locks.
        None => loop {
            // SAFETY: numbers only.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                libc::pause();
            }
        },
    }
}

/// `clone3(2)` as a fork; `None` in the child.
fn clone_process(namespaces: u64, cgroup: Option<BorrowedFd<'_>>, exit_signal: i32) -> io::Result<Option<Child>> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is made of integers, for which zero is a value (and the kernel's default for every field).
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = namespaces | libc::CLONE_PIDFD as u64;
    arguments.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    arguments.exit_signal = exit_signal as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and with no stack given this is a fork: the child has its own copy of all memory and goes on
    // from here. The callers' `SingleThreaded` says that no other thread existed whose locks could be held in that copy, or their
    // child takes none. The kernel reads `arguments` and writes `pidfd`, both live on this stack, during the call only.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&arguments), size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        // SAFETY: CLONE_PIDFD made the kernel store a new descriptor in `pidfd`, which nothing else owns.
        pid => Ok(Some(Child { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })),
    }
}

/// Leaves a copy of every descriptor to a child that only closes them, so that closing one here is not its last closing. For
/// those that the kernel takes milliseconds to close, while somebody waits for this process to end. Nobody waits for the child.
pub fn close_aside() {
    // SAFETY: the child, which has one thread, calls nothing but close_range(2) and _exit(2); both are async-signal-safe.
    unsafe {
        if libc::fork() == 0 {
            // Whoever reads our output waits for its end, too.
            libc::close_range(0, 2, 0);
            libc::close_range(3, libc::c_uint::MAX, 0);
            libc::_exit(0);
        }
    }
}

/// Has the number of descriptor `old` name what `new` names; what it named is closed.
///
/// # Errors
/// What `dup3(2)` says.
pub fn replace_descriptor(old: impl AsFd, new: impl AsFd) -> io::Result<()> {
    // SAFETY: numbers only; whoever owns `old` goes on owning an open descriptor.
    let result = unsafe { libc::dup3(new.as_fd().as_raw_fd(), old.as_fd().as_raw_fd(), libc::O_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Forks; `Some(pid)` in the parent, `None` in the child.
///
/// # Errors
/// Whatever `fork(2)` says.
pub fn fork(_: SingleThreaded) -> io::Result<Option<i32>> {
    // SAFETY: `SingleThreaded` says that no other thread can hold a lock that the child would wait for.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// Makes a child of this process's parent, with a copy of this one's memory: `Some(pid)` in this process, `None` in the new
/// one. By `clone(2)`, as filters of system calls cannot look into `clone3(2)` and refuse it.
///
/// # Errors
/// What the kernel says; a filter may refuse it.
pub fn clone_sibling(_: SingleThreaded) -> io::Result<Option<i32>> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with no stack given this is a fork, and `SingleThreaded` says that no other thread's locks
    // can be held in the copy. The pointers are null and of no use without the flags that would name them.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid as i32)),
    }
}

/// Forks, with the table of descriptors in common: what one of the two opens or closes the other one has or has no more.
/// `Some(pid)` in the parent, `None` in the child, which must end with [`exit_now`] and drop none that it shares.
///
/// # Errors
/// What the kernel says.
pub fn fork_with_descriptors(_: SingleThreaded) -> io::Result<Option<i32>> {
    let flags = libc::c_long::from(libc::CLONE_FILES | libc::SIGCHLD);
    // SAFETY: as in `clone_sibling`; numbers only.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid as i32)),
    }
}

/// Closes what a program was started with besides 0 to 2 and `keep`. Only before it has opened anything else, or where what
/// it owns is never used again.
pub fn close_inherited(keep: &[RawFd]) {
    close_all_but(keep);
}

/// Closes every descriptor from 3 on that is not in `keep`. Only for a fresh child that never returns to code owning the others.
fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().filter_map(|&fd| u32::try_from(fd).ok()).filter(|&fd| fd > 2).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep {
        if fd > from {
            close_range(from, fd - 1, 0);
        }
        from = fd + 1;
    }
    close_range(from, u32::MAX, 0);
}

/// Marks every descriptor from `first` on to be closed on exec.
pub fn close_on_exec(first: u32) {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
}

/// Closes every descriptor from 3 on, in a process that uses none of them any more and never returns.
pub fn close_everything() {
    close_range(3, u32::MAX, 0);
}

fn close_range(first: u32, last: u32, flags: u32) {
    // SAFETY: no memory is passed. The callers are children after a fork whose owning values are never used or dropped again.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } == 0 {
        return;
    }
    // The range is ordered and the flag is known since Linux 5.11: the container's own filter forbids it.
    let highest = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let highest = u32::try_from(highest.clamp(1 << 16, 1 << 20)).unwrap_or(1 << 20);
    for descriptor in first..=last.min(highest) {
        let descriptor = descriptor.cast_signed();
        // SAFETY: as above.
        unsafe {
            if flags == libc::CLOSE_RANGE_CLOEXEC {
                libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
            } else {
                libc::close(descriptor);
            }
        }
    }
}

/// Ends the process at once, running no destructors and flushing nothing.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes a number and ends the process.
    unsafe { libc::_exit(code) }
}

/// Gives every signal its default action and unblocks all of them.
pub fn reset_signals() {
    const HIGHEST: libc::c_long = 64;
    /// `struct sigaction` of the kernel (handler, flags, restorer, mask), all zero: SIG_DFL.
    const DEFAULT: [u64; 4] = [0; 4];
    let set_size = size_of::<u64>();
    for signal in 1..=HIGHEST {
        // SAFETY: the kernel reads one `struct sigaction` (32 bytes or fewer) from the static and writes nothing. No handler is
        // installed, so none can run at a bad moment. Not through the C library, which refuses the two signals it keeps for
        // itself. KILL and STOP are refused by the kernel, rightly.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), std::ptr::null_mut::<u64>(), set_size);
        }
    }
    let none = 0_u64;
    // SAFETY: the kernel reads one mask of the given size, which lives through the call, and writes nothing.
    unsafe {
        let old = std::ptr::null_mut::<u64>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, std::ptr::from_ref(&none), old, set_size);
    }
}

/// Sends any signal number (`pidfd_send_signal(2)`).
///
/// # Errors
/// `ESRCH` when the process has ended, `EINVAL` for a number that is none.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means that of kill(2); nothing else is a pointer.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, none, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves this process into the namespaces that `namespace` names (`setns(2)`); `kind` is one `CLONE_NEW*` flag.
///
/// # Errors
/// `EINVAL` when it is of another kind, `EPERM`.
pub fn enter_namespace(namespace: impl AsFd, kind: i32) -> io::Result<()> {
    // SAFETY: no memory is passed; the file table is not shared, as there is one thread.
    let result = unsafe { libc::setns(namespace.as_fd().as_raw_fd(), kind) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether `namespace` is the one of that `kind` (its name below `/proc/PID/ns`) that this process is in.
///
/// # Errors
/// When /proc cannot be read.
pub fn is_in_namespace(namespace: impl AsFd, kind: &str) -> io::Result<bool> {
    let own = fs::metadata(format!("/proc/thread-self/ns/{kind}"))?;
    let other = rustix::fs::fstat(namespace)?;
    Ok((own.dev(), own.ino()) == (other.st_dev, other.st_ino))
}

/// Takes a new cgroup namespace whose root is where this process is now.
///
/// # Errors
/// `EPERM`.
pub fn new_cgroup_namespace() -> io::Result<()> {
    // SAFETY: no memory is passed and CLONE_NEWCGROUP shares or unshares none.
    let result = unsafe { libc::unshare(libc::CLONE_NEWCGROUP) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the children of this process in a new time namespace, whose offsets can be set until there is one.
///
/// # Errors
/// `EPERM`; `EINVAL` when the kernel has none.
pub fn new_time_namespace() -> io::Result<()> {
    // SAFETY: no memory is passed and CLONE_NEWTIME shares or unshares none.
    let result = unsafe { libc::unshare(libc::CLONE_NEWTIME) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Which file this process executes: device and inode. Two builds differ in it, also where one has taken the other's name.
///
/// # Errors
/// When /proc is not there.
pub fn program() -> io::Result<String> {
    let file = fs::metadata("/proc/self/exe")?;
    Ok(format!("{}:{}", file.dev(), file.ino()))
}

/// Field 22 of /proc/PID/stat, in clock ticks since boot; `None` when there is no such process.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&stat);
    // The name (field 2) may hold anything, also parentheses; the last one ends it.
    let (_, rest) = text.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

/// The exit status (as [`exit_code`]) of a process that has ended and is not reaped yet, from /proc/PID/stat; `None` when it
/// is anything else or belongs to another start time.
pub fn zombie_code(pid: i32, start_time: u64) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&stat);
    let (_, rest) = text.rsplit_once(") ")?;
    // Fields 3 (state), 22 (start time) and 52 (status as wait(2) has it), counted from the third.
    let fields: Vec<&str> = rest.trim_end().split(' ').collect();
    let ended = *fields.first()? == "Z" && fields.get(19)?.parse() == Ok(start_time);
    if ended { fields.get(49)?.parse().ok().map(exit_code) } else { None }
}

/// How a process ended, as a shell tells it: its exit status, or 128 + signal.
pub fn exit_code(wait_status: i32) -> i32 {
    if libc::WIFSIGNALED(wait_status) { 128 + libc::WTERMSIG(wait_status) } else { libc::WEXITSTATUS(wait_status) }
}

/// What `PIDFD_GET_INFO` knows of the end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As [`exit_code`].
    Code(i32),
    /// Not ended, or not reaped by its parent yet.
    NotYet,
    /// The kernel cannot tell (before 6.15).
    Unknown,
}

/// How the process of a pidfd ended, also when it was not our child.
pub fn how_ended(pidfd: impl AsFd) -> Ended {
    /// `struct pidfd_info` of `<linux/pidfd.h>`, first version.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    /// `_IOWR(0xFF, 11, struct pidfd_info)`
    const PIDFD_GET_INFO: libc::c_ulong = 0xC040_FF0B;
    let mut info = Info { mask: PIDFD_INFO_EXIT, ..Info::default() };
    // SAFETY: the request's size field (64) is the size of `info`, which is live, initialised and all the kernel writes to.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO as _, std::ptr::from_mut(&mut info)) };
    if result != 0 {
        // ESRCH: ended and reaped, and nothing was recorded. Anything else: the request is not known.
        return Ended::Unknown;
    }
    if info.mask & PIDFD_INFO_EXIT != 0 { Ended::Code(exit_code(info.exit_code)) } else { Ended::NotYet }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_start_time_is_known_and_a_missing_process_has_none() {
        assert!(start_time(std::process::id() as i32).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_time(i32::MAX), None);
    }

    #[test]
    fn wait_statuses_are_told_as_a_shell_does() {
        assert_eq!(exit_code(3 << 8), 3);
        assert_eq!(exit_code(libc::SIGKILL), 137);
    }
}
