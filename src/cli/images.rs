//! `images`: the images of the containers.

use clap::Args;

use crate::app::options::ImagesOptions;
use crate::cli::values;

#[derive(Args, Clone, Debug, Default)]
pub struct ImagesArgs {
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// `table` or `json`
    #[arg(long, default_value = "table", value_parser = values::list_format)]
    format: crate::app::options::ListFormat,
}

impl ImagesArgs {
    pub fn options(self) -> ImagesOptions {
        ImagesOptions { services: self.services, quiet: self.quiet, format: self.format }
    }
}
