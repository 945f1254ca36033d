//! `lint`: arguments.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{ArgAction, Args, ValueEnum};

use crate::app::lint;
use crate::base::diagnostic::Severity;
use crate::cli::failure::{self, Failure};
use crate::cli::root::{self, RootArgs};
use crate::cli::show;
use crate::ui::diagnostics;

#[derive(Args, Debug)]
pub struct LintArgs {
    /// Form of the output
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub format: FormatArg,
    /// Warning to leave out, may be given several times
    #[arg(long, value_name = "CODE", action = ArgAction::Append, value_parser = codes())]
    pub ignore: Vec<String>,
    /// Services to look at; all when none is named
    #[arg(value_name = "SERVICE")]
    pub service: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    Text,
    Json,
}

fn codes() -> PossibleValuesParser {
    PossibleValuesParser::new(lint::CHECKS.iter().map(|check| PossibleValue::new(check.code).help(check.explanation)))
}

/// Prints the project's errors and warnings.
///
/// # Errors
/// When standard output is closed. What is found is told by the exit code.
pub fn run(args: LintArgs, root: &RootArgs) -> Result<ExitCode, Failure> {
    let mut options = root.load_options()?;
    options.services = args.service;
    let found = lint::lint(&options, &args.ignore, &root::environment());
    let mut output = std::io::stdout().lock();
    let text = match args.format {
        FormatArg::Text => diagnostics::render_with_codes(&found, root.ansi().enabled(output.is_terminal())),
        FormatArg::Json => diagnostics::json(&found),
    };
    if let Err(error) = output.write_all(text.as_bytes())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        return Err(show::unwritten(&error));
    }
    Ok(match found.iter().map(|diagnostic| diagnostic.severity).min() {
        None => ExitCode::SUCCESS,
        Some(Severity::Error) => ExitCode::from(failure::GENERAL),
        Some(Severity::Warning) => ExitCode::from(failure::WARNINGS),
    })
}
