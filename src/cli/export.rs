//! `export`: the files of a container as a tar archive.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::control::Reply;

#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Which container of the service
    #[arg(long, value_name = "NUM")]
    index: Option<u32>,
    /// File to write; standard output when not given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: &ExportArgs, context: &Context) -> Result<ExitCode, Failure> {
    context.no_dry_run("export")?;
    if args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::new("an archive is not written to a terminal").help("use `-o FILE`, or a pipe"));
    }
    let index = args.index.filter(|index| *index > 0);
    let exported = context.app.export(&args.service, index, args.output.as_deref());
    let name = exported.map_err(|error| context.failure(error))?;
    if let Some(path) = &args.output {
        let id = format!("{name} export {name} to {}", path.display());
        show::with_progress(context.progress, "Exporting", |news| {
            news(Reply::Progress { id, status: "Exported".to_owned(), text: String::new() });
        });
    }
    Ok(ExitCode::SUCCESS)
}
