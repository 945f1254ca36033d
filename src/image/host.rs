//! The host image: a container root that is this machine's own root file system, without what is nobody else's business.
//!
//! Its bottom layer is a skeleton made here: the top-level directories, and of `/etc` only what is listed below. The big
//! trees (`/usr` and its kin) are [`HostTree`]s that the engine mounts copy-on-write. Nothing that is not listed is in it.

use std::fs::{self, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::config::{ImageConfig, ImageDocument, RootFs};
use super::digest::Digest;
use super::error::{Error, cannot};
use super::manifest::Platform;
use super::reference::Reference;
use super::staging::Staging;
use super::store::{HostTree, Image, Store};

/// What people write after `image:`.
pub const NAME: &str = "rcompose/host";

/// Changes when the same host would make another skeleton.
const VERSION: &str = "rcompose host skeleton 1";

/// Programs and libraries: a link where the host has merged them, otherwise a tree.
const TREES: &[&str] = &["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

const DIRECTORIES: &[(&str, u32)] = &[
    ("boot", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/backups", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/local", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o755),
    ("var/opt", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

const LINKS: &[(&str, &str)] = &[("var/run", "/run"), ("var/lock", "/run/lock"), ("etc/mtab", "/proc/mounts")];

/// Files and directories of `/etc` that any program may need and that tell nothing but what is installed. Only what every
/// user of the host may read is taken, and never a private key.
const ETC: &[&str] = &[
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "ethertypes",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "login.defs",
    "lsb-release",
    "magic",
    "mime.types",
    "os-release",
    "perl",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "profile",
    "protocols",
    "redhat-release",
    "rpc",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
];

/// Directories of `/etc` with a version in their names: language runtimes keep their configuration there.
const ETC_PREFIXES: &[&str] = &["java-", "python3"];

/// Name services that need no daemon of the host.
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n\
                        protocols: files\nservices: files\nethers: files\nrpc: files\n";

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Larger files are no configuration.
const MAX_FILE: u64 = 4 * 1024 * 1024;
const MAX_DEPTH: usize = 6;
const FIRST_PERSON: u32 = 1000;
const NOBODY: u32 = 65534;

/// One thing of the skeleton, by its path from the root.
struct Item {
    path: PathBuf,
    content: Content,
}

enum Content {
    Directory(u32),
    Link(PathBuf),
    Text(String),
    /// A directory of the host's `/etc`, whose times tell when names in it have changed.
    HostDirectory(Metadata),
    /// A link of the host's: to change one is to replace it, so its directory tells.
    HostLink(PathBuf),
    HostFile {
        from: PathBuf,
        metadata: Metadata,
    },
}

/// Whether `name` is the host image's.
pub(super) fn is_host(name: &str) -> bool {
    Reference::parse(name).is_some_and(|name| name.familiar() == format!("{NAME}:latest"))
}

/// The host image, when `name` is its name or the id of one that was made before.
pub(super) fn find(store: &Store, name: &str) -> Result<Option<Image>, Error> {
    if is_host(name) {
        return make(store, Path::new("/")).map(Some);
    }
    let id = Digest::from_hex(name.strip_prefix("sha256:").unwrap_or(name));
    let there = id.map(|id| (store.path("host").join(id.hex()), id)).filter(|(folder, _)| folder.is_dir());
    Ok(there.map(|(folder, id)| image(Path::new("/"), id, &folder)))
}

/// Makes the image of the host whose root is `root`, unless it is there: the id is a hash of all that goes in.
pub(super) fn make(store: &Store, root: &Path) -> Result<Image, Error> {
    let items = collect(root).map_err(cannot("read", root.join("etc")))?;
    let id = fingerprint(&items);
    let folder = store.path("host").join(id.hex());
    if !is_whole(&folder, &items) {
        let staging = Staging::new(store)?;
        let fresh = staging.path().join("host");
        build(&fresh.join("fs"), &items).map_err(cannot("write", &fresh))?;
        // Nothing is synced, so a power loss may have emptied files; such a skeleton makes way.
        store.trash().discard(&folder).map_err(cannot("discard", &folder))?;
        match fs::rename(&fresh, &folder) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            renamed => renamed.map_err(cannot("move the host image to", &folder))?,
        }
    }
    Ok(image(root, id, &folder))
}

fn image(root: &Path, id: Digest, folder: &Path) -> Image {
    let trees = TREES.iter().map(|name| HostTree { host: root.join(name), target: Path::new("/").join(name) });
    let config = ImageConfig {
        env: vec![PATH.to_owned()],
        cmd: Some(vec!["/bin/sh".to_owned()]),
        working_dir: "/".to_owned(),
        ..ImageConfig::default()
    };
    let document = ImageDocument {
        created: None,
        author: None,
        architecture: Platform::host().architecture,
        os: "linux".to_owned(),
        variant: None,
        config,
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
        history: Vec::new(),
        build_cache: Vec::new(),
    };
    Image {
        id,
        names: vec![format!("{NAME}:latest")],
        document,
        layers: vec![folder.join("fs")],
        binds: trees.filter(|tree| tree.host.symlink_metadata().is_ok_and(|there| there.is_dir())).collect(),
        size: 0,
    }
}

fn collect(root: &Path) -> io::Result<Vec<Item>> {
    let mut items = Vec::new();
    for name in TREES {
        match optional(fs::symlink_metadata(root.join(name)))? {
            Some(there) if there.is_symlink() => items.push(link(name, fs::read_link(root.join(name))?)),
            Some(there) if there.is_dir() => items.push(Item { path: name.into(), content: Content::Directory(0o755) }),
            _ => {}
        }
    }
    items.extend(DIRECTORIES.iter().map(|(path, mode)| Item { path: path.into(), content: Content::Directory(*mode) }));
    items.extend(LINKS.iter().map(|(path, target)| link(path, target.into())));
    let etc = Path::new("etc");
    let text = |name: &str| optional(fs::read_to_string(root.join(etc).join(name))).map(Option::unwrap_or_default);
    let users = system_users(&text("passwd")?);
    items.push(self::text("etc/group", system_groups(&text("group")?, &users)));
    items.push(self::text("etc/passwd", users));
    items.push(self::text("etc/nsswitch.conf", NSSWITCH.to_owned()));
    let mut names: Vec<PathBuf> = ETC.iter().map(PathBuf::from).collect();
    for entry in fs::read_dir(root.join(etc))? {
        let name = entry?.file_name();
        if ETC_PREFIXES.iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes())) {
            names.push(name.into());
        }
    }
    names.sort();
    for name in names {
        // A directory on the way must be one, or the walk would follow a link.
        let parents = name.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect::<Vec<_>>();
        if !parents.iter().all(|path| root.join(etc).join(path).symlink_metadata().is_ok_and(|there| there.is_dir())) {
            continue;
        }
        for path in parents.iter().rev().map(|path| etc.join(path)) {
            if !items.iter().any(|item| item.path == path) {
                items.push(Item { path, content: Content::Directory(0o755) });
            }
        }
        walk(root, &etc.join(name), MAX_DEPTH, &mut items)?;
    }
    Ok(items)
}

/// Takes one path of the host, whatever it is. A directory's entries are told apart without looking at each.
fn walk(root: &Path, path: &Path, depth: usize, items: &mut Vec<Item>) -> io::Result<()> {
    let from = root.join(path);
    let Some(metadata) = optional(fs::symlink_metadata(&from))? else { return Ok(()) };
    let for_all = metadata.mode() & 0o004 != 0;
    if metadata.is_symlink() {
        items.push(Item { path: path.to_owned(), content: Content::Link(fs::read_link(&from)?) });
    } else if metadata.is_file() && for_all && metadata.len() <= MAX_FILE {
        items.push(Item { path: path.to_owned(), content: Content::HostFile { from, metadata } });
    } else if metadata.is_dir() && for_all && depth > 0 {
        items.push(Item { path: path.to_owned(), content: Content::HostDirectory(metadata) });
        let mut entries: Vec<_> = fs::read_dir(&from)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = path.join(entry.file_name());
            if entry.file_type()?.is_symlink() {
                items.push(Item { path, content: Content::HostLink(entry.path()) });
            } else {
                walk(root, &path, depth - 1, items)?;
            }
        }
    }
    Ok(())
}

fn link(path: &str, target: PathBuf) -> Item {
    Item { path: path.into(), content: Content::Link(target) }
}

fn text(path: &str, text: String) -> Item {
    Item { path: path.into(), content: Content::Text(text) }
}

fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// The lines of users that no person is, without passwords.
fn system_users(passwd: &str) -> String {
    let line = |line: &str| {
        let mut fields: Vec<&str> = line.split(':').collect();
        let system = fields.len() == 7 && fields.get(2).is_some_and(|id| is_system(id));
        *fields.get_mut(1)? = "*";
        system.then(|| fields.join(":") + "\n")
    };
    passwd.lines().filter_map(line).collect()
}

/// The same for groups; of their members, only those who are left.
fn system_groups(group: &str, users: &str) -> String {
    let known = |member: &&str| users.lines().any(|line| line.split(':').next() == Some(*member));
    let line = |line: &str| {
        let [name, _password, id, members] = line.split(':').collect::<Vec<_>>().try_into().ok()?;
        let members: Vec<_> = members.split(',').filter(known).collect();
        is_system(id).then(|| format!("{name}:*:{id}:{}\n", members.join(",")))
    };
    group.lines().filter_map(line).collect()
}

fn is_system(id: &str) -> bool {
    id.parse::<u32>().is_ok_and(|id| id < FIRST_PERSON || id == NOBODY)
}

fn fingerprint(items: &[Item]) -> Digest {
    let mut hash = Sha256::new_with_prefix(VERSION);
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for item in items {
        part(item.path.as_os_str().as_bytes());
        match &item.content {
            Content::Directory(mode) => part(&mode.to_le_bytes()),
            Content::Link(target) => part(target.as_os_str().as_bytes()),
            Content::Text(text) => part(text.as_bytes()),
            Content::HostLink(_) => {}
            Content::HostDirectory(metadata) | Content::HostFile { metadata, .. } => {
                let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
                let numbers = [metadata.dev(), metadata.ino(), metadata.len(), u64::from(metadata.mode())];
                part(&times.map(i64::to_le_bytes).concat());
                part(&numbers.map(u64::to_le_bytes).concat());
            }
        }
    }
    Digest::finish(hash)
}

/// Whether the skeleton is there and none of its files has lost its contents.
fn is_whole(folder: &Path, items: &[Item]) -> bool {
    let lost = |item: &Item| {
        let size = match &item.content {
            Content::HostFile { metadata, .. } => metadata.len(),
            Content::Text(text) => text.len() as u64,
            _ => return false,
        };
        folder.join("fs").join(&item.path).symlink_metadata().is_ok_and(|there| there.len() != size)
    };
    folder.is_dir() && !items.iter().any(lost)
}

fn build(fs_root: &Path, items: &[Item]) -> io::Result<()> {
    fs::create_dir_all(fs_root)?;
    fs::set_permissions(fs_root, Permissions::from_mode(0o755))?;
    for item in items {
        let path = fs_root.join(&item.path);
        match &item.content {
            Content::Directory(mode) => directory(&path, *mode)?,
            Content::HostDirectory(_) => directory(&path, 0o755)?,
            Content::Link(target) => symlink(target, &path)?,
            Content::HostLink(from) => symlink(fs::read_link(from)?, &path)?,
            Content::Text(text) => file(&path, text.as_bytes(), 0o644)?,
            Content::HostFile { from, metadata } => {
                let mut bytes = Vec::new();
                fs::File::open(from)?.take(MAX_FILE).read_to_end(&mut bytes)?;
                let secret = b"PRIVATE KEY-----";
                if !bytes.windows(secret.len()).any(|window| window == secret) {
                    file(&path, &bytes, metadata.mode() & 0o755)?;
                }
            }
        }
    }
    Ok(())
}

fn directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))
}
