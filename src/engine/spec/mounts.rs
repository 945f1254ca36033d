//! What is mounted where: Docker's default mounts, then the service's, parents first.

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::path::PathBuf;

use oci_spec::runtime::LinuxNamespaceType;
use oci_spec::runtime::Mount;
use oci_spec::runtime::Spec;

use crate::engine::spec::HostMount;
use crate::engine::spec::Request;
use crate::engine::spec::SpecError;
use crate::init::{PROGRAM, REAPER_ROLE};
use crate::spec::ContainerSpec;
use crate::spec::container::MountSource;
use crate::spec::container::NamespaceMode;
use crate::spec::container::Recursion;

/// Type of a mount that shows an image; the source is what of it. No word of the runtime specification: it is ours.
pub const IMAGE: &str = "rcompose-image";
/// In front of each layer in its options.
pub const IMAGE_LAYER: &str = "layer=";
/// Where Docker has the init process of a container.
const INIT: &str = "/sbin/docker-init";
const SHM_SIZE: u64 = 64 << 20;
const PROPAGATIONS: [&str; 8] =
    ["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"];

pub(super) fn mounts(request: &Request<'_>, writable_cgroups: bool) -> Result<Vec<Mount>, SpecError> {
    let own = of_service(request)?;
    let mut all = defaults(request, writable_cgroups);
    // The service's mount replaces the default one; one on /dev replaces all below it.
    let over_dev = own.iter().any(|mount| mount.destination() == Path::new("/dev"));
    all.retain(|mount| {
        let target = mount.destination();
        let replaced = own.iter().any(|other| other.destination() == target);
        !(replaced || over_dev && target.starts_with("/dev"))
    });
    all.extend(own);
    Ok(all)
}

fn defaults(request: &Request<'_>, writable_cgroups: bool) -> Vec<Mount> {
    let container = request.container;
    let read_only: &[&str] = if container.privileged { &[] } else { &["ro"] };
    let with = |options: &[&str]| options.iter().chain(read_only).map(|o| (*o).to_owned()).collect::<Vec<_>>();
    let plain = |options: &[&str]| options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>();
    let quiet = ["nosuid", "noexec", "nodev"];
    let mut mounts = vec![
        mount("/proc", "proc", "proc", plain(&quiet)),
        mount("/dev", "tmpfs", "tmpfs", plain(&["nosuid", "strictatime", "mode=755", "size=65536k"])),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            plain(&["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ),
        mount("/sys", "sysfs", "sysfs", with(&quiet)),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", if writable_cgroups { plain(&quiet) } else { with(&quiet) }),
        mount("/dev/mqueue", "mqueue", "mqueue", plain(&quiet)),
    ];
    let joined_ipc = request.joined.iter().find(|(kind, _)| *kind == LinuxNamespaceType::Ipc);
    match (&container.ipc, joined_ipc) {
        (NamespaceMode::Host, _) => mounts.push(bind("/dev/shm", Path::new("/dev/shm"), &["rbind", "rprivate"])),
        // Shared memory of another container: the launch brings it, as no path leads there.
        (NamespaceMode::None, _) | (_, Some(_)) => {}
        _ => {
            let mut options = plain(&quiet);
            options.extend(["mode=1777".to_owned(), format!("size={}", container.shm_size.unwrap_or(SHM_SIZE))]);
            mounts.push(mount("/dev/shm", "tmpfs", "shm", options));
        }
    }
    mounts
}

/// Mounts of the service, its volumes and the generated files.
fn of_service(request: &Request<'_>) -> Result<Vec<Mount>, SpecError> {
    let mut mounts = Vec::new();
    for wanted in &request.container.mounts {
        match &wanted.source {
            MountSource::Bind { path, propagation, recursive, .. } => {
                let propagation = propagation.as_deref().filter(|mode| !mode.is_empty()).unwrap_or("rprivate");
                if !PROPAGATIONS.contains(&propagation) {
                    let target = wanted.target.clone();
                    return Err(SpecError::Propagation { target, propagation: propagation.to_owned() });
                }
                let kind = if *recursive == Recursion::Disabled { "bind" } else { "rbind" };
                let access = match (wanted.read_only, *recursive) {
                    (true, Recursion::Enabled) => "rro",
                    (true, _) => "ro",
                    (false, _) => "",
                };
                mounts.push(bind(&wanted.target, path, &[kind, access, propagation]));
            }
            MountSource::Tmpfs { size, mode, uid, gid, options } => {
                let access = if wanted.read_only { "ro" } else { "rw" };
                let mut all = vec!["noexec".to_owned(), "nosuid".into(), "nodev".into(), access.into()];
                all.extend(size.map(|size| format!("size={size}")));
                all.extend(mode.map(|mode| format!("mode={mode:o}")));
                all.extend(uid.map(|uid| format!("uid={uid}")));
                all.extend(gid.map(|gid| format!("gid={gid}")));
                all.extend(options.iter().cloned());
                mounts.push(mount(&wanted.target, "tmpfs", "tmpfs", all));
            }
            // They come as directories and files in `Request::volumes`.
            MountSource::Volume { .. }
            | MountSource::Anonymous { .. }
            | MountSource::Image { .. }
            | MountSource::Content { .. } => {}
        }
    }
    for volume in request.volumes {
        mounts.push(bind(
            &volume.target,
            &volume.source,
            &["rbind", if volume.read_only { "rro" } else { "" }, "rprivate"],
        ));
    }
    for image in request.images {
        let layers = image.layers.iter().map(|layer| format!("{IMAGE_LAYER}{}", layer.display()));
        mounts.push(mount(&image.target, IMAGE, &image.subpath, layers.collect()));
    }
    let files = [
        ("/etc/resolv.conf", &request.etc.resolv_conf),
        ("/etc/hostname", &request.etc.hostname),
        ("/etc/hosts", &request.etc.hosts),
    ];
    for (target, source) in files {
        let taken = mounts.iter().any(|mount| mount.destination() == Path::new(target));
        if let (Some(source), false) = (source, taken) {
            mounts.push(bind(
                target,
                source,
                &["rbind", if request.container.read_only { "ro" } else { "" }, "rprivate"],
            ));
        }
    }
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok(mounts)
}

fn mount(target: &str, kind: &str, source: &str, options: Vec<String>) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(PathBuf::from(target));
    mount.set_typ(Some(kind.to_owned()));
    mount.set_source(Some(PathBuf::from(source)));
    mount.set_options(Some(options));
    mount
}

/// Empty options are none. One that may be written to does not say so, as with Docker: it keeps its source's flags.
fn bind(target: &str, source: &Path, options: &[&str]) -> Mount {
    let options = options.iter().filter(|option| !option.is_empty()).map(|option| (*option).to_owned());
    let mut mount = mount(target, "bind", "", options.collect());
    mount.set_source(Some(source.to_owned()));
    mount
}

/// Has another runtime execute the file `ours`, a copy of this program, which then starts the container's and waits for it.
pub fn add_init(spec: &mut Spec, ours: &Path) {
    let options = ["rbind", "ro", "rprivate"].map(str::to_owned).to_vec();
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    let mut program = mount(INIT, "bind", "", options);
    program.set_source(Some(ours.to_owned()));
    mounts.push(program);
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut() {
        let own = [INIT, REAPER_ROLE, PROGRAM].map(str::to_owned).into_iter();
        let args = own.chain(process.args().clone().unwrap_or_default()).collect();
        process.set_args(Some(args));
    }
}

/// Writes the service's configs and secrets into `directory`, which should be on a tmpfs and is made when missing
/// (mode 0700), and says how to mount them.
///
/// # Errors
/// The directory or a file cannot be written.
pub fn contents(directory: &Path, container: &ContainerSpec) -> Result<Vec<HostMount>, SpecError> {
    let mut mounts = Vec::new();
    for (number, wanted) in container.mounts.iter().enumerate() {
        let MountSource::Content { bytes, mode, uid, gid } = &wanted.source else { continue };
        let path = directory.join(number.to_string());
        let written = (|| {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(bytes)?;
            chown(&path, Some(*uid), Some(*gid))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode & 0o7777))
        })();
        written.map_err(|source| SpecError::Content { path: path.clone(), source })?;
        mounts.push(HostMount { source: path, target: wanted.target.clone(), read_only: wanted.read_only });
    }
    Ok(mounts)
}
