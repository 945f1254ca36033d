//! Archives that mean harm: refused or contained, and never anything left behind.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::fixture::*;
use crate::image::recipe::replay;
use crate::image::unpack::{Rights, unpack};
use crate::image::{Compression, Digest, Error, UnpackError};

/// A folder with a `fs` to unpack into and a file outside that no layer may touch.
struct Sandbox(tempfile::TempDir);

impl Sandbox {
    fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// In memory: ext4 takes its time with new files where many have just been deleted.
    fn quick() -> Self {
        Self::within(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    fn within(folder: tempfile::TempDir) -> Self {
        fs::create_dir_all(folder.path().join("layer/fs")).unwrap();
        fs::write(folder.path().join("outside"), "untouched").unwrap();
        Self(folder)
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("layer/fs")
    }

    fn outside(&self) -> String {
        self.0.path().join("outside").to_str().unwrap().to_owned()
    }

    fn unpack(&self, tar: Tar) -> Result<(), UnpackError> {
        self.unpack_with(Rights::of_this_process(), tar)
    }

    /// How long unpacking takes, and then writing the archive again, which has to be the same.
    fn time(&self, tar: Tar) -> [Duration; 2] {
        let archive = tar.end();
        let folder = self.0.path().join("layer");
        let begin = Instant::now();
        let unpacked = unpack(archive.as_slice(), &folder, Rights::of_this_process(), &AtomicBool::new(false)).unwrap();
        let unpacking = begin.elapsed();
        let mut again = Vec::new();
        let replayed = replay(&folder, &unpacked.displaced, &mut again);
        assert!(replayed.is_ok() && again == archive);
        [unpacking, begin.elapsed() - unpacking]
    }

    fn unpack_with(&self, rights: Rights, tar: Tar) -> Result<(), UnpackError> {
        let stop = AtomicBool::new(false);
        let outcome = unpack(tar.end().as_slice(), &self.0.path().join("layer"), rights, &stop).map(drop);
        assert_eq!(fs::read_to_string(self.outside()).unwrap(), "untouched");
        assert_eq!(fs::metadata(self.outside()).unwrap().nlink(), 1);
        outcome
    }
}

fn opaque(path: &std::path::Path, name: &str) -> bool {
    let mut value = [0; 8];
    rustix::fs::lgetxattr(path, name, &mut value).is_ok_and(|length| value[..length] == *b"y")
}

#[test]
fn paths_that_lead_upwards_are_refused() {
    for name in ["../outside", "a/../../outside", "/../outside", "..", "a/.."] {
        let error = Sandbox::new().unpack(Tar::new().file(name, b"evil")).unwrap_err();
        assert!(matches!(error, UnpackError::Refused { .. }), "{name}: {error:?}");
    }
    let error = Sandbox::new().unpack(Tar::new().hard_link("inside", "../outside")).unwrap_err();
    assert!(matches!(error, UnpackError::Refused { .. }), "{error:?}");
}

#[test]
fn absolute_paths_stay_inside() {
    let sandbox = Sandbox::new();
    let inside = sandbox.outside();
    sandbox.unpack(Tar::new().file(&inside, b"evil")).unwrap();
    assert_eq!(fs::read(sandbox.root().join(&inside[1..])).unwrap(), b"evil");
}

#[test]
fn links_on_the_way_end_at_the_root() {
    let sandbox = Sandbox::new();
    let up = "../../../../../../../..";
    let tar = Tar::new()
        .folder("real")
        .symlink("up", up)
        .file("up/file", b"1")
        .symlink("abs", "/real")
        .file("abs/file", b"2");
    sandbox.unpack(tar).unwrap();
    assert_eq!(fs::read(sandbox.root().join("file")).unwrap(), b"1");
    assert_eq!(fs::read(sandbox.root().join("real/file")).unwrap(), b"2");

    let sandbox = Sandbox::new();
    let folder = sandbox.0.path().to_str().unwrap().to_owned();
    let error = sandbox.unpack(Tar::new().symlink("out", &folder).file("out/outside", b"evil")).unwrap_err();
    assert!(matches!(error, UnpackError::Refused { .. }), "{error:?}");
}

#[test]
fn the_last_component_is_never_followed() {
    let sandbox = Sandbox::new();
    let outside = sandbox.outside();
    let tar = Tar::new()
        .symlink("a", &outside)
        .file("a", b"evil")
        .symlink("b", &outside)
        .folder("b")
        .symlink("c", &outside)
        .hard_link("d", "c")
        .file("d", b"evil")
        .symlink("e", &outside)
        .entry(tar::EntryType::Fifo, "e", 0o666, "");
    sandbox.unpack(tar).unwrap();
    assert_eq!(fs::read(sandbox.root().join("a")).unwrap(), b"evil");
    assert!(fs::symlink_metadata(sandbox.root().join("b")).unwrap().is_dir());
    assert!(fs::symlink_metadata(sandbox.root().join("c")).unwrap().is_symlink());
}

#[test]
fn hard_links_out_of_the_root_find_nothing() {
    let sandbox = Sandbox::new();
    let outside = sandbox.outside();
    let error = sandbox.unpack(Tar::new().hard_link("inside", &outside)).unwrap_err();
    assert!(matches!(error, UnpackError::Create { .. }), "{error:?}");
    let folder = sandbox.0.path().to_str().unwrap().to_owned();
    assert!(Sandbox::new().unpack(Tar::new().symlink("out", &folder).hard_link("x", "out/outside")).is_err());
}

#[test]
fn whiteouts_do_not_follow_links_and_hide_only_what_is_below() {
    for (rights, xattr) in [(Rights::Root, "trusted.overlay.opaque"), (Rights::User, "user.overlay.opaque")] {
        if rights == Rights::Root && Rights::of_this_process() != Rights::Root {
            println!("skipped: trusted xattrs need root");
            continue;
        }
        let sandbox = Sandbox::new();
        let outside = sandbox.0.path().to_str().unwrap().to_owned();
        let tar = Tar::new()
            .file("dir/.wh.gone", b"")
            .file("mine", b"stays")
            .file(".wh.mine", b"")
            .folder("new")
            .file(".wh.new", b"")
            .file("later/.wh.again", b"")
            .folder("later/again")
            .file("all/.wh..wh..opq", b"")
            .symlink("link", &outside)
            .file(".wh.link", b"")
            .file(".wh..wh.plnk", b"");
        sandbox.unpack_with(rights, tar).unwrap();
        let at = |path: &str| fs::symlink_metadata(sandbox.root().join(path)).unwrap();
        assert!(at("dir/gone").file_type().is_char_device() && at("dir/gone").rdev() == 0);
        assert_eq!(fs::read(sandbox.root().join("mine")).unwrap(), b"stays");
        assert!(opaque(&sandbox.root().join("new"), xattr), "a new directory over a removed one shows nothing of it");
        assert!(opaque(&sandbox.root().join("later/again"), xattr));
        assert!(opaque(&sandbox.root().join("all"), xattr));
        assert!(at("link").is_symlink());
        assert!(!sandbox.root().join(".wh..wh.plnk").exists());
    }
    let through = Tar::new().symlink("out", "/../../..").file("out/.wh.outside", b"");
    let sandbox = Sandbox::new();
    sandbox.unpack(through).unwrap();
    assert!(fs::symlink_metadata(sandbox.root().join("outside")).unwrap().file_type().is_char_device());
    for name in [".wh.", ".wh..", ".wh..."] {
        assert!(
            matches!(Sandbox::new().unpack(Tar::new().file(name, b"")), Err(UnpackError::Refused { .. })),
            "{name}"
        );
    }
}

#[test]
fn xattrs_of_overlayfs_are_not_taken_from_archives() {
    let sandbox = Sandbox::new();
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.fine", b"1"),
        ])
        .folder("dir");
    sandbox.unpack(tar).unwrap();
    let mut names = [0; 256];
    let length = rustix::fs::llistxattr(sandbox.root().join("dir"), &mut names).unwrap();
    let names = String::from_utf8_lossy(&names[..length]).into_owned();
    assert!(names.contains("user.fine") && !names.contains("overlay"), "{names}");
}

#[test]
fn sizes_that_lie_and_headers_without_end_are_errors() {
    let lie = Tar::new().raw(header(tar::EntryType::Regular, 0o644, 1 << 40), "huge", b"short");
    assert!(matches!(Sandbox::new().unpack(lie), Err(UnpackError::Read(_))));
    let long = Tar::new().raw(header(tar::EntryType::XHeader, 0o644, 4 << 20), "pax", &vec![b'a'; 4 << 20]);
    assert!(matches!(Sandbox::new().unpack(long), Err(UnpackError::Read(_))));
    let name = Tar::new().raw(header(tar::EntryType::GNULongName, 0o644, 4 << 20), "name", &vec![b'a'; 4 << 20]);
    assert!(matches!(Sandbox::new().unpack(name.file("x", b"")), Err(UnpackError::Read(_))));
    let mut owner = header(tar::EntryType::Regular, 0o644, 0);
    owner.set_uid(u64::from(u32::MAX));
    assert!(matches!(Sandbox::new().unpack(Tar::new().raw(owner, "owner", b"")), Err(UnpackError::Refused { .. })));
    assert!(matches!(Sandbox::new().unpack(Tar::new().file("./", b"").file("a", b"")), Ok(())));
    assert!(matches!(Sandbox::new().unpack(Tar::new().symlink("./", "/")), Err(UnpackError::Refused { .. })));
    assert!(matches!(
        Sandbox::new().unpack(Tar::new().file("a", b"").file("a/b", b"")),
        Err(UnpackError::Refused { .. })
    ));
}

#[test]
fn a_failed_load_leaves_the_store_as_it_was() {
    let good = [base_layer(), upper_layer()];
    let mut cut = docker_archive("app", &good, Compression::None);
    cut.truncate(cut.len() / 2);
    let evil = docker_archive("app", &[base_layer(), Tar::new().file("../x", b"").end()], Compression::Gzip);
    let hex = Digest::of(&base_layer()).hex().to_owned();
    let mut swapped = oci_layout("app:1", &good, Compression::None);
    for (name, bytes) in &mut swapped {
        if name.ends_with(&hex) {
            bytes[600] ^= 1;
        }
    }
    let swapped = swapped.iter().fold(Tar::new(), |tar, (name, bytes)| tar.file(name, bytes)).end();
    let no_image = Tar::new().file("hello", b"world").end();
    let shadowing = docker_archive("rcompose/host", &good, Compression::None);
    let cases: [(&[u8], &str); 7] = [
        (&shadowing, "this machine's own"),
        (&cut, "cut off"),
        (&evil, "cannot be unpacked"),
        (&swapped, "has the digest"),
        (&no_image, "rcompose image import"),
        (b"", "neither"),
        (&[b'x'; 2000], "no tar archive"),
    ];
    for (archive, says) in cases {
        let fixture = Fixture::new();
        let error = fixture.store.load(&fixture.write("archive", archive)).unwrap_err();
        assert!(error.to_string().contains(says), "{says}: {error}");
        assert_eq!(fixture.counts(), (0, 0, 0), "{says}");
        assert!(fixture.store.list().unwrap().is_empty());
    }
}

#[test]
fn a_damaged_stream_is_told_from_a_wrong_digest() {
    let fixture = Fixture::new();
    let mut gzip = compressed(Compression::Gzip, &base_layer());
    let middle = gzip.len() / 2;
    gzip[middle] ^= 0xff;
    let import = fixture.store.import(&mut gzip.as_slice(), Some("x"), &[], "");
    assert!(matches!(import, Err(Error::Unpack { .. })), "{import:?}");
    let foreign = fixture.store.import(&mut b"BZh91AY".as_slice(), Some("x"), &[], "").unwrap_err();
    let Error::Unpack { source: UnpackError::Read(source), .. } = foreign else { panic!("{foreign}") };
    assert!(source.to_string().contains("bzip2"));
    assert_eq!(fixture.counts(), (0, 0, 0));
}

#[test]
fn layouts_do_not_lead_out_of_their_directory() {
    let fixture = Fixture::new();
    let secret = fixture.write("secret", b"{}");
    let layout = fixture.folder.path().join("layout");
    fs::create_dir(&layout).unwrap();
    std::os::unix::fs::symlink(&secret, layout.join("index.json")).unwrap();
    assert!(fixture.store.load(&layout).is_err());
    let manifest = r#"[{"Config":"../secret","RepoTags":[],"Layers":[]}]"#;
    fs::write(layout.join("manifest.json"), manifest).unwrap();
    assert!(matches!(fixture.store.load(&layout), Err(Error::MissingMember { .. })));
}

#[test]
fn device_nodes_are_made_by_root_only() {
    let device = || {
        let mut device = header(tar::EntryType::Char, 0o666, 0);
        device.set_device_major(1).unwrap();
        device.set_device_minor(3).unwrap();
        Tar::new().raw(device, "null", b"")
    };
    let sandbox = Sandbox::new();
    sandbox.unpack_with(Rights::User, device()).unwrap();
    assert!(!sandbox.root().join("null").exists());
    if Rights::of_this_process() == Rights::User {
        println!("skipped: device nodes need root");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.unpack(device()).unwrap();
    let made = fs::symlink_metadata(sandbox.root().join("null")).unwrap();
    assert_eq!((made.rdev(), made.mode() & 0o777), (rustix::fs::makedev(1, 3), 0o666));
}

/// Work grows with the archive, not with its square: these would take minutes.
#[test]
fn entries_that_displace_each_other_take_no_longer_than_others() {
    const COUNT: usize = 30_000;
    let folders = || (0..COUNT).fold(Tar::new(), |tar, number| tar.folder(&format!("folder{number}")));
    let plain = (0..COUNT).fold(folders(), |tar, number| tar.file(&format!("file{number}"), b"1"));
    let hostile = (0..COUNT).fold(folders(), |tar, _| tar.file("file", b"1"));
    let usual = Sandbox::quick().time(plain);
    let took = Sandbox::quick().time(hostile);
    for (usual, took) in usual.into_iter().zip(took) {
        assert!(took < 5 * usual + Duration::from_secs(2), "{took:?} instead of {usual:?}");
    }
}

/// Each of these entries names two thousand folders, of which the last one is new.
#[test]
fn deep_paths_are_not_gone_through_again_and_again() {
    const COUNT: usize = 300;
    let folders = "d/".repeat(2000);
    let deep = |name: &dyn Fn(usize) -> String| {
        let at = |tar: Tar, path: String| tar.pax(&[("path", path.as_bytes())]).file("short", b"1");
        let first = at(Tar::new(), format!("{folders}first"));
        Sandbox::quick().time((0..COUNT).fold(first, |tar, number| at(tar, format!("{folders}{}", name(number)))))[0]
    };
    let usual = deep(&|number| format!("file{number}"));
    let took = deep(&|number| format!("n{number}/f"));
    assert!(took < 20 * usual + Duration::from_secs(10), "{took:?} instead of {usual:?}");
}

#[test]
fn of_a_folder_that_comes_twice_the_last_attributes_count() {
    let sandbox = Sandbox::new();
    sandbox.unpack(Tar::new().folder("d").entry(tar::EntryType::Directory, "d", 0o700, "")).unwrap();
    assert_eq!(fs::metadata(sandbox.root().join("d")).unwrap().mode() & 0o7777, 0o700);
}
