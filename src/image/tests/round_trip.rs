//! In by every format and out by every format.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::fixture::*;
use crate::image::{Compression, Digest, Format, Store};

const ALL: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

fn check_base(root: &Path) {
    let at = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    assert_eq!(fs::read(root.join("bin/tool")).unwrap(), b"tool");
    assert_eq!(at("bin/tool").mode() & 0o7777, 0o4755);
    assert_eq!(at("bin/tool").mtime(), 1_000_000_000);
    assert_eq!(at("bin").mtime(), 1_000_000_000, "directories get their times last");
    assert_eq!(at("bin/tool").ino(), at("bin/other").ino());
    assert_eq!(fs::read_link(root.join("bin/sh")).unwrap(), Path::new("tool"));
    assert!(at("pipe").file_type().is_fifo());
    assert_eq!(at("tmp").mode() & 0o7777, 0o1777);
    assert_eq!(at("etc/implicit").mode() & 0o7777, 0o755);
    assert_eq!(at("etc/implicit/parent").len(), 300_000);
}

#[test]
fn docker_archives_load_in_every_compression() {
    for layers in ALL {
        for outer in ALL {
            let fixture = Fixture::new();
            let archive = docker_archive("app:1", &[base_layer(), upper_layer()], layers);
            let path = fixture.write("archive", &compressed(outer, &archive));
            let loaded = fixture.store.load(&path).unwrap();
            assert_eq!(loaded[0].names, ["app:1"]);
            let image = fixture.store.resolve("app:1").unwrap();
            assert_eq!(image.id, loaded[0].id);
            assert_eq!(image.document.config.cmd.as_deref(), Some(&["/bin/true".to_owned()][..]));
            // The files, and the text of a link.
            assert_eq!(image.size, 300_004 + 3 + 4);
            let [upper, base] = image.layers.as_slice() else { panic!("two layers, topmost first") };
            check_base(base);
            assert_eq!(fs::read(upper.join("bin/new")).unwrap(), b"new");
            assert_eq!(fixture.counts(), (0, 2, 1));
        }
    }
}

#[test]
fn oci_layouts_load_from_a_directory_and_from_a_stream() {
    for compression in ALL {
        let fixture = Fixture::new();
        let files = oci_layout("app:2", &[base_layer()], compression);
        write_layout(&fixture.folder.path().join("layout"), &files);
        let loaded = fixture.store.load(&fixture.folder.path().join("layout")).unwrap();
        assert_eq!(loaded[0].names, ["app:2"]);
        let tar = files.iter().fold(Tar::new(), |tar, (name, bytes)| tar.file(name, bytes)).end();
        assert_eq!(
            Fixture::new().store.load_stream(&mut compressed(Compression::Zstd, &tar).as_slice()).unwrap(),
            loaded
        );
        check_base(&fixture.store.resolve("app:2").unwrap().layers[0]);
    }
}

#[test]
fn what_is_saved_loads_as_the_same_image() {
    let fixture = Fixture::new();
    let layers = [base_layer(), upper_layer(), base_layer()];
    fixture.store.load(&fixture.write("archive", &docker_archive("app:1", &layers, Compression::Gzip))).unwrap();
    fixture.store.tag("app:1", "registry.example:5000/team/app:x").unwrap();
    let names = ["app:1".to_owned(), "registry.example:5000/team/app:x".to_owned()];
    for format in [Format::Docker, Format::Oci] {
        for compression in ALL {
            let mut archive = Vec::new();
            fixture.store.save(&names, format, compression, &mut archive).unwrap();
            let other = Fixture::new();
            let loaded = other.store.load(&other.write("saved", &archive)).unwrap();
            assert_eq!(loaded.len(), 1);
            assert_eq!(loaded[0].names, names);
            let (ours, theirs) = (fixture.store.resolve("app:1").unwrap(), other.store.resolve("app:1").unwrap());
            assert_eq!((ours.id, ours.size, ours.document), (theirs.id, theirs.size, theirs.document));
            check_base(&theirs.layers[0]);
            let mut again = Vec::new();
            other.store.save(&names, format, compression, &mut again).unwrap();
            assert!(archive == again, "the same image gives the same archive");
        }
    }
}

#[test]
fn a_layer_comes_out_byte_for_byte_whatever_it_overwrites() {
    let layer = Tar::new()
        .file("a", b"first")
        .file("a", b"second")
        .folder("d")
        .file("d/inner", b"in a directory that becomes a file")
        .file("d", b"file")
        .file("e", b"file that becomes a directory")
        .file("sub/.wh.gone", b"")
        .folder("sub/gone")
        .folder("e")
        .file("e/inner", b"x")
        .symlink("a", "e")
        .file("zero", b"")
        .pax(&[("mtime", b"1.5"), ("SCHILY.xattr.user.colour", b"blue\0gr\neen"), ("comment", b"anything")])
        .file("with-pax", b"pax")
        .end();
    let fixture = Fixture::new();
    fixture
        .store
        .load(&fixture.write("archive", &docker_archive("app", std::slice::from_ref(&layer), Compression::None)))
        .unwrap();
    let root = &fixture.store.resolve("app").unwrap().layers[0];
    assert_eq!(fs::read_link(root.join("a")).unwrap(), Path::new("e"));
    assert_eq!(fs::read(root.join("d")).unwrap(), b"file");
    assert_eq!(fs::symlink_metadata(root.join("with-pax")).unwrap().mtime_nsec(), 500_000_000);
    let mut archive = Vec::new();
    fixture.store.save(&["app".to_owned()], Format::Oci, Compression::None, &mut archive).unwrap();
    assert!(archive.windows(layer.len()).any(|window| window == layer));
}

#[test]
fn a_damaged_layer_is_not_written_out() {
    let fixture = Fixture::new();
    fixture.store.load(&fixture.write("archive", &docker_archive("app", &[base_layer()], Compression::None))).unwrap();
    fs::write(fixture.store.resolve("app").unwrap().layers[0].join("bin/tool"), "evil").unwrap();
    for compression in ALL {
        let error = fixture.store.save(&["app".to_owned()], Format::Oci, compression, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}

#[test]
fn import_makes_an_image_of_a_tree() {
    let fixture = Fixture::new();
    let import = |store: &Store, name: &str, changes: &[&str]| {
        let changes: Vec<_> = changes.iter().map(|&change| change.to_owned()).collect();
        store.import(
            &mut compressed(Compression::Gzip, &base_layer()).as_slice(),
            Some(name),
            &changes,
            "made by a test",
        )
    };
    let loaded = import(&fixture.store, "made", &["CMD [\"/bin/tool\"]", "EXPOSE 80"]).unwrap();
    let image = fixture.store.resolve("made").unwrap();
    assert_eq!((&image.id, image.names.as_slice()), (&loaded.id, &["made:latest".to_owned()][..]));
    assert_eq!(image.document.config.cmd.unwrap(), ["/bin/tool"]);
    assert_eq!(image.document.rootfs.diff_ids, [Digest::of(&base_layer())]);
    check_base(&image.layers[0]);
    import(&fixture.store, "made-again", &[]).unwrap();
    assert_eq!(fixture.counts(), (0, 1, 2), "the same layer is there once");
    assert!(import(&fixture.store, "made", &["RUN x"]).unwrap_err().to_string().contains("`RUN x`"));
    assert!(import(&fixture.store, "Not A Name", &[]).is_err());
    assert_eq!(fixture.counts(), (0, 1, 2));
}

#[test]
fn of_several_machines_ours_is_taken() {
    let fixture = Fixture::new();
    let mut files = oci_layout("app", &[upper_layer()], Compression::None);
    let ours = files.pop().unwrap().1;
    files.extend(oci_layout("app", &[base_layer()], Compression::None));
    let theirs = files.pop().unwrap().1;
    let manifest = |index: &[u8], os: &str, architecture: &str| {
        let mut index: serde_json::Value = serde_json::from_slice(index).unwrap();
        index["manifests"][0]["platform"] = serde_json::json!({"os": os, "architecture": architecture});
        index["manifests"][0]["annotations"] = serde_json::json!({});
        index["manifests"][0].clone()
    };
    let here = crate::image::Platform::host().architecture;
    let manifests =
        [manifest(&theirs, "linux", "vax"), manifest(&ours, "linux", &here), manifest(&theirs, "unknown", "unknown")];
    let inner = serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string().into_bytes();
    let outer = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": Digest::of(&inner).to_string(),
        "size": inner.len(), "annotations": {"io.containerd.image.name": "docker.io/library/app:3"}}]});
    files.push((format!("blobs/sha256/{}", Digest::of(&inner).hex()), inner));
    files.push(("index.json".into(), outer.to_string().into_bytes()));
    write_layout(&fixture.folder.path().join("layout"), &files);
    let loaded = fixture.store.load(&fixture.folder.path().join("layout")).unwrap();
    assert_eq!((loaded.len(), loaded[0].names.as_slice()), (1, &["app:3".to_owned()][..]));
    assert_eq!(fixture.store.resolve("app:3").unwrap().document.rootfs.diff_ids, [Digest::of(&upper_layer())]);
}

/// The layers as overlayfs shows them; the mount is nowhere attached and goes with the descriptor.
fn overlay(layers: &[std::path::PathBuf]) -> Result<std::os::fd::OwnedFd, crate::sys::overlay::Error> {
    use crate::sys::overlay::Overlay;
    Overlay { lower: layers, changes: None, label: None }.detached(rustix::mount::MountAttrFlags::MOUNT_ATTR_RDONLY)
}

#[test]
fn overlayfs_understands_the_whiteouts() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.folder.path().join("one"), fixture.folder.path().join("two"));
    fs::create_dir(&one).and_then(|()| fs::create_dir(&two)).unwrap();
    if let Err(error) = overlay(&[one, two]) {
        println!("skipped: overlayfs cannot be mounted here ({error})");
        return;
    }
    let again = Tar::new().folder("etc/implicit").file("etc/.wh.implicit", b"").file("etc/implicit/new", b"").end();
    let layers = [base_layer(), upper_layer(), base_layer(), again];
    fixture.store.load(&fixture.write("archive", &docker_archive("app", &layers, Compression::Zstd))).unwrap();
    let image = fixture.store.resolve("app").unwrap();
    assert_eq!(image.layers.len(), 3, "a layer that occurs twice is mounted once");
    fixture.store.load(&fixture.write("low", &docker_archive("low", &layers[..2], Compression::None))).unwrap();
    let low = fixture.store.resolve("low").unwrap();
    let names = |root: &std::os::fd::OwnedFd, path: &str| {
        let directory = crate::sys::inroot::open_directory(root, path.as_bytes()).unwrap();
        let entries = rustix::fs::Dir::read_from(directory).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned());
        let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    };
    let low = overlay(&low.layers).unwrap();
    assert_eq!(names(&low, "bin"), ["new"], "opaque");
    assert!(names(&low, "etc").is_empty(), "whited out");
    let all = overlay(&image.layers).unwrap();
    assert_eq!(names(&all, "bin"), ["new", "other", "sh", "tool"]);
    assert_eq!(names(&all, "etc/implicit"), ["new"]);
}

#[test]
fn sparse_files_have_their_holes_and_their_archive() {
    let mut sparse = header(tar::EntryType::GNUSparse, 0o600, 1024);
    let gnu = sparse.as_gnu_mut().unwrap();
    let blocks = [(4096_u64, 512_u64), (1 << 30, 512)];
    for (field, (offset, length)) in gnu.sparse.iter_mut().zip(blocks) {
        field.offset.copy_from_slice(format!("{offset:011o}\0").as_bytes());
        field.numbytes.copy_from_slice(format!("{length:011o}\0").as_bytes());
    }
    gnu.realsize.copy_from_slice(format!("{:011o}\0", 2_u64 << 30).as_bytes());
    let body = [[1; 512], [2; 512]].concat();
    let layer = Tar::new().raw(sparse, "sparse", &body).file("after", b"x").end();
    let fixture = Fixture::new();
    let archive = docker_archive("app", std::slice::from_ref(&layer), Compression::Zstd);
    fixture.store.load(&fixture.write("archive", &archive)).unwrap();
    let root = &fixture.store.resolve("app").unwrap().layers[0];
    let file = fs::File::open(root.join("sparse")).unwrap();
    let mut bytes = [9; 514];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, (1 << 30) - 1).unwrap();
    assert_eq!((bytes[0], bytes[1], bytes[512], bytes[513]), (0, 2, 2, 0));
    assert_eq!(file.metadata().unwrap().len(), 2 << 30);
    assert!(file.metadata().unwrap().blocks() < 100, "holes take no space");
    let mut saved = Vec::new();
    fixture.store.save(&["app".to_owned()], Format::Oci, Compression::None, &mut saved).unwrap();
    assert!(saved.windows(layer.len()).any(|window| window == layer));
}

#[test]
fn extended_headers_override_the_plain_ones() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let mut gnu_name = long.clone().into_bytes();
    gnu_name.push(0);
    let layer = Tar::new()
        .pax(&[("path", long.as_bytes()), ("size", b"5"), ("mtime", b"-1.25"), ("SCHILY.xattr.user.n", b"a\nb\n")])
        .raw(header(tar::EntryType::Regular, 0o644, 0), "short", b"hello")
        .raw(header(tar::EntryType::GNULongName, 0o644, gnu_name.len() as u64), "././@LongLink", &gnu_name)
        .symlink("x", "target")
        .raw(header(tar::EntryType::Directory, 0o755, 4096), "a-directory-with-a-size", b"")
        .end();
    let sandbox = Fixture::new();
    let loaded = sandbox
        .store
        .load(&sandbox.write("a", &docker_archive("app", std::slice::from_ref(&layer), Compression::None)));
    loaded.unwrap();
    let root = &sandbox.store.resolve("app").unwrap().layers[0];
    assert!(fs::symlink_metadata(root.join(&long)).unwrap().is_symlink(), "the later entry of that name");
    assert!(root.join("a-directory-with-a-size").is_dir());
    let aside = root.parent().unwrap().join("displaced/0");
    let there = fs::metadata(&aside).unwrap();
    assert_eq!((fs::read(&aside).unwrap(), there.mtime(), there.mtime_nsec()), (b"hello".to_vec(), -2, 750_000_000));
    let mut value = [0; 16];
    assert_eq!(rustix::fs::getxattr(&aside, "user.n", &mut value).unwrap(), 4);
    let mut saved = Vec::new();
    sandbox.store.save(&["app".to_owned()], Format::Oci, Compression::None, &mut saved).unwrap();
    assert!(saved.windows(layer.len()).any(|window| window == layer));
}
