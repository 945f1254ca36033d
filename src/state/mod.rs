//! Where things lie on disk, and the records kept there. Versioned, replaced atomically.
//!
//! ```text
//! DATA/images, DATA/volumes, DATA/networks, DATA/pools.json    shared by all projects, under lock
//! DATA/projects/NAME/project.json                              what the project was last asked to be
//! DATA/projects/NAME/containers/ID/config.json                 what the container is (never changes)
//!                                  state.json                  where it is in its life
//!                                  exit.json                   written by the keeper when it ends
//!                                  upper work rootfs hosts …   its files
//! RUN/NAME/control.sock, RUN/NAME/lock                         the running project
//! ```

pub mod project;
pub mod record;

use std::path::{Path, PathBuf};

use crate::base::ids::ContainerId;

pub use project::ProjectDir;
pub use record::{ContainerConfig, ContainerRecord, ProjectRecord, RunState, StateFile};

/// The two roots that everything lies under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Survives a reboot.
    pub data: PathBuf,
    /// Does not.
    pub run: PathBuf,
}

impl Roots {
    /// `/var/lib/rcompose` and `/run/rcompose` for root, the XDG directories otherwise, both below `RCOMPOSE_ROOT`
    /// when that is set. `variable` looks up an environment variable.
    pub fn locate(is_root: bool, variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        if let Some(root) = variable("RCOMPOSE_ROOT") {
            return Self { data: root.join("data"), run: root.join("run") };
        }
        if is_root {
            return Self { data: PathBuf::from("/var/lib/rcompose"), run: PathBuf::from("/run/rcompose") };
        }
        let home = variable("HOME").unwrap_or_else(|| PathBuf::from("/"));
        let data = variable("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")).join("rcompose");
        let run = variable("XDG_RUNTIME_DIR").map_or_else(|| data.join("run"), |folder| folder.join("rcompose"));
        Self { data, run }
    }

    /// Path of a container's control group below the hierarchies' roots. `parent` is the service's `cgroup_parent`; under
    /// systemd a slice lies in those that its name tells (systemd.slice(5)): `a-b.slice` in `a.slice`.
    pub fn cgroup_path(&self, project: &str, parent: Option<&str>, id: &ContainerId) -> String {
        let parent = parent.map(|parent| parent.trim_matches('/')).filter(|parent| !parent.is_empty());
        let Some(parent) = parent else { return format!("{}/{project}/{id}", self.cgroup_name()) };
        let slice = parent.strip_suffix(".slice").filter(|name| !name.contains('/') && *name != "-");
        match slice.filter(|_| Path::new("/run/systemd/system").exists()) {
            Some(slice) => {
                let ends = slice.match_indices('-').map(|(at, _)| at).chain([slice.len()]);
                let all: Vec<_> = ends.filter_map(|end| Some(format!("{}.slice", slice.get(..end)?))).collect();
                format!("{}/{id}", all.join("/"))
            }
            None => format!("{parent}/{id}"),
        }
    }

    /// Name of the control group that holds the groups of all projects below these roots. Roots of their own have
    /// a group of their own, so that a test never meets a user's containers.
    pub fn cgroup_name(&self) -> String {
        if self.data == Path::new("/var/lib/rcompose") {
            return "rcompose".to_owned();
        }
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.data.hash(&mut hasher);
        format!("rcompose-{:08x}", hasher.finish() as u32)
    }

    /// The directory of a project's record and containers.
    pub fn project(&self, name: &str) -> ProjectDir {
        ProjectDir::new(self.data.join("projects").join(name), self.run.join(name))
    }

    /// Names of the projects that have a directory, sorted.
    ///
    /// # Errors
    /// Whatever reading the directory says, except that it is not there.
    pub fn projects(&self) -> std::io::Result<Vec<String>> {
        let mut names = match std::fs::read_dir(self.data.join("projects")) {
            Ok(entries) => {
                entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect::<Vec<String>>()
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_variable_moves_everything() {
        let roots = Roots::locate(true, |name| (name == "RCOMPOSE_ROOT").then(|| PathBuf::from("/x")));
        assert_eq!(roots, Roots { data: "/x/data".into(), run: "/x/run".into() });
        assert_ne!(roots.cgroup_name(), "rcompose");
    }

    #[test]
    fn an_ordinary_user_gets_the_xdg_directories() {
        let roots = Roots::locate(false, |name| match name {
            "HOME" => Some("/home/u".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/7".into()),
            _ => None,
        });
        assert_eq!(roots.data, PathBuf::from("/home/u/.local/share/rcompose"));
        assert_eq!(roots.run, PathBuf::from("/run/user/7/rcompose"));
    }
}
