//! Which boot of the machine this is.

use std::io;

/// Names the present boot of the machine (random(4)).
///
/// # Errors
/// When /proc is not there.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}
