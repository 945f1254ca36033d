//! `push`: send the images that services build to their registries.

use std::process::ExitCode;

use clap::Args;

use crate::app::options::PushOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::ui::progress::ProgressMode;

#[derive(Args, Clone, Debug, Default)]
pub struct PushArgs {
    /// Services whose images to push; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Go on when an image cannot be pushed, and succeed
    #[arg(long)]
    ignore_push_failures: bool,
    /// Also the images of what the services depend on
    #[arg(long)]
    include_deps: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

impl PushArgs {
    pub fn options(self) -> PushOptions {
        PushOptions {
            services: self.services,
            ignore_failures: self.ignore_push_failures,
            include_deps: self.include_deps,
            quiet: self.quiet,
        }
    }
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: PushArgs, context: &Context) -> Result<ExitCode, Failure> {
    context.no_dry_run("push")?;
    let options = args.options();
    let mode = if options.quiet { ProgressMode::Quiet } else { context.progress };
    let warnings = show::with_progress(mode, "Pushing", |news| context.app.push(&options, news))
        .map_err(|error| context.failure(error))?;
    show::diagnostics(&warnings, context.ansi);
    Ok(ExitCode::SUCCESS)
}
