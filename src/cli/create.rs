//! `create`: as `up`, but nothing is started.

use std::process::ExitCode;

use clap::Args;

use crate::app::options::PullPolicy;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::up::{self, UpArgs};
use crate::cli::values;

#[derive(Args, Clone, Debug, Default)]
pub struct CreateArgs {
    /// Services to create, with what they depend on; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Build images before
    #[arg(long, conflicts_with = "no_build")]
    build: bool,
    /// Never build
    #[arg(long)]
    no_build: bool,
    /// When to pull: always, missing, never or build
    #[arg(long, value_name = "POLICY", value_parser = values::pull_policy)]
    pull: Option<PullPolicy>,
    /// Pull without progress
    #[arg(long)]
    quiet_pull: bool,
    /// Recreate containers that have not changed, too
    #[arg(long, conflicts_with = "no_recreate")]
    force_recreate: bool,
    /// Keep containers that exist, even if they have changed
    #[arg(long)]
    no_recreate: bool,
    /// Remove containers of services that the file does not have
    #[arg(long)]
    remove_orphans: bool,
    /// Number of containers of a service
    #[arg(long, value_name = "SERVICE=NUM", value_parser = values::scale)]
    scale: Vec<(String, u32)>,
    /// Answer questions with yes: those about files from elsewhere
    #[arg(short, long, alias = "y", hide = true)]
    yes: bool,
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: CreateArgs, context: Context) -> Result<ExitCode, Failure> {
    let args = UpArgs {
        services: args.services,
        build: args.build,
        no_build: args.no_build,
        pull: args.pull,
        quiet_pull: args.quiet_pull,
        force_recreate: args.force_recreate,
        no_recreate: args.no_recreate,
        remove_orphans: args.remove_orphans,
        scale: args.scale,
        yes: args.yes,
        no_start: true,
        may_be_empty: true,
        ..UpArgs::default()
    };
    up::run(args, context)
}
