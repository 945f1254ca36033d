//! `system`: what rcompose takes of the machine.

use std::process::ExitCode;

use clap::Subcommand;

use crate::app::options::ListFormat;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::values;
use crate::ui::usage;

#[derive(Subcommand, Clone, Debug)]
pub enum SystemArgs {
    /// Show how much room images, containers, volumes and caches take
    Df {
        /// Every image, container, volume and cache
        #[arg(short, long)]
        verbose: bool,
        /// `table` or `json`
        #[arg(long, default_value = "table", value_parser = values::list_format)]
        format: ListFormat,
    },
}

/// # Errors
/// The state cannot be read.
pub fn run(args: &SystemArgs, context: &Context) -> Result<ExitCode, Failure> {
    let SystemArgs::Df { verbose, format } = args;
    let (rows, layers) = context.app.disk_usage().map_err(|error| context.failure(error))?;
    show::text(&match (format, verbose) {
        (ListFormat::Json, _) => usage::usage_json(&rows),
        (ListFormat::Table, true) => usage::usage_verbose(&rows),
        (ListFormat::Table, false) => usage::usage(&rows, layers),
    })
}
