//! `pause` and `unpause`: freeze containers, and let them go on.

use std::process::ExitCode;

use clap::Args;

use crate::cli::context::Context;
use crate::cli::failure::Failure;

#[derive(Args, Clone, Debug, Default)]
pub struct PauseArgs {
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: PauseArgs, pause: bool, context: &Context) -> Result<ExitCode, Failure> {
    let title = if pause { "Pausing" } else { "Unpausing" };
    context.change(context.progress, title, |news| context.app.pause(args.services, pause, news))?;
    Ok(ExitCode::SUCCESS)
}
