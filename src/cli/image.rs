//! `image`: the image store.

use std::path::PathBuf;

use clap::Subcommand;

use crate::app::AppError;
use crate::app::options::{ImageCommand, ListFormat};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::values;
use crate::image::Loaded;
use crate::ui::tables;
use std::process::ExitCode;

#[derive(Subcommand, Clone, Debug)]
pub enum ImageArgs {
    /// Load an archive of `docker save` or an OCI layout
    Load {
        /// File or directory; standard input when not given
        #[arg(short, long, value_name = "FILE")]
        input: Option<PathBuf>,
        /// Print nothing
        #[arg(short, long)]
        quiet: bool,
    },
    /// Make an image of a root file system
    Import {
        /// Tar archive, compressed or not; `-` is standard input
        file: PathBuf,
        /// Name of the image
        reference: Option<String>,
        /// A Dockerfile instruction to apply, such as `CMD ["sh"]`
        #[arg(short, long, value_name = "INSTRUCTION")]
        change: Vec<String>,
    },
    /// List the images
    #[command(visible_alias = "list")]
    Ls {
        /// Ids only
        #[arg(short, long)]
        quiet: bool,
        /// `table` or `json`
        #[arg(long, default_value = "table", value_parser = values::list_format)]
        format: ListFormat,
    },
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm {
        #[arg(required = true, value_name = "IMAGE")]
        references: Vec<String>,
        /// Also when containers use it
        #[arg(short, long)]
        force: bool,
    },
    /// Give an image a further name
    Tag { source: String, target: String },
    /// Write images to an archive
    Save {
        #[arg(required = true, value_name = "IMAGE")]
        references: Vec<String>,
        /// Standard output when not given
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

impl ImageArgs {
    pub fn options(self) -> ImageCommand {
        match self {
            Self::Load { input, quiet } => ImageCommand::Load { input, quiet },
            Self::Import { file, reference, change } => ImageCommand::Import { file, reference, changes: change },
            Self::Ls { quiet, format } => ImageCommand::List { quiet, format },
            Self::Rm { references, force } => ImageCommand::Remove { references, force },
            Self::Tag { source, target } => ImageCommand::Tag { source, target },
            Self::Save { references, output } => ImageCommand::Save { references, output },
        }
    }
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: ImageArgs, context: &Context) -> Result<ExitCode, Failure> {
    if !matches!(args, ImageArgs::Ls { .. }) {
        context.no_dry_run("image")?;
    }
    let done = match args.options() {
        ImageCommand::Load { input, quiet } => context.app.image_load(input.as_deref()).map(|loaded| {
            let line = |one: Loaded| match one.names.is_empty() {
                true => vec![format!("Loaded image ID: {}", one.id)],
                false => one.names.iter().map(|name| format!("Loaded image: {name}")).collect(),
            };
            if quiet { Vec::new() } else { loaded.into_iter().flat_map(line).collect() }
        }),
        ImageCommand::Import { file, reference, changes } => {
            context.app.image_import(&file, reference.as_deref(), &changes).map(|id| vec![id.to_string()])
        }
        ImageCommand::List { quiet, format } => return list(context, quiet, format),
        ImageCommand::Remove { references, force } => remove(context, &references, force),
        ImageCommand::Tag { source, target } => context.app.image_tag(&source, &target).map(|()| Vec::new()),
        ImageCommand::Save { references, output } => {
            context.app.image_save(&references, output.as_deref()).map(|()| Vec::new())
        }
    };
    show::lines(done.map_err(|error| context.failure(error))?)
}

fn list(context: &Context, quiet: bool, format: ListFormat) -> Result<ExitCode, Failure> {
    let rows = context.app.image_list().map_err(|error| context.failure(error))?;
    if quiet {
        return show::lines(rows.iter().map(|row| row.id.trim_start_matches("sha256:").chars().take(12).collect()));
    }
    show::text(&match format {
        ListFormat::Table => tables::image_ls(&rows, show::now()),
        ListFormat::Json => tables::images_json(&rows),
    })
}

fn remove(context: &Context, references: &[String], force: bool) -> Result<Vec<String>, AppError> {
    let mut lines = Vec::new();
    for reference in references {
        let removed = context.app.image_remove(reference, force)?;
        lines.extend(removed.untagged.iter().map(|name| format!("Untagged: {name}")));
        lines.extend(removed.deleted.iter().map(|id| format!("Deleted: {id}")));
    }
    Ok(lines)
}
