//! The host image: what is in it, and what is not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::fixture::Fixture;
use crate::image::host::make;
use crate::image::{Compression, Error, Format};

/// A small host with secrets in the usual places.
fn small_host(root: &Path) {
    for folder in [
        "usr/bin",
        "usr/local/bin",
        "lib64",
        "etc/ssl/certs",
        "etc/ssl/private",
        "etc/ssh",
        "etc/alternatives",
        "root",
        "home/me",
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    symlink("usr/bin", root.join("bin")).unwrap();
    let files = [
        (
            "etc/passwd",
            "root:$6$hash:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www:/var/www:/bin/false\nme:x:1000:1000:My Name:/home/me:/bin/zsh\nnobody:x:65534:65534::/:/bin/false\nbroken\n",
        ),
        ("etc/group", "root:x:0:\nwww-data:secret:33:me,root\nme:x:1000:\nsudo:x:27:me\n"),
        ("etc/shadow", "root:$6$hash"),
        ("etc/ssh/ssh_host_key", "SECRET"),
        ("etc/machine-id", "SECRET"),
        ("etc/hostname", "SECRET"),
        ("etc/services", "http 80/tcp\n"),
        ("etc/profile", "umask 022\n"),
        ("etc/ssl/certs/ca.pem", "-----BEGIN CERTIFICATE-----\n"),
        ("etc/ssl/certs/mistake.pem", "-----BEGIN RSA PRIVATE KEY-----\n"),
        ("etc/ssl/private/key.pem", "SECRET"),
        ("root/.bashrc", "SECRET"),
        ("home/me/notes", "SECRET"),
        ("top-level", "SECRET"),
    ];
    for (name, text) in files {
        fs::write(root.join(name), text).unwrap();
    }
    fs::set_permissions(root.join("etc/profile"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("/usr/bin/vim", root.join("etc/alternatives/vi")).unwrap();
}

fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn only_what_is_listed_shines_through() {
    let fixture = Fixture::new();
    let host = fixture.folder.path().join("host");
    small_host(&host);
    let image = make(&fixture.store, &host).unwrap();
    let root = &image.layers[0];
    let expected = [
        "bin",
        "etc/alternatives/vi",
        "etc/group",
        "etc/mtab",
        "etc/nsswitch.conf",
        "etc/passwd",
        "etc/services",
        "etc/ssl/certs/ca.pem",
        "var/lock",
        "var/run",
    ];
    assert_eq!(tree(root), expected);
    let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
    assert_eq!(
        passwd,
        "root:*:0:0:root:/root:/bin/sh\nwww-data:*:33:33:www:/var/www:/bin/false\nnobody:*:65534:65534::/:/bin/false\n"
    );
    assert_eq!(fs::read_to_string(root.join("etc/group")).unwrap(), "root:*:0:\nwww-data:*:33:root\nsudo:*:27:\n");
    assert_eq!(fs::metadata(root.join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(root.join("root")).unwrap().permissions().mode() & 0o7777, 0o700);
    let targets: Vec<_> = image.binds.iter().map(|tree| tree.target.to_str().unwrap()).collect();
    assert_eq!(targets, ["/usr", "/lib64"]);
    assert!(targets.iter().all(|target| root.join(&target[1..]).is_dir()), "every tree has its mount point");
}

#[test]
fn a_changed_host_makes_a_new_image_and_an_unchanged_one_none() {
    let fixture = Fixture::new();
    let host = fixture.folder.path().join("host");
    small_host(&host);
    let first = make(&fixture.store, &host).unwrap();
    assert_eq!(make(&fixture.store, &host).unwrap().id, first.id);
    fs::write(host.join("etc/services"), "https 443/tcp\n").unwrap();
    let second = make(&fixture.store, &host).unwrap();
    assert_ne!(second.id, first.id);
    assert!(first.layers[0].is_dir(), "containers of the old one keep their root");
    assert_eq!(fs::read_to_string(second.layers[0].join("etc/services")).unwrap(), "https 443/tcp\n");
    // As after a power loss.
    fs::write(second.layers[0].join("etc/services"), "").unwrap();
    assert_eq!(make(&fixture.store, &host).unwrap().id, second.id);
    assert_eq!(fs::read_to_string(second.layers[0].join("etc/services")).unwrap(), "https 443/tcp\n");
}

#[test]
fn the_name_resolves_to_this_machine() {
    let fixture = Fixture::new();
    let image = fixture.store.resolve("rcompose/host").unwrap();
    assert_eq!(fixture.store.resolve(&image.id.to_string()).unwrap().layers, image.layers);
    assert_eq!(fixture.store.resolve("docker.io/rcompose/host:latest").unwrap().id, image.id);
    assert!(image.binds.iter().any(|tree| tree.host == Path::new("/usr")));
    assert!(!tree(&image.layers[0]).iter().any(|path| path.contains("shadow") || path.contains("private")));
    assert!(fixture.store.list().unwrap().is_empty());
    let refused = fixture.store.save(&["rcompose/host".to_owned()], Format::Oci, Compression::None, &mut Vec::new());
    assert!(matches!(refused, Err(Error::HostImage { .. })));
    assert!(matches!(fixture.store.tag("rcompose/host", "mine"), Err(Error::HostImage { .. })));
}
