//! Which cgroup hierarchies the machine has mounted: v1, v2, or both.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::engine::cgroup::CgroupError;
use crate::sys::userns::OWN_GROUP;

/// The controllers of v1 that we may make groups in.
const V1_CONTROLLERS: [&str; 10] =
    ["blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "net_cls", "pids"];

/// Mounted hierarchies. A hybrid machine has both; a controller is then in exactly one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    pub(super) v2: Option<V2>,
    /// Where cgroup2 is mounted, also when none of it is this user's.
    pub(super) unified: Option<PathBuf>,
    /// Mount point by controller.
    pub(super) v1: BTreeMap<String, PathBuf>,
    /// Mount points of v1 hierarchies without a controller.
    pub(super) named: Vec<PathBuf>,
    /// Some or all of what is mounted is not this user's to use.
    pub(super) partial: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct V2 {
    /// Where our groups begin: the mount point, or the group that was delegated to this user.
    pub(super) mount: PathBuf,
    pub(super) controllers: BTreeSet<String>,
}

impl Hierarchies {
    /// Looks at this process's mounts.
    ///
    /// # Errors
    /// Unreadable /proc; no cgroup hierarchy at all.
    pub fn detect() -> Result<Self, CgroupError> {
        let mountinfo = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(mountinfo).map_err(|error| CgroupError::read(mountinfo, error))?;
        let mut found = Self::parse(&text);
        found.keep_usable();
        if let Some(v2) = &mut found.v2 {
            let path = v2.mount.join("cgroup.controllers");
            let names = fs::read_to_string(&path).map_err(|error| CgroupError::read(&path, error))?;
            v2.controllers = names.split_whitespace().map(str::to_owned).collect();
        }
        if found.v2.is_none() && found.v1.is_empty() && !found.partial {
            return Err(CgroupError::NotMounted);
        }
        Ok(found)
    }

    /// For a group that somebody else, such as systemd, has made and given to this user, wherever in the tree: with the controllers
    /// that it has.
    ///
    /// # Errors
    /// As [`Hierarchies::detect`].
    pub fn around(path: &str) -> Result<Self, CgroupError> {
        let mountinfo = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(mountinfo).map_err(|error| CgroupError::read(mountinfo, error))?;
        let mut found = Self::parse(&text);
        let mounted = found.v1.len();
        found.v1.retain(|_, mount| is_ours(mount));
        found.partial = found.v1.len() < mounted || found.v2.as_ref().is_some_and(|v2| !is_ours(&v2.mount));
        let v2 = found.v2.as_mut().ok_or(CgroupError::NotMounted)?;
        // Without the group there is nothing to control.
        let names = fs::read_to_string(v2.mount.join(path).join("cgroup.controllers")).unwrap_or_default();
        v2.controllers = names.split_whitespace().map(str::to_owned).collect();
        Ok(found)
    }

    /// The group `path` of a process that is in it or below it, wherever it begins: in a part that was given away to others than who
    /// asks, such as the keeper of a user's project. `None` when it is in no such group.
    pub(super) fn group_of(&self, pid: i32, path: &str) -> Option<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        Some(self.unified.as_ref()?.join(part_of(&text, path)?).join(path))
    }

    /// An ordinary user has a group where somebody has given one away (systemd's `Delegate=`), and nothing in v1.
    fn keep_usable(&mut self) {
        let mounted = self.v1.len();
        self.v1.retain(|_, mount| is_ours(mount));
        self.partial = self.v1.len() < mounted;
        if let Some(v2) = self.v2.take_if(|v2| !is_ours(&v2.mount)) {
            self.partial = true;
            let own = fs::read_to_string("/proc/self/cgroup").ok();
            let own = own.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::/")));
            let mount = own.and_then(|own| delegated(&v2.mount, own));
            self.v2 = mount.map(|mount| V2 { mount, ..v2 });
        }
    }

    /// Only v2: containers get a cgroup namespace and a cgroup2 mount of their own.
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty()
    }

    /// Whether groups are in cgroup2, too.
    pub fn has_v2(&self) -> bool {
        self.v2.is_some()
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((fields, after)) = line.split_once(" - ") else { continue };
            let Some(point) = fields.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut after = after.split(' ');
            match after.next() {
                Some("cgroup2") if found.v2.is_none() => {
                    found.unified = Some(point.clone());
                    found.v2 = Some(V2 { mount: point, controllers: BTreeSet::new() });
                }
                Some("cgroup") => {
                    for option in after.nth(1).unwrap_or_default().split(',') {
                        if option.starts_with("name=") {
                            found.named.push(point.clone());
                        }
                        if V1_CONTROLLERS.contains(&option) {
                            found.v1.entry(option.to_owned()).or_insert_with(|| point.clone());
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }
}

/// Where in cgroup2 the group `path` begins, from the `/proc/PID/cgroup` of a process in it.
fn part_of<'a>(text: &'a str, path: &str) -> Option<&'a str> {
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let at = format!("/{own}/").find(&format!("/{path}/"))?;
    own.get(..at.saturating_sub(1))
}

/// Whether groups can be made in that directory.
fn is_ours(directory: &Path) -> bool {
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok()
}

/// The group that was given away, seen from a process in it or in the [`OWN_GROUP`] below it.
fn delegated(mount: &Path, own: &str) -> Option<PathBuf> {
    let own = mount.join(own);
    let group = if own.ends_with(OWN_GROUP) { own.parent()? } else { &own };
    let ours = is_ours(group) && is_ours(&group.join("cgroup.subtree_control")) && is_ours(&group.join("cgroup.procs"));
    // With processes of its own it cannot limit those below it.
    let empty = fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|processes| processes.is_empty());
    (ours && empty).then(|| group.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_v2_and_hybrid_are_told_apart() {
        let v2 = Hierarchies::parse("30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
        assert!(v2.is_unified());
        let hybrid = Hierarchies::parse(
            "31 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             32 30 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             33 30 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(hybrid.v2.unwrap().mount, Path::new("/sys/fs/cgroup/unified"));
        let controllers: Vec<_> = hybrid.v1.keys().map(String::as_str).collect();
        assert_eq!(controllers, ["cpu", "cpuacct"]);
        assert_eq!(hybrid.named, [Path::new("/sys/fs/cgroup/systemd")]);
    }

    #[test]
    fn a_group_is_found_wherever_its_part_begins() {
        let path = "rcompose/shop/abc";
        assert_eq!(part_of("0::/rcompose/shop/abc\n", path), Some(""));
        assert_eq!(
            part_of("1:name=systemd:/\n0::/user.slice/a.scope/rcompose/shop/abc/below\n", path),
            Some("user.slice/a.scope")
        );
        assert_eq!(part_of("0::/user.slice/rcompose/shop/abcd\n", path), None);
        assert_eq!(part_of("1:memory:/rcompose/shop/abc\n0::/\n", path), None);
    }
}
