//! Programs of this machine, by their names.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Where the `PATH` of this process has a program. See [`find`].
///
/// # Errors
/// Nowhere.
pub fn program(name: &str) -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find(&path, name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("`{name}` is not in the PATH")))
}

/// The absolute folders of the `PATH` of this process, for a program that starts others.
pub fn absolute() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // What was taken apart can be put together.
    std::env::join_paths(std::env::split_paths(&path).filter(|folder| folder.is_absolute())).unwrap_or_default()
}

/// Where a `PATH` has a program, among its absolute folders: a relative one, such as `.`, is in whatever project one happens to be
/// in, whose files somebody else has written.
pub fn find(path: &OsStr, name: &str) -> Option<PathBuf> {
    let runs =
        |path: &PathBuf| path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    if name.is_empty() || name.contains(['/', '\0']) {
        return None;
    }
    std::env::split_paths(path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(runs)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_lies_in_the_present_folder_is_no_program() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("evil");
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        // From the tests' own folder, where the sources are, up to the root and down again.
        let up: PathBuf = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
        let relative = up.join(folder.path().strip_prefix("/").unwrap());
        assert!(relative.join("evil").exists(), "the attack would not be seen to succeed");
        assert_eq!(find(relative.as_os_str(), "evil"), None);
        assert_eq!(find(OsStr::new(":."), "Cargo.toml"), None);
        let both = std::env::join_paths([&relative, folder.path()]).unwrap();
        assert_eq!(find(&both, "evil"), Some(program));
        assert_eq!(find(folder.path().parent().unwrap().as_os_str(), "../Cargo.toml"), None);
        assert!(program_is_found("sh"));
    }

    fn program_is_found(name: &str) -> bool {
        program(name).is_ok_and(|found| found.is_absolute())
    }
}
