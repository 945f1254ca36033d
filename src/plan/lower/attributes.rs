//! Attributes that nothing honours yet.

use super::Lowering;
use crate::model::Service;

type Check = fn(&Service) -> bool;

/// Attribute, whether a service uses it, and what is missing.
const NOT_YET: &[(&str, Check, &str)] = &[
    (
        "blkio_config.weight_device",
        |s| s.blkio_config.as_ref().is_some_and(|b| !b.weight_device.is_empty()),
        "weights per device are not set",
    ),
    (
        "blkio_config.device_read_bps",
        |s| s.blkio_config.as_ref().is_some_and(|b| !b.device_read_bps.is_empty()),
        "devices are not throttled",
    ),
    (
        "blkio_config.device_read_iops",
        |s| s.blkio_config.as_ref().is_some_and(|b| !b.device_read_iops.is_empty()),
        "devices are not throttled",
    ),
    (
        "blkio_config.device_write_bps",
        |s| s.blkio_config.as_ref().is_some_and(|b| !b.device_write_bps.is_empty()),
        "devices are not throttled",
    ),
    (
        "blkio_config.device_write_iops",
        |s| s.blkio_config.as_ref().is_some_and(|b| !b.device_write_iops.is_empty()),
        "devices are not throttled",
    ),
    ("cpu_rt_period", |s| s.cpu_rt_period.is_some_and(|n| n != 0), "real-time scheduling is not set up"),
    ("cpu_rt_runtime", |s| s.cpu_rt_runtime.is_some_and(|n| n != 0), "real-time scheduling is not set up"),
    ("credential_spec", |s| s.credential_spec.is_some(), "it exists on Windows only"),
    ("env_file", |s| !s.env_file.is_empty(), "the files were not read into the environment"),
    (
        "external_links",
        |s| !s.external_links.is_empty(),
        "containers of other projects are reached over a shared external network",
    ),
    ("gpus", |s| !s.gpus.is_empty(), "devices are not requested by capability; list them in `devices`"),
    (
        "isolation",
        |s| s.isolation.as_deref().is_some_and(|i| !i.is_empty() && i != "default"),
        "it exists on Windows only",
    ),
    ("models", |s| !s.models.is_empty(), "models are not served"),
    ("provider", |s| s.provider.is_some(), "provider programs are not run"),
    ("pre_start", |s| !s.pre_start.is_empty(), "hooks are not run"),
    (
        "runtime",
        |s| s.runtime.as_deref().is_some_and(|runtime| !matches!(runtime, "" | "runc")),
        "there is one engine, the built-in one",
    ),
    ("storage_opt", |s| !s.storage_opt.is_empty(), "the root file system has no options"),
    ("use_api_socket", |s| s.use_api_socket, "there is no engine socket to hand in"),
    ("userns_mode", |s| s.userns_mode.as_deref().is_some_and(|mode| mode != "host"), "user namespaces are not mapped"),
    (
        "deploy.resources.reservations.devices",
        |s| reservations(s).is_some_and(|r| !r.devices.is_empty()),
        "devices are not requested by capability; list them in `devices`",
    ),
    (
        "deploy.resources.reservations.generic_resources",
        |s| reservations(s).is_some_and(|r| !r.generic_resources.is_empty()),
        "there is no inventory of generic resources",
    ),
];

fn reservations(service: &Service) -> Option<&crate::model::Reservations> {
    service.deploy.as_ref()?.resources.reservations.as_ref()
}

impl Lowering<'_> {
    pub(super) fn refuse_not_yet(&mut self, name: &str, service: &Service) {
        for (attribute, used, what) in NOT_YET {
            if used(service) {
                self.not_yet(&format!("services.{name}.{attribute}"), what);
            }
        }
        let platform = format!("linux/{}", architecture());
        if let Some(wanted) = service.platform.as_deref().filter(|wanted| !wanted.is_empty())
            && *wanted != platform
            && !wanted.starts_with(&format!("{platform}/"))
        {
            self.not_yet(&format!("services.{name}.platform"), &format!("programs run natively, as `{platform}`"));
        }
        let policy = service.pull_policy.as_deref();
        if policy.is_some_and(|policy| !matches!(policy, "" | "never" | "missing" | "if_not_present" | "build")) {
            self.not_yet(&format!("services.{name}.pull_policy"), "images are not pulled; use `missing` or `never`");
        }
    }
}

/// This machine's, in the words of image manifests.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
