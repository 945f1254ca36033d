//! What a tar entry says of a file besides its contents, and giving that to the file.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Gid, Mode, RawMode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::entries::Entry;
use super::unpack::{Failure, Rights};

pub(super) struct Attributes {
    pub(super) mode: Mode,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timespec,
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
}

/// Takes them from an entry's header and extended header.
pub(super) fn attributes(entry: &mut Entry) -> Result<Attributes, Failure> {
    let (header, extended) = (&entry.header, &mut entry.extended);
    let id = |extended: Option<u64>, id: io::Result<u64>| {
        let id = extended.map_or(id, Ok).map_err(Failure::Read)?;
        // The highest number is chown's "leave it as it is".
        let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        id.ok_or(Failure::Refused("its owner is not a user or group id"))
    };
    let (uid, gid) = (id(extended.uid, header.uid())?, id(extended.gid, header.gid())?);
    let mode = Mode::from_raw_mode(RawMode::from(header.mode().map_err(Failure::Read)?) & 0o7777);
    let mtime = match extended.mtime {
        Some(mtime) => mtime,
        None => {
            let seconds = header.mtime().map_err(Failure::Read)?;
            Timespec { tv_sec: i64::try_from(seconds).unwrap_or_default(), tv_nsec: 0 }
        }
    };
    let mut xattrs = std::mem::take(&mut extended.xattrs);
    xattrs.retain(|(name, _)| is_allowed_xattr(name));
    Ok(Attributes { mode, uid, gid, mtime, xattrs })
}

/// Those that mean something in a container; overlayfs's own would let a layer speak about other layers.
pub(super) fn is_allowed_xattr(name: &str) -> bool {
    let acl = matches!(name, "system.posix_acl_access" | "system.posix_acl_default");
    name == "security.capability" || acl || (name.starts_with("user.") && !name.starts_with("user.overlay."))
}

/// Owner first: a change of owner clears the set-id bits and the capabilities.
pub(super) fn finish_open(file: &impl AsFd, attributes: &Attributes, rights: Rights) -> Result<(), Failure> {
    if rights.gives_files_away() {
        let (uid, gid) = owner(attributes);
        match rustix::fs::fchown(file, uid, gid) {
            Err(Errno::INVAL) if rights == Rights::Mapped => return Err(Failure::Refused(BEYOND)),
            given => given?,
        }
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

/// For an owner that the user namespace does not have.
pub(super) const BEYOND: &str =
    "its owner is beyond this user's subordinate ids; give the user more of them (`rcompose doctor` says how)";

pub(super) fn owner(attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw_unchecked(attributes.uid)), Some(Gid::from_raw_unchecked(attributes.gid)))
}

pub(super) fn both_times(time: Timespec) -> Timestamps {
    Timestamps { last_access: time, last_modification: time }
}
