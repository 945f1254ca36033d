//! Which layers a process is working with: one lock per layer, all in one file, gone with the process.
//!
//! A shared lock says "I need this layer to stay", an exclusive one "I am making it". They are locks on single bytes of an
//! otherwise empty file (open file description locks, so threads and forks do not confuse them).

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::digest::Digest;

/// The locks of one piece of work; they end when it is dropped.
pub(super) struct LayerLocks {
    file: File,
}

impl LayerLocks {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file })
    }

    /// Waits until nobody else makes the layer. Whether it is the caller's to make now, because it is not there.
    ///
    /// Nobody who is making a layer waits for another one, so nobody waits in a circle.
    pub(super) fn take(&self, layer: &Digest, exists: impl Fn() -> bool) -> io::Result<bool> {
        self.lock(layer, libc::F_RDLCK, true)?;
        if exists() {
            return Ok(false);
        }
        self.lock(layer, libc::F_UNLCK, true)?;
        self.lock(layer, libc::F_WRLCK, true)?;
        if exists() {
            self.lock(layer, libc::F_RDLCK, true)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Says how the making of a layer ended: others may use it, or try it themselves.
    pub(super) fn settle(&self, layer: &Digest, made: bool) -> io::Result<()> {
        Ok(self.lock(layer, if made { libc::F_RDLCK } else { libc::F_UNLCK }, true)?)
    }

    /// Takes the layer for oneself if nobody else is working with it.
    pub(super) fn try_exclusive(&self, layer: &Digest) -> io::Result<bool> {
        match self.lock(layer, libc::F_WRLCK, false) {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn lock(&self, layer: &Digest, kind: i32, wait: bool) -> Result<(), Errno> {
        // 60 bits of the digest keep the order of the digests and are a valid file offset.
        let start = layer.hex().get(..15).and_then(|digits| i64::from_str_radix(digits, 16).ok()).unwrap_or_default();
        let l_type = libc::c_short::try_from(kind).map_err(|_| Errno::EINVAL)?;
        let range = libc::flock { l_type, l_whence: 0, l_start: start, l_len: 1, l_pid: 0 };
        loop {
            let how = if wait { FcntlArg::F_OFD_SETLKW(&range) } else { FcntlArg::F_OFD_SETLK(&range) };
            match fcntl(&self.file, how) {
                Err(Errno::EINTR) => {}
                done => return done.map(drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_makes_a_layer_and_the_other_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks");
        let made = folder.path().join("made");
        let layer = Digest::of(b"layer");
        let first = LayerLocks::new(&path).unwrap();
        assert!(first.take(&layer, || made.exists()).unwrap());
        assert!(!LayerLocks::new(&path).unwrap().try_exclusive(&layer).unwrap());
        let second = std::thread::spawn({
            let (path, made, layer) = (path.clone(), made.clone(), layer.clone());
            move || LayerLocks::new(&path).unwrap().take(&layer, || made.exists()).unwrap()
        });
        std::fs::write(&made, "").unwrap();
        first.settle(&layer, true).unwrap();
        assert!(!second.join().unwrap());
        drop(first);
        assert!(LayerLocks::new(&path).unwrap().try_exclusive(&layer).unwrap());
    }
}
