//! From the Compose model to decided values. What cannot be honoured yet is an error with its place; nothing is
//! silently ignored.

mod attributes;
mod limits;
mod logging;
mod mounts;
mod network_options;
mod networks;
mod pre_start;
mod service;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::base::diagnostic::Diagnostic;
use crate::model;
use crate::spec::ProjectSpec;
use crate::spec::VolumeSpec;

/// Decides everything that the file leaves open.
///
/// # Errors
/// One diagnostic per attribute that is not supported yet or makes no sense.
pub fn lower(project: &model::Project) -> Result<ProjectSpec, Vec<Diagnostic>> {
    let mut lowering = Lowering { project, problems: Vec::new() };
    let networks = lowering.networks();
    let volumes = lowering.volumes();
    let services: BTreeMap<_, _> = project
        .services
        .iter()
        .filter(|(_, service)| service.provider.is_none())
        .map(|(name, service)| (name.clone(), lowering.service(name, service)))
        .collect();
    if !lowering.problems.is_empty() {
        return Err(lowering.problems);
    }
    Ok(ProjectSpec {
        name: project.name.clone(),
        separator: project.separator,
        working_dir: project.working_dir.clone(),
        config_files: project.compose_files.clone(),
        services,
        disabled_services: project.disabled_services.keys().cloned().collect(),
        networks,
        volumes,
    })
}

/// A project being lowered, and what is wrong with it.
struct Lowering<'a> {
    project: &'a model::Project,
    problems: Vec<Diagnostic>,
}

impl Lowering<'_> {
    fn not_yet(&mut self, path: &str, what: &str) {
        let place = self.project.place(path);
        self.problems.push(Diagnostic::error("not-yet", place, format!("`{path}` is not supported yet: {what}")));
    }

    fn invalid(&mut self, path: &str, message: impl Into<String>) {
        let place = self.project.place(path);
        self.problems.push(Diagnostic::error("invalid-value", place, message));
    }

    /// Text as a value of another type; `what` says what it should be.
    fn parse<T: std::str::FromStr>(&mut self, path: &str, text: &str, what: &str) -> Option<T> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.invalid(path, format!("`{text}` is not {what}"));
        }
        parsed
    }

    /// Options of the `local` driver, which are those of mount(8).
    fn local_driver(&mut self, key: &str, options: &BTreeMap<String, String>) {
        let path = format!("volumes.{key}.driver_opts");
        for option in options.keys() {
            match option.as_str() {
                "type" | "o" | "device" => {}
                "size" => self.not_yet(&format!("{path}.size"), "folders have no quota; use `type: tmpfs`"),
                _ => self.invalid(&format!("{path}.{option}"), format!("invalid option: `{option}`")),
            }
        }
        let device = options.get("device").map(String::as_str).unwrap_or_default();
        let binds = options.get("o").is_some_and(|o| o.split(',').any(|word| matches!(word, "bind" | "rbind")));
        if binds && !device.is_empty() && !device.starts_with('/') {
            let message = format!("`{device}` is relative, which works with `driver: local` and `o: bind` only");
            self.invalid(&format!("{path}.device"), message);
        }
        for required in ["device", "type"] {
            let mounts = ["type", "o", "device"].iter().any(|option| options.contains_key(*option));
            if mounts && options.get(required).is_none_or(String::is_empty) {
                self.invalid(&path, format!("missing required option: `{required}`"));
            }
        }
    }

    fn volumes(&mut self) -> BTreeMap<String, VolumeSpec> {
        let mut volumes = BTreeMap::new();
        for (key, volume) in &self.project.volumes {
            if volume.driver.as_deref().is_some_and(|driver| !matches!(driver, "" | "local")) {
                self.not_yet(&format!("volumes.{key}.driver"), "volumes are local folders");
            }
            self.local_driver(key, &volume.driver_opts);
            let spec = VolumeSpec {
                name: volume.name.clone(),
                external: volume.external,
                driver_opts: volume.driver_opts.clone(),
                labels: volume.labels.clone(),
            };
            volumes.insert(key.clone(), spec);
        }
        volumes
    }
}

/// SHA-256 of a JSON value, its keys sorted.
fn hash(value: &serde_json::Value) -> String {
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    Sha256::digest(sorted.to_string().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
