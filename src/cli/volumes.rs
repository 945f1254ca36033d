//! `volumes`: the volumes of the project.

use std::process::ExitCode;

use clap::Args;

use crate::app::options::VolumesOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::values;
use crate::ui::format::RowFormat;
use crate::ui::tables;

#[derive(Args, Clone, Debug)]
pub struct VolumesArgs {
    /// Volumes of these services; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Names only
    #[arg(short, long)]
    quiet: bool,
    /// `table`, `json` (one object a line), or a template such as `{{.Name}}`
    #[arg(long, default_value = "table", value_parser = values::row_format)]
    format: RowFormat,
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: VolumesArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = VolumesOptions { services: args.services };
    let rows = context.app.volumes(&options).map_err(|error| context.failure(error))?;
    if args.quiet {
        return show::lines(rows.into_iter().map(|row| row.name));
    }
    let text = match &args.format {
        RowFormat::Table => tables::volumes(&rows),
        format => format.render(&tables::volume_objects(&rows), "CONTAINER ID").map_err(Failure::new)?,
    };
    show::text(&text)
}
