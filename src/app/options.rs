//! What the command line hands to each verb: plain data, checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

pub use crate::image::Compression;
pub use crate::plan::PullPolicy;

/// `up`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpOptions {
    pub services: Vec<String>,
    pub detach: bool,
    pub wait: bool,
    pub wait_timeout: Option<Duration>,
    pub force_recreate: bool,
    pub no_recreate: bool,
    pub always_recreate_deps: bool,
    pub renew_anonymous_volumes: bool,
    pub no_deps: bool,
    pub no_start: bool,
    /// No service at all is nothing to do, as for `create`, and no error.
    pub may_be_empty: bool,
    pub remove_orphans: bool,
    pub scale: Vec<(String, u32)>,
    pub timeout: Option<Duration>,
    /// Only these services' output.
    pub attach: Vec<String>,
    pub no_attach: Vec<String>,
    pub attach_dependencies: bool,
    pub abort_on_exit: bool,
    pub abort_on_failure: bool,
    pub exit_code_from: Option<String>,
    /// Bring what changes on this machine into the containers.
    pub watch: bool,
    /// Listen to keys.
    pub menu: bool,
    /// Instead of what the file says.
    pub pull: Option<PullPolicy>,
    pub quiet_pull: bool,
    pub output: LogOutput,
}

/// `push`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushOptions {
    pub services: Vec<String>,
    pub ignore_failures: bool,
    pub include_deps: bool,
    pub quiet: bool,
}

/// `pull`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullOptions {
    pub services: Vec<String>,
    pub ignore_buildable: bool,
    pub ignore_failures: bool,
    pub include_deps: bool,
    /// Instead of what the file says.
    pub policy: Option<PullPolicy>,
    pub quiet: bool,
}

/// How container output is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOutput {
    pub no_color: bool,
    pub no_prefix: bool,
    pub timestamps: bool,
}

/// `down`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownOptions {
    pub services: Vec<String>,
    pub volumes: bool,
    pub remove_orphans: bool,
    pub timeout: Option<Duration>,
    pub images: Option<RemoveImages>,
}

/// Which images `down --rmi` removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveImages {
    /// Those that the file gives no name.
    Local,
    All,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListFormat {
    #[default]
    Table,
    Json,
}

/// `ps`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PsOptions {
    pub services: Vec<String>,
    pub all: bool,
    pub quiet: bool,
    pub services_only: bool,
    pub no_trunc: bool,
    /// Leave out containers of services that the file does not have.
    pub no_orphans: bool,
    /// docker's words (`running`, …); empty: any.
    pub status: Vec<String>,
}

/// `logs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogsOptions {
    pub services: Vec<String>,
    pub follow: bool,
    pub index: Option<u32>,
    /// `None`: everything.
    pub tail: Option<usize>,
    /// Nanoseconds since the epoch.
    pub since: Option<i64>,
    /// Nanoseconds since the epoch.
    pub until: Option<i64>,
    pub output: LogOutput,
}

/// `exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    pub service: String,
    pub command: Vec<String>,
    pub detach: bool,
    /// `None`: the first running one.
    pub index: Option<u32>,
    pub terminal: bool,
    pub stdin: bool,
    pub privileged: bool,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    /// `NAME=VALUE`, or `NAME` for the value of ours.
    pub environment: Vec<String>,
}

/// `run`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    pub service: String,
    /// Empty: the service's.
    pub command: Vec<String>,
    pub detach: bool,
    pub remove: bool,
    pub terminal: bool,
    pub stdin: bool,
    pub no_deps: bool,
    pub service_ports: bool,
    pub use_aliases: bool,
    pub remove_orphans: bool,
    pub quiet: bool,
    pub name: Option<String>,
    pub entrypoint: Option<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    /// `NAME=VALUE`, or `NAME` for the value of ours.
    pub environment: Vec<String>,
    pub env_files: Vec<PathBuf>,
    /// `NAME=VALUE`.
    pub labels: Vec<String>,
    /// Short syntax of the file.
    pub volumes: Vec<String>,
    /// Short syntax of the file.
    pub publish: Vec<String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    /// Instead of what the file says.
    pub pull: Option<PullPolicy>,
    pub quiet_pull: bool,
}

/// `start`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartOptions {
    pub services: Vec<String>,
    pub wait: bool,
    pub wait_timeout: Option<Duration>,
}

/// `stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopOptions {
    pub services: Vec<String>,
    pub timeout: Option<Duration>,
}

/// `restart`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestartOptions {
    pub services: Vec<String>,
    pub timeout: Option<Duration>,
    pub no_deps: bool,
}

/// `kill`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KillOptions {
    pub services: Vec<String>,
    pub signal: String,
    pub remove_orphans: bool,
}

/// `rm`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RmOptions {
    pub services: Vec<String>,
    pub force: bool,
    pub stop: bool,
    pub volumes: bool,
}

/// `images`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagesOptions {
    pub services: Vec<String>,
    pub quiet: bool,
    pub format: ListFormat,
}

/// `ls`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LsOptions {
    pub all: bool,
    pub quiet: bool,
    /// Regular expressions, one of which the project's name matches; empty: any.
    pub name_filter: Vec<String>,
    pub format: ListFormat,
}

/// `image ls`: what an image must meet to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFilter {
    /// Names with `*` and `?`, of a repository or with its tag; empty: any.
    pub names: Vec<String>,
    /// Whether it has no name.
    pub dangling: Option<bool>,
    /// `NAME` or `NAME=VALUE`, all of them.
    pub labels: Vec<String>,
}

/// `attach`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachOptions {
    pub service: String,
    /// `None`: the first running one.
    pub index: Option<u32>,
}

/// `port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOptions {
    pub service: String,
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// `None`: the first running one.
    pub index: Option<u32>,
}

/// `volumes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumesOptions {
    /// Empty: all.
    pub services: Vec<String>,
}

/// `network connect` and `network disconnect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Key in the project, or name.
    pub network: String,
    /// Name of a container, or a service.
    pub container: String,
    /// Replica number; `None`: the first there is.
    pub index: Option<u32>,
}

/// How a container is on a network that it joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointOptions {
    pub aliases: Vec<String>,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub link_local: Vec<IpAddr>,
    /// The network with the highest one leads out.
    pub gw_priority: i64,
}

/// `cp`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// `SERVICE:PATH`, a path of this machine, or `-`.
    pub source: String,
    pub destination: String,
    /// Containers of `run`, too.
    pub all: bool,
    /// Keep owners.
    pub archive: bool,
    pub follow_link: bool,
    pub index: Option<u32>,
}

/// `events`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsOptions {
    /// Empty: all.
    pub services: Vec<String>,
    /// Nanoseconds since the epoch; `None`: now.
    pub since: Option<i64>,
    pub until: Option<i64>,
}

/// `commit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitOptions {
    pub service: String,
    /// `None`: the first one.
    pub index: Option<u32>,
    /// Name of the image.
    pub name: Option<String>,
    pub author: Option<String>,
    pub message: Option<String>,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// Freeze the container meanwhile.
    pub pause: bool,
}
