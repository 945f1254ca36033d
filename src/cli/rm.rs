//! `rm`: remove stopped containers.

use clap::Args;

use crate::app::options::RmOptions;

#[derive(Args, Clone, Debug, Default)]
pub struct RmArgs {
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Stop running ones first
    #[arg(short, long)]
    stop: bool,
    /// Remove their anonymous volumes, too
    #[arg(short, long)]
    volumes: bool,
    #[arg(short, long, hide = true)]
    all: bool,
}

impl RmArgs {
    pub fn options(self) -> RmOptions {
        RmOptions { services: self.services, force: self.force, stop: self.stop, volumes: self.volumes }
    }
}
