//! `stop`: stop containers, keep them.

use std::time::Duration;

use clap::Args;

use crate::app::options::StopOptions;
use crate::cli::values;

#[derive(Args, Clone, Debug, Default)]
pub struct StopArgs {
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Seconds to wait for a container to stop, instead of its own grace period
    #[arg(short, long, value_name = "SECONDS", value_parser = values::seconds)]
    timeout: Option<Duration>,
}

impl StopArgs {
    pub fn options(self) -> StopOptions {
        StopOptions { services: self.services, timeout: self.timeout }
    }
}
