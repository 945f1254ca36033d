//! `publish`: the project as an artifact of a registry.

use std::process::ExitCode;

use clap::Args;

use crate::app::publish::PublishOptions;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;

#[derive(Args, Clone, Debug, Default)]
pub struct PublishArgs {
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: String,
    /// Also what services have in `environment` and `env_file`
    #[arg(long)]
    with_env: bool,
    /// Pin images to what their names lead to now
    #[arg(long)]
    resolve_image_digests: bool,
    /// Answer questions with yes
    #[arg(short, long)]
    yes: bool,
    #[arg(long, hide = true)]
    app: bool,
    /// Registries of today take one form only
    #[arg(long, hide = true, value_name = "VERSION")]
    oci_version: Option<String>,
}

/// # Errors
/// What keeps it from being published.
pub fn run(args: PublishArgs, context: &Context) -> Result<ExitCode, Failure> {
    if args.app {
        return Err(Failure::new("`--app` (the images in the artifact) is not there")
            .help("push the images to their own repositories, and publish without it"));
    }
    if args.oci_version.is_some_and(|version| version != "1.1") {
        return Err(Failure::new("`--oci-version`: projects are published as OCI 1.1 has artifacts"));
    }
    let PublishArgs { name, with_env, resolve_image_digests, yes, .. } = args;
    let options = PublishOptions { name, with_env, resolve_image_digests };
    let publication = context.app.prepare_publish(&options).map_err(|error| context.failure(error))?;
    if context.app.dry_run {
        let name = publication.name();
        return show::lines(publication.files().map(|file| format!("publish {file} to {name}")).collect::<Vec<_>>());
    }
    if !publication.binds.is_empty() && !yes {
        let list: String = publication.binds.iter().map(|bind| format!("  {bind}\n")).collect();
        show::say(&format!("these mounts are of files of this machine, which nobody else has:\n{list}"));
        if !show::confirmed("Publish them all the same? [y/N] ")? {
            return Err(Failure::new("operation cancelled by user"));
        }
    }
    let published = show::with_progress(context.progress, "Publishing", |news| context.app.publish(publication, news));
    published.map_err(|error| context.failure(error))?;
    Ok(ExitCode::SUCCESS)
}
