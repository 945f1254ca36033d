//! `image`: the image store.

use std::path::PathBuf;

use clap::Subcommand;

use crate::app::options::{ImageCommand, ListFormat};
use crate::cli::values;

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
