//! `logs`: what containers have printed.

use clap::Args;

use crate::app::logs::Ended;
use crate::app::options::{LogOutput, LogsOptions};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::values;
use crate::logs::Line;
use crate::ui::log_lines::LogPrinter;
use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

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

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: LogsArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = args.options()?;
    let out = RefCell::new(io::BufWriter::with_capacity(1 << 16, io::stdout().lock()));
    let style = show::log_style(options.output, context.ansi);
    let mut printer = LogPrinter::new(style, []);
    // Nothing ends `logs -f` but a signal: a pipe whose other end stays open says so.
    let (never, _open) = io::pipe().map_err(|error| Failure::new(format!("no descriptor is left: {error}")))?;
    for name in context.app.hidden_logs(&options).map_err(|error| context.failure(error))? {
        show::warn(&format!("the output of `{name}` is not shown: its log driver does not keep it"));
    }
    let following = options.follow;
    // What ends the reading when writing fails is told apart from what keeps the logs from being read.
    let unwritten = Cell::new(None);
    let stop = |error: io::Error| {
        let kind = error.kind();
        unwritten.set(Some(error));
        io::Error::from(kind)
    };
    let mut print = |line: Line<'_>| {
        let mut out = out.borrow_mut();
        let printed = printer.print(&line, &mut *out);
        printed.and_then(|()| if following { out.flush() } else { Ok(()) }).map_err(stop)
    };
    let mut ended = |ended: Ended| {
        let mut out = out.borrow_mut();
        writeln!(out, "{}", show::end(&ended)).and_then(|()| out.flush()).map_err(stop)
    };
    let shown = context.app.logs(&options, never.as_fd(), &mut print, &mut ended);
    let flushed = if shown.is_ok() { out.borrow_mut().flush() } else { Ok(()) };
    match unwritten.take().or(flushed.err()) {
        // Whoever reads has seen enough.
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Some(error) => Err(show::unwritten(&error)),
        None => shown.map(|()| ExitCode::SUCCESS).map_err(|error| context.failure(error)),
    }
}
