//! `restart`: stop and start containers as they are.

use std::time::Duration;

use clap::Args;

use crate::app::options::RestartOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::values;
use std::process::ExitCode;

#[derive(Args, Clone, Debug, Default)]
pub struct RestartArgs {
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Seconds to wait for a container to stop, instead of its own grace period
    #[arg(short, long, value_name = "SECONDS", value_parser = values::seconds)]
    timeout: Option<Duration>,
    /// Leave alone what depends on the services
    #[arg(long)]
    no_deps: bool,
}

impl RestartArgs {
    pub fn options(self) -> RestartOptions {
        RestartOptions { services: self.services, timeout: self.timeout, no_deps: self.no_deps }
    }
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: RestartArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = args.options();
    context.change(context.progress, "Restarting", |news| context.app.restart(options, news))?;
    Ok(ExitCode::SUCCESS)
}
