//! Archives for the tests.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::image::{Compression, Digest, Store};

/// A store in a directory of its own.
pub(super) struct Fixture {
    pub(super) folder: tempfile::TempDir,
    pub(super) store: Store,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("data")).unwrap();
        Self { folder, store }
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(super) fn again(&self) -> Store {
        Store::open(&self.folder.path().join("data")).unwrap()
    }

    /// How many unfinished and finished things there are: directories in `tmp`, layers, configurations.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let count = |name: &str| fs::read_dir(self.folder.path().join("data/images").join(name)).unwrap().count();
        (count("tmp"), count("layers"), count("blobs/sha256"))
    }
}

/// A tar archive, entry by entry; names go in as they are.
pub(super) struct Tar(Vec<u8>);

impl Tar {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn raw(mut self, mut header: tar::Header, name: &str, body: &[u8]) -> Self {
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        self.0.write_all(header.as_bytes()).unwrap();
        self.0.write_all(body).unwrap();
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn entry(self, kind: tar::EntryType, name: &str, mode: u32, target: &str) -> Self {
        let mut header = header(kind, mode, 0);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.raw(header, name, b"")
    }

    pub(super) fn file(self, name: &str, body: &[u8]) -> Self {
        self.raw(header(tar::EntryType::Regular, 0o644, body.len() as u64), name, body)
    }

    pub(super) fn folder(self, name: &str) -> Self {
        self.entry(tar::EntryType::Directory, name, 0o755, "")
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, name, 0o777, target)
    }

    pub(super) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, name, 0o644, target)
    }

    /// Extended header records for the entry that follows.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length =
                (1..).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length).unwrap();
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.raw(header(tar::EntryType::XHeader, 0o644, body.len() as u64), "pax", &body)
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(super) fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    header.set_uid(u64::from(uid));
    header.set_gid(u64::from(gid));
    header.set_mtime(1_000_000_000);
    header
}

pub(super) fn compressed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    compression.encode(&mut output, |encoder| encoder.write_all(bytes)).unwrap();
    output
}

pub(super) fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/true"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    serde_json::to_vec(&config).unwrap()
}

/// What `docker save` wrote before it wrote OCI layouts.
pub(super) fn docker_archive(name: &str, layers: &[Vec<u8>], compression: Compression) -> Vec<u8> {
    let config = config(layers);
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let mut tar = Tar::new();
    let mut members = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        members.push(format!("{number}/layer.tar"));
        tar = tar.file(members.last().unwrap(), &compressed(compression, layer));
    }
    let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": members}]);
    tar.file(&config_name, &config).file("manifest.json", manifest.to_string().as_bytes()).end()
}

/// The files of an OCI layout, by path.
pub(super) fn oci_layout(name: &str, layers: &[Vec<u8>], compression: Compression) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut blob = |bytes: Vec<u8>| {
        let descriptor = json!({"mediaType": "", "digest": Digest::of(&bytes).to_string(), "size": bytes.len()});
        files.push((format!("blobs/sha256/{}", Digest::of(&bytes).hex()), bytes));
        descriptor
    };
    let config = blob(config(layers));
    let layers: Vec<_> = layers.iter().map(|layer| blob(compressed(compression, layer))).collect();
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let mut manifest = blob(manifest.to_string().into_bytes());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    files.push(("index.json".into(), index.to_string().into_bytes()));
    files
}

pub(super) fn write_layout(folder: &Path, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// A small layer with one of everything that is usual.
pub(super) fn base_layer() -> Vec<u8> {
    Tar::new()
        .folder("./")
        .folder("bin/")
        .raw(header(tar::EntryType::Regular, 0o4755, 4), "bin/tool", b"tool")
        .symlink("bin/sh", "tool")
        .hard_link("bin/other", "bin/tool")
        .entry(tar::EntryType::Fifo, "pipe", 0o600, "")
        .entry(tar::EntryType::Directory, "tmp", 0o1777, "")
        .file("etc/implicit/parent", &vec![7; 300_000])
        .end()
}

pub(super) fn upper_layer() -> Vec<u8> {
    Tar::new().file("bin/new", b"new").file("etc/.wh.implicit", b"").folder("bin").file("bin/.wh..wh..opq", b"").end()
}
