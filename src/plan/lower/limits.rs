//! Limits and settings that no engine takes, told where they stand instead of when a container starts.

use std::time::Duration;

use super::Lowering;
use crate::model::Service;
use crate::spec::container::{NetworkMode, Resources};

/// As with docker: no program starts with less.
const LEAST_MEMORY: i64 = 6 << 20;

impl Lowering<'_> {
    pub(super) fn check_limits(&mut self, path: &str, service: &Service, resources: &Resources) {
        self.check_memory(path, service);
        let cpus = limits(service).and_then(|limits| limits.cpus).or(service.cpus);
        let at = |attribute: &str| format!("{path}.{attribute}");
        if cpus.is_some_and(|cpus| cpus < 0.0) {
            self.invalid(&place(path, service.cpus.is_some(), "cpus"), "the number of processors cannot be negative");
        }
        for (attribute, given) in
            [("cpu_quota", resources.cpu_quota.is_some()), ("cpu_period", resources.cpu_period.is_some())]
        {
            if given && resources.cpus.is_some() {
                self.invalid(&at(attribute), format!("`{attribute}` and `cpus` set the same limit; keep one of them"));
            }
        }
        if resources.blkio_weight.is_some_and(|weight| weight != 0 && !(10..=1000).contains(&weight)) {
            self.invalid(&at("blkio_config.weight"), "a weight is 10 to 1000");
        }
        if service.shm_size.is_some_and(|size| size < 0) {
            self.invalid(&at("shm_size"), "a size cannot be negative");
        }
        if let Some(parent) = service.cgroup_parent.as_deref()
            && parent.split('/').any(|part| matches!(part, "." | ".."))
        {
            self.invalid(&at("cgroup_parent"), format!("`{parent}` must be a path without `.` and `..`"));
        }
        for key in service.sysctls.iter().filter(|(_, value)| value.is_empty()).map(|(key, _)| key) {
            self.invalid(&at("sysctls"), format!("`{key}` has no value"));
        }
    }

    pub(super) fn check_health(&mut self, path: &str, service: &Service) {
        let Some(check) = &service.healthcheck else { return };
        let times = [
            ("interval", check.interval),
            ("timeout", check.timeout),
            ("start_period", check.start_period),
            ("start_interval", check.start_interval),
        ];
        // Nothing, or zero, is the default.
        for (name, time) in times {
            if time.is_some_and(|time| !time.is_zero() && time < Duration::from_millis(1)) {
                self.invalid(&format!("{path}.healthcheck.{name}"), "the shortest time is a millisecond");
            }
        }
        if check.start_interval.is_some() && check.start_period.is_none() {
            let message = "`start_interval` is that of the start period, so it needs `start_period`";
            self.invalid(&format!("{path}.healthcheck.start_interval"), message);
        }
    }

    fn check_memory(&mut self, path: &str, service: &Service) {
        let given = |size: &i64| *size != 0;
        let limit = limits(service).and_then(|limits| limits.memory).or(service.mem_limit).filter(given);
        let reserved = service.deploy.as_ref().and_then(|deploy| deploy.resources.reservations.as_ref());
        let reserved = reserved.and_then(|reserved| reserved.memory).or(service.mem_reservation).filter(given);
        let at = |attribute: &str| format!("{path}.{attribute}");
        if limit.is_some_and(|limit| limit < LEAST_MEMORY) {
            let place = if service.mem_limit.is_some_and(|limit| limit != 0) {
                at("mem_limit")
            } else {
                at("deploy.resources.limits.memory")
            };
            self.invalid(&place, "the least memory that a container can be limited to is 6 MiB");
        }
        let own = service.mem_reservation.is_some_and(|size| size != 0);
        let place = if own { at("mem_reservation") } else { at("deploy.resources.reservations.memory") };
        if reserved.is_some_and(|reserved| reserved < LEAST_MEMORY) {
            self.invalid(&place, "the least memory that can be reserved is 6 MiB");
        } else if limit.zip(reserved).is_some_and(|(limit, reserved)| limit < reserved) {
            self.invalid(&place, "more memory is reserved than the container may have");
        }
        if let Some(swap) = service.memswap_limit.filter(|swap| *swap > 0)
            && limit.is_none_or(|limit| swap < limit)
        {
            let message = "it counts memory and swap together, so it needs a `mem_limit` that is not above it";
            self.invalid(&at("memswap_limit"), message);
        }
        if service.mem_swappiness.is_some_and(|percent| !(-1..=100).contains(&percent)) {
            self.invalid(&at("mem_swappiness"), "it is a percentage: 0 to 100");
        }
    }

    /// What belongs to a namespace is said by the container whose namespace it is.
    pub(super) fn check_shared_namespaces(&mut self, path: &str, service: &Service, network: &NetworkMode) {
        let given = [
            ("hostname", service.hostname.as_deref().is_some_and(|name| !name.is_empty())),
            ("extra_hosts", !service.extra_hosts.is_empty()),
            ("dns", !service.dns.is_empty()),
        ];
        if matches!(network, NetworkMode::Service(_) | NetworkMode::Container(_)) {
            for (attribute, _) in given.iter().filter(|(_, given)| *given) {
                let message = format!("`{attribute}` is that of the container whose network is joined; set it there");
                self.invalid(&format!("{path}.{attribute}"), message);
            }
        }
        if service.uts.as_deref() == Some("host") && given[0].1 {
            self.invalid(&format!("{path}.hostname"), "with `uts: host` the host's name is the container's");
        }
        if let Some(folder) = service.working_dir.as_deref().filter(|dir| !dir.is_empty() && !dir.starts_with('/')) {
            self.invalid(&format!("{path}.working_dir"), format!("`{folder}` must be an absolute path"));
        }
    }
}

fn limits(service: &Service) -> Option<&crate::model::Limits> {
    service.deploy.as_ref()?.resources.limits.as_ref()
}

/// Where a limit is written that has two places.
fn place(path: &str, own: bool, attribute: &str) -> String {
    if own { format!("{path}.{attribute}") } else { format!("{path}.deploy.resources.limits.{attribute}") }
}
