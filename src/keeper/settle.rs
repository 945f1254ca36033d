//! Where the keeper lives: as an ordinary user's, in a user namespace and a mount namespace of its own, as root of them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ROLE;
use super::scope;
use super::spawn::{sealed, title};
use crate::sys::process::SingleThreaded;
use crate::sys::userns;

/// Makes this process able to mount, if it is not. Then it is executed once more: only a program that was executed inside
/// a user namespace can hide from its processes and still reach its own /proc. Standard input stays as it is.
///
/// `like`: the user namespace to join.
///
/// # Errors
/// The host does not allow it.
pub(super) fn settle(project: &str, like: Option<&Path>) -> io::Result<()> {
    let root = rustix::process::geteuid().is_root();
    if root && userns::owns("mnt")? {
        return scope::step_aside();
    }
    let single = SingleThreaded::check()?;
    let doing =
        |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("cannot {what}: {error}"));
    match like {
        _ if root => {}
        Some(namespace) => userns::join(namespace).map_err(doing("join the user namespace of the containers"))?,
        None => userns::become_root(single).map_err(doing("make a user namespace"))?,
    }
    userns::new_mounts().map_err(doing("make a mount namespace"))?;
    let (program, _keep_open) = sealed(own_path());
    let words: Vec<_> = std::env::args_os().skip(2).collect();
    Err(Command::new(program).arg0(title(project)).arg(ROLE).args(words).exec())
}

/// This program by a path in the new mount namespace, which alone can be sealed; as it is when its file is gone.
fn own_path() -> PathBuf {
    let running = PathBuf::from("/proc/self/exe");
    let same = |path: &PathBuf| -> io::Result<bool> {
        let (one, other) = (fs::metadata(path)?, fs::metadata(&running)?);
        Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
    };
    match fs::read_link(&running) {
        Ok(path) if same(&path).unwrap_or(false) => path,
        _ => running,
    }
}
