//! Flags of every command: which project, in which form.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use clap::{ArgAction, Args, ValueEnum};

use crate::app::LoadOptions;
use crate::app::remote;
use crate::cli::failure::Failure;
use crate::state::Roots;
use crate::ui::Ansi;

/// The flags before the command.
#[derive(Args, Debug, Clone, Default)]
pub struct RootArgs {
    /// Compose file, may be given several times (`-` is standard input)
    #[arg(short = 'f', long = "file", value_name = "FILE", action = ArgAction::Append)]
    pub files: Vec<String>,
    /// Project name
    #[arg(short, long, value_name = "NAME")]
    pub project_name: Option<String>,
    /// Folder that relative paths start from (default: that of the first Compose file)
    #[arg(long, value_name = "DIR")]
    pub project_directory: Option<PathBuf>,
    /// Old spelling of `--project-directory`
    #[arg(long, value_name = "DIR", hide = true)]
    pub workdir: Option<PathBuf>,
    /// Profile to activate, may be given several times
    #[arg(long = "profile", value_name = "NAME", action = ArgAction::Append)]
    pub profiles: Vec<String>,
    /// File of variables instead of `.env`, may be given several times
    #[arg(long = "env-file", value_name = "FILE", action = ArgAction::Append)]
    pub env_files: Vec<PathBuf>,
    /// Names of containers and images with `_` instead of `-`; `config` prints without names and defaults
    #[arg(long, env = "COMPOSE_COMPATIBILITY", hide_env = true,
        value_parser = clap::builder::BoolishValueParser::new())]
    pub compatibility: bool,
    /// Keep resources that no active service uses
    #[arg(long)]
    pub all_resources: bool,
    /// When to use colours and cursor movements
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto", env = "COMPOSE_ANSI", hide_env = true)]
    pub ansi: AnsiArg,
    /// Old spelling of `--ansi never`
    #[arg(long, hide = true)]
    pub no_ansi: bool,
    /// How to show progress
    #[arg(long, value_name = "TYPE", value_enum, default_value = "auto", env = "COMPOSE_PROGRESS", hide_env = true)]
    pub progress: ProgressArg,
    /// How many things to do at once, -1 for no limit
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true, env = "COMPOSE_PARALLEL_LIMIT",
        hide_env = true)]
    pub parallel: i64,
    /// Show what would be done, and do nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// More messages
    #[arg(long, hide = true)]
    pub verbose: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AnsiArg {
    Never,
    Always,
    #[default]
    Auto,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressArg {
    #[default]
    Auto,
    Tty,
    Plain,
    Json,
    #[value(alias = "none")]
    Quiet,
}

impl RootArgs {
    pub fn ansi(&self) -> Ansi {
        match self.ansi {
            _ if self.no_ansi => Ansi::Never,
            AnsiArg::Never => Ansi::Never,
            AnsiArg::Always => Ansi::Always,
            AnsiArg::Auto => Ansi::Auto,
        }
    }

    /// The project that these flags name, as seen from the current folder.
    ///
    /// # Errors
    /// When the current folder is not there any more, or flags contradict each other.
    pub fn load_options(&self) -> Result<LoadOptions, Failure> {
        let project_directory = match (&self.project_directory, &self.workdir) {
            (Some(_), Some(_)) => {
                return Err(Failure::new("`--workdir` is the old spelling of `--project-directory`: give only one"));
            }
            (given, old) => given.clone().or_else(|| old.clone()),
        };
        let working_dir = current_folder().map_err(|error| {
            Failure::from_error(&error).help("it was removed or renamed: `cd` into a folder that exists")
        })?;
        let environment = environment();
        let data = roots(&environment, &working_dir).data;
        Ok(LoadOptions {
            remotes: Some(remote::remotes(&data, environment)),
            working_dir,
            files: self.files.clone(),
            project_directory,
            project_name: self.project_name.clone(),
            profiles: self.profiles.clone(),
            env_files: self.env_files.clone(),
            all_resources: self.all_resources,
            compatibility: self.compatibility,
            ..LoadOptions::default()
        })
    }
}

/// The current folder by the name that the shell has for it: one that was entered through a symbolic link is called as the link is,
/// and so is its project, as in the reference.
fn current_folder() -> io::Result<PathBuf> {
    let folder = std::env::current_dir()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot find the current folder: {error}")))?;
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let here = identity(&folder);
    // Paths are cleaned as text later, which `..` behind a link does not survive.
    let plain = |path: &PathBuf| path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    let called = std::env::var_os("PWD").map(PathBuf::from).filter(plain);
    Ok(called.filter(|called| here.is_some() && identity(called) == here).unwrap_or(folder))
}

/// Where state is kept.
pub fn roots(environment: &BTreeMap<String, String>, working_dir: &Path) -> Roots {
    let located = Roots::locate(rustix::process::geteuid().is_root(), |name| {
        environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    });
    Roots { data: working_dir.join(located.data), run: working_dir.join(located.run) }
}

/// The environment of this process; what is not UTF-8 is left out.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect()
}
