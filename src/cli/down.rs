//! `down`: stop and remove containers and networks, and volumes when asked.

use std::time::Duration;

use clap::Args;

use crate::app::options::{DownOptions, RemoveImages};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::values;
use std::process::ExitCode;

#[derive(Args, Clone, Debug, Default)]
pub struct DownArgs {
    /// Services to remove; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Remove named volumes of the file and anonymous volumes, too
    #[arg(short, long, alias = "volume")]
    volumes: bool,
    /// Remove containers of services that the file does not have
    #[arg(long, env = "COMPOSE_REMOVE_ORPHANS", value_parser = clap::builder::BoolishValueParser::new())]
    remove_orphans: bool,
    /// Seconds to wait for a container to stop, instead of its own grace period
    #[arg(short, long, value_name = "SECONDS", value_parser = values::seconds)]
    timeout: Option<Duration>,
    /// Remove images of the services, too: `local` (those that the file gives no name) or `all`
    #[arg(long, value_name = "WHICH", value_parser = images)]
    rmi: Option<RemoveImages>,
}

impl DownArgs {
    pub fn options(self) -> DownOptions {
        DownOptions {
            services: self.services,
            volumes: self.volumes,
            remove_orphans: self.remove_orphans,
            timeout: self.timeout,
            images: self.rmi,
        }
    }
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: DownArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = args.options();
    context.change(context.progress, "Running", |news| context.app.down(options, news))?;
    Ok(ExitCode::SUCCESS)
}

fn images(text: &str) -> Result<RemoveImages, String> {
    match text {
        "local" => Ok(RemoveImages::Local),
        "all" => Ok(RemoveImages::All),
        _ => Err("it is `local` or `all`".to_owned()),
    }
}
