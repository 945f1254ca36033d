//! Names: resolve, tag, remove.

use std::collections::BTreeSet;
use std::fs;

use super::fixture::*;
use crate::image::{Compression, Digest, Error};

fn loaded() -> (Fixture, Digest) {
    let fixture = Fixture::new();
    let archive = docker_archive("app:1", &[base_layer(), upper_layer()], Compression::None);
    let id = fixture.store.load(&fixture.write("archive", &archive)).unwrap().remove(0).id;
    (fixture, id)
}

#[test]
fn images_are_found_by_name_and_by_id() {
    let (fixture, id) = loaded();
    for name in
        ["app:1", "docker.io/library/app:1", id.short(), id.hex(), &id.to_string(), &format!("sha256:{}", id.short())]
    {
        assert_eq!(fixture.store.resolve(name).unwrap().id, id, "{name}");
    }
    fixture.store.tag("app:1", "deadbeef").unwrap();
    assert_eq!(fixture.store.resolve("deadbeef").unwrap().names, ["app:1", "deadbeef:latest"]);
    let listed = fixture.store.list().unwrap();
    assert_eq!((listed.len(), &listed[0].id), (1, &id));
}

#[test]
fn a_miss_names_the_image_the_remedy_and_what_is_near() {
    let (fixture, _) = loaded();
    fixture.store.tag("app:1", "postgres:16").unwrap();
    let says = |name: &str| fixture.store.resolve(name).unwrap_err().to_string();
    assert!(
        says("postgres").contains("`postgres` is not in the store (did you mean `postgres:16`?)"),
        "{}",
        says("postgres")
    );
    assert!(says("postgers:16").contains("did you mean `postgres:16`?"));
    assert!(says("nginx").contains("; fetch it with `rcompose pull`, load it with `rcompose image load -i FILE`"));
    assert!(matches!(fixture.store.resolve("Not a name"), Err(Error::BadName { .. })));
    assert!(matches!(fixture.store.tag("app:1", "UPPER"), Err(Error::BadName { .. })));
    assert!(matches!(fixture.store.tag("nothing", "x"), Err(Error::NotFound { .. })));
}

#[test]
fn removal_takes_what_nobody_else_has() {
    let (fixture, id) = loaded();
    let other = docker_archive("other", &[base_layer()], Compression::None);
    let other = fixture.store.load(&fixture.write("other", &other)).unwrap().remove(0).id;
    fixture.store.tag("app:1", "app:2").unwrap();
    let nobody = BTreeSet::new();
    let somebody = BTreeSet::from([id.clone()]);
    assert!(matches!(fixture.store.remove(id.short(), &nobody), Err(Error::SeveralNames { .. })));
    let removed = fixture.store.remove("app:1", &somebody).unwrap();
    assert_eq!((removed.untagged.as_slice(), removed.deleted.as_slice()), (&["app:1".to_owned()][..], &[][..]));
    assert!(matches!(fixture.store.remove("app:2", &somebody), Err(Error::InUse { .. })));
    assert!(matches!(fixture.store.remove(id.hex(), &somebody), Err(Error::InUse { .. })));
    assert_eq!(fixture.counts(), (0, 2, 2));
    let removed = fixture.store.remove(id.hex(), &nobody).unwrap();
    assert_eq!((removed.untagged.as_slice(), removed.deleted), (&["app:2".to_owned()][..], vec![id]));
    assert_eq!(fixture.counts(), (0, 1, 1), "the shared layer stays");
    assert_eq!(fixture.store.remove("other", &nobody).unwrap().deleted, [other]);
    assert_eq!(fixture.counts(), (0, 0, 0));
    assert!(fs::read_dir(fixture.folder.path().join("data/trash")).unwrap().count() > 0);
}

#[test]
fn a_name_goes_over_to_the_newer_image() {
    let (fixture, old) = loaded();
    let archive = docker_archive("app:1", &[upper_layer()], Compression::None);
    let new = fixture.store.load(&fixture.write("newer", &archive)).unwrap().remove(0).id;
    assert_eq!(fixture.store.resolve("app:1").unwrap().id, new);
    assert!(fixture.store.resolve(old.hex()).unwrap().names.is_empty());
}

#[test]
fn an_image_without_layers_has_an_empty_root() {
    let fixture = Fixture::new();
    fixture.store.load(&fixture.write("archive", &docker_archive("nothing", &[], Compression::None))).unwrap();
    let image = fixture.store.resolve("nothing").unwrap();
    assert_eq!(image.layers.len(), 1);
    assert_eq!(fs::read_dir(&image.layers[0]).unwrap().count(), 0);
}

#[test]
fn missing_layers_and_newer_tables_are_told() {
    let (fixture, _) = loaded();
    let layer = fixture.store.resolve("app:1").unwrap().layers[0].clone();
    fs::remove_dir_all(layer.parent().unwrap()).unwrap();
    assert!(matches!(fixture.store.resolve("app:1"), Err(Error::DamagedLayer { .. })));
    let table = fixture.folder.path().join("data/images/images.json");
    fs::write(&table, fs::read_to_string(&table).unwrap().replace("\"version\":1", "\"version\":9")).unwrap();
    assert!(matches!(fixture.store.list(), Err(Error::Io { .. })));
}

/// Or making an image where another one was just removed looks at each inode of that for each file.
#[test]
fn images_are_spread_over_the_disk() {
    use rustix::fs::{IFlags, fstatfs, ioctl_getflags};
    const EXT4: i64 = 0xEF53;
    let (fixture, _) = loaded();
    let folder = fs::File::open(fixture.store.path("tmp")).unwrap();
    if fstatfs(&folder).unwrap().f_type != EXT4 {
        println!("skipped: not on ext4");
        return;
    }
    assert!(ioctl_getflags(&folder).unwrap().contains(IFlags::TOPDIR));
}
