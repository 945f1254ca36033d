//! `watch`: changes on this machine go into containers that run.

use std::process::{Command, ExitCode, Stdio};

use clap::Args;

use crate::app::watch::Watching;
use crate::app::{AppError, LoadOptions};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::up::{self, UpArgs};

#[derive(Args, Clone, Debug, Default)]
pub struct WatchArgs {
    /// Services to watch; all that say what to watch when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// The project runs already
    #[arg(long)]
    no_up: bool,
    /// Remove images that rebuilding leaves without a name
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    prune: Option<bool>,
    /// Print nothing of builds
    #[arg(long)]
    quiet: bool,
}

/// # Errors
/// Whatever keeps it from watching.
pub fn run(args: WatchArgs, context: Context) -> Result<ExitCode, Failure> {
    if !args.no_up {
        let up = UpArgs { services: args.services.clone(), detach: true, ..UpArgs::default() };
        up::run(up, context.clone())?;
    }
    watch(&context, &args.services, args.quiet)?;
    Ok(ExitCode::SUCCESS)
}

/// Watches until the program ends.
///
/// # Errors
/// Whatever keeps it from watching.
pub fn watch(context: &Context, services: &[String], quiet: bool) -> Result<(), Failure> {
    let say = |line: &str| show::say(&format!("⦿ {line}"));
    let rebuild = |service: &str| rebuild(&context.app.load, service, quiet);
    let watching = Watching { say: &say, rebuild: &rebuild };
    context.app.watch(services, watching).map_err(|error| context.failure(error))
}

/// By another run of this program: builds start processes before any thread, and we have threads.
fn rebuild(load: &LoadOptions, service: &str, quiet: bool) -> Result<(), AppError> {
    let mut command = Command::new("/proc/self/exe");
    for file in &load.files {
        command.args(["-f", file]);
    }
    for profile in &load.profiles {
        command.args(["--profile", profile]);
    }
    for file in &load.env_files {
        command.arg("--env-file").arg(file);
    }
    if let Some(name) = &load.project_name {
        command.args(["-p", name]);
    }
    if let Some(folder) = &load.project_directory {
        command.arg("--project-directory").arg(folder);
    }
    command.args(["up", "-d", "--build", "--no-deps"]);
    if quiet {
        command.arg("--quiet-build");
    }
    let ran = command.arg(service).stdin(Stdio::null()).status();
    match ran.map_err(|source| AppError::Io { doing: "build the image".to_owned(), source })? {
        status if status.success() => Ok(()),
        _ => Err(AppError::Usage(format!("service `{service}` could not be rebuilt; the watch goes on"))),
    }
}
