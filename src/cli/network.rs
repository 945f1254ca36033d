//! `network`: networks, and who is on them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use clap::Subcommand;

use crate::app::options::{EndpointOptions, NetworkOptions};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::values;
use crate::ui::format::RowFormat;
use crate::ui::tables;

#[derive(Subcommand, Clone, Debug)]
pub enum NetworkArgs {
    /// Put a container on one more network, while it runs or not
    Connect {
        /// As the file calls it, or by its name: also one of another project
        network: String,
        /// Name of a container, or a service
        container: String,
        /// Which container of the service
        #[arg(long, value_name = "NUM")]
        index: Option<u32>,
        /// Further name of it there
        #[arg(long, value_name = "NAME")]
        alias: Vec<String>,
        /// IPv4 address
        #[arg(long)]
        ip: Option<Ipv4Addr>,
        /// IPv6 address
        #[arg(long)]
        ip6: Option<Ipv6Addr>,
        /// Further address of the interface
        #[arg(long, value_name = "IP")]
        link_local_ip: Vec<IpAddr>,
        /// The network with the highest one leads out
        #[arg(long, value_name = "NUM", default_value_t = 0, allow_negative_numbers = true)]
        gw_priority: i64,
    },
    /// Take a container off a network, while it runs or not
    Disconnect {
        /// As the file calls it, or by its name
        network: String,
        /// Name of a container, or a service
        container: String,
        /// Which container of the service
        #[arg(long, value_name = "NUM")]
        index: Option<u32>,
    },
    /// List the networks of all projects
    #[command(visible_alias = "list")]
    Ls {
        /// Ids only
        #[arg(short, long)]
        quiet: bool,
        /// Whole ids
        #[arg(long)]
        no_trunc: bool,
        /// `table`, `json` (one object a line), or a template such as `{{.Name}}`
        #[arg(long, default_value = "table", value_parser = values::row_format)]
        format: RowFormat,
    },
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: NetworkArgs, context: &Context) -> Result<ExitCode, Failure> {
    let done = match args {
        NetworkArgs::Connect { network, container, index, alias, ip, ip6, link_local_ip, gw_priority } => {
            let endpoint =
                EndpointOptions { aliases: alias, ipv4: ip, ipv6: ip6, link_local: link_local_ip, gw_priority };
            context.app.join_network(NetworkOptions { network, container, index }, endpoint)
        }
        NetworkArgs::Disconnect { network, container, index } => {
            context.app.leave_network(NetworkOptions { network, container, index })
        }
        NetworkArgs::Ls { quiet, no_trunc, format } => return list(quiet, no_trunc, &format, context),
    };
    done.map_err(|error| context.failure(error))?;
    Ok(ExitCode::SUCCESS)
}

fn list(quiet: bool, no_trunc: bool, format: &RowFormat, context: &Context) -> Result<ExitCode, Failure> {
    let mut rows = context.app.networks().map_err(|error| context.failure(error.into()))?;
    if !no_trunc {
        rows.iter_mut().for_each(|row| row.id.truncate(12));
    }
    if quiet {
        return show::lines(rows.into_iter().map(|row| row.id));
    }
    let text = match format {
        RowFormat::Table => tables::networks(&rows),
        format => format.render(&tables::network_objects(&rows), "NETWORK ID").map_err(Failure::new)?,
    };
    show::text(&text)
}
