//! A registry that can lie, stall and hang up, and images for it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcompose::image::{Compression, Digest, Platform, Reference, Store};
use rcompose::registry::{Error, Pulled, Registries, Settings};
use serde_json::{Value, json};

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    /// With the query.
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
    /// How often this path was asked for before.
    pub(super) before: usize,
}

/// How it is answered.
pub(super) enum Reply {
    Say(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Says that all of the body comes, sends so many bytes of it, and hangs up.
    Cut(u16, Vec<(&'static str, String)>, Vec<u8>, usize),
    /// The same, but stays silent instead of hanging up.
    Stall(Vec<u8>, usize),
}

pub(super) struct Fake {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    pub(super) fn new(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                std::thread::spawn(move || connection(stream.unwrap(), &*answer, &log));
            }
        });
        Self { address, asked }
    }

    /// One that has an image and tells the truth, but for what `lie` says instead.
    pub(super) fn with(image: &Made, lie: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let image = image.clone();
        Self::new(move |asked| lie(asked).unwrap_or_else(|| image.answer(asked)))
    }

    pub(super) fn name(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.address)).unwrap()
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn count(&self, part: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path.contains(part)).count()
    }
}

fn connection(stream: TcpStream, answer: &dyn Fn(&Asked) -> Reply, log: &Mutex<Vec<Asked>>) -> Option<()> {
    let mut input = BufReader::new(stream.try_clone().ok()?);
    let mut output = stream;
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next()?, words.next()?);
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            input.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        input.read_exact(&mut body).ok()?;
        let asked = {
            let mut log = log.lock().unwrap();
            let before = log.iter().filter(|one| one.path == path && one.method == method).count();
            log.push(Asked { method, path, headers, body, before });
            log.last().unwrap().clone()
        };
        let mut send = |status: u16, headers: &[(&str, String)], body: &[u8], count: usize| {
            let mut head = format!("HTTP/1.1 {status} x\r\n");
            if !headers.iter().any(|(name, _)| *name == "content-length") {
                head.push_str(&format!("content-length: {}\r\n", body.len()));
            }
            headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
            output.write_all(format!("{head}\r\n").as_bytes()).ok()?;
            if asked.method != "HEAD" {
                output.write_all(&body[..count]).ok()?;
            }
            output.flush().ok()
        };
        match answer(&asked) {
            Reply::Say(status, headers, body) => send(status, &headers, &body, body.len())?,
            Reply::Cut(status, headers, body, count) => {
                send(status, &headers, &body, count)?;
                return None;
            }
            Reply::Stall(body, count) => {
                send(200, &[], &body, count)?;
                std::thread::sleep(Duration::from_secs(20));
                return None;
            }
        }
    }
}

pub(super) fn say(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply::Say(status, Vec::new(), body.into())
}

/// A blob, or the part of it that was asked for.
pub(super) fn part(asked: &Asked, bytes: &[u8]) -> Reply {
    let start =
        asked.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match start {
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::Say(206, vec![("content-range", range)], bytes[start..].to_vec())
        }
        None => say(200, bytes),
    }
}

/// An image with its blobs.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) blobs: BTreeMap<String, Vec<u8>>,
    pub(super) manifest: Vec<u8>,
    /// Digests of the layers' blobs.
    pub(super) layers: Vec<String>,
    pub(super) id: Digest,
}

impl Made {
    /// An image of layers with one file each.
    pub(super) fn new(layers: &[(&str, Vec<u8>)], compression: Compression) -> Self {
        let tars: Vec<_> = layers.iter().map(|(name, content)| tar_of(name, content)).collect();
        Self::of_tars(&tars, compression)
    }

    pub(super) fn of_tars(tars: &[Vec<u8>], compression: Compression) -> Self {
        let mut made = Self { blobs: BTreeMap::new(), manifest: Vec::new(), layers: Vec::new(), id: Digest::of(b"") };
        let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar).to_string()).collect();
        let config = json!({"architecture": Platform::host().architecture, "os": "linux", "config": {"Cmd": ["/x"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = config.to_string().into_bytes();
        made.id = Digest::of(&config);
        let config = made.blob("application/vnd.oci.image.config.v1+json", config);
        let kind = match compression {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        let layers: Vec<Value> = tars
            .iter()
            .map(|tar| {
                let mut bytes = Vec::new();
                compression.encode(&mut bytes, |output| output.write_all(tar)).unwrap();
                made.blob(&format!("application/vnd.oci.image.layer.v1.tar{kind}"), bytes)
            })
            .collect();
        made.layers = layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers});
        made.manifest = manifest.to_string().into_bytes();
        made
    }

    fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = Digest::of(&bytes).to_string();
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.blobs.insert(digest, bytes);
        descriptor
    }

    pub(super) fn answer(&self, asked: &Asked) -> Reply {
        let last = asked.path.rsplit('/').next().unwrap();
        match () {
            () if asked.path == "/v2/" => say(200, "{}"),
            () if asked.path.contains("/manifests/") => {
                let kind = "application/vnd.oci.image.manifest.v1+json".to_owned();
                Reply::Say(200, vec![("content-type", kind)], self.manifest.clone())
            }
            () => self.blobs.get(last).map_or_else(|| say(404, ""), |bytes| part(asked, bytes)),
        }
    }
}

pub(super) fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    // Whoever runs the test owns it.
    header.set_uid(u64::from(nix::unistd::geteuid().as_raw()));
    header.set_gid(u64::from(nix::unistd::getegid().as_raw()));
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

/// Bytes that do not compress, the same for the same seed.
pub(super) fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    next.take(count).collect()
}

/// A store and registries with settings of their own.
pub(super) struct Here {
    pub(super) folder: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) registries: Registries,
}

impl Here {
    pub(super) fn new(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("data")).unwrap();
        let registries = registries(folder.path(), variables);
        Self { folder, store, registries }
    }

    /// With a login for a registry.
    pub(super) fn known_at(registry: &SocketAddr, user: &str, password: &str) -> Self {
        let here = Self::new(&[]);
        let credentials = rcompose::registry::Credentials::Password { user: user.into(), password: password.into() };
        here.registries.credentials().set(&registry.to_string(), &credentials).unwrap();
        here
    }

    pub(super) fn pull(&self, name: &Reference) -> Result<Pulled, Error> {
        self.registries.pull(&self.store, name, &Platform::host(), &|_, _| {})
    }

    /// The contents of a file of an image's top layer.
    pub(super) fn file(&self, image: &str, path: &str) -> Vec<u8> {
        let image = self.store.resolve(image).unwrap();
        std::fs::read(image.layers.iter().map(|layer| layer.join(path)).find(|path| path.exists()).unwrap()).unwrap()
    }
}

pub(super) fn registries(home: &Path, variables: &[(&str, &str)]) -> Registries {
    let mut environment: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    environment.insert("HOME".to_owned(), home.display().to_string());
    let mut settings = Settings::read(&environment).unwrap();
    settings.silence = Duration::from_millis(500);
    Registries::new(settings)
}
