//! `registry`: a registry of one's own.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;

#[derive(Subcommand, Clone, Debug)]
pub enum RegistryArgs {
    /// Answer as a registry: share the images of this machine, and take in what others push
    Serve {
        /// Address and port; without a login, so keep it on this machine unless you trust the network
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
        addr: SocketAddr,
    },
}

/// # Errors
/// It cannot listen.
pub fn run(args: &RegistryArgs, context: &Context) -> Result<ExitCode, Failure> {
    let RegistryArgs::Serve { addr } = args;
    let server = context.app.registry(*addr).map_err(|error| context.failure(error))?;
    if !addr.ip().is_loopback() {
        show::warn(&format!("everybody who can reach {addr} can pull the images of this machine, and push"));
    }
    let address = server.address().unwrap_or(*addr);
    if context.app.dry_run {
        return show::lines([format!("would be a registry on {address}")]);
    }
    show::lines([format!("registry on {address}: push to {address}/NAME, end with Ctrl-C")])?;
    let failed = server.run();
    failed.map_err(|error| Failure::new(format!("the registry cannot go on: {error}")))?;
    Ok(ExitCode::SUCCESS)
}
