//! `scale`: how many containers services have.

use std::process::ExitCode;

use clap::Args;

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::up::{self, UpArgs};
use crate::cli::values;

#[derive(Args, Clone, Debug, Default)]
pub struct ScaleArgs {
    /// Services, and how many containers each is to have
    #[arg(required = true, value_name = "SERVICE=NUM", value_parser = values::scale)]
    scale: Vec<(String, u32)>,
    /// Leave dependencies alone
    #[arg(long)]
    no_deps: bool,
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: ScaleArgs, context: Context) -> Result<ExitCode, Failure> {
    let services = args.scale.iter().map(|(service, _)| service.clone()).collect();
    let args = UpArgs { services, scale: args.scale, no_deps: args.no_deps, detach: true, ..UpArgs::default() };
    up::run(args, context)
}
