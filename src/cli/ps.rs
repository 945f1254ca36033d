//! `ps`: the containers of the project.

use clap::Args;

use crate::app::options::PsOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::values;
use crate::ui::format::RowFormat;
use crate::ui::tables::{self, PsRow};
use std::collections::BTreeSet;
use std::process::ExitCode;

const STATES: [&str; 7] = ["paused", "restarting", "removing", "running", "dead", "created", "exited"];

#[derive(Args, Clone, Debug)]
pub struct PsArgs {
    /// Services to show; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Show stopped containers and those of `run`, too
    #[arg(short, long)]
    all: bool,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// Names of services only
    #[arg(long = "services")]
    services_only: bool,
    /// Full ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show containers of services that the file does not have
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    orphans: bool,
    /// Show containers in these states only
    #[arg(long, value_name = "STATE", value_parser = STATES)]
    status: Vec<String>,
    /// `status=STATE`
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Option<String>,
    /// `table`, `json` (one object a line), or a template such as `{{.Name}}`, `table` before it for a head
    #[arg(long, default_value = "table", value_parser = values::row_format)]
    format: RowFormat,
}

impl PsArgs {
    /// # Errors
    /// For a filter that there is not.
    pub fn options(self) -> Result<PsOptions, Failure> {
        let mut status = self.status;
        if let Some(filter) = &self.filter {
            match filter.split_once('=') {
                Some(("status", state)) if STATES.contains(&state) => status.push(state.to_owned()),
                Some(("status", state)) => {
                    let help = format!("states are {}", STATES.join(", "));
                    return Err(Failure::new(format!("no such state: `{state}`")).help(help));
                }
                _ => return Err(Failure::new(format!("unknown filter `{filter}`")).help("use `--filter status=STATE`")),
            }
        }
        Ok(PsOptions {
            services: self.services,
            all: self.all,
            quiet: self.quiet,
            services_only: self.services_only,
            no_trunc: self.no_trunc,
            no_orphans: !self.orphans,
            status,
        })
    }
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: PsArgs, context: &Context) -> Result<ExitCode, Failure> {
    let format = args.format.clone();
    let options = args.options()?;
    let (project, listed) = context.app.ps(&options).map_err(|error| context.failure(error))?;
    if options.quiet {
        return show::lines(listed.iter().map(|one| one.container.id.to_string()));
    }
    if options.services_only {
        let services: BTreeSet<_> = listed.iter().map(|one| one.container.service.name.clone()).collect();
        return show::lines(services);
    }
    let rows: Vec<_> = listed
        .iter()
        .map(|one| PsRow {
            container: &one.container,
            project: &project,
            command: &one.command,
            networks: &one.networks,
            mounts: &one.mounts,
            volumes: one.volumes,
            restarting: one.restarting,
        })
        .collect();
    let text = match &format {
        RowFormat::Table => tables::ps(&rows, options.no_trunc, show::now()),
        format => format
            .render(&tables::ps_objects(&rows, options.no_trunc, show::now()), "CONTAINER ID")
            .map_err(Failure::new)?,
    };
    show::text(&text)
}
