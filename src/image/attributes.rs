//! What a tar entry says of a file besides its contents, and giving that to the file.

use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::fs::{Gid, Mode, RawMode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::unpack::{Failure, Rights};

pub(super) struct Attributes {
    pub(super) mode: Mode,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timespec,
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
}

/// Reads them from an entry's header and extended header.
pub(super) fn attributes<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Attributes, Failure> {
    let header = entry.header();
    let id = |id: io::Result<u64>| {
        // The highest number is chown's "leave it as it is".
        let id = u32::try_from(id.map_err(Failure::Read)?).ok().filter(|id| *id != u32::MAX);
        id.ok_or(Failure::Refused("its owner is not a user or group id"))
    };
    let (uid, gid) = (id(header.uid())?, id(header.gid())?);
    let mode = Mode::from_raw_mode(RawMode::from(header.mode().map_err(Failure::Read)?) & 0o7777);
    let seconds = i64::try_from(header.mtime().map_err(Failure::Read)?).unwrap_or_default();
    let mut mtime = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let mut xattrs = Vec::new();
    for extension in entry.pax_extensions().map_err(Failure::Read)?.into_iter().flatten() {
        let extension = extension.map_err(Failure::Read)?;
        let Ok(key) = extension.key() else { continue };
        if key == "mtime" {
            mtime = extension.value().ok().and_then(parse_time).unwrap_or(mtime);
        } else if key.starts_with("GNU.sparse.") {
            return Err(Failure::Refused("sparse files in pax format are not supported"));
        } else if let Some(name) = key.strip_prefix("SCHILY.xattr.").filter(|name| is_allowed_xattr(name)) {
            xattrs.push((name.to_owned(), extension.value_bytes().to_owned()));
        }
    }
    Ok(Attributes { mode, uid, gid, mtime, xattrs })
}

/// Those that mean something in a container; overlayfs's own would let a layer speak about other layers.
fn is_allowed_xattr(name: &str) -> bool {
    let acl = matches!(name, "system.posix_acl_access" | "system.posix_acl_default");
    name == "security.capability" || acl || (name.starts_with("user.") && !name.starts_with("user.overlay."))
}

fn parse_time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let (seconds, nanoseconds): (i64, i64) = (seconds.parse().ok()?, digits.parse().ok()?);
    match (text.starts_with('-'), nanoseconds) {
        (true, 1..) => Some(Timespec { tv_sec: seconds.checked_sub(1)?, tv_nsec: 1_000_000_000 - nanoseconds }),
        _ => Some(Timespec { tv_sec: seconds, tv_nsec: nanoseconds }),
    }
}

/// Owner first: a change of owner clears the set-id bits and the capabilities.
pub(super) fn finish_open(file: &impl AsFd, attributes: &Attributes, rights: Rights) -> Result<(), Failure> {
    if rights == Rights::Root {
        let (uid, gid) = owner(attributes);
        rustix::fs::fchown(file, uid, gid)?;
    }
    for (name, value) in &attributes.xattrs {
        match rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
            // A file system without them, or a user who may not set them: the file works without.
            Err(Errno::OPNOTSUPP) => {}
            Err(Errno::PERM) if rights == Rights::User => {}
            set => set?,
        }
    }
    rustix::fs::fchmod(file, attributes.mode)?;
    Ok(rustix::fs::futimens(file, &both_times(attributes.mtime))?)
}

pub(super) fn owner(attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw_unchecked(attributes.uid)), Some(Gid::from_raw_unchecked(attributes.gid)))
}

pub(super) fn both_times(time: Timespec) -> Timestamps {
    Timestamps { last_access: time, last_modification: time }
}
