//! `RUN --mount=…`: what is prepared on the host, and what is tidied up in the layer afterwards.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, OFlags, Timestamps};
use sha2::{Digest as _, Sha256};

use super::args;
use super::cache::Key;
use super::copy::Copier;
use super::error::BuildError;
use super::ignore::Ignore;
use super::parse::{MountKind, ResolvedMount, Run, Sharing};
use super::request::Secret;
use super::stage::StageBuilder;
use super::tree;
use crate::engine::spec::HostMount;
use crate::engine::view;
use crate::image::Draft;
use crate::init::Overlay;
use crate::spec::container::{Mount, MountSource};
use crate::sys::inroot;

/// Where scripts of `RUN <<EOF` lie.
pub(super) const SCRIPTS: &str = "/dev/pipes";

/// Mounts that are ready.
#[derive(Default)]
pub(super) struct Mounted {
    pub(super) binds: Vec<HostMount>,
    /// Writable copies of directories, by target.
    pub(super) trees: Vec<(String, Overlay)>,
    pub(super) mounts: Vec<Mount>,
    /// `NAME=VALUE`.
    pub(super) env: Vec<String>,
    /// Locks of caches; they end with the step.
    locks: Vec<File>,
}

impl StageBuilder<'_> {
    pub(super) fn resolve_mounts(&self, run: &Run) -> Result<Vec<ResolvedMount>, BuildError> {
        let mut mounts = Vec::new();
        for mount in &run.mounts {
            let mut expand = |text: &str| args::word(text, self.builder.escape, &self.state.env);
            let mut mount =
                mount.resolve(&mut expand).map_err(|error| BuildError::new(format!("RUN --mount: {error}")))?;
            if !mount.target.is_empty() {
                mount.target = format!("/{}", tree::clean(&self.state.absolute(&mount.target)).join("/"));
            }
            if mount.target == "/" {
                return Err(BuildError::new("RUN --mount: nothing can be mounted on `/`"));
            }
            mounts.push(mount);
        }
        Ok(mounts)
    }

    /// What of the mounts the outcome depends on: what is bound, and where; never secrets or caches.
    pub(super) fn hash_mounts(&self, mounts: &[ResolvedMount]) -> Result<Vec<u8>, BuildError> {
        let mut hash = Sha256::new();
        for mount in mounts {
            hash.update(format!("{:?}\0", (mount.kind, &mount.target, &mount.source, mount.read_only)).as_bytes());
            if mount.kind == MountKind::Bind {
                let (tree, found) = self.mount_source(mount)?;
                let hashed = tree.hash(&found, &Ignore::default(), &mut hash);
                hashed.map_err(|error| BuildError::because(format!("cannot read `{}`", mount.source), &error))?;
            }
        }
        Ok(hash.finalize().to_vec())
    }

    fn mount_source(&self, mount: &ResolvedMount) -> Result<(std::sync::Arc<tree::Tree>, tree::Found), BuildError> {
        let tree = match &mount.from {
            Some(from) => self.builder.tree(from, self.number)?,
            None => self.builder.context()?,
        };
        let found = tree.find(&mount.source);
        let found = found.map_err(|error| BuildError::because(format!("cannot read `{}`", mount.source), &error))?;
        let missing = || BuildError::new(format!("RUN --mount: `{}` is not there to be mounted", mount.source));
        let found = found.into_iter().next().ok_or_else(missing)?;
        if mount.from.is_none() {
            self.builder.use_of_context(&found.path);
        }
        Ok((tree, found))
    }

    /// Makes everything ready.
    pub(super) fn mount(
        &self,
        mounts: &[ResolvedMount],
        script: Option<&(String, String)>,
    ) -> Result<Mounted, BuildError> {
        let mut mounted = Mounted::default();
        for mount in mounts {
            match mount.kind {
                MountKind::Bind => self.bind(mount, &mut mounted)?,
                MountKind::Cache => self.cache(mount, &mut mounted)?,
                MountKind::Tmpfs => mounted.mounts.push(Mount {
                    target: mount.target.clone(),
                    read_only: false,
                    // What a build leaves there is to be executed, too.
                    source: MountSource::Tmpfs {
                        size: mount.size,
                        mode: None,
                        uid: None,
                        gid: None,
                        options: vec!["exec".to_owned()],
                    },
                }),
                MountKind::Secret => self.secret(mount, &mut mounted)?,
                MountKind::Ssh => self.agent(mount, &mut mounted)?,
            }
        }
        if let Some((name, content)) = script {
            let folder = self.builder.workshop.folder()?;
            let path = folder.join(name.replace('/', "_"));
            let written = fs::write(&path, content).and_then(|()| set_mode(&path, 0o755));
            written.map_err(|error| BuildError::because("cannot write the script", &error))?;
            mounted.binds.push(HostMount { source: folder, target: SCRIPTS.to_owned(), read_only: true });
        }
        Ok(mounted)
    }

    /// A copy, as the context's owners mean nothing and the kernel mounts no overlay's part.
    fn bind(&self, mount: &ResolvedMount, mounted: &mut Mounted) -> Result<(), BuildError> {
        let (tree, found) = self.mount_source(mount)?;
        let folder = self.builder.workshop.folder()?;
        let copied = (|| -> io::Result<PathBuf> {
            let root: OwnedFd = File::open(&folder)?.into();
            let nothing = Ignore::default();
            let mut copier = Copier::new(&root, None, None, &nothing);
            let name = if found.is_directory() { "content" } else { "" };
            copier.copy(&tree, &found, &format!("/{name}"))?;
            Ok(folder.join(if found.is_directory() { name } else { found.base_name() }))
        })();
        let source = copied.map_err(|error| BuildError::because(format!("cannot mount `{}`", mount.source), &error))?;
        // What is written to a writable one goes with the copy.
        mounted.binds.push(HostMount { source, target: mount.target.clone(), read_only: mount.read_only });
        Ok(())
    }

    fn cache(&self, mount: &ResolvedMount, mounted: &mut Mounted) -> Result<(), BuildError> {
        let failed = |error: &io::Error| BuildError::because(format!("cannot use the cache `{}`", mount.id), error);
        let key = Key::of(&[
            b"cache",
            mount.id.as_bytes(),
            mount.from.as_deref().unwrap_or_default().as_bytes(),
            mount.source.as_bytes(),
        ]);
        let opened = open_cache(&self.builder.site.mounts(), &key, mount.sharing).map_err(|error| failed(&error))?;
        let Cache { folder, lock, new } = opened;
        if new {
            let data = folder.join("data");
            let made = || -> io::Result<()> {
                DirBuilder::new().mode(0o755).recursive(true).create(&data)?;
                set_mode(&data, mount.mode.unwrap_or(0o755))?;
                chown(&data, Some(mount.uid), Some(mount.gid))
            };
            if mount.from.is_some() {
                // Its owner and mode are the source's, whatever the mount says.
                let (tree, found) = self.mount_source(mount)?;
                let fill = || -> io::Result<()> {
                    let root: OwnedFd = File::open(&folder)?.into();
                    Copier::new(&root, None, None, &Ignore::default()).copy(&tree, &found, "/data")
                };
                fill().map_err(|error| failed(&error))?;
            } else {
                made().map_err(|error| failed(&error))?;
            }
            File::create(folder.join("ready")).map_err(|error| failed(&error))?;
        }
        mounted.locks.push(lock);
        let source = folder.join("data");
        mounted.binds.push(HostMount { source, target: mount.target.clone(), read_only: mount.read_only });
        Ok(())
    }

    fn secret(&self, mount: &ResolvedMount, mounted: &mut Mounted) -> Result<(), BuildError> {
        let content = match self.builder.request.secrets.get(&mount.id) {
            Some(Secret::Value(value)) => value.clone().into_bytes(),
            Some(Secret::File(path)) => fs::read(path).map_err(|error| {
                BuildError::because(format!("cannot read the secret `{}` from `{}`", mount.id, path.display()), &error)
            })?,
            None if mount.required => {
                let error = BuildError::new(format!("RUN --mount: the secret `{}` is not given", mount.id));
                return Err(error.help("name it in `build.secrets`"));
            }
            None => return Ok(()),
        };
        if let Some(name) = &mount.env {
            let value = String::from_utf8(content.clone());
            let value = value.map_err(|_| BuildError::new(format!("the secret `{}` is not text", mount.id)))?;
            mounted.env.push(format!("{name}={value}"));
        }
        if !mount.target.is_empty() {
            let folder = self.builder.workshop.folder()?;
            let path = folder.join("secret");
            let written = (|| -> io::Result<()> {
                set_mode(&folder, 0o700)?;
                fs::write(&path, content)?;
                chown(&path, Some(mount.uid), Some(mount.gid))?;
                set_mode(&path, mount.mode.unwrap_or(0o400))
            })();
            written.map_err(|error| BuildError::because("cannot hand in the secret", &error))?;
            mounted.binds.push(HostMount { source: path, target: mount.target.clone(), read_only: true });
        }
        Ok(())
    }

    fn agent(&self, mount: &ResolvedMount, mounted: &mut Mounted) -> Result<(), BuildError> {
        let Some(socket) = self.builder.request.ssh.get(&mount.id) else {
            if !mount.required {
                return Ok(());
            }
            let error = BuildError::new(format!("RUN --mount: the agent `{}` is not given", mount.id));
            return Err(error.help("name it in `build.ssh`, or with `--ssh`"));
        };
        let number = mounted.env.iter().filter(|line| line.starts_with("SSH_AUTH_SOCK=")).count();
        let target = match mount.target.as_str() {
            "" => format!("/run/buildkit/ssh_agent.{number}"),
            target => target.to_owned(),
        };
        mounted.env.push(format!("SSH_AUTH_SOCK={target}"));
        mounted.binds.push(HostMount { source: socket.clone(), target, read_only: false });
        Ok(())
    }
}

impl Mounted {
    /// Takes out of the layer what was made only to be mounted on.
    pub(super) fn take_stubs(&self, draft: &Draft, lower: &[PathBuf]) -> io::Result<()> {
        let upper: OwnedFd = File::open(draft.upper())?.into();
        let lower = if lower.is_empty() { None } else { Some(view::open(lower)?) };
        let below = |path: &str| {
            let lower = lower.as_ref()?;
            inroot::open(lower, path.as_bytes(), OFlags::PATH | OFlags::NOFOLLOW).ok()
        };
        let own = self.binds.iter().map(|bind| bind.target.as_str());
        let own = own.chain(self.mounts.iter().map(|mount| mount.target.as_str()));
        let own = own.chain(self.trees.iter().map(|(target, _)| target.as_str()));
        let always = ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/dev", "/proc", "/sys"];
        for target in own.chain(always) {
            let mut path = tree::clean(target).join("/");
            while !path.is_empty() && below(&path).is_none() {
                let (above, name) = path.rsplit_once('/').unwrap_or(("", &path));
                let Ok(parent) = inroot::open(&upper, above.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY) else {
                    break;
                };
                if !remove_empty(&parent, name)? {
                    break;
                }
                restore_time(&parent, below(above));
                path = above.to_owned();
            }
        }
        Ok(())
    }
}

/// Removes an empty file or directory; whether it is gone now.
fn remove_empty(parent: &OwnedFd, name: &str) -> io::Result<bool> {
    use rustix::io::Errno;
    let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        // Not made because of a link, or never at all.
        Err(Errno::NOENT) => return Ok(true),
        stat => stat?,
    };
    let flags = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => AtFlags::REMOVEDIR,
        FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
        _ => return Ok(false),
    };
    match rustix::fs::unlinkat(parent, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A directory that something was mounted in keeps the time it had. That it cannot be set harms nothing.
fn restore_time(directory: &OwnedFd, before: Option<OwnedFd>) {
    let Some(stat) = before.and_then(|before| rustix::fs::fstat(before).ok()) else { return };
    let nanoseconds = stat.st_mtime_nsec.try_into().unwrap_or_default();
    let time = rustix::fs::Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    let _ = rustix::fs::futimens(directory, &times);
}

struct Cache {
    folder: PathBuf,
    lock: File,
    /// It has just been made, or never been finished.
    new: bool,
}

fn open_cache(mounts: &Path, key: &Key, sharing: Sharing) -> io::Result<Cache> {
    DirBuilder::new().recursive(true).mode(0o700).create(mounts)?;
    for number in 0_u32.. {
        let folder = mounts.join(format!("{}-{number}", key.hex()));
        DirBuilder::new().recursive(true).mode(0o755).create(&folder)?;
        let lock = File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
        match sharing {
            // Whoever makes it does so alone; then it is shared.
            Sharing::Shared if folder.join("ready").exists() => lock.lock_shared()?,
            Sharing::Shared | Sharing::Locked => lock.lock()?,
            Sharing::Private => match lock.try_lock() {
                Err(fs::TryLockError::WouldBlock) => continue,
                locked => locked?,
            },
        }
        use std::os::unix::fs::MetadataExt;
        let there = fs::metadata(folder.join("lock"))
            .is_ok_and(|found| lock.metadata().is_ok_and(|ours| ours.ino() == found.ino()));
        if !there {
            // It was removed while we waited for it; now it is made again.
            return open_cache(mounts, key, sharing);
        }
        let new = !folder.join("ready").exists();
        // The time of the last use, for `prune`.
        let _ = lock.set_modified(std::time::SystemTime::now());
        return Ok(Cache { folder, lock, new });
    }
    Err(io::Error::other("there are too many caches"))
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
