//! Seccomp filters, keyrings, execution domains.
#![allow(unsafe_code, reason = "system call without a safe wrapper")]

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};

use crate::sys::process::{self, SingleThreaded};

/// Installs a compiled filter (an array of `struct sock_filter`, native byte order) on this thread, for ever.
/// `flags` are `SECCOMP_FILTER_FLAG_*`.
///
/// # Errors
/// `InvalidInput` when it is not whole instructions or too long, `EINVAL` when the kernel refuses the program, `EACCES`
/// without `CAP_SYS_ADMIN` and without no-new-privileges.
pub fn install_filter(program: &[u8], flags: u32) -> io::Result<()> {
    install(program, flags.into()).map(drop)
}

/// Installs a filter that asks another process, and has `hand_over` give that one the descriptor it is asked with. The filter
/// may stop whatever this process calls from then on, so a helper calls it, which was there before.
///
/// # Errors
/// As [`install_filter`]; what `hand_over` says; `ETIMEDOUT`.
pub fn install_listened_filter(
    program: &[u8],
    flags: u32,
    single: SingleThreaded,
    hand_over: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let [listener, outcome] = shared_numbers()?;
    let patience = Instant::now();
    let Some(helper) = process::fork_with_descriptors(single)? else {
        // When the other one is killed meanwhile; it may be of another pid namespace.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        let number = loop {
            match listener.load(Ordering::Acquire) {
                0 if patience.elapsed() < PATIENCE => std::thread::sleep(Duration::from_micros(50)),
                // There is no filter.
                ..=0 => process::exit_now(1),
                number => break number - 1,
            }
        };
        // SAFETY: the other process has it open, in the same table, until it is told below.
        let handed = hand_over(unsafe { BorrowedFd::borrow_raw(number) });
        let errno = handed.err().map(|error| error.raw_os_error().unwrap_or(libc::EIO));
        outcome.store(errno.map_or(HANDED_OVER, |errno| -errno), Ordering::Release);
        process::exit_now(0);
    };
    // With one thread there is nobody to have it in common with, and the kernel takes either.
    let flags = libc::c_ulong::from(flags) & !libc::SECCOMP_FILTER_FLAG_TSYNC;
    let installed = install(program, flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    listener.store(installed.as_ref().map_or(-1, |number| number + 1), Ordering::Release);
    let answer = loop {
        // No system call: it could be one of those that wait for the listener.
        match outcome.load(Ordering::Acquire) {
            0 if installed.is_ok() && patience.elapsed() < PATIENCE => std::hint::spin_loop(),
            answer => break answer,
        }
    };
    installed?;
    match answer {
        HANDED_OVER => {}
        0 => return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
        errno => return Err(io::Error::from_raw_os_error(-errno)),
    }
    // Whoever listens decides about this call, too.
    let _ = rustix::process::waitpid(Pid::from_raw(helper), WaitOptions::empty());
    Ok(())
}

const HANDED_OVER: i32 = 1;
/// For the helper to do its work.
const PATIENCE: Duration = Duration::from_secs(10);

/// Zeros that a forked process has in common with this one, for as long as there is either.
fn shared_numbers() -> io::Result<&'static [AtomicI32; 2]> {
    // SAFETY: new memory at an address of the kernel's choice.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size_of::<[AtomicI32; 2]>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a whole page of zeros, aligned to it, that is never unmapped; all bit patterns are numbers.
    Ok(unsafe { &*page.cast::<[AtomicI32; 2]>() })
}

/// The number of the listener's descriptor, with the flag that asks for one.
fn install(program: &[u8], flags: libc::c_ulong) -> io::Result<i32> {
    let (instructions, rest) = program.as_chunks::<8>();
    let mut filter: Vec<libc::sock_filter> = instructions
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect();
    let Ok(len) = u16::try_from(filter.len()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    if !rest.is_empty() || len == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: `program` points to `len` initialised instructions in `filter`, both outlive the call, and the kernel copies them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Joins a new, empty session keyring (`keyctl(2)`), which replaces the one inherited.
///
/// # Errors
/// `ENOSYS` without keyrings in the kernel, `EDQUOT` when the user has too many.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name is allowed and asks for an anonymous keyring; no other memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, anonymous) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the execution domain and its flags (`personality(2)`).
///
/// # Errors
/// `EINVAL` for one that the kernel does not know.
pub fn set_personality(personality: u32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let result = unsafe { libc::personality(libc::c_ulong::from(personality)) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
