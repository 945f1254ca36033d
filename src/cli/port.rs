//! `port`: where a port of a container is published.

use std::process::ExitCode;

use clap::Args;

use crate::app::options::PortOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::values;

#[derive(Args, Clone, Debug)]
pub struct PortArgs {
    service: String,
    /// Port inside the container
    #[arg(value_name = "PRIVATE_PORT")]
    port: u16,
    /// Which container of the service
    #[arg(long, value_name = "NUM")]
    index: Option<u32>,
    /// `tcp`, `udp` or `sctp`
    #[arg(long, default_value = "tcp", value_parser = values::protocol)]
    protocol: String,
}

/// # Errors
/// When it is not published.
pub fn run(args: PortArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = PortOptions {
        service: args.service,
        port: args.port,
        index: args.index.filter(|index| *index > 0),
        protocol: args.protocol,
    };
    let found = context.app.port(&options).map_err(|error| context.failure(error))?;
    show::lines([found])
}
