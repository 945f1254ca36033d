//! `cp`: files into and out of containers.

use std::process::ExitCode;

use clap::Args;

use crate::app::options::CopyOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;

#[derive(Args, Clone, Debug)]
pub struct CpArgs {
    /// `SERVICE:PATH`, a path, or `-` for a tar archive on standard input
    #[arg(value_name = "SOURCE")]
    source: String,
    /// `SERVICE:PATH`, a path, or `-` for a tar archive on standard output
    #[arg(value_name = "DESTINATION")]
    destination: String,
    /// Containers of `run`, too
    #[arg(long)]
    all: bool,
    /// Keep owners
    #[arg(short, long)]
    archive: bool,
    /// Copy what a link leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Which container of the service
    #[arg(long, value_name = "NUM")]
    index: Option<u32>,
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: CpArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = CopyOptions {
        source: args.source,
        destination: args.destination,
        all: args.all,
        archive: args.archive,
        follow_link: args.follow_link,
        index: args.index.filter(|index| *index > 0),
    };
    let copied = show::with_progress(context.progress, "Copying", |news| context.app.copy(&options, news));
    copied.map_err(|error| context.failure(error))?;
    Ok(ExitCode::SUCCESS)
}
