//! `logs`: what containers have printed.

use clap::Args;

use crate::app::options::{LogOutput, LogsOptions};
use crate::cli::failure::Failure;
use crate::cli::values;

#[derive(Args, Clone, Debug, Default)]
pub struct LogsArgs {
    /// Services to show; all when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Go on with new lines as they are printed
    #[arg(short, long)]
    follow: bool,
    /// Only this container of the service
    #[arg(long, value_name = "NUM")]
    index: Option<u32>,
    /// Plain prefixes
    #[arg(long)]
    no_color: bool,
    /// No prefixes
    #[arg(long)]
    no_log_prefix: bool,
    /// Not older than this time, or than so long ago (`42m`)
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    since: Option<i64>,
    /// Not newer than this time, or than so long ago (`42m`)
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    until: Option<i64>,
    /// Only so many last lines of each container
    #[arg(short = 'n', long, value_name = "NUM|all", default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// The time before each line
    #[arg(short, long)]
    timestamps: bool,
}

impl LogsArgs {
    /// # Errors
    /// For a tail that is no number, or an index without its one service.
    pub fn options(self) -> Result<LogsOptions, Failure> {
        if self.index.is_some() && self.services.len() != 1 {
            return Err(Failure::new("`--index` needs exactly one service"));
        }
        let tail = values::tail(&self.tail).map_err(|wrong| Failure::new(format!("`--tail`: {wrong}")))?;
        Ok(LogsOptions {
            services: self.services,
            follow: self.follow,
            index: self.index.filter(|index| *index > 0),
            tail,
            since: self.since,
            until: self.until,
            output: LogOutput { no_color: self.no_color, no_prefix: self.no_log_prefix, timestamps: self.timestamps },
        })
    }
}
