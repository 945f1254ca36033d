//! Other OCI runtimes of this host, by the names that Docker has for them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where dockerd's configuration lies.
const DAEMON: &str = "/etc/docker/daemon.json";

/// A program that makes containers as the OCI runtime specification says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherRuntime {
    pub program: PathBuf,
    /// In front of everything else.
    pub arguments: Vec<String>,
}

/// Why there is no such runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimesError {
    #[error(
        "there is no runtime `{0}`: neither `runtimes` of `/etc/docker/daemon.json` nor a program of that name in PATH; install it, or take `runtime` out"
    )]
    Unknown(String),
    #[error(
        "`runtimes.{0}` of `/etc/docker/daemon.json` names a shim of containerd (`runtimeType`), which is no OCI runtime; give it a `path`"
    )]
    Shim(String),
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` is not what dockerd reads", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Daemon {
    runtimes: std::collections::BTreeMap<String, Configured>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Configured {
    path: PathBuf,
    runtime_args: Option<Vec<String>>,
    runtime_type: String,
}

/// The runtime of that name: as dockerd is configured, or else a program of that name.
///
/// # Errors
/// There is none, or what is configured is no OCI runtime.
pub fn find(name: &str) -> Result<OtherRuntime, RuntimesError> {
    find_in(name, Path::new(DAEMON), &std::env::var_os("PATH").unwrap_or_default())
}

fn find_in(name: &str, daemon: &Path, path: &OsStr) -> Result<OtherRuntime, RuntimesError> {
    let configured = match fs::read(daemon) {
        Ok(text) => {
            let parsed: Result<Daemon, _> = serde_json::from_slice(&text);
            parsed.map_err(|source| RuntimesError::Parse { path: daemon.to_owned(), source })?.runtimes.remove(name)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(RuntimesError::Read { path: daemon.to_owned(), source }),
    };
    let unknown = || RuntimesError::Unknown(name.to_owned());
    let (wanted, arguments) = match configured {
        Some(configured) if configured.path.as_os_str().is_empty() => {
            return Err(RuntimesError::Shim(name.to_owned()));
        }
        Some(configured) => (configured.path, configured.runtime_args.unwrap_or_default()),
        // A path is no name.
        None if name.contains('/') => return Err(unknown()),
        None => (PathBuf::from(name), Vec::new()),
    };
    let program = std::env::split_paths(path)
        .map(|folder| folder.join(&wanted))
        .find(|program| fs::metadata(program).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0));
    Ok(OtherRuntime { program: program.ok_or_else(unknown)?, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_what_docker_is_configured_with_or_a_program_of_that_name() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for name in ["plain", "elsewhere", "no-program"] {
            fs::write(bin.join(name), "#!/bin/sh\n").unwrap();
        }
        for name in ["plain", "elsewhere"] {
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let daemon = folder.path().join("daemon.json");
        let find = |name: &str| find_in(name, &daemon, bin.as_os_str()).map_err(|error| error.to_string());
        assert_eq!(find("plain").unwrap(), OtherRuntime { program: bin.join("plain"), arguments: Vec::new() });
        assert!(find("no-program").unwrap_err().contains("there is no runtime `no-program`"));
        assert!(find("../bin/plain").is_err());
        let text = r#"{"debug": true, "runtimes": {
            "named": {"path": "elsewhere", "runtimeArgs": ["--debug"]},
            "full": {"path": "BIN/plain"},
            "shim": {"runtimeType": "io.containerd.kata.v2"}}}"#;
        fs::write(&daemon, text.replace("BIN", bin.to_str().unwrap())).unwrap();
        let named = OtherRuntime { program: bin.join("elsewhere"), arguments: vec!["--debug".to_owned()] };
        assert_eq!(find("named").unwrap(), named);
        assert_eq!(find("full").unwrap().program, bin.join("plain"));
        assert!(find("shim").unwrap_err().contains("`runtimes.shim`"));
        fs::write(&daemon, "{").unwrap();
        assert!(find("plain").unwrap_err().contains("not what dockerd reads"));
    }
}
