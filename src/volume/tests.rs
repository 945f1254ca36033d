use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::sync::Barrier;
use std::thread;

use super::*;

struct Fixture {
    folder: tempfile::TempDir,
    volumes: Volumes,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(&folder.path().join("data")).unwrap();
        Self { folder, volumes }
    }

    fn root(&self) -> File {
        File::open(self.folder.path().join("root")).unwrap()
    }
}

fn named(name: &str) -> NewVolume {
    NewVolume {
        name: Some(name.to_owned()),
        driver: String::new(),
        driver_opts: BTreeMap::new(),
        labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
    }
}

/// An image's root with content at `/srv/data`.
fn image_root(fixture: &Fixture) {
    let data = fixture.folder.path().join("root/srv/data");
    fs::create_dir_all(data.join("deep/er")).unwrap();
    fs::write(data.join("file"), "content").unwrap();
    fs::set_permissions(data.join("file"), Permissions::from_mode(0o4750)).unwrap();
    fs::hard_link(data.join("file"), data.join("deep/same")).unwrap();
    symlink("/etc/passwd", data.join("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, data.join("pipe"), rustix::fs::Mode::RWXU).unwrap();
    fs::set_permissions(&data, Permissions::from_mode(0o1770)).unwrap();
    symlink("/srv", fixture.folder.path().join("root/via")).unwrap();
    fs::write(fixture.folder.path().join("outside"), "secret").unwrap();
    symlink("../../..", fixture.folder.path().join("root/up")).unwrap();
}

#[test]
fn volumes_are_made_found_and_removed() {
    let fixture = Fixture::new();
    let made = fixture.volumes.create(named("web_data")).unwrap();
    assert_eq!(fixture.volumes.get("web_data").unwrap(), made);
    assert_eq!(fs::metadata(&made.data).unwrap().mode() & 0o7777, 0o755);
    let anonymous = fixture.volumes.create(NewVolume { name: None, ..named("") }).unwrap();
    assert!(anonymous.anonymous && anonymous.name.len() == 64);
    assert_eq!(fixture.volumes.list().unwrap().len(), 2);
    let used = BTreeSet::from(["web_data".to_owned()]);
    assert!(matches!(fixture.volumes.remove("web_data", &used), Err(Error::InUse { .. })));
    fixture.volumes.remove("web_data", &BTreeSet::new()).unwrap();
    assert!(matches!(fixture.volumes.get("web_data"), Err(Error::NotFound { .. })));
    assert!(matches!(fixture.volumes.remove("web_data", &BTreeSet::new()), Err(Error::NotFound { .. })));
    assert_eq!(fixture.volumes.list().unwrap(), [anonymous]);
}

#[test]
fn making_one_again_gives_the_one_that_is_there() {
    let fixture = Fixture::new();
    let first = fixture.volumes.create(named("data")).unwrap();
    fs::write(first.data.join("kept"), "").unwrap();
    assert_eq!(fixture.volumes.create(named("data")).unwrap(), first);
    assert!(first.data.join("kept").exists());
    let options = BTreeMap::from([("device".to_owned(), "/tmp".to_owned())]);
    let other = fixture.volumes.create(NewVolume { driver_opts: options, ..named("data") });
    assert!(matches!(other, Err(Error::Different { .. })));
}

#[test]
fn what_cannot_be_is_refused() {
    let fixture = Fixture::new();
    for name in ["", "a", "../x", ".hidden", "a/b", "-x", "ä-ö", &"x".repeat(300)] {
        assert!(matches!(fixture.volumes.create(named(name)), Err(Error::BadName { .. })), "{name}");
        assert!(fixture.volumes.get(name).is_err());
    }
    let nfs = NewVolume { driver: "nfs".to_owned(), ..named("data") };
    assert!(matches!(fixture.volumes.create(nfs), Err(Error::Driver { .. })));
    assert!(fixture.volumes.list().unwrap().is_empty());
}

#[test]
fn a_half_made_volume_is_none_and_is_completed() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.folder.path().join("data/volumes/half/_data")).unwrap();
    assert!(fixture.volumes.list().unwrap().is_empty());
    fixture.volumes.create(named("half")).unwrap();
    assert_eq!(fixture.volumes.list().unwrap().len(), 1);
}

#[test]
fn an_empty_volume_gets_the_images_files_once() {
    let fixture = Fixture::new();
    image_root(&fixture);
    let volume = fixture.volumes.create(named("data")).unwrap();
    assert!(fixture.volumes.needs_copy_up(&volume).unwrap());
    fixture.volumes.populate(&volume, fixture.root(), Path::new("/via/data")).unwrap();
    let at = |name: &str| fs::symlink_metadata(volume.data.join(name)).unwrap();
    assert_eq!(fs::metadata(&volume.data).unwrap().mode() & 0o7777, 0o1770);
    assert_eq!(fs::read_to_string(volume.data.join("file")).unwrap(), "content");
    assert_eq!(at("file").mode() & 0o7777, 0o4750);
    assert_eq!(at("file").ino(), at("deep/same").ino());
    assert_eq!(fs::read_link(volume.data.join("link")).unwrap(), Path::new("/etc/passwd"));
    assert!(at("pipe").file_type().is_fifo() && at("deep/er").is_dir());
    assert!(!fixture.volumes.needs_copy_up(&volume).unwrap());
    fs::remove_file(volume.data.join("file")).unwrap();
    fixture.volumes.populate(&volume, fixture.root(), Path::new("/srv/data")).unwrap();
    assert!(!volume.data.join("file").exists(), "a volume that has something is left alone");
}

#[test]
fn owners_are_kept() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root gives files away");
        return;
    }
    let fixture = Fixture::new();
    image_root(&fixture);
    let data = fixture.folder.path().join("root/srv/data");
    std::os::unix::fs::chown(&data, Some(999), Some(998)).unwrap();
    std::os::unix::fs::lchown(data.join("link"), Some(70), Some(70)).unwrap();
    let volume = fixture.volumes.create(named("data")).unwrap();
    fixture.volumes.populate(&volume, fixture.root(), Path::new("srv/data")).unwrap();
    let there = fs::metadata(&volume.data).unwrap();
    assert_eq!((there.uid(), there.gid()), (999, 998));
    assert_eq!(fs::symlink_metadata(volume.data.join("link")).unwrap().uid(), 70);
}

/// A container that has the volume already puts links in the place of what has just been copied to it: the next name of the
/// same file would be one of the host's file, and the mode of a node that file's.
#[test]
fn a_copy_does_not_follow_what_a_container_makes_of_it() {
    let fixture = Fixture::new();
    let image = fixture.folder.path().join("root/srv/data");
    for name in ["one", "two"] {
        fs::create_dir_all(image.join(name)).unwrap();
        (0..300).for_each(|number| fs::write(image.join(name).join(number.to_string()), "").unwrap());
    }
    fs::write(image.join("one/prize"), "").unwrap();
    fs::hard_link(image.join("one/prize"), image.join("two/prize")).unwrap();
    for number in 0..100 {
        let node = image.join(format!("node{number}"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &node, rustix::fs::Mode::RWXU).unwrap();
    }
    let outside = fixture.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("prize"), "of the host").unwrap();
    fs::set_permissions(outside.join("prize"), Permissions::from_mode(0o600)).unwrap();
    for round in 0..6 {
        let data = fixture.folder.path().join(format!("volume{round}"));
        fs::create_dir(&data).unwrap();
        let bind = [("type", "none"), ("o", "bind"), ("device", data.to_str().unwrap())];
        let driver_opts = bind.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let volume = fixture.volumes.create(NewVolume { driver_opts, ..named(&format!("v{round}")) }).unwrap();
        let copied = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !copied.load(std::sync::atomic::Ordering::Relaxed) {
                    for entry in fs::read_dir(&data).unwrap().flatten() {
                        let (path, kind) = (entry.path(), entry.file_type().unwrap());
                        if kind.is_fifo() {
                            fs::remove_file(&path).unwrap();
                            symlink(outside.join("prize"), &path).unwrap();
                        } else if path.join("prize").exists() && kind.is_dir() && !data.join("moved").exists() {
                            fs::rename(&path, data.join("moved")).unwrap();
                            symlink(&outside, &path).unwrap();
                        }
                    }
                }
            });
            // That it is refused is all right.
            let _ = fixture.volumes.populate(&volume, fixture.root(), Path::new("/srv/data"));
            copied.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let there = fs::metadata(outside.join("prize")).unwrap();
        assert_eq!((there.nlink(), there.mode() & 0o777), (1, 0o600), "in round {round}");
    }
}

#[test]
fn the_images_path_does_not_lead_out_of_its_root() {
    let fixture = Fixture::new();
    image_root(&fixture);
    let volume = fixture.volumes.create(named("data")).unwrap();
    for path in ["/nothing/here", "/srv/data/file"] {
        fixture.volumes.populate(&volume, fixture.root(), Path::new(path)).unwrap();
        assert!(fixture.volumes.needs_copy_up(&volume).unwrap(), "{path}");
    }
    fixture.volumes.populate(&volume, fixture.root(), Path::new("/up")).unwrap();
    assert!(!volume.data.join("outside").exists() && volume.data.join("srv").exists());
}

#[test]
fn a_copy_that_was_broken_off_is_completed() {
    let fixture = Fixture::new();
    image_root(&fixture);
    let volume = fixture.volumes.create(named("data")).unwrap();
    let folder = fixture.folder.path().join("data/volumes/data");
    // Killed while copying: nothing of it counts.
    fs::create_dir(folder.join("copying")).unwrap();
    fs::write(folder.join("copying/half"), "").unwrap();
    fixture.volumes.populate(&volume, fixture.root(), Path::new("/srv/data")).unwrap();
    assert!(!volume.data.join("half").exists() && volume.data.join("file").exists());
    // Killed while moving: the rest follows.
    fs::create_dir(folder.join("populating")).unwrap();
    fs::rename(volume.data.join("file"), folder.join("populating/file")).unwrap();
    assert!(fixture.volumes.needs_copy_up(&volume).unwrap());
    fixture.volumes.populate(&volume, fixture.root(), Path::new("/srv/data")).unwrap();
    assert!(volume.data.join("file").exists() && !folder.join("populating").exists());
}

#[test]
fn many_at_once_make_one_volume_and_copy_once() {
    let fixture = Fixture::new();
    image_root(&fixture);
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                let volume = fixture.volumes.create(named("data")).unwrap();
                fixture.volumes.populate(&volume, fixture.root(), Path::new("/srv/data")).unwrap();
                assert!(volume.data.join("deep/same").exists());
            });
        }
    });
    assert_eq!(fixture.volumes.list().unwrap().len(), 1);
}
