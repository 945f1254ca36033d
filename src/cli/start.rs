//! `start`: start containers that exist.

use std::time::Duration;

use clap::Args;

use crate::app::options::StartOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::values;
use std::process::ExitCode;

#[derive(Args, Clone, Debug, Default)]
pub struct StartArgs {
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Return when everything is running or healthy
    #[arg(long)]
    wait: bool,
    /// Give up `--wait` after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
    wait_timeout: Option<Duration>,
}

impl StartArgs {
    pub fn options(self) -> StartOptions {
        StartOptions { services: self.services, wait: self.wait, wait_timeout: self.wait_timeout }
    }
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: StartArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = args.options();
    context.change(context.progress, "Starting", |news| context.app.start(options, news))?;
    Ok(ExitCode::SUCCESS)
}
