//! `wait`: until containers end.

use std::process::ExitCode;

use clap::Args;

use crate::app::options::DownOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;

#[derive(Args, Clone, Debug)]
pub struct WaitArgs {
    /// Services to wait for
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
    /// Take the project down when the first container has ended
    #[arg(long)]
    down_project: bool,
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: WaitArgs, context: &Context) -> Result<ExitCode, Failure> {
    let mut code = 0;
    let first_only = args.down_project;
    let waited = context.app.wait(&args.services, &mut |ended| {
        code = ended.code;
        let line = format!("container \"{}\" exited with status code {code}\n", ended.id);
        show::text(&line).is_ok() && !first_only
    });
    waited.map_err(|error| context.failure(error))?;
    if args.down_project {
        let options = DownOptions { remove_orphans: true, ..DownOptions::default() };
        context.change(context.progress, "Running", |news| context.app.down(options, news))?;
    }
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
