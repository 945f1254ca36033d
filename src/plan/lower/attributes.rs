//! Attributes that nothing honours yet.

use super::Lowering;
use crate::model::Service;
use crate::plan::PullPolicy;

type Check = fn(&Service) -> bool;

/// Attribute, whether a service uses it, and what is missing.
const NOT_YET: &[(&str, Check, &str)] = &[
    ("credential_spec", |s| s.credential_spec.is_some(), "it exists on Windows only"),
    ("env_file", |s| !s.env_file.is_empty(), "the files were not read into the environment"),
    (
        "isolation",
        |s| s.isolation.as_deref().is_some_and(|i| !i.is_empty() && i != "default"),
        "it exists on Windows only",
    ),
    ("models", |s| !s.models.is_empty(), "models are not served"),
    (
        "storage_opt",
        |s| !s.storage_opt.is_empty(),
        "a container's root has no quota of its own (in Docker only where it lies on xfs with project quotas)",
    ),
    ("use_api_socket", |s| s.use_api_socket, "there is no engine socket to hand in"),
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
        if let Some(policy) = service.pull_policy.as_deref().filter(|policy| PullPolicy::parse(policy).is_none()) {
            let known = "`always`, `missing`, `never`, `build`, `daily`, `weekly` or `every_` with a duration";
            self.invalid(&format!("services.{name}.pull_policy"), format!("`{policy}` is not a pull policy: {known}"));
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
