//! What a service does other than its file suggests.

use std::collections::BTreeMap;

use super::{Findings, Scene};
use crate::compose::environment;
use crate::compose::report::Reports;
use crate::compose::validate::nearest;
use crate::model::tree::{Map, Node};

pub(super) fn floating_tag(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    for (service, _, node) in scene.services() {
        // The image of a build is named here, not chosen.
        let Some(image) = node.get("image").filter(|_| node.get("build").is_none()) else { continue };
        let text = image.as_str().unwrap_or_default();
        let name = text.rsplit('/').next().unwrap_or(text);
        let found = match name.split_once(':') {
            _ if text.contains('@') || name.is_empty() => continue,
            None => format!("image `{text}` of service `{service}` has no tag, which means `latest`"),
            Some((_, "latest")) => format!("image `{text}` of service `{service}` is whatever is the latest one"),
            Some(_) => continue,
        };
        findings.service(service, image.mark, found, "name a version, or a digest");
    }
}

pub(super) fn restart(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    const POLICIES: [&str; 4] = ["no", "always", "on-failure", "unless-stopped"];
    for (service, _, node) in scene.services() {
        let Some(restart) = node.get("restart") else { continue };
        let text = restart.as_str().unwrap_or_default();
        let known = match text.split_once(':') {
            Some(("on-failure", count)) => count.parse::<u32>().is_ok(),
            Some(_) => false,
            None => text.is_empty() || POLICIES.contains(&text),
        };
        if !known {
            let message =
                format!("`{text}` is not a restart policy, so service `{service}` is not restarted as it says");
            let help = nearest(text, POLICIES.into_iter()).map_or_else(
                || "write `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:COUNT`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            findings.service(service, restart.mark, message, help);
        }
    }
}

pub(super) fn published_everywhere(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    for (service, port) in scene.items("ports") {
        let text = |key: &str| port.get(key).and_then(Node::as_str).unwrap_or_default();
        if !matches!(text("host_ip"), "" | "0.0.0.0" | "::") {
            continue;
        }
        let target = port.get("target").map(|node| node.to_json().to_string()).unwrap_or_default();
        let published = text("published");
        let message = format!("port {target} of service `{service}` is published on all addresses of this machine");
        let help = format!("when only this machine needs it, write `127.0.0.1:{published}:{target}`");
        findings.service(service, port.mark, message, help);
    }
}

pub(super) fn no_healthcheck(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    for (service, _, node) in scene.services() {
        let dependencies = node.get("depends_on").and_then(Node::as_map).into_iter().flat_map(Map::iter);
        for (name, (mark, dependency)) in dependencies {
            let condition = dependency.get("condition");
            if condition.and_then(Node::as_str) != Some("service_healthy") {
                continue;
            }
            let Some(other) = scene.tree.get("services").and_then(|services| services.get(name)) else { continue };
            let test = other.at("healthcheck.test").and_then(Node::as_list).unwrap_or_default();
            let disabled = other.at("healthcheck.disable").and_then(Node::as_bool) == Some(true)
                || test.first().and_then(Node::as_str) == Some("NONE");
            // A provider reports by itself.
            if other.get("provider").is_some() || (!test.is_empty() && !disabled) {
                continue;
            }
            let message = if disabled {
                format!("service `{service}` waits until `{name}` is healthy, but its health check is switched off")
            } else {
                format!(
                    "service `{service}` waits until `{name}` is healthy, but the file gives `{name}` no health check"
                )
            };
            let mark = condition.map(|node| node.mark).filter(|mark| mark.line > 0).unwrap_or(*mark);
            let help =
                format!("add `healthcheck:` to `{name}`, unless its image has one, or wait for `service_started`");
            findings.service(service, mark, message, help);
        }
    }
}

pub(super) fn masked_variable(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    for (service, _, node) in scene.services() {
        let files = node.get("env_file").and_then(Node::as_list).unwrap_or_default();
        let own = node.get("environment").and_then(Node::as_map);
        let bare = own.into_iter().flatten().filter(|(_, (_, value))| value.is_null());
        let bare: Vec<_> = bare.map(|(name, (mark, _))| (name.as_ref(), *mark)).collect();
        if files.is_empty() || bare.is_empty() {
            continue;
        }
        let mut variables = BTreeMap::new();
        // The loader reports files that cannot be read.
        let mut unheard = Reports::default();
        let lookup = |name: &str| scene.environment.get(name).cloned();
        for file in files {
            environment::read_variables(file, scene.working_dir, &mut variables, &lookup, service, &mut unheard);
        }
        for (name, mark) in bare {
            if variables.contains_key(name) {
                let message =
                    format!("the bare `{name}` of service `{service}` hides the value that its `env_file` has");
                let help = format!("remove `{name}` from `environment`, or set it in the environment");
                findings.service(service, mark, message, help);
            }
        }
    }
}
