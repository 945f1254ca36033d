//! What a container is asked to be. The image's own configuration is merged in when it is created.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::spec::logging::LogSpec;
use crate::spec::network::PortSpec;

/// One container, without its number: the same for all replicas of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Image reference as written.
    pub image: String,
    /// `None`: the image's. `Some` also clears the image's command.
    pub entrypoint: Option<Vec<String>>,
    pub command: Option<Vec<String>>,
    /// `None` as value: not set, even if the image sets it.
    pub environment: BTreeMap<String, Option<String>>,
    /// `user[:group]`, names or ids.
    pub user: Option<String>,
    pub group_add: Vec<String>,
    pub working_dir: Option<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub tty: bool,
    pub stdin_open: bool,
    /// Another OCI runtime by name; `None`: the engine makes the container itself.
    #[serde(default)]
    pub runtime: Option<String>,
    /// An init that reaps and forwards signals becomes pid 1.
    pub init: bool,
    pub read_only: bool,
    pub privileged: bool,
    /// Capability names without `CAP_`, upper case; `ALL` allowed.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    /// As in the file: `seccomp=unconfined`, `no-new-privileges:true`, …
    pub security_opt: Vec<String>,
    pub mounts: Vec<Mount>,
    #[serde(default)]
    pub volumes_from: Vec<VolumesFrom>,
    pub devices: Vec<DeviceSpec>,
    #[serde(default)]
    pub cdi: Vec<CdiRequest>,
    pub network: NetworkMode,
    pub ports: Vec<PortSpec>,
    /// Name and address; the address may be `host-gateway`.
    pub extra_hosts: Vec<(String, String)>,
    /// Further names of others that this container alone knows: the name, and the service or container it means.
    pub links: BTreeMap<String, String>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_opt: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub sysctls: BTreeMap<String, String>,
    /// Name without `RLIMIT_`, lower case; -1 is unlimited.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Bytes.
    pub shm_size: Option<u64>,
    pub oom_score_adj: Option<i32>,
    pub pid: NamespaceMode,
    pub ipc: NamespaceMode,
    pub uts: NamespaceMode,
    /// `None`: a namespace of its own where version 2 is in use and the container is not privileged.
    pub cgroup: Option<NamespaceMode>,
    pub resources: Resources,
    #[serde(default)]
    pub logging: LogSpec,
}

/// Limits; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes, soft limit.
    pub memory_reservation: Option<u64>,
    /// Bytes of memory and swap together; -1 is unlimited.
    pub memory_swap: Option<i64>,
    pub memory_swappiness: Option<u64>,
    pub oom_kill_disable: Option<bool>,
    /// CPUs, fractions allowed.
    pub cpus: Option<f64>,
    pub cpu_shares: Option<u64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds.
    pub cpu_quota: Option<i64>,
    /// `0-3` or `0,1`.
    pub cpuset: Option<String>,
    /// -1 is unlimited.
    pub pids: Option<i64>,
    pub blkio_weight: Option<u16>,
    #[serde(default)]
    pub blkio_devices: Vec<BlockLimit>,
    /// Microseconds.
    #[serde(default)]
    pub cpu_rt_period: Option<u64>,
    /// Microseconds.
    #[serde(default)]
    pub cpu_rt_runtime: Option<i64>,
    pub device_cgroup_rules: Vec<String>,
    /// Cgroup the container's own is made in, instead of the project's.
    pub cgroup_parent: Option<String>,
}

/// A limit for one block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockLimit {
    /// On the host.
    pub path: PathBuf,
    pub kind: BlockLimitKind,
    /// A weight (10 to 1000), bytes or operations per second.
    pub value: u64,
}

/// What is limited for a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockLimitKind {
    Weight,
    ReadBps,
    WriteBps,
    ReadIops,
    WriteIops,
}

/// A soft and a hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub soft: i64,
    pub hard: i64,
}

/// Which namespace of a kind a container lives in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceMode {
    #[default]
    Private,
    /// Private, and others may join (`ipc: shareable`).
    Shareable,
    Host,
    None,
    Service(String),
    Container(String),
}

/// How a container is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// On these networks; the first is the primary one (highest priority, then name).
    Networks(Vec<Attachment>),
    None,
    Host,
    Service(String),
    Container(String),
}

impl NetworkMode {
    /// How many descriptors a container that runs takes of the project's supervisor; while it starts it takes some more.
    pub const fn descriptors(&self) -> usize {
        match self {
            Self::Networks(_) => 12,
            Self::None | Self::Host | Self::Service(_) | Self::Container(_) => 6,
        }
    }

    /// Whose network namespace is joined, if anybody's.
    pub fn namespace(&self) -> NamespaceMode {
        match self {
            Self::Service(name) => NamespaceMode::Service(name.clone()),
            Self::Container(name) => NamespaceMode::Container(name.clone()),
            Self::Host => NamespaceMode::Host,
            Self::Networks(_) | Self::None => NamespaceMode::Private,
        }
    }
}

impl Default for NetworkMode {
    fn default() -> Self {
        Self::Networks(Vec::new())
    }
}

/// One network of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Key in [`crate::spec::ProjectSpec::networks`].
    pub network: String,
    /// Further names, besides the service's and the container's.
    pub aliases: Vec<String>,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub mac: Option<String>,
    /// Interface name inside; `ethN` when `None`.
    pub interface: Option<String>,
    pub gw_priority: i64,
    /// Further addresses of the interface, which are not managed.
    pub link_local: Vec<IpAddr>,
    /// Settings below `net` of the interface, `IFNAME` standing for its name: dotted key and value.
    pub sysctls: Vec<(String, String)>,
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute, clean path inside.
    pub target: String,
    pub read_only: bool,
    pub source: MountSource,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    Bind {
        path: PathBuf,
        /// Make a missing folder (short syntax); otherwise a missing source is an error.
        create: bool,
        /// `rprivate`, `shared`, …; `None` is `rprivate`.
        propagation: Option<String>,
        recursive: Recursion,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        relabel: Option<Relabel>,
    },
    /// A volume by its key in the file.
    Volume {
        key: String,
        /// Do not fill an empty volume from the image.
        no_copy: bool,
        subpath: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        relabel: Option<Relabel>,
    },
    /// A volume without a name, made with the container.
    Anonymous {
        labels: BTreeMap<String, String>,
        /// As of [`MountSource::Volume`].
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_copy: bool,
    },
    /// What an image holds, read-only.
    Image {
        reference: String,
        /// A file or folder in it; empty: all of it.
        subpath: String,
    },
    Tmpfs {
        /// Bytes.
        size: Option<u64>,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        /// Further mount options as written (`noexec`, …).
        options: Vec<String>,
    },
    /// A config or secret, written into the container before it starts.
    Content { bytes: Vec<u8>, mode: u32, uid: u32, gid: u32 },
}

/// Whom SELinux shall let use what is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relabel {
    /// All containers (`z`).
    Shared,
    /// This one (`Z`).
    Private,
}

/// What becomes of the mounts below a bind mount's source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recursion {
    /// They are bound too, and read-only with it.
    #[default]
    Enabled,
    /// They are left out.
    Disabled,
    /// They are bound too, and stay as they are.
    Writable,
}

/// Another container whose volumes and bind mounts a container has too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    pub of: MountsOf,
    /// `None`: as there.
    pub read_only: Option<bool>,
}

/// Whose mounts `volumes_from` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountsOf {
    /// The first container of a service.
    Service(String),
    /// A container of any project, by name or id.
    Container(String),
}

/// Devices that files of the Container Device Interface describe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CdiRequest {
    /// A qualified name, `vendor.com/class=name`.
    Device(String),
    /// Devices of class `gpu`.
    Gpus {
        /// `None`: there is one vendor only.
        vendor: Option<String>,
        /// `None`: all.
        count: Option<u32>,
        /// These, and no others.
        ids: Vec<String>,
    },
}

/// A host device shown inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    pub host: PathBuf,
    pub container: String,
    /// Some of `rwm`.
    pub permissions: String,
}
