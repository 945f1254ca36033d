//! `pull`: fetch the images of services.

use std::process::ExitCode;

use clap::Args;

use crate::app::options::PullOptions;
use crate::app::options::PullPolicy;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::values;
use crate::ui::progress::ProgressMode;

#[derive(Args, Clone, Debug, Default)]
pub struct PullArgs {
    /// Services whose images to fetch; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Leave out images that can be built
    #[arg(long)]
    ignore_buildable: bool,
    /// Go on when an image cannot be fetched, and succeed
    #[arg(long)]
    ignore_pull_failures: bool,
    /// Also the images of what the services depend on
    #[arg(long)]
    include_deps: bool,
    /// `missing` or `always`, instead of what the file says
    #[arg(long, value_name = "POLICY", value_parser = values::pull_policy)]
    policy: Option<PullPolicy>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    #[arg(long, hide = true)]
    parallel: bool,
    #[arg(long, hide = true)]
    no_parallel: bool,
}

impl PullArgs {
    pub fn options(self) -> PullOptions {
        PullOptions {
            services: self.services,
            ignore_buildable: self.ignore_buildable,
            ignore_failures: self.ignore_pull_failures,
            include_deps: self.include_deps,
            policy: self.policy,
            quiet: self.quiet,
        }
    }
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: PullArgs, context: &Context) -> Result<ExitCode, Failure> {
    context.no_dry_run("pull")?;
    let options = args.options();
    let mode = if options.quiet { ProgressMode::Quiet } else { context.progress };
    let warnings = show::with_progress(mode, "Pulling", |news| context.app.pull(&options, news))
        .map_err(|error| context.failure(error))?;
    show::diagnostics(&warnings, context.ansi);
    Ok(ExitCode::SUCCESS)
}
