//! Host names.
#![allow(unsafe_code, reason = "a C library function without a safe wrapper")]

use std::ffi::{c_char, c_int};

unsafe extern "C" {
    /// nss(5): which sources a database has, instead of what `/etc/nsswitch.conf` says.
    fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
}

/// Looks host names up in `/etc/hosts` and with the name servers of `/etc/resolv.conf` only, both of which are part of the C
/// library. What else `nsswitch.conf` may name are shared libraries of the host's own C library, and a static program that
/// loads those may crash.
pub fn use_built_in() {
    // SAFETY: both are strings with their zero byte, and the C library keeps no pointer to them.
    unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
}
