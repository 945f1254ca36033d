//! `build`: the images of services, from their Dockerfiles.

use std::io;
use std::os::fd::BorrowedFd;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Args;

use crate::app::build::{BuildOptions, Builds};
use crate::app::image::as_owner_of_layers;
use crate::app::pull::Images;
use crate::cli::context::Context;
use crate::cli::exec::on_terminal;
use crate::cli::failure::Failure;
use crate::cli::root::ProgressArg;
use crate::cli::session;
use crate::cli::show;
use crate::control::Reply;
use crate::ui::build::BuildLines;
use crate::ui::progress::ProgressMode;

#[derive(Args, Clone, Debug, Default)]
pub struct BuildArgs {
    /// Services; all that can be built when none is named
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Set a build argument; `NAME` alone takes the environment's value
    #[arg(long, value_name = "NAME=VALUE")]
    build_arg: Vec<String>,
    /// Build every step anew
    #[arg(long)]
    no_cache: bool,
    /// Fetch newer base images
    #[arg(long)]
    pull: bool,
    /// Push the images afterwards
    #[arg(long)]
    push: bool,
    /// Print nothing of the build
    #[arg(short, long)]
    quiet: bool,
    /// Hand an agent in: `default`, or ID=SOCKET
    #[arg(long, value_name = "ID")]
    ssh: Vec<String>,
    /// Open a shell where a step fails
    #[arg(long, conflicts_with = "quiet")]
    shell_on_error: bool,
    /// Build what the services depend on, too
    #[arg(long)]
    with_dependencies: bool,
    /// Check the Dockerfiles, and build nothing
    #[arg(long)]
    check: bool,
    /// Print an equivalent bake file
    #[arg(long)]
    print: bool,
    #[arg(long, hide = true, value_name = "VALUE")]
    provenance: Option<String>,
    #[arg(long, hide = true, value_name = "VALUE")]
    sbom: Option<String>,
    /// There is one builder, the built-in one
    #[arg(long, hide = true, value_name = "NAME")]
    builder: Option<String>,
    /// Without effect, as in docker compose
    #[arg(short, long, hide = true, value_name = "BYTES")]
    memory: Option<String>,
    #[arg(long, hide = true)]
    compress: bool,
    #[arg(long, hide = true)]
    force_rm: bool,
    #[arg(long, hide = true)]
    no_rm: bool,
    #[arg(long, hide = true)]
    parallel: bool,
    #[arg(long, hide = true, value_name = "MODE", value_enum)]
    progress: Option<ProgressArg>,
}

impl BuildArgs {
    /// # Errors
    /// For what the built-in builder cannot do.
    fn options(self) -> Result<(BuildOptions, bool), Failure> {
        let on = |value: &Option<String>| value.as_deref().is_some_and(|value| value != "false");
        for (flag, given) in [("--provenance", on(&self.provenance)), ("--sbom", on(&self.sbom))] {
            if given {
                let failure = Failure::new(format!("`{flag}`: the built-in builder makes no attestations"));
                return Err(failure.help("leave it out, or make them with docker buildx"));
            }
        }
        if let Some(name) = self.builder.filter(|name| !matches!(name.as_str(), "" | "default")) {
            show::warn(&format!("`--builder {name}` has no effect: there is one builder, the built-in one"));
        }
        let options = BuildOptions {
            services: self.services,
            with_dependencies: self.with_dependencies,
            args: self.build_arg,
            no_cache: self.no_cache,
            pull: self.pull,
            ssh: self.ssh,
        };
        Ok((options, self.quiet))
    }
}

/// # Errors
/// Whatever keeps an image from being built.
pub fn run(args: BuildArgs, context: &Context) -> Result<ExitCode, Failure> {
    let (shell, check, print, push) = (args.shell_on_error, args.check, args.print, args.push);
    if shell && !on_terminal() {
        return Err(Failure::new("`--shell-on-error` needs a terminal"));
    }
    // The flag of old in the place of the one before the command.
    let progress = args.progress.map_or(context.progress, |mode| context.mode(mode));
    let progress = if args.quiet { ProgressMode::Quiet } else { progress };
    let context = &Context { progress, ..context.clone() };
    let (options, quiet) = args.options()?;
    let builds = context.app.prepare_build(&options).map_err(|error| context.failure(error))?;
    if builds.services().next().is_none() {
        show::warn("no service to build");
        return Ok(ExitCode::SUCCESS);
    }
    if print {
        let bake = context.app.bake(&builds, &options, push).map_err(|error| context.failure(error))?;
        return show::lines([format!("{bake:#}")]);
    }
    if check {
        let warnings = context.app.check_builds(&builds).map_err(|error| context.failure(error))?;
        warnings.iter().for_each(|warning| show::warn(warning));
        return Ok(if warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if context.app.dry_run {
        return would_build(&builds);
    }
    build(&builds, quiet, shell, context)?;
    if push {
        let pushed = show::with_progress(context.progress, "Pushing", |news| context.app.push_built(&builds, news));
        pushed.map_err(|error| context.failure(error))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn would_build(builds: &Builds) -> Result<ExitCode, Failure> {
    show::lines(builds.services().map(|service| format!("build the image of service {service}")).collect::<Vec<_>>())
}

/// How commands that start containers treat images that the file says how to build.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// `--build`: all, whether they are there or not.
    pub all: bool,
    /// `--no-build`: none.
    pub none: bool,
    pub quiet: bool,
}

/// Builds what `services` need, before anything of them is started. An ordinary user's images are fetched here as well, since
/// only a process that owns their layers can do either; otherwise that is a part of the start. `builds`: some service has a
/// `build`.
///
/// # Errors
/// As [`build`], and whatever keeps images from being fetched.
pub fn before_start(
    builds: bool,
    services: &[String],
    policy: Policy,
    (images, quiet_pull): (&Images, bool),
    context: &Context,
) -> Result<(), Failure> {
    if context.app.dry_run || rustix::process::geteuid().is_root() {
        return build_missing(builds, services, policy, context);
    }
    let lacks = context.app.lacks_images(images).map_err(|error| context.failure(error))?;
    if !lacks && (policy.none || !builds) {
        return Ok(());
    }
    let work = || {
        build_missing(builds, services, policy, context)?;
        let progress = if quiet_pull { ProgressMode::Quiet } else { context.progress };
        let fetched =
            show::with_progress(progress, "Pulling", |news| context.app.fetch_images(images, quiet_pull, news));
        fetched.map_err(|error| context.failure(error))
    };
    let status = as_owner_of_layers(|owns| {
        let done = owns.map_err(|error| context.failure(error)).and_then(|()| work());
        match done {
            Ok(()) => 0,
            Err(failure) => {
                failure.report(context.ansi);
                failure.code
            }
        }
    });
    match status.map_err(|error| context.failure(error))? {
        0 => Ok(()),
        status => Err(Failure::reported(status)),
    }
}

fn build_missing(builds: bool, services: &[String], policy: Policy, context: &Context) -> Result<(), Failure> {
    if policy.none || !builds {
        return Ok(());
    }
    let missing = context.app.prepare_missing(services, policy.all).map_err(|error| context.failure(error))?;
    missing.hints.iter().for_each(|hint| show::say(hint));
    match missing.builds {
        Some(builds) if context.app.dry_run => would_build(&builds).map(drop),
        Some(builds) => build(&builds, policy.quiet, false, context),
        None => Ok(()),
    }
}

/// Builds, and shows how it goes.
///
/// # Errors
/// The failure of the first image that could not be built.
pub fn build(builds: &Builds, quiet: bool, shell: bool, context: &Context) -> Result<(), Failure> {
    builds.warnings.iter().for_each(|warning| show::warn(warning));
    let quiet = quiet || matches!(context.progress, ProgressMode::Quiet | ProgressMode::Json);
    let lines = Mutex::new(BuildLines::new(io::stdout()));
    let tell = |event| {
        if !quiet {
            // A reader that is gone is no reason to stop building.
            let _ = lines.lock().unwrap_or_else(PoisonError::into_inner).event(&event, Instant::now());
        }
    };
    let look = |master, ended: BorrowedFd<'_>| {
        // One person, one terminal: other stages' lines wait meanwhile.
        let _lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        show::say("the step has failed: this is a shell in what it left (`exit` ends it)");
        if let Err(failure) = session::on_terminal(master, ended) {
            show::warn(&failure.message);
        }
    };
    let built = context.app.build(builds, &tell, if shell { Some(&look) } else { None });
    let built = built.map_err(|error| context.failure(error))?;
    show::with_progress(context.progress, "Building", |news| {
        for one in built {
            news(Reply::Progress { id: one.name, status: "Built".to_owned(), text: String::new() });
        }
    });
    Ok(())
}
