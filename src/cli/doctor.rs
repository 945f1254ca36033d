//! `doctor`: what this host lacks.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::app::doctor;
use crate::cli::failure::{Failure, GENERAL};
use crate::cli::{root, show};
use crate::ui::doctor::{State, json, text};

#[derive(Args, Clone, Debug, Default)]
pub struct DoctorArgs {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default)]
enum Format {
    #[default]
    Pretty,
    Json,
}

/// # Errors
/// When standard output cannot be written. The exit code is 1 when something is missing.
pub fn run(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    // Where there is no current folder, a root that is named from it is not there either.
    let folder = std::env::current_dir().unwrap_or_default();
    let findings = doctor::examine(&root::roots(&root::environment(), &folder));
    show::text(&match args.format {
        Format::Pretty => text(&findings),
        Format::Json => json(&findings),
    })?;
    let lacks = findings.iter().any(|finding| finding.state == State::Lack);
    Ok(if lacks { ExitCode::from(GENERAL) } else { ExitCode::SUCCESS })
}
