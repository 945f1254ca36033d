//! `pause` and `unpause`: freeze containers, and let them go on.

use std::process::ExitCode;

use clap::Args;

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;

#[derive(Args, Clone, Debug, Default)]
pub struct PauseArgs {
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: PauseArgs, pause: bool, context: &Context) -> Result<ExitCode, Failure> {
    let (verb, title) = if pause { ("pause", "Pausing") } else { ("unpause", "Unpausing") };
    context.no_dry_run(verb)?;
    show::with_progress(context.progress, title, |news| context.app.pause(args.services, pause, news))
        .map_err(|error| context.failure(error))?;
    Ok(ExitCode::SUCCESS)
}
