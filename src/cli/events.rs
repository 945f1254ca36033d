//! `events`: what happens to the containers.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::app::options::EventsOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::values;

#[derive(Args, Clone, Debug, Default)]
pub struct EventsArgs {
    /// Services to follow; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// From this time on, or from so long ago (`42m`)
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    since: Option<i64>,
    /// Until this time
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    until: Option<i64>,
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: EventsArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = EventsOptions { services: args.services, since: args.since, until: args.until };
    let shown = context.app.events(&options, &mut |event| {
        let line = if args.json { event.to_string() } else { plain(event) };
        show::line(&line)
    });
    shown.map_err(|error| context.failure(error))?;
    Ok(ExitCode::SUCCESS)
}

/// `2026-01-31 12:00:00.000000 container start ID (image=…, name=…)`
fn plain(event: &Value) -> String {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let attributes = event.get("attributes").and_then(Value::as_object).into_iter().flatten();
    let attributes: Vec<_> =
        attributes.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let time = text("time").parse::<jiff::Timestamp>().unwrap_or_default();
    let time = time.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.6f").to_string();
    format!("{time} {} {} {} ({})", text("type"), text("action"), text("id"), attributes.join(", "))
}
