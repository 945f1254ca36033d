//! `commit`: an image of what a container has become.

use std::process::ExitCode;

use clap::{ArgAction, Args};

use crate::app::options::CommitOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;

#[derive(Args, Clone, Debug)]
pub struct CommitArgs {
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// Who made it
    #[arg(short, long)]
    author: Option<String>,
    /// A Dockerfile instruction to apply, such as `CMD ["sh"]`
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Which container of the service
    #[arg(long, value_name = "NUM")]
    index: Option<u32>,
    /// What has changed
    #[arg(short, long)]
    message: Option<String>,
    /// Freeze the service's containers meanwhile
    #[arg(short, long, action = ArgAction::Set, default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pause: bool,
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: CommitArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = CommitOptions {
        service: args.service,
        index: args.index.filter(|index| *index > 0),
        name: args.name,
        author: args.author,
        message: args.message,
        changes: args.change,
        pause: args.pause,
    };
    let made = show::with_progress(context.progress, "Committing", |news| context.app.commit(&options, news));
    made.map_err(|error| context.failure(error))?;
    Ok(ExitCode::SUCCESS)
}
