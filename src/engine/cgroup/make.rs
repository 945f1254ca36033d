//! Making groups and setting their limits.

use std::cell::RefCell;
use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use crate::engine::cgroup::hierarchy::V2;
use crate::engine::cgroup::limits::{self, Limits};
use crate::engine::cgroup::{Cgroup, CgroupError, Hierarchies, check, devices, open_directory, write};
use crate::sys::bpf;
use crate::sys::bpf::Instruction;
use crate::sys::userns::Ids;

thread_local! {
    /// The device program that was loaded last. Most containers have the same one, and the kernel's check of it takes longer
    /// than making the group.
    static LOADED: RefCell<Option<(Vec<Instruction>, OwnedFd)>> = const { RefCell::new(None) };
}

fn with_loaded<T>(program: Vec<Instruction>, action: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
    LOADED.with_borrow_mut(|last| {
        let loaded = match last.take() {
            Some((known, loaded)) if known == program => loaded,
            _ => bpf::load_device_program(&program)?,
        };
        action(last.insert((program, loaded)).1.as_fd())
    })
}

impl Cgroup {
    /// Makes the group `path` (such as `rcompose/project/container`) with these limits.
    /// The strings say what was asked for, could not be had, and is left out as Docker does.
    ///
    /// # Errors
    /// A controller that the kernel lacks, a value it refuses. What was made is removed again.
    pub fn create(
        hierarchies: &Hierarchies,
        path: &str,
        resources: &LinuxResources,
    ) -> Result<(Self, Vec<String>), CgroupError> {
        Self::create_with(hierarchies, path, resources, false)
    }

    /// [`Cgroup::create`], also in v1 hierarchies where no limit is asked for: for callers that name a group and look for it.
    ///
    /// # Errors
    /// As there.
    pub fn create_everywhere(
        hierarchies: &Hierarchies,
        path: &str,
        resources: &LinuxResources,
    ) -> Result<(Self, Vec<String>), CgroupError> {
        Self::create_with(hierarchies, path, resources, true)
    }

    fn create_with(
        hierarchies: &Hierarchies,
        path: &str,
        resources: &LinuxResources,
        everywhere: bool,
    ) -> Result<(Self, Vec<String>), CgroupError> {
        check(path)?;
        let mut group = Self { v2: None, v1: Vec::new(), ungrouped: None };
        let mut made = group.make(hierarchies, path, resources);
        if everywhere && made.is_ok() {
            let all =
                hierarchies.v1.iter().map(|(controller, mount)| group.v1_directory(controller, mount, path).map(drop));
            made = all.collect::<Result<(), _>>().and(made);
        }
        match made {
            Ok(left_out) => Ok((group, left_out)),
            Err(error) => {
                // Nothing has entered it; if it cannot be removed, the first error is still the one to tell.
                let _ = group.remove();
                Err(error)
            }
        }
    }

    /// Changes limits of the group, which is at `path`.
    ///
    /// # Errors
    /// A controller that the kernel lacks, a value it refuses; what came before it stays changed.
    pub fn update(
        &mut self,
        hierarchies: &Hierarchies,
        path: &str,
        resources: &LinuxResources,
    ) -> Result<Vec<String>, CgroupError> {
        let mut left_out = Vec::new();
        for limits in &limits::of_update(resources) {
            self.apply(hierarchies, path, limits, &mut left_out)?;
        }
        Ok(left_out)
    }

    fn make(
        &mut self,
        hierarchies: &Hierarchies,
        path: &str,
        resources: &LinuxResources,
    ) -> Result<Vec<String>, CgroupError> {
        let asked = limits::of(resources);
        let mut left_out = Vec::new();
        if let Some(v2) = &hierarchies.v2 {
            let here = asked.iter().map(|limits| limits.controller).filter(|name| v2.controllers.contains(*name));
            self.v2 = Some(make_v2(v2, path, &here.collect::<Vec<_>>())?);
        }
        for limits in &asked {
            self.apply(hierarchies, path, limits, &mut left_out)?;
        }
        self.restrict_devices(hierarchies, path, resources)?;
        if let (None, Some(mount)) = (&self.v2, hierarchies.v1.get("freezer")) {
            self.v1_directory("freezer", mount, path)?;
        }
        if let (Some(unified), Some(group)) = (resources.unified(), &self.v2) {
            for (file, value) in unified.iter().filter(|(file, _)| !file.contains('/')) {
                write("unified", &group.join(file), value)?;
            }
        }
        Ok(left_out)
    }

    fn apply(
        &mut self,
        hierarchies: &Hierarchies,
        path: &str,
        limits: &Limits,
        left_out: &mut Vec<String>,
    ) -> Result<(), CgroupError> {
        let in_v2 = hierarchies.v2.as_ref().is_some_and(|v2| v2.controllers.contains(limits.controller));
        let (directory, writes) = match (&self.v2, hierarchies.v1.get(limits::v1_name(limits.controller))) {
            (Some(directory), _) if in_v2 => {
                if let Some(attribute) = limits.v1_required {
                    return Err(CgroupError::OnlyV1(attribute));
                }
                left_out.extend(limits.v1_only.iter().map(|name| format!("`{name}` has no effect with cgroup v2")));
                (directory.clone(), &limits.v2)
            }
            (_, Some(mount)) => (self.v1_directory(limits::v1_name(limits.controller), mount, path)?, &limits.v1),
            _ if hierarchies.partial => {
                if !limits.v2.is_empty() {
                    left_out.push(format!(
                        "`{}` is not applied: the control group controller `{}` has not been given to this user (see `rcompose doctor`)",
                        limits.attribute, limits.controller
                    ));
                }
                return Ok(());
            }
            _ => {
                return Err(CgroupError::NoController { attribute: limits.attribute, controller: limits.controller });
            }
        };
        let is_invalid = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
        // What does not go with another value as that is now is tried again after that one.
        let mut again = Vec::new();
        for wanted in writes {
            match write_limit(limits.attribute, &directory, wanted, left_out) {
                Err(CgroupError::Refused { source, .. }) if writes.len() > 1 && is_invalid(&source) => {
                    again.push(wanted)
                }
                written => written?,
            }
        }
        again.into_iter().try_for_each(|wanted| write_limit(limits.attribute, &directory, wanted, left_out))
    }

    /// What [`Cgroup::create`] does about `resources.devices`, for callers that left it out there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn restrict_devices(
        &mut self,
        hierarchies: &Hierarchies,
        path: &str,
        resources: &LinuxResources,
    ) -> Result<(), CgroupError> {
        let rules = resources.devices().as_deref().unwrap_or_default();
        // In a user namespace there is no way to make a device node, and no way to load the program.
        if rules.is_empty() || Ids::of_this_process() != Ids::Host {
            return Ok(());
        }
        let Some(rules) = devices::effective(rules) else { return Ok(()) };
        if let Some(group) = &self.v2 {
            let directory = open_directory(group)?;
            let attached =
                with_loaded(devices::program(&rules), |program| bpf::attach_device_program(directory.as_fd(), program));
            return attached.map_err(CgroupError::io("attach the device program to", group));
        }
        let Some(mount) = hierarchies.v1.get("devices") else {
            return Err(CgroupError::NoController { attribute: "devices", controller: "devices" });
        };
        let directory = self.v1_directory("devices", mount, path)?;
        for (file, line) in rules.iter().map(devices::line) {
            write("devices", &directory.join(file), &line)?;
        }
        Ok(())
    }

    /// The group in a v1 hierarchy, made when it is not there.
    fn v1_directory(&mut self, controller: &str, mount: &Path, path: &str) -> Result<PathBuf, CgroupError> {
        let directory = mount.join(path);
        if !self.v1.iter().any(|(name, _)| name == controller) {
            make_all(&directory)?;
            self.v1.push((controller.to_owned(), directory.clone()));
            if controller == "cpuset" {
                inherit_cpuset(mount, path)?;
            }
        }
        Ok(directory)
    }
}

/// Makes a cgroup2 group, with the controllers enabled for it all the way down.
fn make_v2(v2: &V2, path: &str, needed: &[&str]) -> Result<PathBuf, CgroupError> {
    let directory = v2.mount.join(path);
    make_all(&directory)?;
    let enable: Vec<_> = ["cpu", "memory", "pids"]
        .iter()
        .chain(needed)
        .filter(|name| v2.controllers.contains(**name))
        .map(|name| format!("+{name}"))
        .collect();
    if enable.is_empty() {
        return Ok(directory);
    }
    let mut ancestors: Vec<_> = Path::new(path).ancestors().skip(1).map(|above| v2.mount.join(above)).collect();
    ancestors.reverse();
    for ancestor in ancestors {
        let file = ancestor.join("cgroup.subtree_control");
        let text = fs::read_to_string(&file).map_err(|error| CgroupError::read(&file, error))?;
        let missing = |name: &&String| !text.split_whitespace().any(|on| name.strip_prefix('+') == Some(on));
        let missing: Vec<_> = enable.iter().filter(missing).map(String::as_str).collect();
        if !missing.is_empty() {
            write("cgroup controllers", &file, &missing.join(" "))?;
        }
    }
    Ok(directory)
}

/// `mkdir -p`; another project may remove an empty parent at the same moment, hence more than one try.
fn make_all(directory: &Path) -> Result<(), CgroupError> {
    let mut made = fs::create_dir_all(directory);
    for _ in 0..3 {
        match &made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => made = fs::create_dir_all(directory),
            _ => break,
        }
    }
    made.map_err(CgroupError::io("make", directory))
}

/// A new v1 cpuset is empty and takes no process until it has CPUs and memory nodes: those of its parent.
fn inherit_cpuset(mount: &Path, path: &str) -> Result<(), CgroupError> {
    let mut levels: Vec<_> = Path::new(path).ancestors().map(|level| mount.join(level)).collect();
    levels.reverse();
    for pair in levels.windows(2) {
        let [above, below] = pair else { continue };
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let read = |path: PathBuf| fs::read_to_string(&path).map_err(|error| CgroupError::read(&path, error));
            if read(below.join(name))?.trim().is_empty() {
                write("cpuset", &below.join(name), read(above.join(name))?.trim())?;
            }
        }
    }
    Ok(())
}

/// A group can give its children real-time microseconds only that it has itself: the groups above get so many more, but for
/// the topmost one, which has what the kernel allows.
fn allow_realtime(directory: &Path, wanted: &str) -> Result<(), CgroupError> {
    let file = directory.join(limits::RT_RUNTIME);
    let refused = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    let tried = OpenOptions::new().write(true).open(&file).and_then(|mut file| file.write_all(wanted.as_bytes()));
    if !tried.is_err_and(|error| refused(&error)) {
        // It fits, or the next write says what is wrong.
        return Ok(());
    }
    let number = |text: &str| text.trim().parse::<i64>().unwrap_or(0);
    let above = directory
        .ancestors()
        .skip(1)
        .take_while(|above| above.parent().is_some_and(|parent| parent.join(limits::RT_RUNTIME).exists()));
    let mut above: Vec<&Path> = above.collect();
    above.reverse();
    for group in above {
        let file = group.join(limits::RT_RUNTIME);
        let has = fs::read_to_string(&file).map_err(|error| CgroupError::read(&file, error))?;
        write("cpu_rt_runtime", &file, &(number(&has) + number(wanted)).to_string())?;
    }
    Ok(())
}

/// Writes one limit, or says in `left_out` that it cannot be had.
fn write_limit(
    attribute: &'static str,
    directory: &Path,
    wanted: &limits::Write,
    left_out: &mut Vec<String>,
) -> Result<(), CgroupError> {
    let (mut file, mut value) = (directory.join(&wanted.file), &wanted.value);
    if let Some((otherwise, other)) = wanted.otherwise.as_ref().filter(|_| !file.exists()) {
        (file, value) = (directory.join(otherwise), other);
    }
    if wanted.optional && !file.exists() {
        left_out.push(format!("`{}` is not offered by this kernel; the limit is left out", wanted.file));
        return Ok(());
    }
    if wanted.file == limits::RT_RUNTIME {
        allow_realtime(directory, &wanted.value)?;
    }
    match write(attribute, &file, value) {
        Err(CgroupError::Refused { source, .. }) if wanted.optional && is_unsupported(&source) => {
            left_out.push(format!("`{}` is not offered by this device; the limit is left out", wanted.file));
            Ok(())
        }
        written => written,
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EOPNOTSUPP)
}
