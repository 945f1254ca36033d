//! The bundle: `config.json`, and the checks that the engine cannot make.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capability, LinuxNamespaceType, Process, Spec};
use rustix::fs::{Mode, OFlags};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::engine::lower;
use crate::engine::users::UserDatabase;
use crate::oci::error::OciError;

#[derive(Debug)]
pub(super) struct Bundle {
    /// Absolute.
    pub(super) path: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) spec: Spec,
    /// The file as it is.
    pub(super) config: Vec<u8>,
    /// What the caller must be told and that is no error.
    pub(super) warnings: Vec<String>,
}

/// `config` is another file than the bundle's own; relative to the bundle, as with crun.
pub(super) fn load(path: &Path, config: Option<&Path>) -> Result<Bundle, OciError> {
    let path = fs::canonicalize(path).map_err(OciError::io("find the bundle", path))?;
    let file = path.join(config.unwrap_or(Path::new("config.json")));
    let config = fs::read(&file).map_err(OciError::io("read", &file))?;
    let (mut spec, mut warnings): (Spec, _) =
        parse(&config).map_err(|source| OciError::Json { what: "runtime specification", path: file, source })?;
    check(&spec)?;
    warnings.extend(spec.process().iter().flat_map(without_inheritance));
    let root = spec.root().as_ref().ok_or_else(|| OciError::Config("`root` is missing".to_owned()))?;
    let wanted = path.join(root.path());
    let rootfs = fs::canonicalize(&wanted).map_err(OciError::io("find the root", wanted))?;
    relative_paths(&mut spec, &path, &rootfs);
    if let Some(process) = spec.process_mut() {
        complete_environment(process, &rootfs)?;
    }
    Ok(Bundle { path, rootfs, spec, config, warnings })
}

/// Flags of schedulers that the parser has under a name of its own.
const RENAMED: [(&str, &str); 2] =
    [("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"), ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN")];

/// A `Spec` or `Process`. Capabilities that nobody knows are left out, with a warning each, as the specification has it.
pub(super) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<(T, Vec<String>), serde_json::Error> {
    let error = match serde_json::from_slice(text) {
        Ok(parsed) => return Ok((parsed, Vec::new())),
        Err(error) => error,
    };
    let mut value: Value = serde_json::from_slice(text)?;
    let before = value.clone();
    // What is a process by itself, or has one.
    for pointer in ["", "/process"] {
        let process = value.pointer_mut(pointer).filter(|process| process.get("cwd").is_some());
        let Some(process) = process.and_then(Value::as_object_mut) else { continue };
        // Root's, when nobody is named.
        process.entry("user").or_insert_with(|| serde_json::json!({ "uid": 0, "gid": 0 }));
        let flags = process.get_mut("scheduler").and_then(|scheduler| scheduler.pointer_mut("/flags"));
        for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some((_, name)) = RENAMED.iter().find(|(standard, _)| flag == standard) {
                *flag = Value::from(*name);
            }
        }
    }
    let mut unknown = Vec::new();
    for pointer in ["/process/capabilities", "/capabilities"] {
        let sets = value.pointer_mut(pointer).and_then(Value::as_object_mut);
        for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
            set.retain(|name| {
                let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
                if !known {
                    unknown.push(format!("the capability {name} is not known and left out"));
                }
                known
            });
        }
    }
    if value == before {
        return Err(error);
    }
    unknown.sort();
    unknown.dedup();
    Ok((serde_json::from_value(value)?, unknown))
}

fn without_inheritance(process: &Process) -> Vec<String> {
    let Some(sets) = process.capabilities() else { return Vec::new() };
    let inheritable = |name: &&Capability| sets.inheritable().as_ref().is_some_and(|all| all.contains(name));
    let without = sets.ambient().iter().flatten().filter(|name| !inheritable(name));
    let mut all: Vec<_> =
        without.map(|name| format!("can't raise ambient capability CAP_{name}: it is not inheritable")).collect();
    all.sort();
    all
}

/// Of a variable that is set twice the last counts, and HOME is the user's own where the caller does not say. Both as with runc.
pub(super) fn complete_environment(process: &mut Process, root: &Path) -> Result<(), OciError> {
    fn name(entry: &str) -> &str {
        entry.split('=').next().unwrap_or_default()
    }
    let mut environment = Vec::<String>::new();
    for entry in process.env().iter().flatten() {
        environment.retain(|other| name(other) != name(entry));
        environment.push(entry.clone());
    }
    if !environment.iter().any(|entry| name(entry) == "HOME" && entry.len() > "HOME=".len()) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(root, flags, Mode::empty()).map_err(OciError::io("open", root))?;
        let user = process.user().uid().to_string();
        let home =
            UserDatabase::read(directory).resolve(Some(&user), &[]).map_or_else(|_| "/".to_owned(), |user| user.home);
        environment.retain(|entry| name(entry) != "HOME");
        environment.push(format!("HOME={home}"));
    }
    process.set_env(Some(environment));
    Ok(())
}

fn check(spec: &Spec) -> Result<(), OciError> {
    let wrong = |what: String| Err(OciError::Config(what));
    let version = spec.version();
    if version.split('.').next() != Some("1") || version.split('.').count() < 3 {
        return wrong(format!("`ociVersion` {version:?} is not supported: 1.0.0 and what is compatible with it is"));
    }
    let Some(process) = spec.process() else { return wrong("`process` is missing".to_owned()) };
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return wrong("`process.args` is missing".to_owned());
    }
    if !process.cwd().is_absolute() {
        return wrong(format!("`process.cwd` is not absolute: {:?}", process.cwd()));
    }
    let mut limits = std::collections::HashSet::new();
    for limit in process.rlimits().iter().flatten() {
        if !limits.insert(limit.typ().to_string()) {
            return wrong(format!("`process.rlimits` has {} twice", limit.typ()));
        }
    }
    for mount in spec.mounts().iter().flatten() {
        // Older versions of the specification let them be relative, to the root.
        if mount.destination().as_os_str().is_empty() {
            return wrong("`mounts.destination` is empty".to_owned());
        }
    }
    let linux = spec.linux().as_ref();
    let mut kinds = std::collections::HashSet::new();
    for namespace in linux.into_iter().flat_map(|linux| linux.namespaces().iter().flatten()) {
        if !kinds.insert(namespace.typ().to_string()) {
            return wrong(format!("`linux.namespaces` has {} twice", namespace.typ()));
        }
    }
    for name in linux.into_iter().flat_map(|linux| linux.sysctl().iter().flatten()).map(|(name, _)| name) {
        if matches!(name.as_str(), "kernel.hostname" | "kernel/hostname") {
            return wrong("`linux.sysctl` \"kernel.hostname\" is `hostname`".to_owned());
        }
        // Elsewhere it would be the host's that changes.
        let namespace = lower::namespace_of_sysctl(&name.replace('/', "."));
        if namespace.is_none_or(|namespace| !kinds.contains(&namespace.to_string())) {
            return wrong(format!("`linux.sysctl` {name:?} is not of a namespace that the container has"));
        }
    }
    if spec.hostname().is_some() && !kinds.contains(&LinuxNamespaceType::Uts.to_string()) {
        return wrong("`hostname` needs a UTS namespace".to_owned());
    }
    Ok(())
}

/// Sources of bind mounts may be relative to the bundle. Targets are seen from the root; callers also write the root's own
/// path before them.
fn relative_paths(spec: &mut Spec, bundle: &Path, rootfs: &Path) {
    let Some(mounts) = spec.mounts_mut() else { return };
    for mount in mounts {
        if let Ok(inside) = mount.destination().strip_prefix(rootfs) {
            let inside = inside.to_owned();
            mount.set_destination(inside);
        }
        if !mount.destination().is_absolute() {
            let absolute = Path::new("/").join(mount.destination());
            mount.set_destination(absolute);
        }
        let bind = |option: &String| option == "bind" || option == "rbind";
        let is_bind = mount.typ().as_deref() == Some("bind") || mount.options().iter().flatten().any(bind);
        let relative = mount.source().clone().filter(|source| is_bind && source.is_relative());
        if let Some(source) = relative {
            mount.set_source(Some(bundle.join(source)));
        }
    }
}
