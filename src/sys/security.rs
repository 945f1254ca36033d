//! Seccomp filters, keyrings, execution domains.
#![allow(unsafe_code, reason = "system call without a safe wrapper")]

use std::io;

/// Installs a compiled filter (an array of `struct sock_filter`, native byte order) on this thread, for ever.
/// `flags` are `SECCOMP_FILTER_FLAG_*`.
///
/// # Errors
/// `InvalidInput` when it is not whole instructions or too long, `EINVAL` when the kernel refuses the program, `EACCES`
/// without `CAP_SYS_ADMIN` and without no-new-privileges.
pub fn install_filter(program: &[u8], flags: u32) -> io::Result<()> {
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
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
