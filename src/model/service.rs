//! One service with every attribute of the format.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::Deserializer;

use super::build::Build;
use super::decode;
use super::deploy::{Deploy, DeviceRequest};

/// `services.*`. What the format leaves to the engine is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Service {
    #[serde(skip)]
    pub name: String,
    pub profiles: Vec<String>,
    #[serde(deserialize_with = "decode::text_map")]
    pub annotations: BTreeMap<String, String>,
    pub attach: Option<bool>,
    pub build: Option<Build>,
    pub develop: Option<Develop>,
    pub blkio_config: Option<BlkioConfig>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub cgroup: Option<String>,
    pub cgroup_parent: Option<String>,
    pub cpu_count: Option<i64>,
    #[serde(deserialize_with = "decode::number")]
    pub cpu_percent: Option<f64>,
    /// Microseconds.
    pub cpu_period: Option<i64>,
    /// Microseconds.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_rt_period: Option<i64>,
    /// Microseconds.
    pub cpu_rt_runtime: Option<i64>,
    pub cpu_shares: Option<i64>,
    /// Cores; 0 is unlimited.
    #[serde(deserialize_with = "decode::number")]
    pub cpus: Option<f64>,
    pub cpuset: Option<String>,
    /// `None`: the image's. Empty: none at all.
    pub command: Option<Vec<String>>,
    pub configs: Vec<FileReference>,
    pub container_name: Option<String>,
    pub credential_spec: Option<CredentialSpec>,
    /// Includes what links, namespaces and `volumes_from` imply.
    pub depends_on: BTreeMap<String, Dependency>,
    pub deploy: Option<Deploy>,
    pub device_cgroup_rules: Vec<String>,
    pub devices: Vec<Device>,
    pub dns: Vec<String>,
    pub dns_opt: Vec<String>,
    pub dns_search: Vec<String>,
    pub domainname: Option<String>,
    /// `None`: the image's. Empty: none at all.
    pub entrypoint: Option<Vec<String>>,
    pub provider: Option<Provider>,
    /// `env_file` and `environment` resolved; `None` removes the image's variable.
    pub environment: BTreeMap<String, Option<String>>,
    /// Empty once `environment` is resolved, which is the usual case.
    pub env_file: Vec<EnvFile>,
    /// `80`, `80/udp`, `8000-8010`.
    pub expose: Vec<String>,
    pub external_links: Vec<String>,
    /// `HOST=ADDRESS`; an address may be `host-gateway`.
    pub extra_hosts: Vec<String>,
    pub gpus: Vec<DeviceRequest>,
    pub group_add: Vec<String>,
    pub healthcheck: Option<Healthcheck>,
    pub hostname: Option<String>,
    pub image: Option<String>,
    pub init: Option<bool>,
    /// `shareable`, `host`, `private`, `none`, `service:NAME`, `container:ID`.
    pub ipc: Option<String>,
    pub isolation: Option<String>,
    #[serde(deserialize_with = "decode::text_map")]
    pub labels: BTreeMap<String, String>,
    pub links: Vec<String>,
    pub logging: Option<Logging>,
    pub mac_address: Option<String>,
    /// Bytes.
    #[serde(deserialize_with = "decode::bytes")]
    pub mem_limit: Option<i64>,
    /// Bytes.
    #[serde(deserialize_with = "decode::bytes")]
    pub mem_reservation: Option<i64>,
    /// 0 to 100.
    #[serde(deserialize_with = "decode::bytes")]
    pub mem_swappiness: Option<i64>,
    /// Bytes; -1 is unlimited.
    #[serde(deserialize_with = "decode::bytes")]
    pub memswap_limit: Option<i64>,
    pub models: BTreeMap<String, Option<ServiceModel>>,
    /// `bridge`, `none`, `host`, `service:NAME`, `container:ID`, or another word.
    pub network_mode: Option<String>,
    /// By key of `Project::networks`; `None` is "no settings".
    pub networks: BTreeMap<String, Option<ServiceNetwork>>,
    pub oom_kill_disable: bool,
    pub oom_score_adj: Option<i64>,
    /// `host`, `service:NAME`, `container:ID`.
    pub pid: Option<String>,
    /// -1 is unlimited.
    pub pids_limit: Option<i64>,
    pub platform: Option<String>,
    pub ports: Vec<Port>,
    pub privileged: bool,
    pub post_start: Vec<Hook>,
    pub pre_start: Vec<Hook>,
    pub pre_stop: Vec<Hook>,
    pub pull_policy: Option<String>,
    pub read_only: bool,
    /// `no`, `always`, `unless-stopped`, `on-failure[:N]`; not checked.
    pub restart: Option<String>,
    pub runtime: Option<String>,
    pub scale: Option<u32>,
    pub secrets: Vec<FileReference>,
    pub security_opt: Vec<String>,
    /// Bytes.
    #[serde(deserialize_with = "decode::bytes")]
    pub shm_size: Option<i64>,
    pub stdin_open: bool,
    #[serde(deserialize_with = "decode::duration")]
    pub stop_grace_period: Option<Duration>,
    pub stop_signal: Option<String>,
    #[serde(deserialize_with = "decode::text_map")]
    pub storage_opt: BTreeMap<String, String>,
    #[serde(deserialize_with = "decode::text_map")]
    pub sysctls: BTreeMap<String, String>,
    /// `PATH[:OPT,OPT]`.
    pub tmpfs: Vec<String>,
    pub tty: bool,
    pub ulimits: BTreeMap<String, Ulimit>,
    pub use_api_socket: bool,
    pub user: Option<String>,
    pub userns_mode: Option<String>,
    pub uts: Option<String>,
    pub volumes: Vec<ServiceVolume>,
    /// `SERVICE[:ro|rw]` or `container:NAME[:ro|rw]`.
    pub volumes_from: Vec<String>,
    pub working_dir: Option<String>,
}

impl Service {
    /// How many containers: `scale`, else `deploy.replicas`, else 1.
    pub fn replicas(&self) -> u32 {
        self.scale.or_else(|| self.deploy.as_ref()?.replicas).unwrap_or(1)
    }
}

/// `develop`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Develop {
    pub watch: Vec<Watch>,
}

/// One rule of `develop.watch`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Watch {
    /// Absolute.
    pub path: String,
    pub action: WatchAction,
    #[serde(default)]
    pub target: Option<String>,
    #[serde(default)]
    pub exec: Option<Hook>,
    #[serde(default)]
    pub include: Vec<String>,
    #[serde(default)]
    pub ignore: Vec<String>,
    #[serde(default)]
    pub initial_sync: bool,
}

/// What follows a change of a watched file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchAction {
    Rebuild,
    Sync,
    Restart,
    #[serde(rename = "sync+restart")]
    SyncRestart,
    #[serde(rename = "sync+exec")]
    SyncExec,
}

/// `blkio_config`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BlkioConfig {
    pub weight: Option<u16>,
    pub weight_device: Vec<WeightDevice>,
    pub device_read_bps: Vec<ThrottleDevice>,
    pub device_read_iops: Vec<ThrottleDevice>,
    pub device_write_bps: Vec<ThrottleDevice>,
    pub device_write_iops: Vec<ThrottleDevice>,
}

/// Weight of a block device, 10 to 1000.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct WeightDevice {
    pub path: String,
    pub weight: u16,
}

/// Limit of a block device: bytes or operations per second.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ThrottleDevice {
    pub path: String,
    /// Bytes or operations per second.
    #[serde(deserialize_with = "decode::bytes")]
    pub rate: Option<i64>,
}

/// `credential_spec`: for Windows, kept for `config`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CredentialSpec {
    pub config: Option<String>,
    pub file: Option<String>,
    pub registry: Option<String>,
}

/// One of `depends_on`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Dependency {
    pub condition: Condition,
    #[serde(default)]
    pub restart: bool,
    pub required: bool,
}

/// What has to be so before what depends on it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    ServiceStarted,
    ServiceHealthy,
    ServiceCompletedSuccessfully,
}

/// Host device made visible in the container; a CDI name when source and target are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Device {
    pub source: String,
    pub target: Option<String>,
    /// Any of `rwm`.
    pub permissions: Option<String>,
}

/// `provider`: a program that stands in for containers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Provider {
    #[serde(rename = "type")]
    pub kind: String,
    /// Each value becomes one `--key=value`.
    pub options: BTreeMap<String, Vec<String>>,
}

/// One of `env_file`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct EnvFile {
    pub path: String,
    #[serde(default = "yes")]
    pub required: bool,
    #[serde(default)]
    pub format: Option<String>,
}

fn yes() -> bool {
    true
}

/// `healthcheck`; durations in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", text]`; empty: the image's.
    pub test: Vec<String>,
    #[serde(deserialize_with = "decode::duration")]
    pub interval: Option<Duration>,
    #[serde(deserialize_with = "decode::duration")]
    pub timeout: Option<Duration>,
    pub retries: Option<u64>,
    #[serde(deserialize_with = "decode::duration")]
    pub start_period: Option<Duration>,
    #[serde(deserialize_with = "decode::duration")]
    pub start_interval: Option<Duration>,
    pub disable: bool,
}

/// A command run at a moment of the container's life.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Hook {
    pub command: Vec<String>,
    pub image: Option<String>,
    pub user: Option<String>,
    pub privileged: bool,
    pub working_dir: Option<String>,
    pub environment: BTreeMap<String, Option<String>>,
    pub per_replica: bool,
}

/// `logging`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Logging {
    pub driver: Option<String>,
    #[serde(deserialize_with = "decode::text_map")]
    pub options: BTreeMap<String, String>,
}

/// One of a service's `models`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceModel {
    pub endpoint_var: Option<String>,
    pub model_var: Option<String>,
}

/// One of a service's `networks`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServiceNetwork {
    pub aliases: Vec<String>,
    #[serde(deserialize_with = "decode::text_map")]
    pub driver_opts: BTreeMap<String, String>,
    pub gw_priority: i64,
    pub interface_name: Option<String>,
    pub ipv4_address: Option<String>,
    pub ipv6_address: Option<String>,
    pub link_local_ips: Vec<String>,
    pub mac_address: Option<String>,
    pub priority: i64,
}

/// A port of the container, published on the host or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Port {
    pub target: u16,
    /// `8080`, a range `8000-8010` to choose one from, or `None`/`0` for any free port.
    pub published: Option<String>,
    pub host_ip: Option<String>,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// `ingress` or `host`; the same here.
    pub mode: String,
    pub name: Option<String>,
    pub app_protocol: Option<String>,
}

/// A config or secret granted to a service or build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FileReference {
    pub source: String,
    pub target: Option<String>,
    pub uid: Option<String>,
    pub gid: Option<String>,
    #[serde(deserialize_with = "decode::mode")]
    pub mode: Option<u32>,
}

/// One of `ulimits`; -1 means no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// -1 is unlimited.
    pub soft: i64,
    pub hard: i64,
}

impl<'de> Deserialize<'de> for Ulimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Single(i64),
            Pair {
                #[serde(default)]
                soft: i64,
                #[serde(default)]
                hard: i64,
            },
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Single(value) => Self { soft: value, hard: value },
            Form::Pair { soft, hard } => Self { soft, hard },
        })
    }
}

/// A mount of the container.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ServiceVolume {
    #[serde(rename = "type")]
    pub kind: VolumeKind,
    /// Absolute path, volume key, or image reference; `None` for an anonymous volume or a tmpfs.
    #[serde(default)]
    pub source: Option<String>,
    /// Path in the container.
    #[serde(default)]
    pub target: String,
    #[serde(default)]
    pub read_only: bool,
    #[serde(default)]
    pub consistency: Option<String>,
    #[serde(default)]
    pub bind: Option<BindOptions>,
    #[serde(default)]
    pub volume: Option<VolumeOptions>,
    #[serde(default)]
    pub tmpfs: Option<TmpfsOptions>,
    #[serde(default)]
    pub image: Option<ImageOptions>,
}

/// `type` of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeKind {
    Volume,
    Bind,
    Tmpfs,
    Image,
    Npipe,
    Cluster,
}

/// `bind` of a volume in the long form.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct BindOptions {
    /// `rprivate`, `private`, `rshared`, `shared`, `rslave`, `slave`.
    #[serde(default)]
    pub propagation: Option<String>,
    /// Make the source as a folder when it is missing. The short syntax asks for it.
    #[serde(default)]
    pub create_host_path: bool,
    /// `enabled`, `disabled`, `writable`, `readonly`.
    #[serde(default)]
    pub recursive: Option<String>,
    /// `z` or `Z`.
    #[serde(default)]
    pub selinux: Option<String>,
}

/// `volume` of a volume in the long form.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VolumeOptions {
    pub nocopy: bool,
    pub subpath: Option<String>,
    #[serde(deserialize_with = "decode::text_map")]
    pub labels: BTreeMap<String, String>,
}

/// `tmpfs` of a volume in the long form.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TmpfsOptions {
    /// Bytes.
    #[serde(deserialize_with = "decode::bytes")]
    pub size: Option<i64>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// `image` of a volume in the long form.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ImageOptions {
    pub subpath: Option<String>,
}
