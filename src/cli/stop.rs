//! `stop`: stop containers, keep them.

use std::time::Duration;

use clap::Args;

use crate::app::options::StopOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::values;
use std::process::ExitCode;

#[derive(Args, Clone, Debug, Default)]
pub struct StopArgs {
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Seconds to wait for a container to stop, instead of its own grace period
    #[arg(short, long, value_name = "SECONDS", value_parser = values::seconds)]
    timeout: Option<Duration>,
}

impl StopArgs {
    pub fn options(self) -> StopOptions {
        StopOptions { services: self.services, timeout: self.timeout }
    }
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: StopArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = args.options();
    context.change(context.progress, "Stopping", |news| context.app.stop(options, news))?;
    Ok(ExitCode::SUCCESS)
}
