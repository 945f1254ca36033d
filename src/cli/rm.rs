//! `rm`: remove stopped containers.

use clap::Args;

use crate::app::options::RmOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use std::process::ExitCode;

#[derive(Args, Clone, Debug, Default)]
pub struct RmArgs {
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Stop running ones first
    #[arg(short, long)]
    stop: bool,
    /// Remove their anonymous volumes, too
    #[arg(short, long)]
    volumes: bool,
    #[arg(short, long, hide = true)]
    all: bool,
}

impl RmArgs {
    pub fn options(self) -> RmOptions {
        RmOptions { services: self.services, force: self.force, stop: self.stop, volumes: self.volumes }
    }
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: RmArgs, context: &Context) -> Result<ExitCode, Failure> {
    let mut options = args.options();
    let (project, names) = context.app.removable(&mut options).map_err(|error| context.failure(error))?;
    if names.is_empty() {
        show::say("No stopped containers");
        return Ok(ExitCode::SUCCESS);
    }
    show::text(&format!("Going to remove {}\n", names.join(", ")))?;
    if !options.force && !show::confirmed("Are you sure? [yN] ")? {
        return Ok(ExitCode::SUCCESS);
    }
    context.change(context.progress, "Removing", |news| context.app.rm(&project, options, news))?;
    Ok(ExitCode::SUCCESS)
}
