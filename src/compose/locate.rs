//! Which files make the project, with which variables: `-f`, `COMPOSE_FILE`, the search upwards, `.env`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::LoadOptions;
use super::dotenv;
use super::files::{self, ReadError};
use super::remote::{self, is_remote};
use super::report::Reports;
use crate::base::diagnostic::{Diagnostic, Place};
use crate::model::tree::Mark;
use std::sync::Arc;

const FILE_NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDE_NAMES: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];

/// What to load, from where.
pub(super) struct Location {
    /// Absolute, or `-`.
    pub(super) files: Vec<PathBuf>,
    /// Where the command is at home: it names the project, and has its `.env`. Absolute.
    pub(super) working_dir: PathBuf,
    /// Where relative paths start from: the folder of the first file that was fetched, or else `working_dir`.
    pub(super) folder: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
}

/// A file as it is named.
enum File {
    /// Absolute, or `-`.
    Here(PathBuf),
    /// The address of one that lies elsewhere.
    Elsewhere(String),
}

impl File {
    fn named(name: &str, here: &Path) -> Self {
        match name {
            "-" => Self::Here(PathBuf::from(name)),
            _ if is_remote(name) => Self::Elsewhere(name.to_owned()),
            _ => Self::Here(clean(&here.join(name))),
        }
    }

    /// The folder that a command with this file is at home in.
    fn folder<'a>(&'a self, here: &'a Path) -> &'a Path {
        match self {
            Self::Here(path) => path.parent().unwrap_or(here),
            Self::Elsewhere(_) => here,
        }
    }

    fn is_stdin(&self) -> bool {
        matches!(self, Self::Here(path) if path.as_os_str() == "-")
    }
}

/// Finds the project. `None` when an error was reported.
pub(super) fn locate(
    options: &LoadOptions,
    process: &BTreeMap<String, String>,
    reports: &mut Reports,
) -> Option<Location> {
    let here = &options.working_dir;
    let absolute = |path: &Path| here.join(path);
    let folder = options.project_directory.as_deref().map(|folder| clean(&absolute(folder)));
    let mut environment = process.clone();
    let mut env_files = explicit_env_files(options, process);
    let explicit = !env_files.is_empty();
    let mut first_env_files = env_files.clone();
    if !explicit {
        let file = options.files.iter().map(|file| File::named(file, here)).find(|file| !file.is_stdin());
        let file_folder = file.as_ref().map_or(here.as_path(), |file| file.folder(here));
        first_env_files = default_env_file(folder.as_deref().unwrap_or(file_folder), process);
        env_files.clone_from(&first_env_files);
    }
    read_env_files(&first_env_files, &mut environment, reports)?;
    let files = compose_files(options, folder.as_deref(), &environment, reports)?;
    let working_dir = folder.unwrap_or_else(|| match files.iter().find(|file| !file.is_stdin()) {
        Some(file) => file.folder(here).to_owned(),
        None => here.clone(),
    });
    if !explicit {
        let found = default_env_file(&working_dir, process);
        if !found.is_empty() && found != env_files {
            read_env_files(&found, &mut environment, reports)?;
        }
    }
    let mut fetched = None;
    let files = files.into_iter().map(|file| match file {
        File::Here(path) => Some(path),
        File::Elsewhere(address) => {
            let path = remote::fetch(options, &address, Mark::default(), reports)?;
            fetched = fetched.take().or_else(|| path.parent().map(Path::to_owned));
            Some(path)
        }
    });
    let files = files.collect::<Option<_>>()?;
    let folder = fetched.unwrap_or_else(|| working_dir.clone());
    Some(Location { files, working_dir, folder, environment })
}

pub(super) fn clean(path: &Path) -> PathBuf {
    PathBuf::from(super::paths::clean(&path.to_string_lossy()))
}

fn explicit_env_files(options: &LoadOptions, process: &BTreeMap<String, String>) -> Vec<PathBuf> {
    if !options.env_files.is_empty() {
        return options.env_files.iter().map(|file| clean(&options.working_dir.join(file))).collect();
    }
    let named = process.get("COMPOSE_ENV_FILES").map(String::as_str).unwrap_or_default();
    named.split(',').filter(|file| !file.is_empty()).map(|file| clean(&options.working_dir.join(file))).collect()
}

fn default_env_file(folder: &Path, process: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let disabled = process.get("COMPOSE_DISABLE_ENV_FILE").map(String::as_str);
    if matches!(disabled, Some("1" | "t" | "T" | "true" | "TRUE" | "True")) {
        return Vec::new();
    }
    let file = folder.join(".env");
    let usable = std::fs::metadata(&file).is_ok_and(|metadata| !metadata.is_dir());
    if usable { vec![file] } else { Vec::new() }
}

/// Adds the variables of dotenv files to those that `environment` has, which win.
pub(super) fn read_env_files(
    files: &[PathBuf],
    environment: &mut BTreeMap<String, String>,
    reports: &mut Reports,
) -> Option<()> {
    let mut variables = BTreeMap::new();
    for file in files {
        let text = match files::read(file) {
            Ok(text) => text,
            Err(ReadError::Missing) => {
                let message = format!("couldn't find env file: `{}`", file.display());
                reports.error("missing-file", Mark::default(), message);
                return None;
            }
            Err(ReadError::Other(diagnostic)) => {
                reports.push(diagnostic);
                return None;
            }
        };
        let lookup = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
        if let Err(error) = dotenv::parse(&text, &mut variables, &lookup) {
            push_dotenv_error(file, &error, reports);
            return None;
        }
    }
    if let Some(record) = &mut reports.record {
        // Within a group the last file wins, and groups that are read earlier win over later ones.
        record.variable_files.extend(files.iter().rev().cloned());
    }
    for (key, value) in variables {
        environment.entry(key).or_insert(value);
    }
    Some(())
}

pub(super) fn push_dotenv_error(file: &Path, error: &dotenv::DotenvError, reports: &mut Reports) {
    let place = Place { file: Arc::new(file.to_owned()), line: error.line, column: 1, length: 0 };
    let message = format!("failed to read `{}`: {}", file.display(), error.message);
    reports.push(Diagnostic::error("invalid-env-file", Some(place), message));
}

fn compose_files(
    options: &LoadOptions,
    folder: Option<&Path>,
    environment: &BTreeMap<String, String>,
    reports: &mut Reports,
) -> Option<Vec<File>> {
    let here = &options.working_dir;
    if !options.files.is_empty() {
        return Some(options.files.iter().map(|file| File::named(file, here)).collect());
    }
    let named = environment.get("COMPOSE_FILE").map(String::as_str).unwrap_or_default();
    if !named.is_empty() {
        let separator = environment.get("COMPOSE_PATH_SEPARATOR").filter(|separator| !separator.is_empty());
        let named = named.split(separator.map_or(":", String::as_str));
        return Some(named.map(|file| File::named(file, here)).collect());
    }
    search(folder.unwrap_or(here), reports).map(|files| files.into_iter().map(File::Here).collect())
}

/// Looks in `folder`, then in those above it.
fn search(folder: &Path, reports: &mut Reports) -> Option<Vec<PathBuf>> {
    for folder in folder.ancestors() {
        let found = |names: &[&str]| -> Vec<PathBuf> {
            names.iter().map(|name| folder.join(name)).filter(|file| std::fs::metadata(file).is_ok()).collect()
        };
        let candidates = found(&FILE_NAMES);
        let Some(file) = candidates.first() else { continue };
        several(&candidates, reports);
        let overrides = found(&OVERRIDE_NAMES);
        several(&overrides, reports);
        return Some(std::iter::once(file.clone()).chain(overrides.first().cloned()).collect());
    }
    reports.error_with_help(
        "no-compose-file",
        Mark::default(),
        format!("no configuration file provided: there is no `compose.yaml` in `{}` or above it", folder.display()),
        "name one with `-f FILE`",
    );
    None
}

fn several(candidates: &[PathBuf], reports: &mut Reports) {
    if let [first, _, ..] = candidates {
        let all = candidates.iter().map(|file| format!("`{}`", file.display())).collect::<Vec<_>>().join(", ");
        let message = format!("several files would do ({all}), so `{}` is used", first.display());
        reports.warning("several-files", Mark::default(), message);
    }
}
