//! One service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::pre_start::pre_start;
use super::{Lowering, hash};
use crate::model;
use crate::model::Service;
use crate::spec::Condition;
use crate::spec::ContainerSpec;
use crate::spec::Dependency;
use crate::spec::HealthSpec;
use crate::spec::HealthTimes;
use crate::spec::HookSpec;
use crate::spec::PortSpec;
use crate::spec::RestartPolicy;
use crate::spec::ServiceSpec;
use crate::spec::container::{
    BlockLimit, BlockLimitKind, CdiRequest, DeviceSpec, NamespaceMode, NetworkMode, Resources, Ulimit,
};

/// Attributes that do not make a container what it is.
const NOT_HASHED: &[&str] = &["scale", "depends_on", "profiles", "pull_policy", "attach", "develop", "build", "deploy"];

impl Lowering<'_> {
    pub(super) fn service(&mut self, name: &str, service: &Service) -> ServiceSpec {
        let path = format!("services.{name}");
        self.refuse_not_yet(name, service);
        if service.image.as_deref().unwrap_or_default().is_empty()
            && service.build.is_none()
            && service.provider.is_none()
        {
            self.invalid(&path, format!("service `{name}` has neither an image nor a build context specified"));
        }
        let mut fields = match self.project.canonical(name) {
            Some(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        fields.retain(|key, _| !NOT_HASHED.contains(&key.as_str()));
        let deploy = service.deploy.as_ref();
        if let Some(limits) = deploy.and_then(|deploy| deploy.resources.limits.as_ref()) {
            let limits = serde_json::json!({"cpus": limits.cpus, "memory": limits.memory, "pids": limits.pids});
            fields.insert("deploy.resources.limits".to_owned(), limits);
        }
        if let Some(policy) = deploy.and_then(|deploy| deploy.restart_policy.as_ref()) {
            let policy = format!("{:?} {:?}", policy.condition, policy.max_attempts);
            fields.insert("deploy.restart_policy".to_owned(), policy.into());
        }
        let mut container = self.container(&path, service);
        // The content of configs and secrets is no attribute of the service, yet part of the container.
        let content = serde_json::json!(
            container
                .mounts
                .iter()
                .filter(|mount| matches!(mount.source, crate::spec::container::MountSource::Content { .. }))
                .collect::<Vec<_>>()
        );
        if content.as_array().is_some_and(|content| !content.is_empty()) {
            fields.insert("content".to_owned(), hash(&content).into());
        }
        let config_hash = hash(&serde_json::Value::Object(fields.clone()));
        self.own_labels(name, service, &config_hash, &mut container.labels);
        let mut spec = ServiceSpec {
            name: name.to_owned(),
            scale: service.replicas(),
            container_name: service.container_name.clone(),
            config_hash,
            fields,
            depends_on: service
                .depends_on
                .iter()
                .filter(|(name, _)| !self.is_provided(name))
                .map(|(name, how)| (name.clone(), dependency(how)))
                .collect(),
            restart: self.restart(&path, service),
            health: Self::health(service),
            health_times: service.healthcheck.as_ref().map(health_times).unwrap_or_default(),
            stop_signal: service.stop_signal.clone(),
            stop_grace: service.stop_grace_period.unwrap_or(Duration::from_secs(10)),
            pre_start: Vec::new(),
            post_start: self.hooks(&format!("{path}.post_start"), &service.post_start),
            pre_stop: self.hooks(&format!("{path}.pre_stop"), &service.pre_stop),
            attach: service.attach.unwrap_or(true),
            builds: service.build.is_some(),
            auto_remove: false,
            container,
        };
        spec.pre_start = pre_start(service, &spec);
        spec
    }

    /// There is no container of it.
    fn is_provided(&self, name: &str) -> bool {
        self.project.services.get(name).is_some_and(|service| service.provider.is_some())
    }

    /// What tools that know docker compose look for.
    fn own_labels(&self, name: &str, service: &Service, config_hash: &str, labels: &mut BTreeMap<String, String>) {
        let files: Vec<_> = self.project.compose_files.iter().map(|file| file.display().to_string()).collect();
        let condition = |condition| match condition {
            model::Condition::ServiceStarted => "service_started",
            model::Condition::ServiceHealthy => "service_healthy",
            model::Condition::ServiceCompletedSuccessfully => "service_completed_successfully",
        };
        let depends_on = service.depends_on.iter();
        let depends_on = depends_on.map(|(other, how)| format!("{other}:{}:{}", condition(how.condition), how.restart));
        let own = [
            ("project", self.project.name.clone()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("depends_on", depends_on.collect::<Vec<_>>().join(",")),
            ("service", name.to_owned()),
            ("config-hash", config_hash.to_owned()),
            ("project.working_dir", self.project.working_dir.display().to_string()),
            ("project.config_files", files.join(",")),
            ("oneoff", "False".to_owned()),
        ];
        labels.extend(own.map(|(key, value)| (format!("com.docker.compose.{key}"), value)));
    }

    /// A name with a line break would be lines of its own in `/etc/hosts` and `/etc/resolv.conf`.
    fn refuse_forged_lines(&mut self, path: &str, service: &Service) {
        let texts = [
            ("hostname", service.hostname.iter().collect::<Vec<_>>()),
            ("domainname", service.domainname.iter().collect()),
            ("extra_hosts", service.extra_hosts.iter().collect()),
            ("dns_search", service.dns_search.iter().collect()),
            ("dns_opt", service.dns_opt.iter().collect()),
        ];
        for (attribute, texts) in texts {
            for text in texts.into_iter().filter(|text| text.contains(char::is_control)) {
                let shown = text.escape_debug();
                self.invalid(
                    &format!("{path}.{attribute}"),
                    format!("`{shown}` has control characters, which no name has"),
                );
            }
        }
    }

    /// What is built without a name is named after project and service.
    fn image(&self, path: &str, service: &Service) -> String {
        let named = service.image.clone().filter(|image| !image.is_empty());
        let name = path.strip_prefix("services.").unwrap_or(path);
        named.unwrap_or_else(|| self.project.default_image(name))
    }

    fn container(&mut self, path: &str, service: &Service) -> ContainerSpec {
        let network = self.network_mode(path, service);
        if !service.links.is_empty() && !matches!(network, NetworkMode::Networks(_)) {
            self.invalid(&format!("{path}.links"), "links need a network that both services are in");
        }
        let ports = self.ports(path, service, &network);
        let devices = self.devices(path, service);
        let mut extra_hosts = Vec::new();
        for text in &service.extra_hosts {
            match text.split_once('=').or_else(|| text.split_once(':')) {
                Some((host, address)) => {
                    let bare = address.trim_matches(['[', ']']);
                    if address != "host-gateway" && bare.parse::<IpAddr>().is_err() {
                        self.invalid(
                            &format!("{path}.extra_hosts"),
                            format!("invalid IP address in add-host: `{address}`"),
                        );
                    }
                    extra_hosts.push((host.to_owned(), address.to_owned()));
                }
                None => self.invalid(&format!("{path}.extra_hosts"), format!("`{text}` is not `HOST=ADDRESS`")),
            }
        }
        self.refuse_forged_lines(path, service);
        let resources = resources(service);
        self.check_limits(path, service, &resources);
        self.check_health(path, service);
        self.check_shared_namespaces(path, service, &network);
        ContainerSpec {
            image: self.image(path, service),
            entrypoint: service.entrypoint.clone(),
            command: service.command.clone(),
            environment: service.environment.clone(),
            user: service.user.clone(),
            group_add: service.group_add.clone(),
            working_dir: service.working_dir.clone(),
            hostname: service.hostname.clone(),
            domainname: service.domainname.clone(),
            tty: service.tty,
            stdin_open: service.stdin_open,
            runtime: service.runtime.clone().filter(|name| !is_builtin(name)),
            init: service.init.unwrap_or(false),
            read_only: service.read_only,
            privileged: service.privileged,
            cap_add: service.cap_add.iter().map(|name| capability(name)).collect(),
            cap_drop: service.cap_drop.iter().map(|name| capability(name)).collect(),
            security_opt: service.security_opt.clone(),
            mounts: self.mounts(path, service),
            volumes_from: self.volumes_from(path, service),
            devices,
            cdi: self.cdi(path, service),
            network,
            ports,
            extra_hosts,
            links: self.links(service),
            dns: self.name_servers(path, service),
            dns_search: service.dns_search.clone(),
            dns_opt: service.dns_opt.clone(),
            labels: service.labels.clone(),
            annotations: service.annotations.clone(),
            sysctls: service.sysctls.clone(),
            ulimits: service.ulimits.iter().map(|(k, v)| (k.clone(), Ulimit { soft: v.soft, hard: v.hard })).collect(),
            shm_size: positive(service.shm_size),
            oom_score_adj: self.narrow(&format!("{path}.oom_score_adj"), service.oom_score_adj),
            pid: self.namespace(&format!("{path}.pid"), service.pid.as_deref()),
            ipc: self.namespace(&format!("{path}.ipc"), service.ipc.as_deref()),
            uts: self.namespace(&format!("{path}.uts"), service.uts.as_deref()),
            cgroup: service
                .cgroup
                .as_deref()
                .filter(|mode| !mode.is_empty())
                .map(|mode| self.namespace(&format!("{path}.cgroup"), Some(mode))),
            resources,
            logging: self.logging(path, service),
        }
    }

    fn ports(&mut self, path: &str, service: &Service, network: &NetworkMode) -> Vec<PortSpec> {
        match network {
            NetworkMode::Networks(_) => {
                let ports = service.ports.iter().enumerate();
                ports.filter_map(|(index, port)| self.port(&format!("{path}.ports.{index}"), port)).collect()
            }
            // There is nothing to forward: docker compose discards them too.
            NetworkMode::Host | NetworkMode::None => Vec::new(),
            NetworkMode::Service(_) | NetworkMode::Container(_) => {
                if !service.ports.is_empty() {
                    let whose = "ports are published by the one whose network is joined";
                    self.invalid(&format!("{path}.ports"), whose);
                }
                Vec::new()
            }
        }
    }

    fn devices(&mut self, path: &str, service: &Service) -> Vec<DeviceSpec> {
        let mut devices = Vec::new();
        for (index, device) in service.devices.iter().enumerate() {
            if device.source.starts_with('/') {
                devices.push(DeviceSpec {
                    host: device.source.clone().into(),
                    container: device.target.clone().unwrap_or_else(|| device.source.clone()),
                    permissions: device.permissions.clone().unwrap_or_else(|| "rwm".to_owned()),
                });
            } else if !is_cdi_name(&device.source) {
                let message =
                    format!("`{}` is neither a path nor a CDI name such as `vendor.com/class=name`", device.source);
                self.invalid(&format!("{path}.devices.{index}"), message);
            }
        }
        devices
    }

    /// Devices by CDI names, `gpus`, and devices that are reserved.
    fn cdi(&mut self, path: &str, service: &Service) -> Vec<CdiRequest> {
        let named = service.devices.iter().filter(|device| is_cdi_name(&device.source));
        let mut requests: Vec<_> = named.map(|device| CdiRequest::Device(device.source.clone())).collect();
        let deploy = service.deploy.as_ref().and_then(|deploy| deploy.resources.reservations.as_ref());
        let reserved = deploy.map(|reservations| reservations.devices.as_slice()).unwrap_or_default();
        let places = [("gpus", service.gpus.as_slice()), ("deploy.resources.reservations.devices", reserved)];
        for (attribute, wanted) in places {
            for (index, request) in wanted.iter().enumerate() {
                let at = format!("{path}.{attribute}.{index}");
                let driver = request.driver.as_deref().filter(|driver| !driver.is_empty());
                if driver == Some("cdi") {
                    requests.extend(request.device_ids.iter().cloned().map(CdiRequest::Device));
                } else if attribute != "gpus" && !request.capabilities.iter().any(|capability| capability == "gpu") {
                    let asked = request.capabilities.join(", ");
                    self.invalid(&at, format!("no device driver has the capabilities [{asked}]; known is `gpu`"));
                } else {
                    let count = match request.count {
                        None | Some(model::DeviceCount::All) => None,
                        Some(model::DeviceCount::Exactly(count)) => u32::try_from(count).ok().or_else(|| {
                            self.invalid(&at, format!("`{count}` is not a number of devices"));
                            None
                        }),
                    };
                    let (vendor, ids) = (driver.map(str::to_owned), request.device_ids.clone());
                    requests.push(CdiRequest::Gpus { vendor, count, ids });
                }
            }
        }
        requests
    }

    fn namespace(&mut self, path: &str, mode: Option<&str>) -> NamespaceMode {
        match mode {
            None | Some("" | "private") => NamespaceMode::Private,
            Some("shareable") => NamespaceMode::Shareable,
            Some("host") => NamespaceMode::Host,
            Some("none") => NamespaceMode::None,
            Some(mode) => match mode.split_once(':') {
                Some(("service", name)) => NamespaceMode::Service(name.to_owned()),
                Some(("container", name)) => NamespaceMode::Container(name.to_owned()),
                _ => {
                    self.invalid(path, format!("`{mode}` is not a namespace mode"));
                    NamespaceMode::Private
                }
            },
        }
    }

    fn narrow(&mut self, path: &str, value: Option<i64>) -> Option<i32> {
        let narrowed = i32::try_from(value?).ok();
        if narrowed.is_none() {
            self.invalid(path, "the number is out of range");
        }
        narrowed
    }

    fn restart(&mut self, path: &str, service: &Service) -> RestartPolicy {
        if let Some(text) = service.restart.as_deref().filter(|text| !text.is_empty()) {
            return match text.split_once(':') {
                None if text == "no" => RestartPolicy::No,
                None if text == "always" => RestartPolicy::Always,
                None if text == "unless-stopped" => RestartPolicy::UnlessStopped,
                None if text == "on-failure" => RestartPolicy::OnFailure { max_retries: None },
                Some(("on-failure", count)) => {
                    let max_retries = self.parse(&format!("{path}.restart"), count, "a number of retries");
                    RestartPolicy::OnFailure { max_retries: max_retries.filter(|count| *count > 0) }
                }
                _ => {
                    self.invalid(&format!("{path}.restart"), format!("invalid restart policy `{text}`"));
                    RestartPolicy::No
                }
            };
        }
        let Some(policy) = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref()) else {
            return RestartPolicy::No;
        };
        match &policy.condition {
            // Without a condition docker compose sets no policy, whatever the format says.
            None | Some(model::RestartCondition::None) => RestartPolicy::No,
            Some(model::RestartCondition::OnFailure) => RestartPolicy::OnFailure {
                max_retries: policy.max_attempts.filter(|n| *n > 0).and_then(|n| u32::try_from(n).ok()),
            },
            Some(model::RestartCondition::Any) => RestartPolicy::Always,
            Some(model::RestartCondition::Unknown(word)) if word == "always" => RestartPolicy::Always,
            Some(model::RestartCondition::Unknown(word)) if word == "unless-stopped" => RestartPolicy::UnlessStopped,
            Some(model::RestartCondition::Unknown(word)) if matches!(word.as_str(), "" | "no") => RestartPolicy::No,
            Some(model::RestartCondition::Unknown(word)) => {
                let at = format!("{path}.deploy.restart_policy.condition");
                self.invalid(&at, format!("`{word}` is not `none`, `on-failure` or `any`"));
                RestartPolicy::No
            }
        }
    }

    fn hooks(&mut self, path: &str, hooks: &[model::Hook]) -> Vec<HookSpec> {
        let mut specs = Vec::new();
        for (index, hook) in hooks.iter().enumerate() {
            if hook.command.is_empty() {
                self.invalid(&format!("{path}.{index}"), "a hook needs a command");
            }
            specs.push(HookSpec {
                command: hook.command.clone(),
                user: hook.user.clone().filter(|user| !user.is_empty()),
                privileged: hook.privileged,
                working_dir: hook.working_dir.clone().filter(|folder| !folder.is_empty()),
                environment: hook.environment.clone(),
            });
        }
        specs
    }

    fn health(service: &Service) -> Option<HealthSpec> {
        let check = service.healthcheck.as_ref()?;
        let command = match check.test.split_first() {
            _ if check.disable => return None,
            Some((word, _)) if word == "NONE" => return None,
            Some((word, words)) if word == "CMD" => words.to_vec(),
            Some((word, words)) if word == "CMD-SHELL" => {
                vec!["/bin/sh".to_owned(), "-c".to_owned(), words.join(" ")]
            }
            // The image's, if it has one.
            _ => Vec::new(),
        };
        let or =
            |value: Option<Duration>, seconds| value.filter(|d| !d.is_zero()).unwrap_or(Duration::from_secs(seconds));
        Some(HealthSpec {
            command,
            interval: or(check.interval, 30),
            timeout: or(check.timeout, 30),
            retries: check.retries.filter(|n| *n > 0).and_then(|n| u32::try_from(n).ok()).unwrap_or(3),
            start_period: check.start_period.unwrap_or_default(),
            start_interval: or(check.start_interval, 5),
        })
    }
}

fn health_times(check: &model::Healthcheck) -> HealthTimes {
    let set = |value: Option<Duration>| value.filter(|value| !value.is_zero());
    HealthTimes {
        interval: set(check.interval),
        timeout: set(check.timeout),
        retries: check.retries.filter(|n| *n > 0).and_then(|n| u32::try_from(n).ok()),
        start_period: set(check.start_period),
        start_interval: set(check.start_interval),
    }
}

fn dependency(how: &model::Dependency) -> Dependency {
    let condition = match how.condition {
        model::Condition::ServiceStarted => Condition::ServiceStarted,
        model::Condition::ServiceHealthy => Condition::ServiceHealthy,
        model::Condition::ServiceCompletedSuccessfully => Condition::ServiceCompletedSuccessfully,
    };
    Dependency { condition, required: how.required, restart: how.restart }
}

/// `vendor.com/class=name`.
fn is_cdi_name(text: &str) -> bool {
    !text.starts_with('/') && text.split_once('=').is_some_and(|(kind, name)| kind.contains('/') && !name.is_empty())
}

/// Names under which Docker has its default runtime, whose place the engine takes.
pub(super) fn is_builtin(runtime: &str) -> bool {
    matches!(runtime, "" | "runc" | "io.containerd.runc.v2")
}

fn capability(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").filter(|rest| *rest != "ALL").map(str::to_owned).unwrap_or(name)
}

fn block_limits(config: &model::BlkioConfig) -> Vec<BlockLimit> {
    let limit = |path: &str, kind, value| BlockLimit { path: path.into(), kind, value };
    let weights = config.weight_device.iter().map(|one| limit(&one.path, BlockLimitKind::Weight, one.weight.into()));
    let lists = [
        (&config.device_read_bps, BlockLimitKind::ReadBps),
        (&config.device_write_bps, BlockLimitKind::WriteBps),
        (&config.device_read_iops, BlockLimitKind::ReadIops),
        (&config.device_write_iops, BlockLimitKind::WriteIops),
    ];
    let rates = lists.into_iter().flat_map(|(list, kind)| list.iter().map(move |one| (one, kind)));
    let rates = rates.map(|(one, kind)| limit(&one.path, kind, positive(one.rate).unwrap_or(0)));
    weights.chain(rates).collect()
}

fn positive(value: Option<i64>) -> Option<u64> {
    value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0)
}

fn resources(service: &Service) -> Resources {
    let deploy = service.deploy.as_ref().map(|deploy| &deploy.resources);
    let limits = deploy.and_then(|resources| resources.limits.clone()).unwrap_or_default();
    let reserved = deploy.and_then(|resources| resources.reservations.clone()).unwrap_or_default();
    Resources {
        memory: positive(limits.memory.or(service.mem_limit)),
        memory_reservation: positive(reserved.memory.or(service.mem_reservation)),
        memory_swap: service.memswap_limit.filter(|value| *value != 0),
        memory_swappiness: service.mem_swappiness.and_then(|value| u64::try_from(value).ok()),
        oom_kill_disable: service.oom_kill_disable.then_some(true),
        cpus: limits.cpus.or(service.cpus).filter(|cpus| *cpus > 0.0),
        cpu_shares: positive(service.cpu_shares),
        cpu_period: positive(service.cpu_period),
        cpu_quota: service.cpu_quota.filter(|quota| *quota != 0),
        cpuset: service.cpuset.clone().filter(|set| !set.is_empty()),
        pids: limits.pids.or(service.pids_limit).filter(|pids| *pids != 0),
        blkio_weight: service.blkio_config.as_ref().and_then(|config| config.weight),
        blkio_devices: service.blkio_config.as_ref().map(block_limits).unwrap_or_default(),
        cpu_rt_period: positive(service.cpu_rt_period),
        cpu_rt_runtime: service.cpu_rt_runtime.filter(|runtime| *runtime != 0),
        device_cgroup_rules: service.device_cgroup_rules.clone(),
        cgroup_parent: service.cgroup_parent.clone(),
    }
}
