//! What is mounted into a container: volumes, tmpfs, configs and secrets.

use crate::model::{FileObject, FileReference, Service, ServiceVolume, VolumeKind};
use crate::spec::container::{Mount, MountSource};

use super::Lowering;

impl Lowering<'_> {
    pub(super) fn mounts(&mut self, path: &str, service: &Service) -> Vec<Mount> {
        let mut mounts = Vec::new();
        for (index, volume) in service.volumes.iter().enumerate() {
            mounts.extend(self.volume(&format!("{path}.volumes.{index}"), volume));
        }
        for (index, text) in service.tmpfs.iter().enumerate() {
            mounts.extend(self.tmpfs(&format!("{path}.tmpfs.{index}"), text));
        }
        for (index, reference) in service.configs.iter().enumerate() {
            let object = self.project.configs.get(&reference.source);
            let default = format!("/{}", reference.source);
            mounts.extend(self.file(&format!("{path}.configs.{index}"), reference, object, default));
        }
        for (index, reference) in service.secrets.iter().enumerate() {
            let object = self.project.secrets.get(&reference.source);
            let name = reference.target.as_ref().unwrap_or(&reference.source);
            let default = format!("/run/secrets/{name}");
            let plain = reference.target.as_ref().filter(|target| target.starts_with('/')).cloned();
            let reference = FileReference { target: plain, ..reference.clone() };
            mounts.extend(self.file(&format!("{path}.secrets.{index}"), &reference, object, default));
        }
        mounts
    }

    fn volume(&mut self, path: &str, volume: &ServiceVolume) -> Option<Mount> {
        let source = match volume.kind {
            VolumeKind::Bind => {
                let bind = volume.bind.as_ref();
                if bind.is_some_and(|bind| {
                    bind.recursive.as_deref().is_some_and(|how| matches!(how, "writable" | "readonly"))
                }) {
                    self.not_yet(&format!("{path}.bind.recursive"), "known are `enabled` and `disabled`");
                }
                MountSource::Bind {
                    path: volume.source.clone().unwrap_or_default().into(),
                    // As docker compose does, whatever the format says of the default.
                    create: bind.is_none_or(|bind| bind.create_host_path),
                    propagation: bind.and_then(|bind| bind.propagation.clone()),
                    recursive: bind.and_then(|bind| bind.recursive.as_deref()) != Some("disabled"),
                }
            }
            VolumeKind::Volume => match &volume.source {
                _ if volume.volume.as_ref().is_some_and(|options| !options.labels.is_empty()) => {
                    self.not_yet(&format!("{path}.volume.labels"), "label the volume under `volumes`");
                    return None;
                }
                Some(key) if !key.is_empty() => MountSource::Volume {
                    key: key.clone(),
                    no_copy: volume.volume.as_ref().is_some_and(|options| options.nocopy),
                    subpath: volume.volume.as_ref().and_then(|options| options.subpath.clone()),
                },
                _ => MountSource::Anonymous,
            },
            VolumeKind::Tmpfs => {
                let options = volume.tmpfs.clone().unwrap_or_default();
                let size = options.size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0);
                MountSource::Tmpfs { size, mode: options.mode, uid: None, gid: None, options: Vec::new() }
            }
            VolumeKind::Image | VolumeKind::Npipe | VolumeKind::Cluster => {
                self.not_yet(&format!("{path}.type"), "known are `bind`, `volume` and `tmpfs`");
                return None;
            }
        };
        Some(Mount { target: clean(&volume.target), read_only: volume.read_only, source })
    }

    /// `PATH[:OPT,OPT]`.
    fn tmpfs(&mut self, path: &str, text: &str) -> Option<Mount> {
        let (target, words) = text.split_once(':').unwrap_or((text, ""));
        let (mut size, mut mode, mut uid, mut gid, mut options) = (None, None, None, None, Vec::new());
        let mut read_only = false;
        for word in words.split(',').filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                Some(("size", value)) => match crate::base::units::parse_bytes(value) {
                    Some(bytes) => size = u64::try_from(bytes).ok(),
                    None => self.invalid(path, format!("`{value}` is not a size")),
                },
                Some(("mode", value)) => match u32::from_str_radix(value, 8) {
                    Ok(bits) => mode = Some(bits),
                    Err(_) => self.invalid(path, format!("`{value}` is not an octal mode")),
                },
                Some(("uid", value)) => uid = self.parse(path, value, "a user id"),
                Some(("gid", value)) => gid = self.parse(path, value, "a group id"),
                _ if word == "ro" => read_only = true,
                _ => options.push(word.to_owned()),
            }
        }
        Some(Mount { target: clean(target), read_only, source: MountSource::Tmpfs { size, mode, uid, gid, options } })
    }

    fn file(
        &mut self,
        path: &str,
        reference: &FileReference,
        object: Option<&FileObject>,
        default: String,
    ) -> Option<Mount> {
        let Some(object) = object else {
            self.invalid(path, format!("`{}` is not declared", reference.source));
            return None;
        };
        let target = clean(&reference.target.clone().unwrap_or(default));
        if let Some(file) = &object.file {
            let source = MountSource::Bind { path: file.into(), create: false, propagation: None, recursive: true };
            return Some(Mount { target, read_only: true, source });
        }
        let bytes = match (&object.content, &object.environment) {
            (Some(content), _) => content.clone().into_bytes(),
            (None, Some(variable)) => match self.project.environment.get(variable) {
                Some(value) => value.clone().into_bytes(),
                None => {
                    let message =
                        format!("environment variable `{variable}` required by `{}` is not set", reference.source);
                    self.invalid(path, message);
                    return None;
                }
            },
            (None, None) => {
                self.not_yet(path, "configs and secrets come from a file, the environment or the Compose file");
                return None;
            }
        };
        let mut id = |text: &Option<String>, what| match text.as_deref() {
            None | Some("") => 0,
            Some(text) => self.parse(path, text, what).unwrap_or_default(),
        };
        let (uid, gid) = (id(&reference.uid, "a user id"), id(&reference.gid, "a group id"));
        let mode = reference.mode.unwrap_or(0o444);
        Some(Mount { target, read_only: false, source: MountSource::Content { bytes, mode, uid, gid } })
    }
}

/// An absolute path without `.`, `..`, doubled and trailing slashes.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
