//! `kill`: send a signal.

use clap::Args;

use crate::app::options::KillOptions;

#[derive(Args, Clone, Debug, Default)]
pub struct KillArgs {
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Name or number of the signal
    #[arg(short, long, default_value = "SIGKILL")]
    signal: String,
    /// Signal containers of services that the file does not have, too
    #[arg(long, env = "COMPOSE_REMOVE_ORPHANS", value_parser = clap::builder::BoolishValueParser::new())]
    remove_orphans: bool,
}

impl KillArgs {
    pub fn options(self) -> KillOptions {
        KillOptions { services: self.services, signal: self.signal, remove_orphans: self.remove_orphans }
    }
}
