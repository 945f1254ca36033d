//! `ls`: the projects on this machine.

use clap::Args;

use crate::app::options::{ListFormat, LsOptions};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::values;
use crate::ui::tables;
use std::process::ExitCode;

#[derive(Args, Clone, Debug, Default)]
pub struct LsArgs {
    /// Show projects with stopped containers only, too
    #[arg(short, long)]
    all: bool,
    /// Names only
    #[arg(short, long)]
    quiet: bool,
    /// `name=REGEX`: what the name matches
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `table` or `json`
    #[arg(long, default_value = "table", value_parser = values::list_format)]
    format: ListFormat,
}

impl LsArgs {
    /// # Errors
    /// For a filter that there is not.
    pub fn options(self) -> Result<LsOptions, Failure> {
        let mut name_filter = Vec::new();
        for filter in &self.filter {
            match filter.split_once('=') {
                Some(("name", text)) => name_filter.push(text.to_owned()),
                _ => return Err(Failure::new(format!("unknown filter `{filter}`")).help("use `--filter name=REGEX`")),
            }
        }
        Ok(LsOptions { all: self.all, quiet: self.quiet, name_filter, format: self.format })
    }
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: LsArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = args.options()?;
    let rows = context.app.ls(&options).map_err(|error| context.failure(error))?;
    if options.quiet {
        return show::lines(rows.into_iter().map(|row| row.name));
    }
    show::text(&match options.format {
        ListFormat::Table => tables::ls(&rows),
        ListFormat::Json => tables::ls_json(&rows),
    })
}
