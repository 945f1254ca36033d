//! Seccomp filters.
#![allow(unsafe_code, reason = "system call without a safe wrapper")]

use std::io;

/// Installs a compiled filter (an array of `struct sock_filter`, native byte order) on this thread, for ever.
///
/// # Errors
/// `InvalidInput` when it is not whole instructions or too long, `EINVAL` when the kernel refuses the program, `EACCES`
/// without `CAP_SYS_ADMIN` and without no-new-privileges.
pub fn install_filter(program: &[u8]) -> io::Result<()> {
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
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, std::ptr::from_ref(&program)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
