//! `run`: a one-off container of a service.

use std::path::PathBuf;

use clap::Args;

use crate::app::attach::Target;
use crate::app::logs::Reached;
use crate::app::options::{PullPolicy, RunOptions};
use crate::cli::build::{Policy, before_start};
use crate::cli::context::Context;
use crate::cli::exec::{needs_terminal, on_terminal};
use crate::cli::failure::Failure;
use crate::cli::foreground;
use crate::cli::interrupt;
use crate::cli::remote;
use crate::cli::show;
use crate::cli::values;
use crate::control::Reply;
use crate::ui::progress::ProgressMode;
use std::process::ExitCode;

#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The service, and the command instead of its own
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_names = ["SERVICE", "COMMAND"])]
    words: Vec<String>,
    /// Do not wait; print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Add a capability
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// Entrypoint instead of the image's
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Set a variable of the environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Set the variables of a file
    #[arg(long, value_name = "FILE")]
    env_from_file: Vec<PathBuf>,
    /// Keep standard input open
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    interactive: bool,
    /// Add a label
    #[arg(short, long, alias = "labels", value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// Do not start dependencies
    #[arg(long)]
    no_deps: bool,
    /// No terminal; so by itself when input or output is none
    #[arg(short = 'T', long, alias = "no-TTY", conflicts_with = "tty")]
    no_tty: bool,
    #[arg(short, long, hide = true)]
    tty: bool,
    /// Publish a port
    #[arg(short, long, value_name = "SPEC", conflicts_with = "service_ports")]
    publish: Vec<String>,
    /// Publish the ports of the service
    #[arg(short = 'P', long)]
    service_ports: bool,
    /// Print nothing of our own
    #[arg(short, long)]
    quiet: bool,
    /// Remove containers of services that the file does not have
    #[arg(long)]
    remove_orphans: bool,
    /// Answer to the service's names in its networks
    #[arg(long)]
    use_aliases: bool,
    /// User, and group after a colon: names or numbers
    #[arg(short, long)]
    user: Option<String>,
    /// Add a mount
    #[arg(short, long, alias = "volumes", value_name = "SPEC")]
    volume: Vec<String>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Show no progress of what is pulled
    #[arg(long)]
    quiet_pull: bool,
    #[arg(long, hide = true)]
    quiet_build: bool,
    #[arg(long, hide = true)]
    build: bool,
    /// Pull images: `always`, `missing` or `never`, instead of what the file says
    #[arg(long, value_name = "POLICY", value_parser = values::pull_policy)]
    pull: Option<PullPolicy>,
}

impl RunArgs {
    /// # Errors
    /// For flags that are not supported yet.
    pub fn options(self) -> Result<RunOptions, Failure> {
        let mut words = self.words.into_iter();
        let service = words.next().ok_or_else(|| Failure::new("a service is needed"))?;
        if self.tty && self.interactive && !self.detach {
            needs_terminal()?;
        }
        Ok(RunOptions {
            service,
            command: words.collect(),
            detach: self.detach,
            remove: self.rm,
            terminal: !self.no_tty && !self.detach && on_terminal(),
            stdin: self.interactive && !self.detach,
            no_deps: self.no_deps,
            service_ports: self.service_ports,
            use_aliases: self.use_aliases,
            remove_orphans: self.remove_orphans,
            quiet: self.quiet,
            name: self.name,
            entrypoint: self.entrypoint,
            user: self.user,
            working_dir: self.workdir,
            environment: self.env,
            env_files: self.env_from_file,
            labels: self.label,
            volumes: self.volume,
            publish: self.publish,
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            pull: self.pull,
            quiet_pull: self.quiet_pull || self.quiet,
        })
    }
}

/// # Errors
/// Whatever keeps the container from being started.
pub fn run(args: RunArgs, context: &Context) -> Result<ExitCode, Failure> {
    let policy = Policy { all: args.build, none: false, quiet: args.quiet_build || args.quiet };
    if !context.app.dry_run {
        remote::confirm(context)?;
    }
    let options = args.options()?;
    let one = context.app.prepare_run(&options).map_err(|error| context.failure(error))?;
    show::diagnostics(&one.warnings, context.ansi);
    let builds = one.project.services.values().any(|service| service.builds);
    let images = (&one.images, one.quiet_pull);
    before_start(builds, std::slice::from_ref(&options.service), policy, images, context)?;
    let progress = if options.quiet { ProgressMode::Quiet } else { context.progress };
    // Of the container itself people see what it does.
    let own = format!("Container {}", one.name);
    let staying = if context.app.dry_run || options.detach { None } else { Some(context.app.stay(&one)) };
    let mut staying = staying.transpose().map_err(|error| context.failure(error))?;
    let started = context.change(progress, "Running", |news| {
        context.app.run(&one, &mut |reply| {
            if !matches!(&reply, Reply::Progress { id, .. } if *id == own) {
                news(reply);
            }
        })
    });
    if let Err(failure) = started {
        // What could not be started is of no use to anybody.
        drop(context.app.discard(&one, &mut |_| {}));
        return Err(failure);
    }
    if context.app.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if options.detach {
        let id = context.app.id_of(&one).map_err(|error| context.failure(error))?;
        return show::lines([id]);
    }
    let target = Target {
        project: one.project.name.clone(),
        container: one.name.clone(),
        terminal: options.terminal,
        stdin: options.stdin,
    };
    let code = if options.terminal {
        foreground::attend_terminal(context, &target)?
    } else {
        interrupt::forwards(&context.app, &target)?;
        if let Some(connection) = staying.take() {
            context.app.stay_on(&one, connection).map_err(|error| context.failure(error))?;
        }
        foreground::attend(context, &target, options.stdin, Reached::default())?
    };
    if options.remove {
        context.app.discard(&one, &mut |_| {}).map_err(|error| context.failure(error))?;
    }
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
