//! `images`: the images of the containers.

use clap::Args;

use crate::app::options::ImagesOptions;
use crate::app::options::ListFormat;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::values;
use crate::ui::tables;
use std::collections::BTreeSet;
use std::process::ExitCode;

#[derive(Args, Clone, Debug, Default)]
pub struct ImagesArgs {
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// `table` or `json`
    #[arg(long, default_value = "table", value_parser = values::list_format)]
    format: ListFormat,
}

impl ImagesArgs {
    pub fn options(self) -> ImagesOptions {
        ImagesOptions { services: self.services, quiet: self.quiet, format: self.format }
    }
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: ImagesArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = args.options();
    let rows = context.app.images(&options).map_err(|error| context.failure(error))?;
    if options.quiet {
        let ids: BTreeSet<_> = rows.iter().map(|row| row.id.trim_start_matches("sha256:").to_owned()).collect();
        return show::lines(ids);
    }
    show::text(&match options.format {
        ListFormat::Table => tables::images(&rows, show::now()),
        ListFormat::Json => tables::images_json(&rows),
    })
}
