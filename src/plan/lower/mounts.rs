//! What is mounted into a container: volumes, tmpfs, configs and secrets.

use crate::model::{FileObject, FileReference, Service, ServiceVolume, VolumeKind};
use crate::spec::container::{Mount, MountSource, MountsOf, Recursion, Relabel, VolumesFrom};

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
                let recursive = self.recursion(path, volume);
                MountSource::Bind {
                    path: volume.source.clone().unwrap_or_default().into(),
                    // As docker compose does, whatever the format says of the default.
                    create: bind.is_none_or(|bind| bind.create_host_path),
                    propagation: bind.and_then(|bind| bind.propagation.clone()),
                    recursive,
                    relabel: relabel(volume),
                }
            }
            VolumeKind::Volume => match &volume.source {
                Some(key) if !key.is_empty() => MountSource::Volume {
                    key: key.clone(),
                    no_copy: volume.volume.as_ref().is_some_and(|options| options.nocopy),
                    subpath: volume.volume.as_ref().and_then(|options| options.subpath.clone()),
                    relabel: relabel(volume),
                },
                _ => MountSource::Anonymous {
                    labels: volume.volume.as_ref().map(|options| options.labels.clone()).unwrap_or_default(),
                    no_copy: volume.volume.as_ref().is_some_and(|options| options.nocopy),
                },
            },
            VolumeKind::Tmpfs => {
                if volume.source.as_deref().is_some_and(|source| !source.is_empty()) {
                    self.invalid(&format!("{path}.source"), "a tmpfs is empty: it has no source");
                }
                let options = volume.tmpfs.clone().unwrap_or_default();
                let size = options.size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0);
                MountSource::Tmpfs { size, mode: options.mode, uid: None, gid: None, options: Vec::new() }
            }
            VolumeKind::Image => MountSource::Image {
                reference: self.image_of(volume.source.as_deref().unwrap_or_default()),
                subpath: volume.image.as_ref().and_then(|image| image.subpath.clone()).unwrap_or_default(),
            },
            VolumeKind::Npipe | VolumeKind::Cluster => {
                let what = "it exists on Windows and in clusters only; known are `bind`, `volume`, `tmpfs` and `image`";
                self.not_yet(&format!("{path}.type"), what);
                return None;
            }
        };
        let target = self.mount_target(&format!("{path}.target"), &volume.target)?;
        Some(Mount { target, read_only: volume.read_only, source })
    }

    /// A place to mount at, written without detours.
    fn mount_target(&mut self, path: &str, target: &str) -> Option<String> {
        let cleaned = clean(target);
        if !target.starts_with('/') {
            self.invalid(path, format!("the mount path `{target}` must be absolute"));
        } else if cleaned == "/" {
            self.invalid(path, "nothing can be mounted over the container's root `/`");
        } else {
            return Some(cleaned);
        }
        None
    }

    fn recursion(&mut self, path: &str, volume: &ServiceVolume) -> Recursion {
        let bind = volume.bind.as_ref();
        match bind.and_then(|bind| bind.recursive.as_deref()) {
            None | Some("" | "enabled") => Recursion::Enabled,
            Some("disabled") => Recursion::Disabled,
            Some("writable") => Recursion::Writable,
            // The kernel does it, or the mount fails: there is no third way here.
            Some("readonly") => {
                let propagation = bind.and_then(|bind| bind.propagation.as_deref());
                if !volume.read_only {
                    self.invalid(&format!("{path}.bind.recursive"), "`recursive: readonly` needs `read_only: true`");
                } else if !matches!(propagation, None | Some("" | "rprivate")) {
                    let message = "`recursive: readonly` needs `propagation: rprivate`";
                    self.invalid(&format!("{path}.bind.recursive"), message);
                }
                Recursion::Enabled
            }
            Some(other) => {
                let message = format!("`{other}` is not `enabled`, `disabled`, `writable` or `readonly`");
                self.invalid(&format!("{path}.bind.recursive"), message);
                Recursion::Enabled
            }
        }
    }

    /// An image by its reference, or that of a service.
    fn image_of(&self, source: &str) -> String {
        let service = self.project.services.get(source).and_then(|service| service.image.clone());
        service.unwrap_or_else(|| source.to_owned())
    }

    /// `SERVICE[:ro|rw]` or `container:NAME[:ro|rw]`.
    pub(super) fn volumes_from(&mut self, path: &str, service: &Service) -> Vec<VolumesFrom> {
        let mut all = Vec::new();
        for (index, text) in service.volumes_from.iter().enumerate() {
            let (name, of): (_, fn(String) -> MountsOf) = match text.strip_prefix("container:") {
                Some(rest) => (rest, MountsOf::Container),
                None => (text.as_str(), MountsOf::Service),
            };
            let (name, mode) = name.split_once(':').unwrap_or((name, ""));
            let read_only = match mode {
                "" => None,
                "ro" => Some(true),
                "rw" => Some(false),
                _ => {
                    self.invalid(&format!("{path}.volumes_from.{index}"), format!("`{mode}` is neither `ro` nor `rw`"));
                    None
                }
            };
            all.push(VolumesFrom { of: of(name.to_owned()), read_only });
        }
        all
    }

    /// `PATH[:OPT,OPT]`.
    fn tmpfs(&mut self, path: &str, text: &str) -> Option<Mount> {
        let (target, words) = text.split_once(':').unwrap_or((text, ""));
        let (mut size, mut mode, mut uid, mut gid, mut options) = (None, None, None, None, Vec::new());
        let mut read_only = false;
        for word in words.split(',').filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                // Of the host's memory.
                Some(("size", value)) if is_percentage(value) => options.push(word.to_owned()),
                Some(("size", value)) => match crate::base::units::parse_bytes(value).map(u64::try_from) {
                    Some(Ok(bytes)) => size = Some(bytes),
                    _ => self.invalid(path, format!("`{value}` is not a size")),
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
        let target = self.mount_target(path, target)?;
        Some(Mount { target, read_only, source: MountSource::Tmpfs { size, mode, uid, gid, options } })
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
        let foreign = [("driver", &object.driver), ("template_driver", &object.template_driver)];
        if let Some((attribute, _)) = foreign.iter().find(|(_, value)| value.as_ref().is_some_and(|it| !it.is_empty()))
        {
            let what = format!("`{}` has a `{attribute}`, which only a cluster has", reference.source);
            self.not_yet(path, &what);
            return None;
        }
        let target = clean(&reference.target.clone().unwrap_or(default));
        if let Some(file) = &object.file {
            let source = MountSource::Bind {
                path: file.into(),
                create: false,
                propagation: None,
                recursive: Recursion::Enabled,
                relabel: None,
            };
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
            // Of the sources there is one: an empty text.
            (None, None) if !object.external => Vec::new(),
            (None, None) => {
                self.not_yet(
                    path,
                    "external configs and secrets are kept by a cluster; use `file`, `environment` or `content`",
                );
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

/// `50%`, as tmpfs(5) takes it.
fn is_percentage(text: &str) -> bool {
    text.strip_suffix('%').is_some_and(|number| number.parse::<u32>().is_ok())
}

/// `bind.selinux`, which the short syntax has for volumes as well.
fn relabel(volume: &ServiceVolume) -> Option<Relabel> {
    match volume.bind.as_ref()?.selinux.as_deref()? {
        "z" => Some(Relabel::Shared),
        "Z" => Some(Relabel::Private),
        _ => None,
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
