//! `version`: which program this is.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::cli::failure::Failure;

#[derive(Args, Clone, Debug, Default)]
pub struct VersionArgs {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
    /// The number only
    #[arg(long)]
    short: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default)]
enum Format {
    #[default]
    Pretty,
    Json,
}

/// # Errors
/// When standard output cannot be written.
pub fn run(args: &VersionArgs) -> Result<ExitCode, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let text = match (args.short, args.format) {
        (true, _) => version.to_owned(),
        (false, Format::Pretty) => format!("rcompose version {version}"),
        (false, Format::Json) => serde_json::json!({ "version": version }).to_string(),
    };
    writeln!(io::stdout(), "{text}").map_err(|error| Failure::from_error(&error))?;
    Ok(ExitCode::SUCCESS)
}
