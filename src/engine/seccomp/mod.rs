//! System call filters: Docker's default rules as data, profiles from files, and the compiler to BPF.

mod compile;
mod profile;
mod syscalls;

use oci_spec::runtime::Arch;
use oci_spec::runtime::LinuxSeccomp;
use oci_spec::runtime::LinuxSeccompAction as Action;
use oci_spec::runtime::LinuxSeccompArgBuilder;
use oci_spec::runtime::LinuxSeccompOperator as Operator;
use oci_spec::runtime::LinuxSyscall;

use crate::engine::capabilities::CapabilitySet;

pub use compile::compile;
pub use compile::flags;
pub use compile::notifies;
pub use profile::parse;

/// Why a filter could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("the seccomp profile is not valid JSON of the known form")]
    Syntax(#[source] serde_json::Error),
    #[error("`{0}` is not supported in seccomp profiles")]
    Unsupported(String),
    #[error("argument {0} of system call `{1}` does not exist; arguments count from 0 to 5")]
    Argument(usize, String),
    #[error("the seccomp rules cannot be expressed in a runtime specification")]
    Rules(#[from] oci_spec::OciSpecError),
    #[error("the seccomp profile is too large: {0} instructions, the kernel takes 4096")]
    TooLarge(usize),
}

/// Allowed whatever the capabilities are.
const ALWAYS: &str = "
    _llseek _newselect accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod
    chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
    eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark
    fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock
    fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex
    futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu
    getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32
    getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
    io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule
    landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
    listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier
    memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt
    mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
    mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep
    newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect
    poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv
    process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat
    readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat
    renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
    seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto
    set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl
    shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat
    stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate
    truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork
    vmsplice wait4 waitid waitpid write writev
";

/// Allowed in addition when the container has the capability.
const WITH_CAPABILITY: &[(&str, &str)] = &[
    ("BPF", "bpf"),
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("PERFMON", "perf_event_open"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname \
         sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYSLOG", "syslog"),
];

/// `personality(2)` values: Linux, Linux with 4 KiB-page or 32-bit-address quirks, and "only ask".
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// `CLONE_NEW*`: namespaces need `CAP_SYS_ADMIN`.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
const AF_VSOCK: u64 = 40;
const ENOSYS: u32 = 38;

/// What Docker 28 installs for a container whose bounding set is `capabilities`: everything not named fails with `EPERM`.
///
/// # Errors
/// None that can happen; the builder of the rules has a fallible signature.
pub fn default_profile(capabilities: CapabilitySet) -> Result<LinuxSeccomp, SeccompError> {
    let mut allowed: Vec<String> = ALWAYS.split_whitespace().map(str::to_owned).collect();
    for (capability, names) in WITH_CAPABILITY {
        if capabilities.has(capability) {
            allowed.extend(names.split_whitespace().map(str::to_owned));
        }
    }
    let mut syscalls = vec![rule(allowed, Action::ScmpActAllow, None)?];
    syscalls.push(rule(vec!["socket".into()], Action::ScmpActAllow, Some((Operator::ScmpCmpNe, AF_VSOCK)))?);
    for personality in PERSONALITIES {
        let argument = Some((Operator::ScmpCmpEq, personality));
        syscalls.push(rule(vec!["personality".into()], Action::ScmpActAllow, argument)?);
    }
    if !capabilities.has("SYS_ADMIN") {
        let argument = Some((Operator::ScmpCmpMaskedEq, NAMESPACE_FLAGS));
        syscalls.push(rule(vec!["clone".into()], Action::ScmpActAllow, argument)?);
        // The flags of clone3 are out of a filter's reach; C libraries fall back to clone on this error.
        let mut clone3 = rule(vec!["clone3".into()], Action::ScmpActErrno, None)?;
        clone3.set_errno_ret(Some(ENOSYS));
        syscalls.push(clone3);
    }
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(Action::ScmpActErrno);
    profile.set_default_errno_ret(Some(1));
    profile.set_architectures(Some(native_architectures()));
    profile.set_syscalls(Some(syscalls));
    Ok(profile)
}

/// The machine's architecture and those whose programs its kernel runs besides.
fn native_architectures() -> Vec<Arch> {
    match std::env::consts::ARCH {
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        _ => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
    }
}

/// A rule over names; the condition is on the first argument.
fn rule(names: Vec<String>, action: Action, condition: Option<(Operator, u64)>) -> Result<LinuxSyscall, SeccompError> {
    let mut syscall = LinuxSyscall::default();
    syscall.set_names(names);
    syscall.set_action(action);
    if let Some((operator, value)) = condition {
        let argument = LinuxSeccompArgBuilder::default().index(0usize).value(value).op(operator).build()?;
        syscall.set_args(Some(vec![argument]));
    }
    Ok(syscall)
}

#[cfg(test)]
mod tests;
