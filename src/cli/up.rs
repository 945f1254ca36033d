//! `up`: create and start what the file says.

use std::time::Duration;

use clap::Args;

use crate::app::change::{News, Up};
use crate::app::options::PullPolicy;
use crate::app::options::{LogOutput, UpOptions};
use crate::cli::attached;
use crate::cli::build::{Policy, before_start};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::remote;
use crate::cli::show;
use crate::cli::values;
use std::process::ExitCode;

/// Exit code of `plan` when there is something to do.
const CHANGES: u8 = 2;

#[derive(Args, Clone, Debug, Default)]
pub struct UpArgs {
    /// Services to start, with what they depend on; all when none is named
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
    /// Return as soon as everything is started
    #[arg(short, long, conflicts_with_all = ["attach", "attach_dependencies"])]
    pub detach: bool,
    /// Return when everything is running or healthy
    #[arg(long, conflicts_with_all = ["abort_on_container_exit", "attach", "attach_dependencies"])]
    pub wait: bool,
    /// Give up `--wait` after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
    pub wait_timeout: Option<Duration>,
    /// Recreate containers that have not changed, too
    #[arg(long, conflicts_with = "no_recreate")]
    pub force_recreate: bool,
    /// Keep containers that exist, even if they have changed
    #[arg(long)]
    pub no_recreate: bool,
    /// Recreate dependencies, too
    #[arg(long, conflicts_with = "no_recreate")]
    pub always_recreate_deps: bool,
    /// Recreate with fresh anonymous volumes
    #[arg(short = 'V', long, conflicts_with = "no_recreate")]
    pub renew_anon_volumes: bool,
    /// Leave dependencies alone
    #[arg(long)]
    pub no_deps: bool,
    /// Create, but do not start
    #[arg(long)]
    pub no_start: bool,
    /// Remove containers of services that the file does not have
    #[arg(long, env = "COMPOSE_REMOVE_ORPHANS", value_parser = clap::builder::BoolishValueParser::new())]
    pub remove_orphans: bool,
    /// Number of containers of a service
    #[arg(long, value_name = "SERVICE=NUM", value_parser = values::scale)]
    pub scale: Vec<(String, u32)>,
    /// Seconds to wait for a container to stop, instead of its own grace period
    #[arg(short, long, value_name = "SECONDS", value_parser = values::seconds)]
    pub timeout: Option<Duration>,
    /// Show the output of these services only
    #[arg(long, value_name = "SERVICE", conflicts_with = "attach_dependencies")]
    pub attach: Vec<String>,
    /// Leave out the output of these services
    #[arg(long, value_name = "SERVICE")]
    pub no_attach: Vec<String>,
    /// Show the output of dependencies, too
    #[arg(long)]
    pub attach_dependencies: bool,
    /// Stop everything when a container stops
    #[arg(long, conflicts_with_all = ["detach", "abort_on_container_failure"])]
    pub abort_on_container_exit: bool,
    /// Stop everything when a container fails
    #[arg(long, conflicts_with = "detach")]
    pub abort_on_container_failure: bool,
    /// Return the exit code of this service's container; implies --abort-on-container-exit
    #[arg(long, value_name = "SERVICE", conflicts_with = "detach")]
    pub exit_code_from: Option<String>,
    /// Plain prefixes
    #[arg(long)]
    pub no_color: bool,
    /// No prefixes
    #[arg(long)]
    pub no_log_prefix: bool,
    /// The time before each line
    #[arg(long)]
    pub timestamps: bool,
    /// Build no images, also when they are missing
    #[arg(long, conflicts_with_all = ["build", "watch"])]
    pub no_build: bool,
    /// Show no progress of what is pulled
    #[arg(long)]
    pub quiet_pull: bool,
    /// Print nothing of the build
    #[arg(long)]
    pub quiet_build: bool,
    /// Answer questions with yes: those about files from elsewhere
    #[arg(short, long, alias = "y", hide = true)]
    pub yes: bool,
    /// Build the images first, also when they are there
    #[arg(long)]
    pub build: bool,
    /// Pull images: `always`, `missing` or `never`, instead of what the file says
    #[arg(long, value_name = "POLICY", value_parser = values::pull_policy)]
    pub pull: Option<PullPolicy>,
    /// Bring what changes on this machine into the containers, too
    #[arg(short, long, conflicts_with_all = ["detach", "no_build"])]
    pub watch: bool,
    /// Keys while attached on a terminal: d detaches, w begins to watch
    #[arg(long, env = "COMPOSE_MENU", hide_env = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub menu: Option<bool>,
    /// For `create`.
    #[arg(skip)]
    pub may_be_empty: bool,
}

impl UpArgs {
    /// # Errors
    /// For flags that are not supported yet.
    pub fn options(self) -> Result<UpOptions, Failure> {
        Ok(UpOptions {
            services: self.services,
            detach: self.detach || self.wait,
            wait: self.wait,
            wait_timeout: self.wait_timeout,
            force_recreate: self.force_recreate,
            no_recreate: self.no_recreate,
            always_recreate_deps: self.always_recreate_deps,
            renew_anonymous_volumes: self.renew_anon_volumes,
            no_deps: self.no_deps,
            no_start: self.no_start,
            may_be_empty: self.may_be_empty,
            remove_orphans: self.remove_orphans,
            scale: self.scale,
            timeout: self.timeout,
            attach: self.attach,
            no_attach: self.no_attach,
            attach_dependencies: self.attach_dependencies,
            abort_on_exit: self.abort_on_container_exit || self.exit_code_from.is_some(),
            abort_on_failure: self.abort_on_container_failure,
            exit_code_from: self.exit_code_from,
            watch: self.watch,
            menu: self.menu != Some(false),
            pull: self.pull,
            quiet_pull: self.quiet_pull,
            output: LogOutput { no_color: self.no_color, no_prefix: self.no_log_prefix, timestamps: self.timestamps },
        })
    }
}

/// # Errors
/// Whatever keeps it from being done.
pub fn run(args: UpArgs, context: Context) -> Result<ExitCode, Failure> {
    let policy = Policy { all: args.build, none: args.no_build, quiet: args.quiet_build };
    // Before a provider of the project is run.
    if !args.yes && !context.app.dry_run {
        remote::confirm(&context)?;
    }
    let options = args.options()?;
    let up = prepare(&options, &context, !context.app.dry_run)?;
    let builds = up.project.services.values().any(|service| service.builds);
    before_start(builds, &options.services, policy, (&up.images, up.quiet_pull), &context)?;
    if context.app.dry_run {
        show::text(&planned(&up, &context)?.1)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !options.detach && !options.no_start {
        return attached::run(up, options, context);
    }
    context.change(context.progress, "Running", |news| context.app.up(&up, news))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what `up` would do: 2 when there is something to do.
///
/// # Errors
/// When nothing can be planned.
pub fn plan(args: UpArgs, context: &Context) -> Result<ExitCode, Failure> {
    let options = args.options()?;
    let (nothing, text) = planned(&prepare(&options, context, false)?, context)?;
    show::text(&text)?;
    Ok(ExitCode::from(if nothing { 0 } else { CHANGES }))
}

fn prepare(options: &UpOptions, context: &Context, provide: bool) -> Result<Up, Failure> {
    let mut news = show::provider;
    let providers: Option<News<'_>> = if provide { Some(&mut news) } else { None };
    let up = context.app.prepare_up(options, providers).map_err(|error| context.failure(error))?;
    show::diagnostics(&up.warnings, context.ansi);
    Ok(up)
}

/// Whether there is nothing to do, and the plan as text.
fn planned(up: &Up, context: &Context) -> Result<(bool, String), Failure> {
    let plan = context.app.plan(up).map_err(|error| context.failure(error))?;
    for warning in &plan.warnings {
        show::warn(warning);
    }
    let mut text: String = plan.lines().into_iter().map(|line| line + "\n").collect();
    if plan.is_empty() {
        text.push_str("nothing to do\n");
    }
    Ok((plan.is_empty(), text))
}
