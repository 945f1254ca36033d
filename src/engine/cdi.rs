//! Devices by the Container Device Interface: files of vendors say what a device needs inside a container
//! (CDI specification 1.0, <https://github.com/cncf-tags/container-device-interface>).

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Hook, HookBuilder, LinuxDeviceBuilder, LinuxDeviceCgroupBuilder, LinuxDeviceType, Mount, Spec,
};
use serde::Deserialize;

use crate::spec::container::CdiRequest;

/// Where the files lie; those of a later folder win.
const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// More than this is no CDI file.
const MAX_FILE: u64 = 16 << 20;

/// Why a device cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CdiError {
    #[error(
        "`{0}` is in no CDI file of `/etc/cdi` or `/var/run/cdi`; the vendor's tool makes one, such as `nvidia-ctk cdi generate`"
    )]
    NoDevice(String),
    #[error("{wanted} GPUs are asked for, and CDI files name {there}")]
    TooFew { wanted: u32, there: usize },
    #[error("CDI files name GPUs of several vendors ({}); say which one with `driver`", .0.join(", "))]
    SeveralVendors(Vec<String>),
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` is not a CDI file", path.display())]
    Parse { path: PathBuf, source: serde_yaml::Error },
    #[error("device `{path}` of a CDI file cannot be used on this host")]
    Node { path: String, source: io::Error },
    #[error("a CDI file asks for `{0}`, which is not supported")]
    Unsupported(&'static str),
    #[error("a CDI file asks for what cannot be put together")]
    Builder(#[from] oci_spec::OciSpecError),
}

#[derive(Debug, Deserialize)]
struct File {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default, rename = "containerEdits")]
    edits: Edits,
}

#[derive(Debug, Deserialize)]
struct Device {
    name: String,
    #[serde(default, rename = "containerEdits")]
    edits: Edits,
}

/// What is changed about a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<CdiMount>,
    hooks: Vec<CdiHook>,
    #[serde(alias = "additionalGIDs")]
    additional_gids: Vec<u32>,
    intel_rdt: Option<serde_yaml::Value>,
    net_devices: Vec<serde_yaml::Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Node {
    path: String,
    host_path: Option<String>,
    /// `b`, `c` or `u`; the host's when missing.
    #[serde(rename = "type")]
    kind: Option<String>,
    major: Option<i64>,
    minor: Option<i64>,
    file_mode: Option<u32>,
    permissions: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CdiMount {
    host_path: String,
    container_path: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    options: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CdiHook {
    hook_name: String,
    path: String,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<i64>,
}

/// Changes a specification so that the container has the devices.
///
/// # Errors
/// A device that no file names, files that cannot be read.
pub(crate) fn inject(spec: &mut Spec, requests: &[CdiRequest]) -> Result<(), CdiError> {
    if requests.is_empty() {
        return Ok(());
    }
    let files = load(&FOLDERS.map(Path::new))?;
    let mut names = Vec::new();
    for request in requests {
        match request {
            CdiRequest::Device(name) => names.push(name.clone()),
            CdiRequest::Gpus { vendor, count, ids } => names.extend(gpus(&files, vendor.as_deref(), *count, ids)?),
        }
    }
    names.dedup();
    let mut common = Vec::new();
    for name in &names {
        let (file, device) = find(&files, name).ok_or_else(|| CdiError::NoDevice(name.clone()))?;
        if !common.contains(&&file.edits) {
            common.push(&file.edits);
            apply(spec, &file.edits)?;
        }
        apply(spec, &device.edits)?;
    }
    Ok(())
}

/// All files, those that win last.
fn load(folders: &[&Path]) -> Result<Vec<File>, CdiError> {
    let mut files = Vec::new();
    for folder in folders {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(CdiError::Read { path: (*folder).to_owned(), source }),
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|kind| kind == "json" || kind == "yaml"));
        paths.sort();
        for path in paths {
            let read = || -> io::Result<String> {
                if fs::metadata(&path)?.len() > MAX_FILE {
                    return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
                }
                fs::read_to_string(&path)
            };
            let text = read().map_err(|source| CdiError::Read { path: path.clone(), source })?;
            files.push(serde_yaml::from_str(&text).map_err(|source| CdiError::Parse { path, source })?);
        }
    }
    Ok(files)
}

/// A device by its qualified name, `vendor.com/class=name`.
fn find<'a>(files: &'a [File], name: &str) -> Option<(&'a File, &'a Device)> {
    let (kind, name) = name.split_once('=')?;
    let of_kind = files.iter().rev().filter(|file| file.kind == kind);
    of_kind.flat_map(|file| file.devices.iter().map(move |device| (file, device))).find(|(_, d)| d.name == name)
}

/// Qualified names of GPUs: those with these ids, so many of them, or all.
fn gpus(files: &[File], vendor: Option<&str>, count: Option<u32>, ids: &[String]) -> Result<Vec<String>, CdiError> {
    let fits = |file: &&File| match file.kind.split_once('/') {
        Some((of, "gpu")) => vendor.is_none_or(|vendor| of == vendor || of.split('.').next() == Some(vendor)),
        _ => false,
    };
    let mut kinds: Vec<String> = files.iter().filter(fits).map(|file| file.kind.clone()).collect();
    kinds.sort();
    kinds.dedup();
    let kind = match kinds.as_slice() {
        [kind] => kind,
        [] => return Err(CdiError::NoDevice(format!("{}/gpu", vendor.unwrap_or("*")))),
        _ => return Err(CdiError::SeveralVendors(kinds)),
    };
    let qualified = |name: &str| format!("{kind}={name}");
    if !ids.is_empty() {
        return Ok(ids.iter().map(|id| qualified(id)).collect());
    }
    let devices = files.iter().filter(|file| file.kind == *kind).flat_map(|file| &file.devices);
    let mut names: Vec<&str> = devices.map(|device| device.name.as_str()).collect();
    if count.is_none() && names.contains(&"all") {
        return Ok(vec![qualified("all")]);
    }
    names.retain(|name| *name != "all");
    // The same device has a number and a longer name.
    if names.iter().any(|name| name.parse::<u32>().is_ok()) {
        names.retain(|name| name.parse::<u32>().is_ok());
    }
    names.sort_by_key(|name| (name.parse::<u32>().unwrap_or(u32::MAX), *name));
    names.dedup();
    let wanted = count.map_or(names.len(), |count| usize::try_from(count).unwrap_or(usize::MAX));
    if names.len() < wanted {
        return Err(CdiError::TooFew { wanted: count.unwrap_or_default(), there: names.len() });
    }
    Ok(names.into_iter().take(wanted).map(qualified).collect())
}

fn apply(spec: &mut Spec, edits: &Edits) -> Result<(), CdiError> {
    if edits.intel_rdt.is_some() {
        return Err(CdiError::Unsupported("intelRdt"));
    }
    if !edits.net_devices.is_empty() {
        return Err(CdiError::Unsupported("netDevices"));
    }
    for node in &edits.device_nodes {
        device(spec, node)?;
    }
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for wanted in &edits.mounts {
        let mut mount = Mount::default();
        mount.set_source(Some(wanted.host_path.clone().into()));
        mount.set_destination(wanted.container_path.clone().into());
        let kind = wanted.kind.clone().filter(|kind| !kind.is_empty()).unwrap_or_else(|| "bind".to_owned());
        mount.set_typ(Some(kind));
        mount.set_options(Some(wanted.options.clone()));
        mounts.push(mount);
    }
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        for pair in &edits.env {
            let name = pair.split_once('=').map_or(pair.as_str(), |(name, _)| name);
            env.retain(|known| known.split_once('=').map(|(name, _)| name) != Some(name));
            env.push(pair.clone());
        }
        process.set_env(Some(env));
        let mut user = process.user().clone();
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(edits.additional_gids.iter().filter(|gid| **gid != 0));
        user.set_additional_gids(Some(groups));
        process.set_user(user);
    }
    hooks(spec, &edits.hooks)
}

fn device(spec: &mut Spec, node: &Node) -> Result<(), CdiError> {
    let host = node.host_path.as_deref().unwrap_or(&node.path);
    let failed = |source| CdiError::Node { path: host.to_owned(), source };
    let found = fs::metadata(host).map_err(failed)?;
    let kind = match node.kind.as_deref() {
        Some("b") => LinuxDeviceType::B,
        Some("c" | "u") => LinuxDeviceType::C,
        _ if found.file_type().is_block_device() => LinuxDeviceType::B,
        _ if found.file_type().is_char_device() => LinuxDeviceType::C,
        _ => return Err(failed(io::Error::other("it is no device"))),
    };
    let major = node.major.unwrap_or_else(|| i64::from(libc::major(found.rdev())));
    let minor = node.minor.unwrap_or_else(|| i64::from(libc::minor(found.rdev())));
    let device = LinuxDeviceBuilder::default().path(&node.path).typ(kind).major(major).minor(minor);
    let device = device
        .file_mode(node.file_mode.unwrap_or(found.mode() & 0o7777))
        .uid(node.uid.unwrap_or(found.uid()))
        .gid(node.gid.unwrap_or(found.gid()))
        .build()?;
    let access = node.permissions.clone().filter(|access| !access.is_empty()).unwrap_or_else(|| "rwm".to_owned());
    let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).major(major).minor(minor);
    let rule = rule.access(access).build()?;
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let mut devices = linux.devices().clone().unwrap_or_default();
    devices.retain(|known| known.path() != device.path());
    devices.push(device);
    linux.set_devices(Some(devices));
    let mut resources = linux.resources().clone().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    rules.push(rule);
    resources.set_devices(Some(rules));
    linux.set_resources(Some(resources));
    Ok(())
}

fn hooks(spec: &mut Spec, wanted: &[CdiHook]) -> Result<(), CdiError> {
    let mut hooks = spec.hooks().clone().unwrap_or_default();
    for cdi in wanted {
        let mut hook = HookBuilder::default().path(&cdi.path).args(cdi.args.clone()).env(cdi.env.clone());
        if let Some(timeout) = cdi.timeout {
            hook = hook.timeout(timeout);
        }
        let hook = hook.build()?;
        let with = |known: &Option<Vec<Hook>>| Some(known.iter().flatten().cloned().chain([hook.clone()]).collect());
        match cdi.hook_name.as_str() {
            "prestart" => {
                #[allow(deprecated, reason = "CDI files still name it")]
                let prestart = with(hooks.prestart());
                #[allow(deprecated, reason = "CDI files still name it")]
                hooks.set_prestart(prestart)
            }
            "createRuntime" => hooks.set_create_runtime(with(hooks.create_runtime())),
            "createContainer" => hooks.set_create_container(with(hooks.create_container())),
            "startContainer" => hooks.set_start_container(with(hooks.start_container())),
            "poststart" => hooks.set_poststart(with(hooks.poststart())),
            "poststop" => hooks.set_poststop(with(hooks.poststop())),
            _ => return Err(CdiError::Unsupported("a hook of an unknown name")),
        };
    }
    if !wanted.is_empty() {
        spec.set_hooks(Some(hooks));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<File> {
        let text = r#"{"cdiVersion": "0.6.0", "kind": "vendor.example/gpu", "containerEdits": {"env": ["A=1"]}, "devices": [
            {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null"}]}},
            {"name": "1", "containerEdits": {"env": ["A=2", "B=3"], "additionalGids": [44]}},
            {"name": "GPU-77"}, {"name": "all"}]}"#;
        let other = "kind: other.example/gpu\ndevices: [{name: x}]";
        vec![serde_yaml::from_str(text).unwrap(), serde_yaml::from_str(other).unwrap()]
    }

    #[test]
    fn gpus_are_chosen_by_vendor_count_and_id() {
        let files = files();
        let chosen = |vendor, count, ids: &[&str]| {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            gpus(&files, vendor, count, &ids).map_err(|error| error.to_string())
        };
        assert_eq!(chosen(Some("vendor"), None, &[]).unwrap(), ["vendor.example/gpu=all"]);
        assert_eq!(chosen(Some("vendor"), Some(1), &[]).unwrap(), ["vendor.example/gpu=0"]);
        assert_eq!(chosen(Some("vendor"), None, &["GPU-77"]).unwrap(), ["vendor.example/gpu=GPU-77"]);
        assert_eq!(chosen(Some("other.example"), None, &[]).unwrap(), ["other.example/gpu=x"]);
        assert_eq!(chosen(Some("vendor"), Some(3), &[]).unwrap_err(), "3 GPUs are asked for, and CDI files name 2");
        assert!(chosen(None, None, &[]).unwrap_err().contains("several vendors"));
        assert!(chosen(Some("third"), None, &[]).unwrap_err().contains("no CDI file"));
    }

    #[test]
    fn edits_change_the_specification() {
        let files = files();
        let mut spec = Spec::default();
        for name in ["vendor.example/gpu=0", "vendor.example/gpu=1"] {
            let (file, device) = find(&files, name).unwrap();
            apply(&mut spec, &file.edits).unwrap();
            apply(&mut spec, &device.edits).unwrap();
        }
        let process = spec.process().as_ref().unwrap();
        assert!(process.env().as_ref().unwrap().ends_with(&["A=2".to_owned(), "B=3".to_owned()]));
        assert_eq!(process.user().additional_gids().as_deref(), Some(&[44][..]));
        let linux = spec.linux().as_ref().unwrap();
        let device = linux.devices().as_ref().unwrap().last().unwrap();
        assert_eq!((device.path().as_path(), device.major(), device.minor()), (Path::new("/dev/gpu0"), 1, 3));
        let rule = linux.resources().as_ref().unwrap().devices().as_ref().unwrap().last().unwrap().clone();
        assert_eq!((rule.allow(), rule.major(), rule.minor()), (true, Some(1), Some(3)));
    }
}
