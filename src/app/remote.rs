//! Compose files that lie in git repositories and registries: fetched once per commit or digest, and kept.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use crate::app::pull::chain;
use crate::app::{App, AppError};
use crate::base::reason::without_number;
use crate::base::trash::Trash;
use crate::compose::{self, Remotes, Unfetched, Variable};
use crate::image::Reference;
use crate::registry::{self, ArtifactFile, COMPOSE_ENV_FILE, COMPOSE_FILE, Registries};
use crate::remote::{self, Address, Repository};
use crate::ui::tables::SourcedVariable;

/// The folder of everything that was fetched.
pub(super) const FETCHED: &str = "projects-fetched";
const FILE_NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
/// Characters of an address that a folder is called after.
const LONGEST: usize = 80;

/// A project whose first file lies elsewhere, as far as a person should know before it is run.
#[derive(Debug)]
pub struct Elsewhere {
    pub address: String,
    /// Where its files are now.
    pub folder: PathBuf,
    /// Addresses that its files name in turn.
    pub brought: Vec<String>,
    pub variables: Vec<SourcedVariable>,
}

impl App {
    /// What to tell about the project before it is run; `None` when it is one of this machine.
    ///
    /// # Errors
    /// [`AppError::Input`].
    pub fn elsewhere(&self) -> Result<Option<Elsewhere>, AppError> {
        let Some(address) = self.load.files.first().filter(|file| compose::is_remote(file)) else { return Ok(None) };
        let project = self.load(&[])?.project;
        let mut brought = self.load.remotes.as_ref().map(Remotes::addresses).unwrap_or_default();
        brought.retain(|one| !self.load.files.contains(one));
        brought.iter_mut().for_each(|one| *one = remote::without_password(one));
        let tree = compose::load_uninterpolated(&self.load, &self.environment).tree;
        let variables = tree.map(|tree| compose::variables(&tree)).unwrap_or_default();
        let sourced = |variable: Variable| {
            let Variable { name, required, default, .. } = variable;
            let (value, source) = match project.environment.get(&name) {
                Some(value) => (Some(value.clone()), "environment"),
                None if !default.is_empty() => (Some(default.clone()), "compose file"),
                None => (None, "none"),
            };
            SourcedVariable { name, value, source, required, default }
        };
        let variables = variables.into_iter().map(sourced).collect();
        Ok(Some(Elsewhere {
            address: remote::without_password(address),
            folder: project.working_dir,
            brought,
            variables,
        }))
    }
}

/// Who fetches what lies elsewhere, to a place below the data directory.
pub fn remotes(data: &Path, environment: BTreeMap<String, String>) -> Remotes {
    let fetcher = Fetcher { folder: data.join(FETCHED), trash: Trash::new(data), environment };
    Remotes::new(move |address| fetcher.fetch(address))
}

struct Fetcher {
    folder: PathBuf,
    trash: Trash,
    environment: BTreeMap<String, String>,
}

impl Fetcher {
    fn fetch(&self, address: &str) -> Result<PathBuf, Unfetched> {
        let found = match address.strip_prefix("oci://") {
            Some(name) => self.artifact(name),
            None => self.repository(address),
        };
        found.map_err(|Unfetched { message, help }| {
            let message = format!("cannot load `{}`: {}", remote::without_password(address), without_number(&message));
            Unfetched { message, help }
        })
    }

    fn repository(&self, address: &str) -> Result<PathBuf, Unfetched> {
        self.enabled("git", "COMPOSE_EXPERIMENTAL_GIT_REMOTE")?;
        let failed = |error: remote::Error| Unfetched { message: chain(&error), help: error.help().map(str::to_owned) };
        let Address::Git(repository) = Address::parse(address).map_err(failed)? else {
            return Err(Unfetched {
                message: "it is neither a repository, whose address would end with `.git`, nor begins with `oci://`"
                    .to_owned(),
                help: Some("download the file, and name it".to_owned()),
            });
        };
        let commit = remote::commit(&repository).map_err(failed)?;
        let within = repository.folder.clone().unwrap_or_default();
        let whole = Repository { reference: Some(commit.clone()), folder: None, ..repository };
        let kept = self.folder.join(folder_name(&whole.url, &commit));
        self.keep(&kept, |new| {
            remote::check_out(&whole, new, true, remote::Limits::default()).map(drop).map_err(failed)
        })?;
        if Path::new(&within).components().any(|part| part == Component::ParentDir) {
            return Err(plain(format!("git subdirectory path traversal detected: {within}")));
        }
        let found = remote::find(&kept, &within);
        let found = found.map_err(|_| plain(format!("the repository has no `{within}` at commit {commit}")))?;
        if !found.is_dir() {
            return Ok(found);
        }
        let names = FILE_NAMES.iter().map(|name| Path::new(&within).join(name));
        let file = names.filter_map(|name| remote::find(&kept, name.to_str()?).ok()).find(|file| file.is_file());
        file.ok_or_else(|| {
            let place = if within.is_empty() { String::new() } else { format!(" in `{within}`") };
            plain(format!("the repository has no `compose.yaml`{place} at commit {commit}"))
        })
    }

    fn artifact(&self, text: &str) -> Result<PathBuf, Unfetched> {
        self.enabled("OCI", "COMPOSE_EXPERIMENTAL_OCI_REMOTE")?;
        let failed = |error: registry::Error| Unfetched { message: chain(&error), help: error.help() };
        let name = Reference::parse(text).ok_or_else(|| plain("what follows `oci://` is no name of an artifact"))?;
        let registries = Registries::from_environment(&self.environment).map_err(failed)?;
        let digest = registries.digest(&name).map_err(failed)?;
        let kept = self.folder.join(folder_name(&name.repository(), digest.hex()));
        self.keep(&kept, |new| {
            let files = registries.compose_project(&name, &digest).map_err(failed)?;
            write_files(files, new)
        })?;
        let file = kept.join("compose.yaml");
        if file.is_file() { Ok(file) } else { Err(plain("the artifact has no Compose file")) }
    }

    /// Has the folder made, unless it is there. It is whole as soon as it has its name.
    fn keep(&self, kept: &Path, make: impl FnOnce(&Path) -> Result<(), Unfetched>) -> Result<(), Unfetched> {
        if kept.is_dir() {
            return Ok(());
        }
        let failed = |error: io::Error| plain(format!("cannot write to `{}`: {error}", self.folder.display()));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        // One at a time in this process. What a killed one of the same number has left is no part of it.
        let new = self.folder.join(format!(".new-{}", std::process::id()));
        self.trash.discard(&new).map_err(failed)?;
        fs::create_dir(&new).map_err(failed)?;
        let made = make(&new).and_then(|()| match fs::rename(&new, kept) {
            // Another process was faster.
            Err(_) if kept.is_dir() => Ok(()),
            renamed => renamed.map_err(failed),
        });
        // What is not in its place now is of no use.
        let cleaned = self.trash.discard(&new).and_then(|()| self.trash.empty()).map_err(failed);
        made.and(cleaned)
    }

    fn enabled(&self, what: &str, variable: &str) -> Result<(), Unfetched> {
        match self.environment.get(variable).map_or("", String::as_str) {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(()),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => {
                Err(plain(format!("{what} remote resource is disabled by {variable}")))
            }
            other => Err(plain(format!("{variable} expects true or false, not `{other}`"))),
        }
    }
}

fn plain(message: impl Into<String>) -> Unfetched {
    Unfetched { message: message.into(), help: None }
}

/// A name that errors in the files can be recognised by: `example.com_team_app@1234…`.
fn folder_name(url: &str, version: &str) -> String {
    let url = url.split_once("://").map_or(url, |(_, rest)| rest);
    // No user, and no password.
    let url = match url.split_once('/') {
        Some((authority, path)) => {
            format!("{}/{path}", authority.rsplit_once('@').map_or(authority, |(_, host)| host))
        }
        None => url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned(),
    };
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    let name: String = url.trim_end_matches('/').chars().map(safe).take(LONGEST).collect();
    format!("{}@{version}", name.trim_start_matches('.'))
}

/// Writes an artifact's files as docker compose does: Compose files one after the other as documents of `compose.yaml`, those
/// that are extended and those of variables under their own names.
fn write_files(files: Vec<ArtifactFile>, folder: &Path) -> Result<(), Unfetched> {
    let mut documents = Vec::new();
    for ArtifactFile { media_type, annotations, content } in files {
        let name = match media_type.as_str() {
            COMPOSE_FILE if annotations.contains_key("com.docker.compose.extends") => "com.docker.compose.file",
            COMPOSE_FILE => {
                documents.push(content);
                continue;
            }
            COMPOSE_ENV_FILE => "com.docker.compose.envfile",
            _ => continue,
        };
        let name = annotations.get(name).map_or("", String::as_str);
        let is_name = Path::new(name).components().eq([Component::Normal(name.as_ref())]) && name != "compose.yaml";
        if !is_name || name.contains('\0') {
            return Err(plain(format!("a file of the artifact is called `{}`", name.escape_debug())));
        }
        fs::write(folder.join(name), content).map_err(|error| plain(format!("cannot write `{name}`: {error}")))?;
    }
    if documents.is_empty() {
        return Ok(());
    }
    let whole = documents.join(b"\n---\n".as_slice());
    fs::write(folder.join("compose.yaml"), whole).map_err(|error| plain(format!("cannot write the files: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_called_after_what_lies_in_them() {
        for (url, expected) in [
            ("https://me:secret@h.example:8/team/app.git", "h.example_8_team_app.git@1"),
            ("git@h.example:me/x.git", "h.example_me_x.git@1"),
            ("ssh://h/../../x/", "h_.._.._x@1"),
            ("../..", "_..@1"),
        ] {
            assert_eq!(folder_name(url, "1"), expected, "{url}");
        }
    }

    #[test]
    fn an_artifact_does_not_write_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../x", "/etc/x", "a/b", "", ".", "..", "compose.yaml", "a\0b"] {
            for (media_type, key) in [(COMPOSE_ENV_FILE, "envfile"), (COMPOSE_FILE, "file")] {
                let annotations = [(format!("com.docker.compose.{key}"), name.to_owned())];
                let extends = [("com.docker.compose.extends".to_owned(), "true".to_owned())];
                let annotations = annotations.into_iter().chain(extends).collect();
                let file = ArtifactFile { media_type: media_type.to_owned(), annotations, content: Vec::new() };
                assert!(write_files(vec![file], folder.path()).is_err(), "{name}");
            }
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
