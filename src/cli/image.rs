//! `image`: the image store.

use std::path::PathBuf;

use clap::{ArgAction, Subcommand};

use crate::app::AppError;
use crate::app::options::ImageFilter;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::values;
use crate::image::{Compression, Format, Loaded};
use crate::ui::format::RowFormat;
use crate::ui::tables::ImageRow;
use crate::ui::{human, tables};
use std::io::{self, IsTerminal};
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
        /// What the history says of it
        #[arg(short, long, value_name = "TEXT", default_value = "imported")]
        message: String,
    },
    /// List the images
    #[command(visible_alias = "list")]
    Ls {
        /// Of this repository only, or also of this tag; `*` and `?` stand for anything but a `/`
        #[arg(value_name = "REPOSITORY[:TAG]")]
        reference: Option<String>,
        /// `reference=REPOSITORY[:TAG]`, `dangling=BOOL`, `label=NAME` or `label=NAME=VALUE`
        #[arg(short, long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
        /// Digests at the registry, too
        #[arg(long)]
        digests: bool,
        /// Without effect, as all are shown
        #[arg(short, long, hide = true)]
        all: bool,
        /// Ids only
        #[arg(short, long)]
        quiet: bool,
        /// Whole ids
        #[arg(long)]
        no_trunc: bool,
        /// `table`, `json` (one object a line), or a template such as `{{.Repository}}`, `table` before it for a head
        #[arg(long, default_value = "table", value_parser = values::row_format)]
        format: RowFormat,
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
        /// `docker` (what `docker load` reads) or `oci`
        #[arg(long, default_value = "docker", value_parser = ["docker", "oci"])]
        format: String,
        /// How layers are written: `none`, `gzip` or `zstd`
        #[arg(long, default_value = "none", value_parser = values::compression)]
        compression: Compression,
    },
    /// Fetch an image
    Pull {
        #[arg(value_name = "IMAGE")]
        reference: String,
        /// Of this platform, such as `linux/arm64`
        #[arg(long)]
        platform: Option<String>,
        /// Show no progress
        #[arg(short, long)]
        quiet: bool,
    },
    /// Push an image
    Push {
        #[arg(value_name = "IMAGE")]
        reference: String,
        /// Show no progress
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show what is known of images, as JSON
    Inspect {
        #[arg(required = true, value_name = "IMAGE")]
        references: Vec<String>,
        /// `json`, or a template such as `{{.Id}}`
        #[arg(short, long, value_parser = values::row_format)]
        format: Option<RowFormat>,
    },
    /// Show how an image came about
    History {
        #[arg(value_name = "IMAGE")]
        reference: String,
        /// Ids only
        #[arg(short, long)]
        quiet: bool,
        /// Whole ids and instructions
        #[arg(long)]
        no_trunc: bool,
        /// Sizes and times for people; `--human=false`: bytes and dates
        #[arg(short = 'H', long, num_args = 0..=1, require_equals = true, default_value_t = true,
            default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
        human: bool,
        /// `table`, `json` (one object a line), or a template such as `{{.CreatedBy}}`, `table` before it for a head
        #[arg(long, default_value = "table", value_parser = values::row_format)]
        format: RowFormat,
    },
    /// Remove images without a name
    Prune {
        /// Also those with a name that no container was made from
        #[arg(short, long)]
        all: bool,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: ImageArgs, context: &Context) -> Result<ExitCode, Failure> {
    let reads = matches!(args, ImageArgs::Ls { .. } | ImageArgs::Inspect { .. } | ImageArgs::History { .. });
    if !reads {
        context.no_dry_run("image")?;
    }
    if let ImageArgs::Prune { all, force: false } = &args
        && !show::confirmed(prune_question(*all))?
    {
        return Ok(ExitCode::SUCCESS);
    }
    let done = match args {
        ImageArgs::Load { input, quiet } => context.app.image_load(input.as_deref()).map(|loaded| {
            let line = |one: Loaded| match one.names.is_empty() {
                true => vec![format!("Loaded image ID: {}", one.id)],
                false => one.names.iter().map(|name| format!("Loaded image: {name}")).collect(),
            };
            if quiet { Vec::new() } else { loaded.into_iter().flat_map(line).collect() }
        }),
        ImageArgs::Import { file, reference, change, message } => {
            let imported = context.app.image_import(&file, reference.as_deref(), &change, &message);
            imported.map(|id| vec![id.to_string()])
        }
        ImageArgs::Ls { reference, filter, digests, quiet, no_trunc, format, .. } => {
            let filter = image_filter(reference, &filter)?;
            let rows = context.app.image_list(&filter).map_err(|error| context.failure(error))?;
            return list(&rows, (quiet, digests, no_trunc), &format);
        }
        ImageArgs::Rm { references, force } => return remove(context, &references, force),
        ImageArgs::Tag { source, target } => context.app.image_tag(&source, &target).map(|()| Vec::new()),
        ImageArgs::Save { references, output, format, compression } => {
            if output.is_none() && io::stdout().is_terminal() {
                return Err(Failure::new("an archive is not written to a terminal").help("use `-o FILE`, or a pipe"));
            }
            let format = if format == "oci" { Format::Oci } else { Format::Docker };
            context.app.image_save(&references, output.as_deref(), format, compression).map(|()| Vec::new())
        }
        ImageArgs::Pull { reference, platform, quiet } => {
            let pulled = show::with_progress(context.progress, "Pulling", |news| {
                context.app.image_pull(&reference, platform.as_deref(), quiet, news)
            });
            pulled.map(|(name, pulled)| {
                if quiet {
                    return vec![name];
                }
                let what = if pulled.is_new { "Downloaded newer image for" } else { "Image is up to date for" };
                vec![format!("Digest: {}", pulled.digest), format!("Status: {what} {name}"), name]
            })
        }
        ImageArgs::Push { reference, quiet } => {
            let pushed = show::with_progress(context.progress, "Pushing", |news| {
                context.app.image_push(&reference, quiet, news)
            });
            pushed.map(|digest| vec![if quiet { reference } else { format!("Digest: {digest}") }])
        }
        ImageArgs::Inspect { references, format } => {
            let mut found = Vec::new();
            let mut code = ExitCode::SUCCESS;
            for reference in references {
                match context.app.image_inspect(&reference) {
                    Ok(image) => found.push(image),
                    Err(error) => code = context.failure(error).report(context.ansi),
                }
            }
            show::text(&match format {
                None | Some(RowFormat::Table) => tables::inspected(&found),
                Some(format) => format.render(&found, "ID").map_err(Failure::new)?,
            })?;
            return Ok(code);
        }
        ImageArgs::History { reference, quiet, no_trunc, human, format } => {
            let rows = context.app.image_history(&reference).map_err(|error| context.failure(error))?;
            let style = tables::HistoryStyle { no_trunc, human, now: show::now() };
            if quiet {
                return show::lines(rows.iter().map(|row| row.shown_id(no_trunc)));
            }
            return show::text(&match format {
                RowFormat::Table => tables::image_history(&rows, style),
                format => format.render(&tables::history_objects(&rows, style), "IMAGE").map_err(Failure::new)?,
            });
        }
        ImageArgs::Prune { all, .. } => context.app.image_prune(all).map(|(removed, freed)| {
            let mut lines: Vec<_> = removed.untagged.iter().map(|name| format!("Untagged: {name}")).collect();
            lines.extend(removed.deleted.iter().map(|id| format!("Deleted: {id}")));
            lines.push(format!("Total reclaimed space: {}", human::size(freed)));
            lines
        }),
    };
    show::lines(done.map_err(|error| context.failure(error))?)
}

const fn prune_question(all: bool) -> &'static str {
    match all {
        true => "This removes all images that no container was made from. Go on? [y/N] ",
        false => "This removes all images without a name. Go on? [y/N] ",
    }
}

fn image_filter(reference: Option<String>, filters: &[String]) -> Result<ImageFilter, Failure> {
    let mut wanted = ImageFilter { names: reference.into_iter().collect(), ..ImageFilter::default() };
    for filter in filters {
        match filter.split_once('=') {
            Some(("reference", name)) => wanted.names.push(name.to_owned()),
            Some(("label", label)) => wanted.labels.push(label.to_owned()),
            Some(("dangling", "true" | "1")) => wanted.dangling = Some(true),
            Some(("dangling", "false" | "0")) => wanted.dangling = Some(false),
            _ => {
                let failure = Failure::new(format!("unknown filter `{filter}`"));
                return Err(failure.help("filters are `reference=NAME`, `dangling=true` and `label=NAME=VALUE`"));
            }
        }
    }
    Ok(wanted)
}

fn list(
    rows: &[ImageRow],
    (quiet, digests, no_trunc): (bool, bool, bool),
    format: &RowFormat,
) -> Result<ExitCode, Failure> {
    if quiet {
        return show::lines(rows.iter().map(|row| row.shown_id(no_trunc)));
    }
    show::text(&match format {
        RowFormat::Table => tables::image_ls(rows, digests, no_trunc, show::now()),
        format => {
            let objects = tables::image_objects(rows, no_trunc, show::now());
            format.render(&objects, "IMAGE ID").map_err(Failure::new)?
        }
    })
}

/// Removes all that can be; what is not there is no failure when that was forced.
fn remove(context: &Context, references: &[String], force: bool) -> Result<ExitCode, Failure> {
    let mut code = ExitCode::SUCCESS;
    for reference in references {
        match context.app.image_remove(reference, force) {
            Ok(removed) => {
                let untagged = removed.untagged.iter().map(|name| format!("Untagged: {name}"));
                show::lines(untagged.chain(removed.deleted.iter().map(|id| format!("Deleted: {id}"))))?;
            }
            Err(error) => {
                let missing = matches!(&error, AppError::Image(crate::image::Error::NotFound { .. }));
                let reported = context.failure(error).report(context.ansi);
                if !(force && missing) {
                    code = reported;
                }
            }
        }
    }
    Ok(code)
}
