//! The last step: becoming the program.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::unistd::execve;

use super::fault::{At, Fault, fault};

/// Where programs are looked for when the environment has no `PATH`, as in Docker's.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Executes `argv`. The fault's detail is the path that was executed, or the bare name that `PATH` has not.
pub(super) fn exec(argv: &[CString], env: &[CString]) -> Result<Infallible, Fault> {
    let Some(name) = argv.first() else { return fault(libc::EINVAL, "no program") };
    if name.as_bytes().is_empty() || name.as_bytes().contains(&b'/') {
        return Err(failure(execve(name, argv, env), name));
    }
    for candidate in candidates(name, env) {
        // What is there but cannot be executed is passed over, as Docker's look-up does.
        match execve(&candidate, argv, env) {
            Err(Errno::ENOTDIR | Errno::EACCES) => {}
            Err(Errno::ENOENT) if !exists(&candidate) => {}
            result => return Err(failure(result, &candidate)),
        }
    }
    fault(libc::ENOENT, name.to_string_lossy())
}

/// Where `PATH` says that a bare name may be.
fn candidates(name: &CString, env: &[CString]) -> impl Iterator<Item = CString> {
    let path = env.iter().rev().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    path.split(|&byte| byte == b':').filter_map(|folder| {
        let folder = if folder.is_empty() { b"." } else { folder };
        CString::new([folder, b"/", name.as_bytes()].concat()).ok()
    })
}

/// Whether [`exec`] would find something to execute, with the rights that this process has now.
pub(super) fn find(argv: &[CString], env: &[CString]) -> Result<(), Fault> {
    let Some(name) = argv.first() else { return fault(libc::EINVAL, "no program") };
    if name.as_bytes().is_empty() || name.as_bytes().contains(&b'/') {
        return executable(name).at(name.to_string_lossy());
    }
    for candidate in candidates(name, env) {
        if executable(&candidate).is_ok() {
            return Ok(());
        }
    }
    fault(libc::ENOENT, name.to_string_lossy())
}

fn executable(path: &CString) -> Result<(), rustix::io::Errno> {
    use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?;
    let status = rustix::fs::fstat(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)?;
    if FileType::from_raw_mode(status.st_mode) == FileType::RegularFile {
        Ok(())
    } else {
        Err(rustix::io::Errno::ACCESS)
    }
}

/// Tells a missing program from one whose interpreter is missing.
fn exists(path: &CString) -> bool {
    std::fs::metadata(OsStr::from_bytes(path.as_bytes())).is_ok()
}

fn failure(result: Result<Infallible, Errno>, path: &CString) -> Fault {
    match result {
        Ok(never) => match never {},
        Err(errno) => Fault { errno: errno as i32, detail: path.to_string_lossy().into_owned() },
    }
}
