//! `kill`: send a signal.

use clap::Args;

use crate::app::options::KillOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use std::process::ExitCode;

#[derive(Args, Clone, Debug, Default)]
pub struct KillArgs {
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Name or number of the signal
    #[arg(short, long, default_value = "SIGKILL")]
    signal: String,
    /// Signal containers of services that the file does not have, too
    #[arg(long, env = "COMPOSE_REMOVE_ORPHANS", value_parser = clap::builder::BoolishValueParser::new())]
    remove_orphans: bool,
}

impl KillArgs {
    pub fn options(self) -> KillOptions {
        KillOptions { services: self.services, signal: self.signal, remove_orphans: self.remove_orphans }
    }
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: KillArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = args.options();
    context.change(context.progress, "Killing", |news| context.app.kill(options, news))?;
    Ok(ExitCode::SUCCESS)
}
