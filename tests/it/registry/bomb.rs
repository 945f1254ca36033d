//! Layers that become very large: they end before the disk is full, and nothing of them is left.

use std::io::{Read, Write};
use std::path::Path;

use rcompose::image::Store;

use crate::support::{can_run_containers, eventually};

/// A small file system that goes with the value.
struct Small(tempfile::TempDir);

impl Small {
    fn new(megabytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        nix::mount::mount(
            Some("tmpfs"),
            folder.path(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(size.as_str()),
        )
        .unwrap();
        Self(folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

fn taken(folder: &Path) -> u64 {
    let room = nix::sys::statvfs::statvfs(folder).unwrap();
    (room.blocks() - room.blocks_free()) * room.fragment_size()
}

/// An archive of one file of zeros, which is made while it is read.
fn zeros(size: u64) -> impl Read {
    let mut header = tar::Header::new_ustar();
    header.set_path("zeros").unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    std::io::Cursor::new(header.as_bytes().to_vec()).chain(std::io::repeat(0).take(size + 1024))
}

#[test]
fn a_layer_does_not_take_the_last_of_the_disk() {
    if !can_run_containers("registry::bomb") {
        return;
    }
    let disk = Small::new(400);
    let store = Store::open(disk.0.path()).unwrap();
    let before = taken(disk.0.path());
    let mut compressed = zstd::Encoder::new(Vec::new(), 1).unwrap();
    std::io::copy(&mut zeros(600 << 20), &mut compressed).unwrap();
    compressed.flush().unwrap();
    let compressed = compressed.finish().unwrap();
    assert!(compressed.len() < 1 << 20, "{} bytes", compressed.len());
    for bomb in [&mut compressed.as_slice() as &mut (dyn Read + Send), &mut zeros(600 << 20)] {
        let error = store.import(bomb, None, &[], "").unwrap_err();
        assert!(error.to_string().contains("no space left"), "{error}");
        // A child of another test has what is open here for a moment, too.
        eventually("nothing of it is left", || (taken(disk.0.path()) - before < 1 << 20).then_some(()));
    }
    assert!(store.list().unwrap().is_empty());
}
