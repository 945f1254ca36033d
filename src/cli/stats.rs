//! `stats` and `top`: what containers use, and their processes.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::{show, values};
use crate::ui::format::RowFormat;
use crate::ui::stats;

/// Between the first two looks; processor time is a difference.
const FIRST: Duration = Duration::from_millis(500);
const INTERVAL: Duration = Duration::from_secs(1);
/// To the top left, and clear from there (ECMA-48).
const HOME: &str = "\x1b[H\x1b[J";

#[derive(Args, Clone, Debug)]
pub struct StatsArgs {
    /// Service; all when none is named
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    /// Show stopped containers, too
    #[arg(short, long)]
    all: bool,
    /// `table`, `json` (one object a line), or a template such as `{{.Name}}`, `table` before it for a head
    #[arg(long, default_value = "table", value_parser = values::row_format)]
    format: RowFormat,
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// Full ids
    #[arg(long)]
    no_trunc: bool,
}

#[derive(Args, Clone, Debug, Default)]
pub struct TopArgs {
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: StatsArgs, context: &Context) -> Result<ExitCode, Failure> {
    let services = args.service.into_iter().collect();
    let mut meter = context.app.meter(services, args.all).map_err(|error| context.failure(error))?;
    let mut out = std::io::stdout().lock();
    let clears = out.is_terminal() && !args.no_stream;
    let mut pause = FIRST;
    loop {
        std::thread::sleep(pause);
        pause = INTERVAL;
        let samples = meter.sample().map_err(|error| context.failure(error))?;
        let text = match &args.format {
            RowFormat::Table => stats::stats(&samples, args.no_trunc),
            format => format.render(&stats::stats_objects(&samples), "CONTAINER ID").map_err(Failure::new)?,
        };
        let written = write!(out, "{}{text}", if clears { HOME } else { "" }).and_then(|()| out.flush());
        match written {
            Ok(()) if args.no_stream => return Ok(ExitCode::SUCCESS),
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(show::unwritten(&error)),
        }
    }
}

/// # Errors
/// Whatever keeps it from being done.
pub fn top(args: TopArgs, context: &Context) -> Result<ExitCode, Failure> {
    let rows = context.app.top(&args.services).map_err(|error| context.failure(error))?;
    show::text(&stats::top(&rows, show::now()))
}
