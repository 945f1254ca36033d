//! `attach`: the streams of a container that runs.

use std::process::ExitCode;

use clap::Args;

use crate::app::options::AttachOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::foreground;
use crate::cli::interrupt;

#[derive(Args, Clone, Debug)]
pub struct AttachArgs {
    service: String,
    /// Which container of the service
    #[arg(long, value_name = "NUM")]
    index: Option<u32>,
    /// Do not pass input on
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the container's process
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true",
        action = clap::ArgAction::Set, value_name = "BOOL")]
    sig_proxy: bool,
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: AttachArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = AttachOptions { service: args.service, index: args.index.filter(|index| *index > 0) };
    let target = context.app.attachable(&options).map_err(|error| context.failure(error))?;
    if args.sig_proxy {
        interrupt::forwards(&context.app, &target)?;
    }
    let stdin = (target.stdin || target.terminal) && !args.no_stdin;
    let reached = context.app.reached(&target.project, &foreground::selection(&target));
    let reached = reached.map_err(|error| Failure::new(format!("cannot read the project's state: {error}")))?;
    let code = foreground::attend(context, &target, stdin, reached)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
