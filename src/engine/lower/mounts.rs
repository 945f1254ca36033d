//! Mounts, device nodes and links of a container.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::path::PathBuf;

use oci_spec::runtime::Linux;
use oci_spec::runtime::LinuxDeviceType;
use oci_spec::runtime::LinuxIdMapping;
use oci_spec::runtime::LinuxNamespaceType;
use oci_spec::runtime::Mount;
use oci_spec::runtime::Spec;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::engine::lower::LowerError;
use crate::engine::lower::Root;
use crate::engine::lower::Slots;
use crate::engine::lower::open_namespace;
use crate::engine::spec::{IMAGE, IMAGE_LAYER};
use crate::init::BindSource;
use crate::init::Cleared;
use crate::init::DeviceKind;
use crate::init::IdMap;
use crate::init::MountFlags;
use crate::init::Propagation;
use crate::init::PropagationKind;
use crate::init::RecursiveFlags;
use crate::init::Step;
use crate::sys::inroot;
use crate::sys::userns;

/// Name, major and minor number of what is always in /dev.
const DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];
const LINKS: [(&str, &str); 5] = [
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// The options of a mount that do not go to its file system.
pub const MOUNT_OPTIONS: [&str; 60] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "exec",
    "idmap",
    "loud",
    "noatime",
    "nodev",
    "noexec",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "private",
    "rbind",
    "relatime",
    "ridmap",
    "ro",
    "rprivate",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "runbindable",
    "rw",
    "shared",
    "slave",
    "strictatime",
    "suid",
    "unbindable",
    "dirsync",
    "lazytime",
    "mand",
    "silent",
    "sync",
    "diratime",
    "nodiratime",
    "nomand",
    "noiversion",
    "nolazytime",
    "nosymfollow",
    "symfollow",
    "tmpcopyup",
    "ratime",
    "rdev",
    "rdiratime",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "rrelatime",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
];

/// Flags that a mount keeps when it comes to another user namespace.
const LOCKABLE: u64 =
    libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// Options for a mount and all below it: the attribute, and whether it is set or cleared.
const RECURSIVE: [(&str, u64, bool); 18] = [
    ("rro", libc::MOUNT_ATTR_RDONLY, true),
    ("rrw", libc::MOUNT_ATTR_RDONLY, false),
    ("rnosuid", libc::MOUNT_ATTR_NOSUID, true),
    ("rsuid", libc::MOUNT_ATTR_NOSUID, false),
    ("rnodev", libc::MOUNT_ATTR_NODEV, true),
    ("rdev", libc::MOUNT_ATTR_NODEV, false),
    ("rnoexec", libc::MOUNT_ATTR_NOEXEC, true),
    ("rexec", libc::MOUNT_ATTR_NOEXEC, false),
    ("rnodiratime", libc::MOUNT_ATTR_NODIRATIME, true),
    ("rdiratime", libc::MOUNT_ATTR_NODIRATIME, false),
    ("rnosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, true),
    ("rsymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, false),
    ("rrelatime", libc::MOUNT_ATTR_RELATIME, true),
    ("rnorelatime", libc::MOUNT_ATTR_RELATIME, false),
    ("rnoatime", libc::MOUNT_ATTR_NOATIME, true),
    ("ratime", libc::MOUNT_ATTR_NOATIME, false),
    ("rstrictatime", libc::MOUNT_ATTR_STRICTATIME, true),
    ("rnostrictatime", libc::MOUNT_ATTR_STRICTATIME, false),
];

/// Mounts of the host must reach the container where a mount asks for it.
pub(super) fn needs_slave(spec: &Spec) -> bool {
    let root = spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref());
    let options = spec.mounts().iter().flatten().flat_map(|mount| mount.options().iter().flatten());
    root.into_iter().chain(options.map(String::as_str)).any(|o| matches!(o, "slave" | "rslave" | "shared" | "rshared"))
}

/// `linux.mountLabel`.
pub(super) fn label(linux: &Linux) -> Option<Step> {
    linux.mount_label().clone().filter(|label| !label.is_empty()).map(Step::MountLabel)
}

/// `linux.rootfsPropagation`.
pub(super) fn root_propagation(linux: &Linux) -> Result<Option<Propagation>, LowerError> {
    let wanted = linux.rootfs_propagation().as_deref().filter(|wanted| !wanted.is_empty());
    let unknown = |wanted: &str| LowerError::Unsupported(format!("linux.rootfsPropagation: {wanted}"));
    wanted.map(|wanted| propagation(wanted).ok_or_else(|| unknown(wanted))).transpose()
}

fn propagation(option: &str) -> Option<Propagation> {
    let (recursive, name) = option.strip_prefix('r').map_or((false, option), |name| (true, name));
    let kind = match name {
        "private" => PropagationKind::Private,
        "shared" => PropagationKind::Shared,
        "slave" => PropagationKind::Slave,
        "unbindable" => PropagationKind::Unbindable,
        _ => return None,
    };
    Some(Propagation { kind, recursive })
}

pub(super) fn mounts(
    spec: &Spec,
    (root, cgroup_v1): (&Root, Option<&[(String, PathBuf)]>),
    slots: &mut Slots,
    steps: &mut Vec<Step>,
) -> Result<Vec<Step>, LowerError> {
    let mut late = Vec::new();
    let all = spec.mounts().as_deref().unwrap_or_default();
    for (index, mount) in all.iter().enumerate() {
        let target = text(mount.destination())?;
        let mut options = Options::parse(mount, &target)?;
        let mapped = options.id_map.is_some() || mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
        let kind = mount.typ().as_deref().unwrap_or("none");
        match (kind, cgroup_v1) {
            (IMAGE, _) => steps.push(image(mount, target, &options)?),
            _ if is_bind(mount) => {
                let id_map = if mapped { Some(id_map(spec, mount, &options, &target, slots)?) } else { None };
                steps.push(bind(mount, target, (&options, id_map), (root, has_users(spec)), slots)?);
            }
            _ if mapped => {
                return Err(LowerError::Unsupported(format!("mounts: {target}: id mapping of a `{kind}` mount")));
            }
            ("cgroup", Some(groups)) => {
                cgroups_v1(&target, groups, &options, slots, steps)?;
                if options.flags.read_only {
                    let later = all.get(index + 1..).unwrap_or_default();
                    // podman's `--systemd` mounts one more there.
                    let steps = if is_filled(mount, later) { &mut late } else { &mut *steps };
                    steps.push(Step::ReadonlyMount { target });
                }
            }
            _ if options.propagation.is_some_and(|wanted| wanted.kind != PropagationKind::Private) => {
                return Err(LowerError::Unsupported(format!("mounts: {target}: propagation of a `{kind}` mount")));
            }
            _ if options.copy_up && kind != "tmpfs" => {
                return Err(LowerError::Unsupported(format!("mounts: {target}: `tmpcopyup` of a `{kind}` mount")));
            }
            _ => {
                let later = all.get(index + 1..).unwrap_or_default();
                if kind == "tmpfs" && options.flags.read_only && is_filled(mount, later) {
                    options.flags.read_only = false;
                    late.push(Step::ReadonlyMount { target: target.clone() });
                }
                steps.push(Step::Mount {
                    fstype: if kind == "cgroup" { "cgroup2".to_owned() } else { kind.to_owned() },
                    source: mount.source().as_ref().map_or(Ok(kind.to_owned()), |source| text(source))?,
                    target,
                    flags: options.flags,
                    data: options.data.join(","),
                    copy_up: options.copy_up,
                });
            }
        }
    }
    Ok(late)
}

/// Whether something is made or mounted in a file system after it is there, and nothing over it.
fn is_filled(mount: &Mount, later: &[Mount]) -> bool {
    let target = mount.destination();
    let covered = later.iter().any(|other| other.destination() == target);
    !covered && (target == Path::new("/dev") || later.iter().any(|other| other.destination().starts_with(target)))
}

fn is_bind(mount: &Mount) -> bool {
    let mut options = mount.options().iter().flatten();
    mount.typ().as_deref() == Some("bind") || options.any(|option| option == "bind" || option == "rbind")
}

/// Whether it is one of ours that shows an image.
pub(super) fn is_image(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some(IMAGE)
}

/// Only the mounts that show images.
pub(super) fn images(spec: &Spec) -> Result<Vec<Step>, LowerError> {
    let mounts = spec.mounts().iter().flatten().filter(|mount| is_image(mount));
    let steps = mounts.map(|mount| {
        let target = text(mount.destination())?;
        let options = Options::parse(mount, &target)?;
        image(mount, target, &options)
    });
    steps.collect()
}

/// A user namespace with the mount's own mapping, or else with the container's; or the one that the container joins.
fn id_map(spec: &Spec, mount: &Mount, options: &Options, target: &str, slots: &mut Slots) -> Result<IdMap, LowerError> {
    let linux = spec.linux().as_ref();
    let of_container = || {
        (linux.and_then(|linux| linux.uid_mappings().as_ref()), linux.and_then(|linux| linux.gid_mappings().as_ref()))
    };
    let (users, groups) = match (mount.uid_mappings(), mount.gid_mappings()) {
        (None, None) => of_container(),
        (users, groups) => (users.as_ref(), groups.as_ref()),
    };
    let recursive = options.id_map == Some(true);
    let (Some(users), Some(groups)) = (users, groups) else {
        let joined = linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten();
        let joined =
            joined.filter(|namespace| namespace.typ() == LinuxNamespaceType::User).find_map(|it| it.path().as_ref());
        let path = joined.ok_or(LowerError::Missing("uidMappings and gidMappings of an id-mapped mount"))?;
        return Ok(IdMap { namespace: slots.add(open_namespace(LinuxNamespaceType::User, path)?), recursive });
    };
    let namespace = userns::with_mapping(&mapping_lines(users), &mapping_lines(groups));
    let failed = |source| LowerError::IdMap { target: target.to_owned(), source };
    Ok(IdMap { namespace: slots.add(namespace.map_err(failed)?.into()), recursive })
}

/// As the files `uid_map` and `gid_map` of user_namespaces(7) take them.
pub fn mapping_lines(mappings: &[LinuxIdMapping]) -> String {
    let lines =
        mappings.iter().map(|mapping| format!("{} {} {}\n", mapping.container_id(), mapping.host_id(), mapping.size()));
    lines.collect()
}

fn bind(
    mount: &Mount,
    target: String,
    (options, id_map): (&Options, Option<IdMap>),
    (root, users): (&Root, bool),
    slots: &mut Slots,
) -> Result<Step, LowerError> {
    let source = mount.source().as_ref().ok_or(LowerError::Missing("mounts.source"))?;
    if let Some(option) = options.data.first() {
        return Err(LowerError::Unsupported(format!("mounts: {target}: `{option}`")));
    }
    let in_root = match root {
        Root::Bind(root) => source.strip_prefix(root).ok().filter(|path| !path.as_os_str().is_empty()),
        Root::Overlay { .. } => None,
    };
    Ok(Step::Bind {
        source: match in_root {
            // In a user namespace nobody may map the owners of a file system of the host's.
            Some(path) if users && id_map.is_some() => BindSource::Host(open_in_root(root, path, &target, slots)?),
            Some(path) => BindSource::Root(text(path)?),
            None => BindSource::Host(open_source(source, &target, slots)?),
        },
        target,
        recursive: options.recursive,
        flags: options.flags,
        clear: options.cleared(users),
        recursive_flags: options.recursive_flags,
        propagation: options.propagation,
        id_map,
    })
}

fn has_users(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|namespace| namespace.typ() == LinuxNamespaceType::User)
}

/// What lies in the container's root, before anything is mounted there. Its links may not lead out.
fn open_in_root(root: &Root, path: &Path, target: &str, slots: &mut Slots) -> Result<usize, LowerError> {
    let Root::Bind(root) = root else { return Err(LowerError::Missing("root")) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(root, flags, Mode::empty()).map_err(std::io::Error::from);
    let opened = opened.and_then(|root| inroot::open(root, path.as_os_str().as_bytes(), OFlags::PATH));
    let failed = |source| LowerError::Source { path: root.join(path), target: target.to_owned(), source };
    opened.map(|descriptor| slots.add(descriptor)).map_err(failed)
}

fn image(mount: &Mount, target: String, options: &Options) -> Result<Step, LowerError> {
    let layers = options.data.iter().filter_map(|option| option.strip_prefix(IMAGE_LAYER)).map(PathBuf::from).collect();
    let subpath = mount.source().as_ref().map_or(Ok(String::new()), |source| text(source))?;
    Ok(Step::Image { layers, subpath, target })
}

/// A tmpfs with the container's own group of each controller.
fn cgroups_v1(
    target: &str,
    groups: &[(String, PathBuf)],
    options: &Options,
    slots: &mut Slots,
    steps: &mut Vec<Step>,
) -> Result<(), LowerError> {
    steps.push(Step::Mount {
        fstype: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        target: target.to_owned(),
        flags: MountFlags { read_only: false, ..options.flags },
        data: "mode=755".to_owned(),
        copy_up: false,
    });
    for (controller, directory) in groups {
        let target = format!("{target}/{controller}");
        let source = BindSource::Host(open_source(directory, &target, slots)?);
        let propagation = Some(Propagation { kind: PropagationKind::Private, recursive: true });
        steps.push(Step::Bind {
            source,
            target,
            recursive: false,
            flags: options.flags,
            clear: Cleared::default(),
            recursive_flags: RecursiveFlags::default(),
            propagation,
            id_map: None,
        });
    }
    Ok(())
}

pub(super) fn open_source(path: &Path, target: &str, slots: &mut Slots) -> Result<usize, LowerError> {
    let opened = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let failed = |error: rustix::io::Errno| LowerError::Source {
        path: path.to_owned(),
        target: target.to_owned(),
        source: error.into(),
    };
    opened.map(|descriptor| slots.add(descriptor)).map_err(failed)
}

/// None where the container has something else of its own there.
pub(super) fn shared_memory(spec: &Spec, memory: OwnedFd, slots: &mut Slots) -> Option<Step> {
    let taken = spec.mounts().iter().flatten().any(|mount| mount.destination() == Path::new("/dev/shm"));
    (!taken).then(|| attach(memory, "/dev/shm".to_owned(), slots))
}

/// A mount that is attached nowhere yet, as it is.
pub(super) fn attach(mount: OwnedFd, target: String, slots: &mut Slots) -> Step {
    Step::Bind {
        source: BindSource::Detached(slots.add(mount)),
        target,
        recursive: false,
        flags: MountFlags::default(),
        clear: Cleared::default(),
        recursive_flags: RecursiveFlags::default(),
        propagation: None,
        id_map: None,
    }
}

/// /dev is filled unless it is a directory of the host.
pub(super) fn devices(spec: &Spec, steps: &mut Vec<Step>) -> Result<(), LowerError> {
    // The last one there is what is seen.
    let dev = spec.mounts().iter().flatten().rfind(|mount| mount.destination() == Path::new("/dev"));
    if dev.is_some_and(is_bind) {
        return Ok(());
    }
    let given = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    let given = given.map(Vec::as_slice).unwrap_or_default();
    let is_given = |target: &str| given.iter().any(|device| device.path() == Path::new(target));
    for (target, major, minor) in DEVICES.iter().filter(|(target, ..)| !is_given(target)) {
        let (kind, target) = (DeviceKind::Char, (*target).to_owned());
        steps.push(Step::Device { target, kind, major: *major, minor: *minor, mode: 0o666, uid: 0, gid: 0 });
    }
    for device in given.iter().filter(|device| device.path() != Path::new("/dev/ptmx")) {
        let target = text(device.path())?;
        let number = |number: i64| {
            u32::try_from(number).map_err(|_| LowerError::Unsupported(format!("linux.devices: {target}: {number}")))
        };
        steps.push(Step::Device {
            kind: match device.typ() {
                LinuxDeviceType::B => DeviceKind::Block,
                LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char,
                LinuxDeviceType::P => DeviceKind::Fifo,
                LinuxDeviceType::A => return Err(LowerError::Unsupported(format!("linux.devices: {target}: type a"))),
            },
            major: number(device.major())?,
            minor: number(device.minor())?,
            mode: device.file_mode().unwrap_or(0o666),
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
            target,
        });
    }
    let mut link = |target: &str, to: &str| {
        steps.push(Step::Symlink { target: target.to_owned(), to: to.to_owned() });
    };
    LINKS.iter().for_each(|(target, to)| link(target, to));
    if Path::new("/proc/kcore").exists() {
        link("/dev/core", "/proc/kcore");
    }
    Ok(())
}

pub(super) fn text(path: &Path) -> Result<String, LowerError> {
    path.to_str().map(str::to_owned).ok_or_else(|| LowerError::Text(path.display().to_string()))
}

/// Mount options sorted by what they are; of contradicting ones the last counts.
#[derive(Debug, Default)]
struct Options {
    flags: MountFlags,
    recursive: bool,
    /// `MOUNT_ATTR_*` bits that options name and clear.
    cleared: u64,
    /// There is an option for it alone.
    has_flags: bool,
    /// Of it and the mounts below.
    recursive_flags: RecursiveFlags,
    propagation: Option<Propagation>,
    /// A tmpfs begins with what the directory holds.
    copy_up: bool,
    /// Owners are mapped; whether those of the mounts below, too.
    id_map: Option<bool>,
    /// What the file system itself reads.
    data: Vec<String>,
}

impl Options {
    fn parse(mount: &Mount, target: &str) -> Result<Self, LowerError> {
        let mut options = Self::default();
        for option in mount.options().iter().flatten() {
            if !options.flag(option) && !options.recursive_flag(option) && !options.propagation(option) {
                match option.as_str() {
                    "bind" => {}
                    "rbind" => options.recursive = true,
                    "defaults" | "async" | "loud" | "silent" => {}
                    "nomand" | "noiversion" | "nolazytime" => {}
                    "idmap" => options.id_map = Some(false),
                    "ridmap" => options.id_map = Some(true),
                    "tmpcopyup" => options.copy_up = true,
                    "remount" | "iversion" => {
                        return Err(LowerError::Unsupported(format!("mounts: {target}: `{option}`")));
                    }
                    data => options.data.push(data.to_owned()),
                }
            }
        }
        Ok(options)
    }

    fn flag(&mut self, option: &str) -> bool {
        let flags = &mut self.flags;
        let attribute = match option {
            "rw" => libc::MOUNT_ATTR_RDONLY,
            "suid" => libc::MOUNT_ATTR_NOSUID,
            "dev" => libc::MOUNT_ATTR_NODEV,
            "exec" => libc::MOUNT_ATTR_NOEXEC,
            "symfollow" => libc::MOUNT_ATTR_NOSYMFOLLOW,
            _ => 0,
        };
        self.cleared |= attribute;
        match option {
            "ro" => flags.read_only = true,
            "rw" => flags.read_only = false,
            "nosuid" => flags.no_suid = true,
            "suid" => flags.no_suid = false,
            "nodev" => flags.no_dev = true,
            "dev" => flags.no_dev = false,
            "noexec" => flags.no_exec = true,
            "exec" => flags.no_exec = false,
            "noatime" => flags.no_atime = true,
            "atime" => flags.no_atime = false,
            "relatime" => flags.rel_atime = true,
            "norelatime" => flags.rel_atime = false,
            "strictatime" => flags.strict_atime = true,
            "nostrictatime" => flags.strict_atime = false,
            "nodiratime" => flags.no_dir_atime = true,
            "diratime" => flags.no_dir_atime = false,
            "nosymfollow" => flags.no_sym_follow = true,
            "symfollow" => flags.no_sym_follow = false,
            _ => return false,
        }
        self.has_flags = true;
        true
    }

    /// A bind that names flags has just those, as with mount(8) and runc; but the flags that containers could be locked to, in a
    /// user namespace, stay.
    fn cleared(&self, users: bool) -> Cleared {
        let rest = match (self.has_flags, users) {
            (false, _) => 0,
            (true, true) => libc::MOUNT_ATTR_NOSYMFOLLOW,
            (true, false) => LOCKABLE | libc::MOUNT_ATTR_NOSYMFOLLOW,
        };
        Cleared { asked: self.cleared, rest }
    }

    /// `r` before an option has it count for the mounts below, too.
    fn recursive_flag(&mut self, option: &str) -> bool {
        let Some((_, bits, set)) = RECURSIVE.iter().find(|(name, ..)| *name == option) else { return false };
        let flags = &mut self.recursive_flags;
        if libc::MOUNT_ATTR__ATIME & bits == *bits {
            // One value of several, not a bit: it takes the place of whatever is there.
            flags.clear |= libc::MOUNT_ATTR__ATIME;
            flags.set &= !libc::MOUNT_ATTR__ATIME;
            flags.set |= if *set { *bits } else { libc::MOUNT_ATTR_RELATIME };
        } else if *set {
            (flags.set, flags.clear) = (flags.set | bits, flags.clear & !bits);
        } else {
            (flags.set, flags.clear) = (flags.set & !bits, flags.clear | bits);
        }
        if *bits == libc::MOUNT_ATTR_RDONLY {
            self.flags.read_only = *set;
        }
        true
    }

    fn propagation(&mut self, option: &str) -> bool {
        let found = propagation(option);
        self.propagation = found.or(self.propagation);
        found.is_some()
    }
}
