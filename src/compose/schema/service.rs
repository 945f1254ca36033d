//! `services.*`.

use super::build::BUILD;
use super::deploy::{DEPLOY, GPUS};
use super::*;

pub(in crate::compose) static SERVICE: Struct = structure(&[
    at("profiles", &UNIQUE_STRINGS).unique(Unique::Key),
    at("annotations", &PAIRS).merge(Merge::KeyValue).unique(Unique::Key),
    at("attach", &BOOL).keep(),
    at("build", &BUILD).merge(Merge::Build).keep(),
    at("develop", &DEVELOP).keep(),
    at("blkio_config", &BLKIO).keep(),
    at("cap_add", &UNIQUE_STRINGS).unique(Unique::Key),
    at("cap_drop", &UNIQUE_STRINGS).unique(Unique::Key),
    at("cgroup_parent", &STRING),
    at("cgroup", &CGROUP),
    at("cpu_count", &CPU_COUNT),
    at("cpu_percent", &CPU_PERCENT),
    at("cpu_period", &NUMBER_INT),
    at("cpu_quota", &NUMBER_INT),
    at("cpu_rt_period", &NUMBER_INT),
    at("cpu_rt_runtime", &NUMBER_INT),
    at("cpus", &FLOAT),
    at("cpuset", &STRING),
    at("cpu_shares", &NUMBER_INT),
    at("command", &COMMAND).merge(Merge::Replace).zero(Zero::JsonNull),
    at("configs", &FILE_REFERENCES).unique(Unique::ConfigTarget),
    at("container_name", &CONTAINER_NAME),
    at("credential_spec", &CREDENTIAL_SPEC).keep(),
    at("depends_on", &DEPENDS_ON).merge(Merge::DependsOn),
    at("deploy", &DEPLOY).keep(),
    at("device_cgroup_rules", &UNIQUE_STRINGS),
    at("devices", &DEVICES).unique(Unique::DeviceTarget),
    at("dns", &STRING_OR_STRINGS).merge(Merge::Append).unique(Unique::Key),
    at("dns_opt", &UNIQUE_STRINGS).merge(Merge::Append).unique(Unique::Key),
    at("dns_search", &STRING_OR_STRINGS).merge(Merge::Append).unique(Unique::Key),
    at("domainname", &STRING),
    at("entrypoint", &COMMAND).merge(Merge::Replace).zero(Zero::JsonNull),
    at("provider", &PROVIDER).keep(),
    at("environment", &VARIABLES).merge(Merge::KeyValue).unique(Unique::Key),
    at("env_file", &ENV_FILES).merge(Merge::Append).unique(Unique::EnvFile),
    at("expose", &STRINGS_OR_NUMBERS).unique(Unique::Expose),
    at("extends", &EXTENDS).keep(),
    at("external_links", &UNIQUE_STRINGS),
    at("extra_hosts", &EXTRA_HOSTS).merge(Merge::ExtraHosts),
    at("group_add", &STRINGS_OR_NUMBERS),
    at("gpus", &GPUS),
    at("hostname", &STRING),
    at("healthcheck", &HEALTHCHECK).keep(),
    at("image", &STRING),
    at("init", &BOOL).keep(),
    at("ipc", &STRING),
    at("isolation", &STRING),
    at("labels", &PAIRS).merge(Merge::KeyValue).unique(Unique::Key),
    at("label_file", &LABEL_FILES).merge(Merge::Append),
    at("links", &UNIQUE_STRINGS).unique(Unique::Key),
    at("logging", &LOGGING).merge(Merge::Logging).keep(),
    at("mem_limit", &BYTES),
    at("mem_reservation", &INT_BYTES),
    at("memswap_limit", &BYTES),
    at("mem_swappiness", &INT_BYTES),
    at("mac_address", &STRING),
    at("models", &MODELS).merge(Merge::Names),
    at("network_mode", &STRING),
    at("networks", &NETWORKS).merge(Merge::Names),
    at("oom_kill_disable", &BOOL),
    at("oom_score_adj", &OOM_SCORE_ADJ),
    at("pid", &STRING_OR_NULL),
    at("pids_limit", &NUMBER_INT),
    at("platform", &STRING),
    at("ports", &PORTS).unique(Unique::Port),
    at("privileged", &BOOL),
    at("pull_policy", &PULL_POLICY),
    at("read_only", &BOOL),
    at("restart", &STRING),
    at("runtime", &STRING),
    at("scale", &INT).keep(),
    at("secrets", &FILE_REFERENCES).unique(Unique::SecretTarget),
    at("security_opt", &UNIQUE_STRINGS),
    at("shm_size", &BYTES),
    at("stdin_open", &BOOL),
    at("stop_grace_period", &DURATION).keep(),
    at("stop_signal", &STRING),
    at("storage_opt", &STORAGE_OPTIONS),
    at("sysctls", &PAIRS).merge(Merge::KeyValue).unique(Unique::Key),
    at("tmpfs", &STRING_OR_STRINGS).merge(Merge::Append).unique(Unique::Key),
    at("tty", &BOOL),
    at("ulimits", &ULIMITS).merge(Merge::Ulimits),
    at("use_api_socket", &STRICT_BOOL),
    at("user", &STRING),
    at("userns_mode", &STRING),
    at("uts", &STRING),
    at("volumes", &VOLUMES).unique(Unique::VolumeTarget),
    at("volumes_from", &UNIQUE_STRINGS),
    at("working_dir", &STRING),
    at("pre_start", &PRE_START),
    at("post_start", &HOOKS),
    at("pre_stop", &HOOKS),
    // In the schema only; nothing reads it.
    at("pull_refresh_after", &STRING).zero(Zero::Never),
]);

static CGROUP: Shape = NOTHING.or_text(Text::OneOf(&["host", "private"])).cast(Cast::Text);
static CPU_COUNT: Shape = NOTHING.or_text(Text::Any).or_number(Number::Between(0, i64::MAX)).cast(Cast::Int);
static CPU_PERCENT: Shape = NOTHING.or_text(Text::Any).or_number(Number::Between(0, 100)).cast(Cast::Float);
static OOM_SCORE_ADJ: Shape = NOTHING.or_text(Text::Any).or_number(Number::Between(-1000, 1000)).cast(Cast::Int);
static STRING_OR_NULL: Shape = NOTHING.or_null().or_text(Text::Any).cast(Cast::Text);
static CONTAINER_NAME: Shape =
    NOTHING.or_text(Text::Like("[a-zA-Z0-9][a-zA-Z0-9_.-]+", holds_container_name)).cast(Cast::Text);
static PULL_POLICY: Shape = NOTHING
    .or_text(Text::Like(
        "always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+",
        holds_pull_policy,
    ))
    .cast(Cast::Text);
static STORAGE_OPTIONS: Shape = NOTHING.or_named_and_others(Keys::Any, &STORAGE_OPTION);
static STORAGE_OPTION: Shape = NOTHING.or_null().or_text(Text::Any).or_number(Number::Integer).cast(Cast::Text);

/// The pattern is not anchored: it is enough that it fits somewhere.
fn holds_container_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.windows(2).any(|pair| match pair {
        [first, second] => {
            first.is_ascii_alphanumeric() && (second.is_ascii_alphanumeric() || matches!(second, b'_' | b'.' | b'-'))
        }
        _ => false,
    })
}

/// As above: not anchored.
fn holds_pull_policy(text: &str) -> bool {
    const WORDS: [&str; 8] = ["always", "never", "build", "if_not_present", "missing", "refresh", "daily", "weekly"];
    let every = text.match_indices("every_").any(|(start, sign)| {
        let rest = text.get(start + sign.len()..).unwrap_or_default();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        digits > 0 && rest.get(digits..).is_some_and(|unit| unit.starts_with(['w', 'd', 'h', 'm', 's']))
    });
    every || WORDS.iter().any(|word| text.contains(word))
}

static DEVELOP: Shape = NOTHING.or_null().or_struct(&DEVELOP_FIELDS);
static DEVELOP_FIELDS: Struct = structure(&[at("watch", &WATCHES)]);
static WATCHES: Shape = NOTHING.or_list(&WATCH, false);
static WATCH: Shape = NOTHING.or_struct(&WATCH_FIELDS);
static WATCH_FIELDS: Struct = structure(&[
    at("path", &STRING),
    at("action", &WATCH_ACTION),
    at("target", &STRING),
    at("exec", &HOOK).zero(Zero::JsonObject),
    at("include", &STRING_OR_STRINGS),
    at("ignore", &STRING_OR_STRINGS),
    at("initial_sync", &STRICT_BOOL),
])
.required(&["path", "action"]);
static WATCH_ACTION: Shape =
    NOTHING.or_text(Text::OneOf(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"])).cast(Cast::Text);

static BLKIO: Shape = NOTHING.or_struct(&BLKIO_FIELDS);
static BLKIO_FIELDS: Struct = structure(&[
    at("weight", &WEIGHT),
    at("weight_device", &WEIGHT_DEVICES),
    at("device_read_bps", &THROTTLE_DEVICES),
    at("device_read_iops", &THROTTLE_DEVICES),
    at("device_write_bps", &THROTTLE_DEVICES),
    at("device_write_iops", &THROTTLE_DEVICES),
])
.closed();
/// Text is accepted nowhere but in the schema of the reference, which then cannot read it.
static WEIGHT: Shape = NOTHING.or_number(Number::Integer).cast(Cast::Unsigned);
static WEIGHT_DEVICES: Shape = NOTHING.or_list(&WEIGHT_DEVICE, false);
static WEIGHT_DEVICE: Shape = NOTHING.or_struct(&WEIGHT_DEVICE_FIELDS);
static WEIGHT_DEVICE_FIELDS: Struct =
    structure(&[at("path", &STRING).keep(), at("weight", &WEIGHT).keep()]).closed().complete().capital();
static THROTTLE_DEVICES: Shape = NOTHING.or_list(&THROTTLE_DEVICE, false);
static THROTTLE_DEVICE: Shape = NOTHING.or_struct(&THROTTLE_DEVICE_FIELDS);
static THROTTLE_DEVICE_FIELDS: Struct =
    structure(&[at("path", &STRING).keep(), at("rate", &INT_BYTES).keep()]).closed().complete().capital();

static CREDENTIAL_SPEC: Shape = NOTHING.or_struct(&CREDENTIAL_SPEC_FIELDS);
static CREDENTIAL_SPEC_FIELDS: Struct =
    structure(&[at("config", &STRING), at("file", &STRING), at("registry", &STRING)]);

static DEPENDS_ON: Shape = NOTHING.or_list(&STRING, true).or_named(Keys::Resource, &DEPENDENCY);
static DEPENDENCY: Shape = NOTHING.or_struct(&DEPENDENCY_FIELDS);
static DEPENDENCY_FIELDS: Struct =
    structure(&[at("condition", &CONDITION), at("restart", &BOOL), at("required", &STRICT_BOOL).keep()])
        .required(&["condition"]);
static CONDITION: Shape = NOTHING
    .or_text(Text::OneOf(&["service_started", "service_healthy", "service_completed_successfully"]))
    .cast(Cast::Text);

static DEVICES: Shape = NOTHING.or_list(&DEVICE, false);
static DEVICE: Shape = NOTHING.or_text(Text::Any).or_struct(&DEVICE_FIELDS);
static DEVICE_FIELDS: Struct =
    structure(&[at("source", &STRING), at("target", &STRING), at("permissions", &STRING)]).required(&["source"]);

static PROVIDER: Shape = NOTHING.or_struct(&PROVIDER_FIELDS);
static PROVIDER_FIELDS: Struct = structure(&[at("type", &STRING), at("options", &OPTIONS)]).required(&["type"]);
static OPTIONS: Shape = NOTHING.or_named_and_others(Keys::Any, &OPTION);
static OPTION: Shape =
    NOTHING.or_text(Text::Any).or_number(Number::Any).or_boolean().or_list(&OPTION_ITEM, false).cast(Cast::Text);
static OPTION_ITEM: Shape = NOTHING.or_text(Text::Any).or_number(Number::Any).or_boolean().cast(Cast::Text);

static ENV_FILES: Shape = NOTHING.or_text(Text::Any).or_list(&ENV_FILE, false);
static ENV_FILE: Shape = NOTHING.or_text(Text::Any).or_struct(&ENV_FILE_FIELDS);
static ENV_FILE_FIELDS: Struct =
    structure(&[at("path", &STRING), at("required", &BOOL).keep(), at("format", &STRING)]).required(&["path"]).closed();
static LABEL_FILES: Shape = NOTHING.or_text(Text::Any).or_list(&STRING, false);

static EXTENDS: Shape = NOTHING.or_text(Text::Any).or_struct(&EXTENDS_FIELDS);
static EXTENDS_FIELDS: Struct =
    structure(&[at("file", &STRING), at("service", &STRING)]).required(&["service"]).closed();

static HEALTHCHECK: Shape = NOTHING.or_struct(&HEALTHCHECK_FIELDS);
static HEALTHCHECK_FIELDS: Struct = structure(&[
    at("test", &TEST).merge(Merge::Replace),
    at("timeout", &DURATION).keep(),
    at("interval", &DURATION).keep(),
    at("retries", &RETRIES).keep(),
    at("start_period", &DURATION).keep(),
    at("start_interval", &DURATION).keep(),
    at("disable", &BOOL),
]);
static RETRIES: Shape = NOTHING.or_number(Number::Any).or_text(Text::Any).cast(Cast::Unsigned);
static TEST: Shape = NOTHING.or_text(Text::Any).or_list(&STRING, false);

static LOGGING: Shape = NOTHING.or_struct(&LOGGING_FIELDS);
static LOGGING_FIELDS: Struct = structure(&[at("driver", &STRING), at("options", &LOGGING_OPTIONS)]);
static LOGGING_OPTIONS: Shape = NOTHING.or_named_and_others(Keys::Any, &LOGGING_OPTION);
static LOGGING_OPTION: Shape = NOTHING.or_null().or_number(Number::Any).or_text(Text::Any).cast(Cast::Text);

static MODELS: Shape = NOTHING.or_list(&STRING, true).or_named_and_others(Keys::Resource, &SERVICE_MODEL);
static SERVICE_MODEL: Shape = NOTHING.or_null().or_struct(&SERVICE_MODEL_FIELDS);
static SERVICE_MODEL_FIELDS: Struct = structure(&[at("endpoint_var", &STRING), at("model_var", &STRING)]);

static NETWORKS: Shape = NOTHING.or_list(&STRING, true).or_named(Keys::Resource, &SERVICE_NETWORK);
static SERVICE_NETWORK: Shape = NOTHING.or_null().or_struct(&SERVICE_NETWORK_FIELDS);
static SERVICE_NETWORK_FIELDS: Struct = structure(&[
    at("aliases", &UNIQUE_STRINGS).unique(Unique::Key),
    at("driver_opts", &DRIVER_OPTIONS),
    at("gw_priority", &PRIORITY),
    at("interface_name", &STRING),
    at("ipv4_address", &STRING),
    at("ipv6_address", &STRING),
    at("link_local_ips", &UNIQUE_STRINGS).unique(Unique::Key),
    at("mac_address", &STRING),
    at("priority", &PRIORITY),
]);
static PRIORITY: Shape = NOTHING.or_number(Number::Any).cast(Cast::Int);

static PORTS: Shape = NOTHING.or_list(&PORT, true);
static PORT: Shape = NOTHING.or_number(Number::Any).or_text(Text::Any).or_struct(&PORT_FIELDS);
static PORT_FIELDS: Struct = structure(&[
    at("name", &STRING),
    at("mode", &STRING),
    at("host_ip", &STRING),
    at("target", &COUNTER),
    at("published", &PUBLISHED),
    at("protocol", &STRING),
    at("app_protocol", &STRING),
]);
static PUBLISHED: Shape = NOTHING.or_number(Number::Integer).or_text(Text::Any).cast(Cast::Text);

static HOOKS: Shape = NOTHING.or_list(&HOOK, false);
static PRE_START: Shape = NOTHING.or_list(&PRE_START_HOOK, false);
static PRE_START_HOOK: Shape = NOTHING.or_struct(&PRE_START_FIELDS);
static PRE_START_FIELDS: Struct = structure(&[
    at("command", &COMMAND).zero(Zero::JsonNull),
    at("image", &STRING),
    at("user", &STRING),
    at("privileged", &BOOL),
    at("working_dir", &STRING),
    at("environment", &VARIABLES),
    at("per_replica", &BOOL),
]);

static VOLUMES: Shape = NOTHING.or_list(&VOLUME, true);
static VOLUME: Shape = NOTHING.or_text(Text::Any).or_struct(&VOLUME_FIELDS);
static VOLUME_FIELDS: Struct = structure(&[
    at("type", &VOLUME_KIND),
    at("source", &STRING),
    at("target", &STRING),
    at("read_only", &BOOL),
    at("consistency", &STRING),
    at("bind", &BIND).keep(),
    at("volume", &VOLUME_OPTIONS).keep(),
    at("tmpfs", &TMPFS_OPTIONS).keep(),
    at("image", &IMAGE_OPTIONS).keep(),
])
.required(&["type"]);
static VOLUME_KIND: Shape =
    NOTHING.or_text(Text::OneOf(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"])).cast(Cast::Text);
static BIND: Shape = NOTHING.or_struct(&BIND_FIELDS);
static BIND_FIELDS: Struct = structure(&[
    at("selinux", &SELINUX),
    at("propagation", &STRING),
    at("create_host_path", &BOOL),
    at("recursive", &RECURSIVE),
]);
static SELINUX: Shape = NOTHING.or_text(Text::OneOf(&["z", "Z"])).cast(Cast::Text);
static RECURSIVE: Shape =
    NOTHING.or_text(Text::OneOf(&["enabled", "disabled", "writable", "readonly"])).cast(Cast::Text);
static VOLUME_OPTIONS: Shape = NOTHING.or_struct(&VOLUME_OPTIONS_FIELDS);
static VOLUME_OPTIONS_FIELDS: Struct =
    structure(&[at("labels", &PAIRS).merge(Merge::KeyValue), at("nocopy", &BOOL), at("subpath", &STRING)]);
static TMPFS_OPTIONS: Shape = NOTHING.or_struct(&TMPFS_OPTIONS_FIELDS);
static TMPFS_OPTIONS_FIELDS: Struct = structure(&[at("size", &TMPFS_SIZE), at("mode", &TMPFS_MODE)]);
static TMPFS_MODE: Shape = NOTHING.or_number(Number::Any).cast(Cast::Unsigned);
static TMPFS_SIZE: Shape = NOTHING.or_number(Number::Between(0, i64::MAX)).or_text(Text::Any).cast(Cast::Bytes);
static IMAGE_OPTIONS: Shape = NOTHING.or_struct(&IMAGE_OPTIONS_FIELDS);
static IMAGE_OPTIONS_FIELDS: Struct = structure(&[at("subpath", &STRING)]);
