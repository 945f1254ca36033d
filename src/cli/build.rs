//! `build`: the images of services, from their Dockerfiles.

use std::io;
use std::os::fd::BorrowedFd;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Args;

use crate::app::build::{BuildOptions, Builds};
use crate::cli::context::Context;
use crate::cli::exec::on_terminal;
use crate::cli::failure::{Failure, refuse};
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
    #[arg(long, hide = true, value_name = "MODE")]
    progress: Option<String>,
}

impl BuildArgs {
    fn options(self) -> Result<(BuildOptions, bool), Failure> {
        let on = |value: &Option<String>| value.as_deref().is_some_and(|value| value != "false");
        refuse(&[
            ("--pull", self.pull),
            ("--push", self.push),
            ("--print", self.print),
            ("--provenance", on(&self.provenance)),
            ("--sbom", on(&self.sbom)),
        ])?;
        let options = BuildOptions {
            services: self.services,
            with_dependencies: self.with_dependencies,
            args: self.build_arg,
            no_cache: self.no_cache,
            ssh: self.ssh,
        };
        Ok((options, self.quiet))
    }
}

/// # Errors
/// Whatever keeps an image from being built.
pub fn run(args: BuildArgs, context: &Context) -> Result<ExitCode, Failure> {
    context.no_dry_run("build")?;
    let (shell, check) = (args.shell_on_error, args.check);
    if shell && !on_terminal() {
        return Err(Failure::new("`--shell-on-error` needs a terminal"));
    }
    let (options, quiet) = args.options()?;
    let builds = context.app.prepare_build(&options).map_err(|error| context.failure(error))?;
    if builds.services().next().is_none() {
        show::warn("no service to build");
        return Ok(ExitCode::SUCCESS);
    }
    if check {
        let warnings = context.app.check_builds(&builds).map_err(|error| context.failure(error))?;
        warnings.iter().for_each(|warning| show::warn(warning));
        return Ok(ExitCode::SUCCESS);
    }
    build(&builds, quiet, shell, context)?;
    Ok(ExitCode::SUCCESS)
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

/// Builds what `services` need, before anything of them is started. `builds`: some service has a `build`.
///
/// # Errors
/// As [`build`].
pub fn before_start(builds: bool, services: &[String], policy: Policy, context: &Context) -> Result<(), Failure> {
    if policy.none || !builds {
        return Ok(());
    }
    let missing = context.app.prepare_missing(services, policy.all).map_err(|error| context.failure(error))?;
    missing.hints.iter().for_each(|hint| show::say(hint));
    match missing.builds {
        Some(builds) if context.app.dry_run => {
            let lines = builds.services().map(|service| format!("build the image of service {service}"));
            show::lines(lines.collect::<Vec<_>>()).map(drop)
        }
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
