//! `config`: arguments.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::app::config::{self, ConfigOptions, Format, Print};
use crate::app::digests::Digests;
use crate::cli::failure::{self, Failure};
use crate::cli::root::{self, RootArgs};
use crate::cli::show;
use crate::ui::diagnostics;

#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// Form of the output
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Option<FormatArg>,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Only check: the exit status tells
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the names of the services
    #[arg(long)]
    pub services: bool,
    /// Print the names of the volumes
    #[arg(long)]
    pub volumes: bool,
    /// Print the names of the networks
    #[arg(long)]
    pub networks: bool,
    /// Print the models
    #[arg(long)]
    pub models: bool,
    /// Print the names of the profiles
    #[arg(long)]
    pub profiles: bool,
    /// Print the names of the images
    #[arg(long)]
    pub images: bool,
    /// Print the hash of services: `*`, or names with commas
    #[arg(long, value_name = "SERVICES")]
    pub hash: Option<String>,
    /// Print the variables that values can refer to
    #[arg(long)]
    pub environment: bool,
    /// Print the variables that values do refer to
    #[arg(long)]
    pub variables: bool,
    /// Print where a value comes from, such as `services.web.image`
    #[arg(long, value_name = "PATH")]
    pub explain: Option<String>,
    /// Leave variables as they are
    #[arg(long)]
    pub no_interpolate: bool,
    /// Leave out what is implied
    #[arg(long)]
    pub no_normalize: bool,
    /// Leave paths relative
    #[arg(long)]
    pub no_path_resolution: bool,
    /// Do not check references between parts
    #[arg(long)]
    pub no_consistency: bool,
    /// Accepted; the reference resolves `env_file` all the same
    #[arg(long)]
    pub no_env_resolution: bool,
    /// Name images by their digests, which registries are asked for
    #[arg(long)]
    pub resolve_image_digests: bool,
    /// Print nothing but images by their digests, as a file that pins the project
    #[arg(long)]
    pub lock_image_digests: bool,
    /// Services to print, with what they need
    #[arg(value_name = "SERVICE")]
    pub service: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    Yaml,
    Json,
}

impl ConfigArgs {
    fn print(&self) -> Print {
        let lists = [
            (self.explain.is_some(), Print::Explain(self.explain.clone().unwrap_or_default())),
            (self.services, Print::Services),
            (self.volumes, Print::Volumes),
            (self.hash.is_some(), Print::Hash(self.hash.clone().unwrap_or_default())),
            (self.profiles, Print::Profiles),
            (self.images, Print::Images),
            (self.environment, Print::Environment),
            (self.networks, Print::Networks),
            (self.models, Print::Models),
            (self.variables, Print::Variables),
        ];
        lists.into_iter().find(|(asked, _)| *asked).map_or(Print::Project, |(_, print)| print)
    }

    fn options(self, root: &RootArgs) -> Result<ConfigOptions, Failure> {
        let mut load = root.load_options()?;
        load.no_interpolate |= self.no_interpolate;
        // With `--compatibility` the reference leaves names and defaults out of what it prints.
        load.no_normalize |= self.no_normalize || load.compatibility;
        load.no_path_resolution |= self.no_path_resolution;
        load.no_consistency |= self.no_consistency;
        let print = self.print();
        load.services = self.service;
        Ok(ConfigOptions {
            load,
            print,
            format: self.format.map(|format| match format {
                FormatArg::Yaml => Format::Yaml,
                FormatArg::Json => Format::Json,
            }),
            quiet: self.quiet,
            digests: match (self.lock_image_digests, self.resolve_image_digests) {
                (true, _) => Digests::Lock,
                (false, true) => Digests::Resolve,
                (false, false) => Digests::No,
            },
            output: self.output,
        })
    }
}

/// Prints what the project amounts to.
///
/// # Errors
/// When standard output is closed, or the project is wrong (which is reported here).
#[expect(clippy::print_stderr, reason = "diagnostics go to standard error, the output to standard output")]
pub fn run(args: ConfigArgs, root: &RootArgs) -> Result<ExitCode, Failure> {
    let options = args.options(root)?;
    let output = config::run(&options, &root::environment());
    let colour = root.ansi().enabled(std::io::stderr().is_terminal());
    eprint!("{}", diagnostics::render(&output.diagnostics, colour));
    let Some(text) = output.text else { return Err(Failure::reported(failure::GENERAL)) };
    show::text(&text)
}
