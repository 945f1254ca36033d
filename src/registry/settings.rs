//! How registries are reached: mirrors, who may be spoken to without a certificate, authorities, proxies.
//!
//! Docker's own files count (`/etc/docker/daemon.json`, `/etc/docker/certs.d`), so that a machine set up for Docker needs
//! nothing more, and variables come before them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::credentials::CredentialFile;
use super::error::Error;
use crate::base::disk;

const DAEMON_FILE: &str = "/etc/docker/daemon.json";
const CERTIFICATES: &str = "/etc/docker/certs.d";

/// Everything that decides how a registry is spoken to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// URLs that are asked before Docker Hub, in order.
    pub mirrors: Vec<String>,
    insecure: Vec<Insecure>,
    /// Folders with one folder per registry (`host:port`), each with `*.crt`, and `*.cert` with `*.key` for ourselves.
    certificates: Vec<PathBuf>,
    pub http_proxy: Option<String>,
    pub https_proxy: Option<String>,
    pub no_proxy: String,
    pub credentials: CredentialFile,
    /// The longest silence of a registry.
    pub silence: Duration,
}

/// A registry that may use plain HTTP or a certificate that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Insecure {
    Name(String),
    Network(IpNetwork),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct DaemonFile {
    registry_mirrors: Vec<String>,
    insecure_registries: Vec<String>,
}

impl Settings {
    /// Reads them from the environment and from Docker's files.
    ///
    /// # Errors
    /// A file or a variable is not valid.
    pub fn read(environment: &BTreeMap<String, String>) -> Result<Self, Error> {
        let file: DaemonFile = match disk::read_json(Path::new(DAEMON_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => DaemonFile::default(),
            read => read.map_err(|error| setting(DAEMON_FILE, &error.to_string()))?.unwrap_or_default(),
        };
        Self::new(environment, file.registry_mirrors, &file.insecure_registries)
    }

    fn new(environment: &BTreeMap<String, String>, mirrors: Vec<String>, insecure: &[String]) -> Result<Self, Error> {
        let get = |name: &str| environment.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let list = |name: &str| {
            get(name).map(|text| text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()))
        };
        let mirrors = list("RCOMPOSE_REGISTRY_MIRRORS").map_or(mirrors, Iterator::collect);
        if let Some(bad) = mirrors.iter().find(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            return Err(setting("registry-mirrors", &format!("`{bad}` does not begin with http:// or https://")));
        }
        let named = list("RCOMPOSE_INSECURE_REGISTRIES").into_iter().flatten();
        let insecure = named.chain(insecure.iter().cloned()).map(|text| Insecure::parse(&text)).collect();
        let home = get("HOME").map(PathBuf::from);
        let docker = get("DOCKER_CONFIG").map(PathBuf::from);
        let docker =
            docker.or_else(|| Some(home.as_ref()?.join(".docker"))).unwrap_or_else(|| PathBuf::from("/root/.docker"));
        let own = get("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home?.join(".config")));
        let mut certificates = vec![PathBuf::from(CERTIFICATES)];
        certificates.extend(own.map(|folder| folder.join("docker/certs.d")));
        let proxy = |upper: &str, lower: &str| get(lower).or_else(|| get(upper)).map(str::to_owned);
        Ok(Self {
            mirrors: mirrors.into_iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
            insecure,
            certificates,
            http_proxy: proxy("HTTP_PROXY", "http_proxy"),
            https_proxy: proxy("HTTPS_PROXY", "https_proxy"),
            no_proxy: proxy("NO_PROXY", "no_proxy").unwrap_or_default(),
            credentials: CredentialFile::new(docker.join("config.json")),
            silence: Duration::from_secs(30),
        })
    }

    /// Whether the registry `host[:port]` may be spoken to without a valid certificate: on loopback, or where it is said so.
    pub fn is_insecure(&self, registry: &str) -> bool {
        let name = host(registry);
        let address: Option<IpAddr> = name.parse().ok();
        if name == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        self.insecure.iter().any(|insecure| match insecure {
            Insecure::Name(text) => text == registry || text == name,
            Insecure::Network(network) => address.is_some_and(|address| network.contains(address)),
        })
    }

    /// Whether the registry is reached without a proxy: on loopback, or by the words of `NO_PROXY` (names with what is below
    /// them, addresses, networks, `*`).
    pub fn is_direct(&self, registry: &str) -> bool {
        let name = host(registry);
        let address: Option<IpAddr> = name.parse().ok();
        if name == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let covers = |part: &str| {
            let below = part.trim_start_matches(['*', '.']);
            part == "*"
                || part == registry
                || part == name
                || (!below.is_empty() && name.strip_suffix(below).is_some_and(|rest| rest.ends_with('.')))
                || part.parse().is_ok_and(|network: IpNetwork| address.is_some_and(|address| network.contains(address)))
        };
        self.no_proxy.split(',').map(str::trim).filter(|part| !part.is_empty()).any(covers)
    }

    /// Certificates of authorities that this registry's own may be signed by, and our own certificate with its key, all PEM.
    ///
    /// # Errors
    /// A file is there and cannot be read.
    pub fn certificates(&self, registry: &str) -> Result<Certificates, Error> {
        let mut found = Certificates::default();
        for folder in self.certificates.iter().map(|folder| folder.join(registry)) {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            paths.sort();
            let read =
                |path: &Path| fs::read(path).map_err(|error| setting(&path.display().to_string(), &error.to_string()));
            for path in paths {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => found.authorities.push(read(&path)?),
                    Some("cert") if found.own.is_none() => {
                        found.own = Some((read(&path)?, read(&path.with_extension("key"))?));
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }
}

/// What lies in a registry's folder.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    pub authorities: Vec<Vec<u8>>,
    /// Certificate and key.
    pub own: Option<(Vec<u8>, Vec<u8>)>,
}

impl Insecure {
    fn parse(text: &str) -> Self {
        match text.parse() {
            Ok(network) if text.contains('/') => Self::Network(network),
            _ => Self::Name(text.to_owned()),
        }
    }
}

/// The host of `host`, `host:port`, `[::1]:port`.
pub(super) fn host(registry: &str) -> &str {
    match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    }
}

pub(super) fn setting(name: &str, reason: &str) -> Error {
    Error::Setting { name: name.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, Error> {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::new(&environment, vec!["https://mirror.example/".to_owned()], &["10.0.0.0/8".to_owned()])
    }

    #[test]
    fn loopback_and_what_is_named_needs_no_certificate() {
        let settings = settings(&[("RCOMPOSE_INSECURE_REGISTRIES", "build.lan:5000, plain.lan")]).unwrap();
        for insecure in
            ["localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000", "build.lan:5000", "plain.lan:7", "10.1.2.3"]
        {
            assert!(settings.is_insecure(insecure), "{insecure}");
        }
        for secure in ["docker.io", "build.lan", "build.lan:5001", "11.1.2.3:80", "localhost.example"] {
            assert!(!settings.is_insecure(secure), "{secure}");
        }
    }

    #[test]
    fn no_proxy_covers_names_below_addresses_and_networks() {
        let settings = settings(&[("no_proxy", "example.com, .lan,10.0.0.0/8,1.2.3.4,b.org:5000")]).unwrap();
        for direct in [
            "localhost:1",
            "127.0.0.1:5000",
            "example.com",
            "a.example.com:7",
            "x.lan",
            "10.9.9.9:1",
            "1.2.3.4",
            "b.org:5000",
        ] {
            assert!(settings.is_direct(direct), "{direct}");
        }
        for proxied in ["badexample.com", "b.org", "docker.io", "11.0.0.1"] {
            assert!(!settings.is_direct(proxied), "{proxied}");
        }
    }

    #[test]
    fn variables_come_first() {
        assert_eq!(settings(&[]).unwrap().mirrors, ["https://mirror.example"]);
        let read = settings(&[
            ("RCOMPOSE_REGISTRY_MIRRORS", "http://a:5000"),
            ("HTTPS_PROXY", "http://upper"),
            ("https_proxy", "http://lower"),
            ("HOME", "/home/me"),
        ])
        .unwrap();
        assert_eq!(read.mirrors, ["http://a:5000"]);
        assert_eq!(read.https_proxy.as_deref(), Some("http://lower"));
        assert_eq!(read.credentials.path(), Path::new("/home/me/.docker/config.json"));
        assert!(settings(&[("RCOMPOSE_REGISTRY_MIRRORS", "a:5000")]).is_err());
    }
}
