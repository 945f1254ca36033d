//! Command line: clap types, raw arguments to options, failures to exit codes.

pub mod attach;
pub mod attached;
pub mod build;
pub mod commit;
pub mod completion;
pub mod config;
pub mod context;
pub mod cp;
pub mod create;
pub mod doctor;
pub mod down;
pub mod events;
pub mod exec;
pub mod export;
pub mod failure;
pub mod foreground;
pub mod image;
pub mod images;
pub mod interrupt;
pub mod kill;
pub mod lint;
pub mod login;
pub mod logs;
pub mod ls;
pub mod network;
pub mod pause;
pub mod port;
pub mod ps;
pub mod publish;
pub mod pull;
pub mod push;
pub mod registry;
pub mod remote;
pub mod restart;
pub mod rm;
pub mod root;
pub mod run;
pub mod scale;
pub mod session;
pub mod show;
pub mod start;
pub mod stats;
pub mod stop;
pub mod system;
pub mod up;
pub mod values;
pub mod version;
pub mod volumes;
pub mod wait;
pub mod watch;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use rustix::fs::Mode;

use crate::cli::context::Context;
use crate::cli::failure::Failure;

/// The command line.
#[derive(Parser, Debug)]
#[command(name = "rcompose", version, about = "Runs compose.yaml without a daemon", max_term_width = 100)]
#[command(subcommand_required = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub root: root::RootArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Every command there is.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create and start what the file says
    Up(Box<up::UpArgs>),
    /// Build the images of services
    Build(Box<build::BuildArgs>),
    /// Stop and remove containers and networks
    Down(down::DownArgs),
    /// Create what the file says, and start nothing
    Create(Box<create::CreateArgs>),
    /// Set how many containers services have
    Scale(scale::ScaleArgs),
    /// Show what `up` would do, and why (exit code 2: something)
    Plan(Box<up::UpArgs>),
    /// List containers
    Ps(ps::PsArgs),
    /// Show what containers have printed
    Logs(logs::LogsArgs),
    /// Run a command in a running container
    Exec(exec::ExecArgs),
    /// Copy files into and out of containers
    Cp(cp::CpArgs),
    /// Write the files of a container to a tar archive
    Export(export::ExportArgs),
    /// Make an image of what a container has become
    Commit(Box<commit::CommitArgs>),
    /// Show what happens to containers
    Events(events::EventsArgs),
    /// Connect to the streams of a running container
    Attach(attach::AttachArgs),
    /// Run a one-off container of a service
    Run(Box<run::RunArgs>),
    /// Stop containers
    Stop(stop::StopArgs),
    /// Start containers that exist
    Start(start::StartArgs),
    /// Restart containers
    Restart(restart::RestartArgs),
    /// Send a signal to containers
    Kill(kill::KillArgs),
    /// Freeze containers
    Pause(pause::PauseArgs),
    /// Let frozen containers go on
    Unpause(pause::PauseArgs),
    /// Show what containers use
    Stats(stats::StatsArgs),
    /// Show the processes in containers
    Top(stats::TopArgs),
    /// Remove stopped containers
    Rm(rm::RmArgs),
    /// Bring what changes on this machine into containers
    Watch(watch::WatchArgs),
    /// Wait until containers end
    Wait(wait::WaitArgs),
    /// Show where a port of a container is published
    Port(port::PortArgs),
    /// List the volumes of the project
    Volumes(volumes::VolumesArgs),
    /// Fetch images of services
    Pull(pull::PullArgs),
    /// Push the images that services build
    Push(push::PushArgs),
    /// Put the project into a registry, for `-f oci://`
    Publish(publish::PublishArgs),
    /// Log in to a registry
    Login(login::LoginArgs),
    /// Forget a login
    Logout(login::LogoutArgs),
    /// Be a registry
    #[command(subcommand)]
    Registry(registry::RegistryArgs),
    /// List the images of the containers
    Images(images::ImagesArgs),
    /// Load, import, list, remove, name and save images
    #[command(subcommand)]
    Image(image::ImageArgs),
    /// Put containers on networks while they run, and take them off
    #[command(subcommand)]
    Network(network::NetworkArgs),
    /// Show what is taken of the machine
    #[command(subcommand)]
    System(system::SystemArgs),
    /// Show what the file amounts to
    #[command(visible_alias = "convert")]
    Config(Box<config::ConfigArgs>),
    /// Show errors and warnings about the file (exit code 1: errors, 2: only warnings)
    Lint(lint::LintArgs),
    /// List projects
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    /// Print the completions of a shell: bash, zsh, fish
    Completion(completion::CompletionArgs),
    /// Run OCI bundles, for podman, docker and containerd
    #[command(disable_help_flag = true)]
    Oci {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Show what this host lacks, what that costs, and what mends it (exit code 1: something)
    Doctor(doctor::DoctorArgs),
    /// Show the version
    Version(version::VersionArgs),
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// Commands of docker compose that are not here yet.
const NOT_YET: &[&str] = &["alpha", "bridge", "docker-cli-plugin-hooks"];

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let ansi = cli.root.ansi();
    run(cli).unwrap_or_else(|failure| failure.report(ansi))
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let context = || {
        // What is made for containers, by us and by the processes that we start, is for users of all kinds in them. What is written
        // for the caller, by the commands without a context, goes by the caller's umask.
        rustix::process::umask(Mode::from_raw_mode(0o022));
        Context::new(&cli.root)
    };
    // The roots are those of whom this process was before.
    let context_of_layers = || {
        let context = context()?;
        crate::app::image::own_layers().map_err(|error| context.failure(error))?;
        Ok::<_, Failure>(context)
    };
    match cli.command {
        Command::Completion(args) => completion::run(&args),
        Command::Create(args) => create::run(*args, context()?),
        Command::Scale(args) => scale::run(args, context()?),
        Command::Export(args) => export::run(&args, &context_of_layers()?),
        Command::Commit(args) => commit::run(*args, &context_of_layers()?),
        Command::Cp(args) => cp::run(args, &context()?),
        Command::Events(args) => events::run(args, &context()?),
        Command::Attach(args) => attach::run(args, &context()?),
        Command::Watch(args) => watch::run(args, context()?),
        Command::Wait(args) => wait::run(args, &context()?),
        Command::Port(args) => port::run(args, &context()?),
        Command::Volumes(args) => volumes::run(args, &context()?),
        // Only after options of ours; `main` knows the way without them.
        Command::Oci { arguments } => Ok(crate::oci::main(arguments)),
        Command::Version(args) => version::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Config(args) => config::run(*args, &cli.root),
        Command::Lint(args) => lint::run(args, &cli.root),
        Command::Other(words) => Err(unknown(words.first().map_or("", String::as_str))),
        Command::Up(args) => up::run(*args, context()?),
        Command::Build(args) => build::run(*args, &context_of_layers()?),
        Command::Plan(args) => up::plan(*args, &context()?),
        Command::Down(args) => down::run(args, &context()?),
        Command::Ps(args) => ps::run(args, &context()?),
        Command::Logs(args) => logs::run(args, &context()?),
        Command::Exec(args) => exec::run(args, &context()?),
        Command::Run(args) => run::run(*args, &context()?),
        Command::Stop(args) => stop::run(args, &context()?),
        Command::Start(args) => start::run(args, &context()?),
        Command::Restart(args) => restart::run(args, &context()?),
        Command::Kill(args) => kill::run(args, &context()?),
        Command::Pause(args) => pause::run(args, true, &context()?),
        Command::Unpause(args) => pause::run(args, false, &context()?),
        Command::Stats(args) => stats::run(args, &context()?),
        Command::Top(args) => stats::top(args, &context()?),
        Command::Rm(args) => rm::run(args, &context()?),
        Command::Pull(args) => pull::run(args, &context_of_layers()?),
        Command::Push(args) => push::run(args, &context_of_layers()?),
        Command::Publish(args) => publish::run(args, &context_of_layers()?),
        Command::Login(args) => login::run(args, &context()?),
        Command::Logout(args) => login::logout(&args, &context()?),
        Command::Registry(args) => registry::run(&args, &context_of_layers()?),
        Command::Images(args) => images::run(args, &context()?),
        Command::Image(args) => image::run(args, &context_of_layers()?),
        Command::Network(args) => network::run(args, &context()?),
        Command::System(args) => system::run(&args, &context()?),
        Command::Ls(args) => ls::run(args, &context()?),
    }
}

/// Prints help, or what is wrong with the arguments: exit code 1, as docker compose has it, not clap's 2.
pub fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is there to be told when this cannot be written.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(failure::GENERAL),
    }
}

/// The failure for a command that is not in [`Command`].
pub fn unknown(name: &str) -> Failure {
    if NOT_YET.contains(&name) {
        return Failure::not_yet(name);
    }
    Failure::new(format!("unknown command `{name}`")).help("`rcompose --help` lists the commands")
}

#[cfg(test)]
mod tests;
