//! The file systems of the container, mounted by descriptor.

use std::cell::OnceCell;
use std::fs::remove_dir_all;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self as rfs, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::fault::{At, Fault, errno, fault};
use super::inroot;
use super::{Cleared, DeviceKind, MountFlags, Overlay, Propagation, PropagationKind, RecursiveFlags};
use crate::sys::mount::{MountAttributes, kernel_message, set_attributes};
use crate::sys::overlay::{self, Changes};
use crate::sys::userns::Ids;
use crate::sys::{copy, process};

/// Every mount of this mount namespace, private or slave. In a chroot the root of the namespace is another one, and
/// returned: whoever enters the namespace later starts from there.
pub(super) fn isolate(proc: &OwnedFd, root: &OwnedFd, slave: bool) -> Result<Option<OwnedFd>, Fault> {
    let here = "the root of the mount namespace";
    let own = rfs::openat(proc, "self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(here)?;
    process::enter_namespace(own, libc::CLONE_NEWNS).at(here)?;
    let kind = if slave { mount::MountPropagationFlags::DOWNSTREAM } else { mount::MountPropagationFlags::PRIVATE };
    mount::mount_change("/", kind | mount::MountPropagationFlags::REC).at("making mounts private")?;
    let top = host_directory(Path::new("/"))?;
    if inroot::same_mount(&top, root).at(here)? {
        return Ok(None);
    }
    // Paths of the host are still those of the chroot.
    change_root(root).at(here)?;
    Ok(Some(top))
}

fn change_root(to: &OwnedFd) -> Result<(), Errno> {
    rustix::process::fchdir(to)?;
    rustix::process::chroot(".")
}

/// Mounts an overlay on a host directory and returns its root.
pub(super) fn root_overlay(at: &Path, overlay: &Overlay, label: Option<&str>) -> Result<OwnedFd, Fault> {
    let directory = host_directory(at)?;
    attach_overlay(overlay, &directory, label)?;
    host_directory(at)
}

/// Attaches a detached mount over a directory and returns it.
pub(super) fn root_bind(source: &OwnedFd, over: &OwnedFd, propagation: PropagationKind) -> Result<OwnedFd, Fault> {
    propagate(source, Propagation { kind: propagation, recursive: true }).at("the root")?;
    attach(source, over).at("the root")?;
    source.try_clone().at("the root")
}

/// Changes how mounts spread to and from the mount at `mount`.
pub(super) fn propagate(mount: &OwnedFd, Propagation { kind, recursive }: Propagation) -> io::Result<()> {
    let propagation = match kind {
        PropagationKind::Private => libc::MS_PRIVATE,
        PropagationKind::Shared => libc::MS_SHARED,
        PropagationKind::Slave => libc::MS_SLAVE,
        PropagationKind::Unbindable => libc::MS_UNBINDABLE,
    };
    set_attributes(mount, &MountAttributes { propagation, ..MountAttributes::default() }, recursive)
}

fn host_directory(path: &Path) -> Result<OwnedFd, Fault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rfs::open(path, flags, Mode::empty()).at(path.to_string_lossy())
}

pub(super) fn overlay(root: &OwnedFd, target: &str, overlay: &Overlay, label: Option<&str>) -> Result<(), Fault> {
    let directory = directory_target(root, target)?;
    attach_overlay(overlay, &directory, label)
}

fn attach_overlay(overlay: &Overlay, directory: &OwnedFd, label: Option<&str>) -> Result<(), Fault> {
    if overlay.volatile {
        // Left by an earlier run on this boot: the layer is whole then, as nothing but a power loss can harm it.
        match remove_dir_all(overlay.work.join("work/incompat")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).at("removing the volatile mark");
            }
            _ => {}
        }
    }
    let changes = Changes { upper: &overlay.upper, work: &overlay.work, volatile: overlay.volatile };
    mount_overlay(overlay::Overlay { lower: &overlay.lower, changes: Some(changes), label }, directory)
}

fn mount_overlay(overlay: overlay::Overlay<'_>, directory: &OwnedFd) -> Result<(), Fault> {
    overlay.mount_on(directory).map_err(|error| Fault { errno: errno(&error.source), detail: error.what })
}

/// Every file of the new file system shows this SELinux label.
fn set_label(context: &OwnedFd, label: Option<&str>) -> Result<(), Fault> {
    let Some(label) = label else { return Ok(()) };
    mount::fsconfig_set_string(context.as_fd(), "context", label).at(format!("SELinux label `{label}`"))
}

/// Mounts a kernel file system.
pub(super) fn mount(
    root: &OwnedFd,
    (fstype, source, data): (&str, &str, &str),
    target: &str,
    (flags, copy_up): (MountFlags, bool),
    label: Option<&str>,
) -> Result<(), Fault> {
    let (directory, made) = inroot::make_directory(root, target, 0o755).at(target)?;
    let directory = not_the_root(root, directory, target)?;
    if fstype == "tmpfs" {
        let new = tmpfs((source, data), (!made).then_some(&directory), (flags, copy_up), label)?;
        return attach(&new, &directory).at(target);
    }
    if matches!(fstype, "proc" | "sysfs") {
        // What later steps mask and write to must be where they look for it.
        inroot::open_without_links(root, target, OFlags::PATH).map_err(|error| Fault {
            errno: error.raw_os_error(),
            detail: format!("{target} must be mounted on ordinary directory"),
        })?;
    }
    let new = match kernel_mount(fstype, source, data, flags, label) {
        // These show a namespace that is the host's, whose root we are not: as the host has it mounted, then.
        Err(Fault { errno: libc::EPERM, .. }) if Ids::of_this_process() != Ids::Host => match fstype {
            "proc" => host_view("/proc", flags),
            "sysfs" => host_view("/sys", flags),
            "cgroup2" => host_view("/sys/fs/cgroup", flags),
            "mqueue" => match host_view("/dev/mqueue", flags) {
                // The host's processes have no queues to see.
                Err(Fault { errno: libc::ENOENT, .. }) => return Ok(()),
                view => view,
            },
            _ => fault(libc::EPERM, fstype),
        },
        new => new,
    };
    attach(&new?, &directory).at(target)
}

/// A tmpfs has the mode of the directory that it is mounted on, where `there` was one, unless another mode is asked for.
fn tmpfs(
    (source, data): (&str, &str),
    there: Option<&OwnedFd>,
    (flags, copy_up): (MountFlags, bool),
    label: Option<&str>,
) -> Result<OwnedFd, Fault> {
    let mut data = data.to_owned();
    if let Some(there) = there
        && !data.split(',').any(|option| option.starts_with("mode="))
    {
        let mode = rfs::fstat(there).at("tmpfs")?.st_mode & 0o7777;
        data = format!("{data},mode={mode:o}");
    }
    let Some(there) = there.filter(|_| copy_up) else { return kernel_mount("tmpfs", source, &data, flags, label) };
    let new = kernel_mount("tmpfs", source, &data, MountFlags { read_only: false, ..flags }, label)?;
    let from = inroot::open(there, ".", OFlags::RDONLY | OFlags::DIRECTORY).at("copying to the tmpfs")?;
    let to = inroot::open(&new, ".", OFlags::RDONLY | OFlags::DIRECTORY).at("copying to the tmpfs")?;
    copy::contents(&from, &to.into()).at("copying to the tmpfs")?;
    if flags.read_only {
        set_attributes(&new, &read_only(), false).at("tmpfs")?;
    }
    Ok(new)
}

fn kernel_mount(
    fstype: &str,
    source: &str,
    data: &str,
    flags: MountFlags,
    label: Option<&str>,
) -> Result<OwnedFd, Fault> {
    let context = mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).at(fstype)?;
    if !source.is_empty() {
        mount::fsconfig_set_string(context.as_fd(), "source", source).at(fstype)?;
    }
    for option in data.split(',').filter(|option| !option.is_empty()) {
        if option.starts_with("gid=") && fstype == "devpts" && Ids::of_this_process() == Ids::Single {
            // The group of terminals is none that this user has: they stay the user's own.
            continue;
        }
        let set = match option.split_once('=') {
            Some((key, value)) => mount::fsconfig_set_string(context.as_fd(), key, value),
            None => mount::fsconfig_set_flag(context.as_fd(), option),
        };
        set.at(format!("{fstype} option {option}"))?;
    }
    match fstype {
        // Their files have labels by what they are.
        "proc" | "sysfs" | "cgroup" | "cgroup2" => create(&context, fstype, attribute_flags(flags)),
        // One for each namespace, so it has been mounted already.
        "mqueue" => {
            let new = create(&context, fstype, attribute_flags(flags))?;
            if let Some(label) = label {
                let path = format!("/proc/self/fd/{}", new.as_raw_fd());
                let set = rfs::setxattr(path, "security.selinux", label.as_bytes(), rfs::XattrFlags::empty());
                set.at(format!("SELinux label `{label}`"))?;
            }
            Ok(new)
        }
        _ => {
            set_label(&context, label)?;
            create(&context, fstype, attribute_flags(flags))
        }
    }
}

fn host_view(path: &'static str, flags: MountFlags) -> Result<OwnedFd, Fault> {
    let clone = clone_tree(&host_directory(Path::new(path))?, true).at(path)?;
    let attributes = MountAttributes { set: attribute_flags(flags).bits().into(), ..MountAttributes::default() };
    set_attributes(&clone, &attributes, true).at(path)?;
    Ok(clone)
}

fn create(context: &OwnedFd, fstype: &str, attributes: MountAttrFlags) -> Result<OwnedFd, Fault> {
    mount::fsconfig_create(context.as_fd()).map_err(|error| Fault {
        errno: error.raw_os_error(),
        detail: format!("{fstype}{}", kernel_message(context)),
    })?;
    mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).at(fstype)
}

/// A directory to mount on, made when missing; never the root itself, which a link of the image may lead to.
fn directory_target(root: &OwnedFd, target: &str) -> Result<OwnedFd, Fault> {
    let (directory, _) = inroot::make_directory(root, target, 0o755).at(target)?;
    not_the_root(root, directory, target)
}

fn not_the_root(root: &OwnedFd, found: OwnedFd, target: &str) -> Result<OwnedFd, Fault> {
    if inroot::same_file(root, &found).at(target)? {
        return fault(libc::EINVAL, format!("{target} leads to the root itself"));
    }
    Ok(found)
}

/// Shows what an image holds at `subpath`. Resolved below the image's own root, whatever its links say.
pub(super) fn image(root: &OwnedFd, layers: &[PathBuf], subpath: &str, target: &str) -> Result<(), Fault> {
    let Some(top) = layers.first() else { return fault(libc::ENOENT, format!("{target}: an image without layers")) };
    let on = host_directory(top)?;
    let combined = layers.len() > 1;
    if combined {
        // For the moment it takes to copy the part out of it, in this mount namespace only.
        mount_overlay(overlay::Overlay { lower: layers, changes: None, label: None }, &on)?;
    }
    let tree = host_directory(top)?;
    let part = inroot::open(&tree, subpath, OFlags::PATH).at(format!("{subpath} of the image"))?;
    let clone = clone_tree(&part, false).at(target)?;
    let set = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    set_attributes(&clone, &MountAttributes { set: set.bits().into(), ..MountAttributes::default() }, false)
        .at(target)?;
    if combined {
        drop((part, tree));
        mount::unmount(top, mount::UnmountFlags::DETACH).at("detaching the image")?;
    }
    let on = match inroot::is_directory(&clone).at(target)? {
        true => directory_target(root, target)?,
        false => not_the_root(root, inroot::make_file(root, target).at(target)?, target)?,
    };
    attach(&clone, &on).at(target)
}

/// Attaches a detached mount, made from a host file or directory, on a file or directory made to match.
pub(super) fn bind(
    root: &OwnedFd,
    source: &OwnedFd,
    target: &str,
    (flags, cleared, recursive): (MountFlags, Cleared, RecursiveFlags),
    propagation: Option<Propagation>,
) -> Result<(), Fault> {
    let on = if inroot::is_directory(source).at(target)? {
        directory_target(root, target)?
    } else {
        let file = inroot::make_file(root, target).at(target)?;
        not_the_root(root, file, target)?
    };
    let set = attribute_flags(flags);
    // A bind keeps how its source counts access times unless something about that is asked for.
    let time = flags.no_atime || flags.rel_atime || flags.strict_atime || flags.no_dir_atime;
    let clear = if time { libc::MOUNT_ATTR__ATIME | libc::MOUNT_ATTR_NODIRATIME } else { 0 };
    let set = u64::from(set.bits());
    let attributes = |clear: u64| {
        // The mode of access times is a value, not bits.
        let clear = clear & (!set | libc::MOUNT_ATTR__ATIME);
        MountAttributes { set, clear, ..MountAttributes::default() }
    };
    let (asked, all) = (clear | cleared.asked, clear | cleared.asked | cleared.rest);
    if set != 0 || all != 0 {
        match set_attributes(source, &attributes(all), false) {
            // An ordinary user does not clear what the host has set.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && cleared.rest != 0 => {
                set_attributes(source, &attributes(asked), false).at(target)?;
            }
            set => set.at(target)?,
        }
    }
    if recursive != RecursiveFlags::default() {
        let RecursiveFlags { set, clear } = recursive;
        set_attributes(source, &MountAttributes { set, clear, ..MountAttributes::default() }, true).at(target)?;
    }
    // A copy of a shared mount is its peer until told otherwise: what is mounted inside would appear on the host.
    let private = Propagation { kind: PropagationKind::Private, recursive: true };
    propagate(source, propagation.unwrap_or(private)).at(target)?;
    attach(source, &on).at(target)
}

/// Has a detached mount show the owners of files as the user namespace maps them.
pub(super) fn map_ids(mount: &OwnedFd, namespace: &OwnedFd, recursive: bool) -> io::Result<()> {
    let user_namespace = namespace.as_raw_fd().unsigned_abs().into();
    let attributes = MountAttributes { set: libc::MOUNT_ATTR_IDMAP, user_namespace, ..MountAttributes::default() };
    set_attributes(mount, &attributes, recursive)
}

fn attribute_flags(flags: MountFlags) -> MountAttrFlags {
    let mut set = MountAttrFlags::empty();
    set.set(MountAttrFlags::MOUNT_ATTR_RDONLY, flags.read_only);
    set.set(MountAttrFlags::MOUNT_ATTR_NOSUID, flags.no_suid);
    set.set(MountAttrFlags::MOUNT_ATTR_NODEV, flags.no_dev);
    set.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, flags.no_exec);
    set.set(MountAttrFlags::MOUNT_ATTR_NODIRATIME, flags.no_dir_atime);
    set.set(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW, flags.no_sym_follow);
    if flags.no_atime {
        set |= MountAttrFlags::MOUNT_ATTR_NOATIME;
    } else if flags.strict_atime {
        set |= MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    }
    set
}

pub(super) fn clone_tree(file: impl AsFd, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    mount::open_tree(file, "", flags)
}

pub(super) fn attach(detached: &OwnedFd, on: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    mount::move_mount(detached, "", on, "", flags)
}

/// Makes `root` the root of this mount namespace and lets go of the old one, which is `top` where this process is in a chroot.
pub(super) fn pivot(root: &OwnedFd, top: Option<OwnedFd>) -> Result<OwnedFd, Fault> {
    top.map_or(Ok(()), |top| change_root(&top)).at("leaving the chroot")?;
    let old = host_directory(Path::new("/"))?;
    rustix::process::fchdir(root).at("entering the root")?;
    rustix::process::pivot_root(".", ".").at("pivot_root")?;
    // The old root lies over the new one now; slave mounts inside it must not carry the unmounting to the host.
    rustix::process::fchdir(&old).at("detaching the old root")?;
    propagate(&old, Propagation { kind: PropagationKind::Slave, recursive: true }).at("detaching the old root")?;
    mount::unmount(".", mount::UnmountFlags::DETACH).at("detaching the old root")?;
    rustix::process::chdir("/").at("/")?;
    host_directory(Path::new("/"))
}

pub(super) fn readonly_root(root: &OwnedFd) -> Result<(), Fault> {
    set_attributes(root, &read_only(), false).at("/")
}

pub(super) fn readonly_mount(root: &OwnedFd, target: &str) -> Result<(), Fault> {
    let mount = inroot::open(root, target, OFlags::PATH | OFlags::DIRECTORY).at(target)?;
    set_attributes(not_the_root(root, mount, target)?, &read_only(), false).at(target)
}

fn read_only() -> MountAttributes {
    MountAttributes { set: MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), ..MountAttributes::default() }
}

pub(super) fn readonly_path(root: &OwnedFd, target: &str) -> Result<(), Fault> {
    let Some(file) = existing(root, target)? else { return Ok(()) };
    let clone = clone_tree(&file, true).at(target)?;
    set_attributes(&clone, &read_only(), true).at(target)?;
    attach(&clone, &file).at(target)
}

/// `empty` is the file system over directories: one is enough for all.
pub(super) fn mask(root: &OwnedFd, target: &str, empty: &OnceCell<OwnedFd>, label: Option<&str>) -> Result<(), Fault> {
    let Some(file) = existing(root, target)? else { return Ok(()) };
    let cover = if inroot::is_directory(&file).at(target)? {
        match empty.get() {
            Some(empty) => clone_tree(empty, false).at("tmpfs")?,
            None => {
                let context = mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).at("tmpfs")?;
                set_label(&context, label)?;
                let new = create(&context, "tmpfs", MountAttrFlags::MOUNT_ATTR_RDONLY)?;
                // Copies can be made of it as soon as it is attached, which follows.
                empty.get_or_init(|| new).try_clone().at("tmpfs")?
            }
        }
    } else {
        let null = inroot::open_without_links(root, "dev/null", OFlags::PATH).at("/dev/null")?;
        let status = rfs::fstat(&null).at("/dev/null")?;
        let device = (rfs::major(status.st_rdev), rfs::minor(status.st_rdev));
        if FileType::from_raw_mode(status.st_mode) != FileType::CharacterDevice || device != (1, 3) {
            return fault(libc::EINVAL, "/dev/null is not the null device");
        }
        clone_tree(&null, false).at("/dev/null")?
    };
    attach(&cover, &file).at(target)
}

/// What a protected path names; `None` when it is not there. A symbolic link in its place is refused.
fn existing(root: &OwnedFd, target: &str) -> Result<Option<OwnedFd>, Fault> {
    match inroot::open_without_links(root, target, OFlags::PATH) {
        Ok(file) => not_the_root(root, file, target).map(Some),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error).at(target),
    }
}

pub(super) fn directory(root: &OwnedFd, target: &str, mode: u32, uid: u32, gid: u32) -> Result<(), Fault> {
    let (directory, made) = inroot::make_directory(root, target, mode).at(target)?;
    if made {
        rfs::chownat(&directory, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), rfs::AtFlags::EMPTY_PATH)
            .at(target)?;
    }
    Ok(())
}

pub(super) fn symlink(root: &OwnedFd, target: &str, to: &str) -> Result<(), Fault> {
    let (parent, name) = inroot::make_parent(root, target).at(target)?;
    match rfs::symlinkat(to, &parent, name) {
        Err(Errno::EXIST) => match rfs::readlinkat(&parent, name, Vec::new()) {
            Ok(there) if there.as_bytes() == to.as_bytes() => Ok(()),
            _ => fault(libc::EEXIST, target),
        },
        result => result.at(target),
    }
}

pub(super) fn device(
    root: &OwnedFd,
    target: &str,
    (kind, major, minor): (DeviceKind, u32, u32),
    (mode, uid, gid): (u32, u32, u32),
) -> Result<(), Fault> {
    let (parent, name) = inroot::make_parent(root, target).at(target)?;
    let file_type = match kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Fifo => FileType::Fifo,
    };
    match rfs::mknodat(&parent, name, file_type, Mode::from_raw_mode(mode), rfs::makedev(major, minor)) {
        Ok(()) => rfs::chownat(
            &parent,
            name,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            rfs::AtFlags::SYMLINK_NOFOLLOW,
        )
        .at(target),
        Err(Errno::PERM) => bind_host_device(root, target, file_type, (major, minor)),
        Err(Errno::EXIST) => {
            let found = rfs::statat(&parent, name, rfs::AtFlags::SYMLINK_NOFOLLOW).at(target)?;
            let same_device =
                kind == DeviceKind::Fifo || (rfs::major(found.st_rdev), rfs::minor(found.st_rdev)) == (major, minor);
            // The specification: another file there is an error.
            if same_device && FileType::from_raw_mode(found.st_mode) == file_type {
                Ok(())
            } else {
                fault(libc::EEXIST, target)
            }
        }
        Err(error) => Err(error).at(target),
    }
}

/// Where device nodes cannot be made: the host's, once it is seen to be the same device.
fn bind_host_device(root: &OwnedFd, target: &str, file_type: FileType, device: (u32, u32)) -> Result<(), Fault> {
    let path = host_node(file_type, device).unwrap_or_else(|| target.to_owned());
    let node = rfs::open(&path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).at(&*path)?;
    let status = rfs::fstat(&node).at(&*path)?;
    let found = (rfs::major(status.st_rdev), rfs::minor(status.st_rdev));
    if FileType::from_raw_mode(status.st_mode) != file_type || found != device {
        return fault(libc::EPERM, target);
    }
    let clone = clone_tree(&node, false).at(&*path)?;
    let on = inroot::make_file(root, target).at(target)?;
    attach(&clone, &on).at(target)
}

/// What the kernel calls a device below /dev, see sysfs(5).
fn host_node(file_type: FileType, (major, minor): (u32, u32)) -> Option<String> {
    let kind = if file_type == FileType::BlockDevice { "block" } else { "char" };
    let event = std::fs::read_to_string(format!("/sys/dev/{kind}/{major}:{minor}/uevent")).ok()?;
    event.lines().find_map(|line| line.strip_prefix("DEVNAME=")).map(|name| format!("/dev/{name}"))
}
