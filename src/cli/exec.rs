//! `exec`: a command in a running container.

use std::io::IsTerminal;

use clap::Args;

use crate::app::options::ExecOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::session;
use crate::ui::terminal;
use std::os::fd::AsFd;
use std::process::ExitCode;

#[derive(Args, Clone, Debug)]
pub struct ExecArgs {
    /// The service, the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_names = ["SERVICE", "COMMAND"])]
    words: Vec<String>,
    /// Do not wait for the command
    #[arg(short, long)]
    detach: bool,
    /// Set a variable of the environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Which container of the service
    #[arg(long, value_name = "NUM")]
    index: Option<u32>,
    /// No terminal; so by itself when input or output is none
    #[arg(short = 'T', long, alias = "no-TTY")]
    no_tty: bool,
    #[arg(short, long, hide = true, num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    interactive: bool,
    #[arg(short, long, hide = true, num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    tty: bool,
    /// All capabilities
    #[arg(long)]
    privileged: bool,
    /// User, and group after a colon: names or numbers
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
}

impl ExecArgs {
    /// # Errors
    /// When there is no command.
    pub fn options(self) -> Result<ExecOptions, Failure> {
        let mut words = self.words.into_iter();
        let service = words.next().ok_or_else(|| Failure::new("a service and a command are needed"))?;
        let terminal = self.tty && !self.no_tty && !self.detach && std::io::stdout().is_terminal();
        if terminal && self.interactive {
            needs_terminal()?;
        }
        Ok(ExecOptions {
            service,
            command: words.collect(),
            detach: self.detach,
            index: self.index.filter(|index| *index > 0),
            terminal,
            stdin: self.interactive && !self.detach,
            privileged: self.privileged,
            user: self.user,
            working_dir: self.workdir,
            environment: self.env,
        })
    }
}

/// Refuses input that is no terminal for a program that gets one, as docker compose does.
///
/// # Errors
/// Standard input is none.
pub(super) fn needs_terminal() -> Result<(), Failure> {
    match std::io::stdin().is_terminal() {
        true => Ok(()),
        false => Err(Failure::new("the input device is not a TTY").help("`-T` runs it without a terminal")),
    }
}

/// Whether a person sits in front of us.
pub(super) fn on_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: ExecArgs, context: &Context) -> Result<ExitCode, Failure> {
    context.no_dry_run("exec")?;
    let options = args.options()?;
    let size = options.terminal.then(|| terminal::size(std::io::stdin().as_fd()).unwrap_or((24, 80)));
    let mut running = context.app.exec(&options, size).map_err(|error| context.failure(error))?;
    if options.detach {
        return Ok(ExitCode::SUCCESS);
    }
    session::pass_on(&mut running, size.is_some(), options.stdin)?;
    let code = running.wait().map_err(|error| context.failure(error))?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
