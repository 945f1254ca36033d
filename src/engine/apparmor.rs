//! AppArmor: the profile that containers run under where the host has it and nothing else is asked for, as Docker's `docker-default`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::sys::userns::{self, Ids};

/// The profile of containers that name none and are not privileged.
pub const DEFAULT: &str = "rcompose-default";

const TEXT: &str = include_str!("apparmor.profile");
const PARSER: &str = "apparmor_parser";
/// What the rules are about, pinned where it can be: a newer parser takes user namespaces, message queues and io_uring, which the
/// rules do not name, for refused.
const ABI: &str = "abi/3.0";

/// Whether the kernel has it and it is in use.
pub fn is_enabled() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

/// Whether containers can be confined: also that there is the program that makes kernel rules of a profile.
pub fn has_parser() -> bool {
    userns::program(PARSER).is_some()
}

/// [`DEFAULT`], loaded into the kernel. None: AppArmor is not in use, there is no `apparmor_parser`, or this is an ordinary user,
/// who may not load profiles; then containers run without, as Docker's do.
///
/// # Errors
/// What `apparmor_parser` says.
pub fn load_default() -> io::Result<Option<&'static str>> {
    if !is_enabled() || Ids::of_this_process() != Ids::Host {
        return Ok(None);
    }
    let loaded = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    if loaded.lines().any(|line| line.split(' ').next() == Some(DEFAULT)) {
        return Ok(Some(DEFAULT));
    }
    let Some(parser) = userns::program(PARSER) else { return Ok(None) };
    // Another process may load it at the same moment.
    let mut command = Command::new(parser);
    command.args(["--replace", "--skip-cache"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut parser = command.spawn()?;
    let abi = Path::new("/etc/apparmor.d").join(ABI).exists();
    let text = if abi { format!("abi <{ABI}>,\n{TEXT}") } else { TEXT.to_owned() };
    let written = parser.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
    let ended = parser.wait_with_output()?;
    if !ended.status.success() {
        let complaint = String::from_utf8_lossy(&ended.stderr);
        return Err(io::Error::other(format!("`{PARSER}` failed: {}", complaint.trim())));
    }
    written.map(|()| Some(DEFAULT))
}
