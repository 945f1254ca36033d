//! The pipes that are a container's standard streams.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};
use rustix::pipe::{PipeFlags, pipe_with};

/// Makes pipes. An ordinary one has the SELinux label of whoever makes it, which cannot be changed; what a program may not use
/// is taken from it when it is executed. So where containers have labels, their pipes are named ones, in a file system that
/// shows all it holds with a container's label, and that nobody else sees.
#[derive(Debug)]
pub struct Pipes(Option<OwnedFd>);

impl Pipes {
    /// # Errors
    /// What the kernel says to a file system with that label.
    pub fn new(label: Option<&str>) -> Result<Self, Errno> {
        let Some(label) = label else { return Ok(Self(None)) };
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), "mode", "700")?;
        fsconfig_set_string(context.as_fd(), "context", label)?;
        fsconfig_create(context.as_fd())?;
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).map(Some).map(Self)
    }

    /// Where it is read and where it is written.
    ///
    /// # Errors
    /// Too many descriptors.
    pub fn pipe(&self) -> Result<(OwnedFd, OwnedFd), Errno> {
        let Some(folder) = &self.0 else { return pipe_with(PipeFlags::CLOEXEC) };
        let (name, mode) = (c"pipe", Mode::RUSR | Mode::WUSR);
        rustix::fs::mknodat(folder, name, FileType::Fifo, mode, 0)?;
        let open = |flags| rustix::fs::openat(folder, name, flags | OFlags::CLOEXEC, Mode::empty());
        // With both ends in one hand, the others need not wait for each other.
        let opened = open(OFlags::RDWR).and_then(|_both| Ok((open(OFlags::RDONLY)?, open(OFlags::WRONLY)?)));
        rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
        opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_pipes_are_like_others() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: file systems need root");
            return;
        }
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_create(context.as_fd()).unwrap();
        let folder = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        let pipes = Pipes(Some(folder));
        let ((read, write), (other, _other)) = (pipes.pipe().unwrap(), pipes.pipe().unwrap());
        drop(pipes);
        rustix::io::write(&write, b"hello").unwrap();
        // As /dev/stdout is opened.
        let again = rustix::fs::open(
            format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&write)),
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        rustix::io::write(again.unwrap(), b", again").unwrap();
        drop(write);
        assert_eq!(std::io::read_to_string(std::fs::File::from(read)).unwrap(), "hello, again");
        assert_eq!(rustix::io::ioctl_fionread(&other).unwrap(), 0);
    }

    #[test]
    fn a_label_that_is_none_is_an_error() {
        assert!(Pipes::new(Some("no label")).is_err());
        assert!(Pipes::new(None).unwrap().pipe().is_ok());
    }
}
