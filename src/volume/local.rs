//! Options of Docker's `local` driver: `type`, `o` and `device`, those of mount(8).
//!
//! A bind is no mount of ours: the container gets the folder itself. Anything else is mounted on the volume's `_data` while
//! a container that has the volume runs, so that all of them, in all projects, see the same file system.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

const FLAGS: [(&str, MsFlags, bool); 20] = [
    ("ro", MsFlags::MS_RDONLY, true),
    ("rw", MsFlags::MS_RDONLY, false),
    ("nosuid", MsFlags::MS_NOSUID, true),
    ("suid", MsFlags::MS_NOSUID, false),
    ("nodev", MsFlags::MS_NODEV, true),
    ("dev", MsFlags::MS_NODEV, false),
    ("noexec", MsFlags::MS_NOEXEC, true),
    ("exec", MsFlags::MS_NOEXEC, false),
    ("sync", MsFlags::MS_SYNCHRONOUS, true),
    ("async", MsFlags::MS_SYNCHRONOUS, false),
    ("dirsync", MsFlags::MS_DIRSYNC, true),
    ("noatime", MsFlags::MS_NOATIME, true),
    ("atime", MsFlags::MS_NOATIME, false),
    ("nodiratime", MsFlags::MS_NODIRATIME, true),
    ("diratime", MsFlags::MS_NODIRATIME, false),
    ("relatime", MsFlags::MS_RELATIME, true),
    ("norelatime", MsFlags::MS_RELATIME, false),
    ("strictatime", MsFlags::MS_STRICTATIME, true),
    ("bind", MsFlags::MS_BIND, true),
    ("rbind", MsFlags::MS_BIND, true),
];

/// What a volume's options say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Local {
    fstype: String,
    device: String,
    flags: MsFlags,
    data: Vec<String>,
}

impl Local {
    /// `None`: the volume is a plain folder.
    pub(super) fn of(options: &BTreeMap<String, String>) -> Option<Self> {
        let text = |key: &str| options.get(key).cloned().unwrap_or_default();
        let mut local =
            Self { fstype: text("type"), device: text("device"), flags: MsFlags::empty(), data: Vec::new() };
        if local.device.is_empty() {
            return None;
        }
        for word in text("o").split(',').map(str::trim).filter(|word| !word.is_empty() && *word != "defaults") {
            match FLAGS.iter().find(|(name, _, _)| *name == word) {
                Some((_, flag, set)) => local.flags.set(*flag, *set),
                None => local.data.push(word.to_owned()),
            }
        }
        Some(local)
    }

    /// The folder that is the volume, and whether it may only be read.
    pub(super) fn bound(&self) -> Option<(PathBuf, bool)> {
        let bind = self.flags.contains(MsFlags::MS_BIND);
        bind.then(|| (PathBuf::from(&self.device), self.flags.contains(MsFlags::MS_RDONLY)))
    }

    /// Mounts it on `data`, unless it is already.
    pub(super) fn attach(&self, data: &Path) -> io::Result<()> {
        if self.bound().is_some() || is_mounted(data)? {
            return Ok(());
        }
        let options = self.data.iter().map(|option| resolved(option)).collect::<io::Result<Vec<_>>>()?.join(",");
        let options = (!options.is_empty()).then_some(options.as_str());
        mount(Some(self.device.as_str()), data, Some(self.fstype.as_str()), self.flags, options)?;
        Ok(())
    }
}

/// Takes whatever is mounted on `data` off again. Containers that have it keep it.
pub(super) fn detach(data: &Path) -> io::Result<()> {
    while is_mounted(data)? {
        umount2(data, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    Ok(())
}

/// Whether something is mounted on a folder.
fn is_mounted(data: &Path) -> io::Result<bool> {
    let found = statx(CWD, data, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// The kernel takes addresses only, for NFS and CIFS: `addr=NAME` is looked up.
fn resolved(option: &str) -> io::Result<String> {
    let Some(name) = option.strip_prefix("addr=").filter(|name| name.parse::<IpAddr>().is_err()) else {
        return Ok(option.to_owned());
    };
    let addresses: Vec<_> = (name, 0).to_socket_addrs()?.map(|address| address.ip()).collect();
    let found = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    found.map(|address| format!("addr={address}")).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}
