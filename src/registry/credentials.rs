//! Who one is to a registry: Docker's `config.json`, and the programs that keep secrets for it.
//!
//! <https://docs.docker.com/reference/cli/docker/login/>, <https://github.com/docker/docker-credential-helpers>

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::Error;
use crate::base::disk;
use crate::sys::path;

/// The key that Docker Hub has in the file, for historical reasons.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// The name under which a helper keeps a token instead of a password.
const TOKEN_USER: &str = "<token>";

/// What proves who one is.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// A refresh token (OAuth 2).
    IdentityToken(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => f.debug_struct("Password").field("user", user).finish_non_exhaustive(),
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
        }
    }
}

/// Docker's configuration file.
#[derive(Clone, Debug)]
pub struct CredentialFile {
    path: PathBuf,
}

/// The parts that matter here.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: Map<String, Value>,
    creds_store: Option<String>,
    cred_helpers: Map<String, Value>,
}

impl CredentialFile {
    /// `path`: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file: docker's `config.json`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The credentials for a registry (`docker.io`, `localhost:5000`); `None`: anonymous.
    ///
    /// # Errors
    /// The file is no such file, or a helper cannot be run.
    pub fn get(&self, registry: &str) -> Result<Option<Credentials>, Error> {
        let config = self.read()?;
        let server = server(registry);
        if let Some(helper) = helper(&config, registry) {
            return ask_helper(&helper, server);
        }
        let entry = config.auths.get(server).or_else(|| {
            let same = |key: &str| {
                hostname(key) == registry || (registry == "docker.io" && hostname(key) == "index.docker.io")
            };
            config.auths.iter().find(|(key, _)| same(key)).map(|(_, entry)| entry)
        });
        Ok(entry.and_then(from_entry))
    }

    /// Keeps credentials: with the helper that the file names, else in the file itself. Whether they lie in it readably.
    ///
    /// # Errors
    /// The helper fails, or the file cannot be written.
    pub fn set(&self, registry: &str, credentials: &Credentials) -> Result<bool, Error> {
        let config = self.read()?;
        let server = server(registry);
        let helper = helper(&config, registry);
        let (user, secret) = match credentials {
            Credentials::Password { user, password } => (user.as_str(), password),
            Credentials::IdentityToken(token) => (TOKEN_USER, token),
        };
        let entry = match &helper {
            Some(helper) => {
                let input = json!({ "ServerURL": server, "Username": user, "Secret": secret });
                run_helper(helper, "store", &input.to_string())?;
                json!({})
            }
            None => match credentials {
                Credentials::Password { user, password } => {
                    json!({ "auth": STANDARD.encode(format!("{user}:{password}")) })
                }
                Credentials::IdentityToken(token) => json!({ "auth": STANDARD.encode(":"), "identitytoken": token }),
            },
        };
        self.change(|auths| drop(auths.insert(server.to_owned(), entry)))?;
        Ok(helper.is_none())
    }

    /// Forgets a registry's credentials. Whether there were any.
    ///
    /// # Errors
    /// The helper fails, or the file cannot be written.
    pub fn remove(&self, registry: &str) -> Result<bool, Error> {
        let config = self.read()?;
        let server = server(registry);
        let known = self.get(registry)?.is_some();
        if let Some(helper) = helper(&config, registry).filter(|_| known) {
            run_helper(&helper, "erase", server)?;
        }
        if config.auths.keys().any(|key| key == server || hostname(key) == registry) {
            self.change(|auths| auths.retain(|key, _| key != server && hostname(key) != registry))?;
        }
        Ok(known)
    }

    fn read(&self) -> Result<Config, Error> {
        let bad = |source| Error::CredentialFile { path: self.path.clone(), source };
        match disk::read_json(&self.path) {
            // Where nothing is to be read, nobody has logged in.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Config::default()),
            read => Ok(read.map_err(bad)?.unwrap_or_default()),
        }
    }

    /// Changes `auths` and nothing else of the file.
    fn change(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<(), Error> {
        let bad = |source| Error::CredentialFile { path: self.path.clone(), source };
        let mut document: Map<String, Value> = disk::read_json(&self.path).map_err(bad)?.unwrap_or_default();
        let auths = document.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        if let Some(auths) = auths.as_object_mut() {
            change(auths);
        }
        let text = serde_json::to_vec_pretty(&document).map_err(|error| bad(error.into()))?;
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(bad)?;
        }
        // A link (dotfiles kept elsewhere) stays one.
        let target = fs::canonicalize(&self.path).unwrap_or_else(|_new| self.path.clone());
        replace_private(&target, &text).map_err(bad)
    }
}

/// Replaces a file with one that only its owner can read, at no moment anybody else.
fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_added_extension(format!("{}.new", std::process::id()));
    let written = (|| {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn server(registry: &str) -> &str {
    if registry == "docker.io" { DOCKER_HUB } else { registry }
}

/// `https://host:port/v1/` is `host:port`.
fn hostname(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}

/// The program that keeps a registry's secrets, without its prefix.
fn helper(config: &Config, registry: &str) -> Option<String> {
    let own = config.cred_helpers.get(registry).or_else(|| config.cred_helpers.get(server(registry)));
    let name = own.and_then(Value::as_str).map(str::to_owned).or_else(|| config.creds_store.clone())?;
    (!name.is_empty()).then_some(name)
}

fn from_entry(entry: &Value) -> Option<Credentials> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("identitytoken") {
        return Some(Credentials::IdentityToken(token.to_owned()));
    }
    if let Some(auth) = text("auth") {
        let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        let password = password.trim_end_matches('\0');
        return Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() });
    }
    let (user, password) = (text("username")?, text("password")?);
    Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
}

fn ask_helper(helper: &str, server: &str) -> Result<Option<Credentials>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let answer = match run_helper(helper, "get", server) {
        Err(Error::Helper { message, .. }) if message.contains("credentials not found") => return Ok(None),
        answer => answer?,
    };
    let answer: Answer = serde_json::from_str(&answer).map_err(|error| Error::Helper {
        helper: helper.to_owned(),
        message: format!("its answer is not valid: {error}"),
    })?;
    Ok(match answer {
        Answer { username, secret } if username == TOKEN_USER => Some(Credentials::IdentityToken(secret)),
        Answer { username, secret } if !(username.is_empty() && secret.is_empty()) => {
            Some(Credentials::Password { user: username, password: secret })
        }
        _ => None,
    })
}

/// Runs `docker-credential-HELPER VERB` with `input` on its standard input, and returns what it says.
fn run_helper(helper: &str, verb: &str, input: &str) -> Result<String, Error> {
    let failed = |message: String| Error::Helper { helper: helper.to_owned(), message };
    if helper.contains('/') {
        return Err(failed("its name has a `/`".to_owned()));
    }
    let program = format!("docker-credential-{helper}");
    let cannot_run = |error: io::Error| failed(format!("`{program}` cannot be run: {error}"));
    let mut child = Command::new(path::program(&program).map_err(cannot_run)?)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(cannot_run)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // It did not want to know; its status tells.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error.to_string())),
            _ => {}
        }
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(failed(text.trim().to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(text: &str) -> (tempfile::TempDir, CredentialFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker/config.json");
        if !text.is_empty() {
            fs::create_dir(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        }
        (folder, CredentialFile::new(path))
    }

    fn password(user: &str, password: &str) -> Credentials {
        Credentials::Password { user: user.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn entries_as_docker_and_others_write_them() {
        let (_folder, file) = file(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6cGE6c3M="},"http://old.example/v1/":{"username":"u","password":"p"},
                "token.example":{"auth":"Og==","identitytoken":"t"},"empty.example":{}},"credHelpers":{},"psFormat":"x"}"#,
        );
        assert_eq!(file.get("docker.io").unwrap(), Some(password("me", "pa:ss")));
        assert_eq!(file.get("old.example").unwrap(), Some(password("u", "p")));
        assert_eq!(file.get("token.example").unwrap(), Some(Credentials::IdentityToken("t".to_owned())));
        assert_eq!(file.get("empty.example").unwrap(), None);
        assert_eq!(file.get("other.example").unwrap(), None);
    }

    #[test]
    fn what_is_kept_is_found_and_the_rest_of_the_file_stays() {
        let (_folder, file) = file(r#"{"psFormat":"x","auths":{"other":{"auth":"YTpi"}}}"#);
        assert!(file.set("docker.io", &password("me", "secret")).unwrap());
        assert_eq!(file.get("docker.io").unwrap(), Some(password("me", "secret")));
        let text = fs::read_to_string(file.path()).unwrap();
        assert!(text.contains("psFormat") && text.contains("YTpi") && !text.contains("secret"));
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(file.remove("docker.io").unwrap());
        assert!(!file.remove("docker.io").unwrap());
        assert_eq!(file.get("other").unwrap(), Some(password("a", "b")));
    }

    #[test]
    fn no_file_is_made_and_bad_files_are_told() {
        let (_folder, missing) = file("");
        assert_eq!(missing.get("docker.io").unwrap(), None);
        assert!(missing.set("a.example", &password("a", "b")).unwrap());
        assert_eq!(missing.get("a.example").unwrap(), Some(password("a", "b")));
        let (_folder, bad) = file("{");
        assert!(matches!(bad.get("docker.io"), Err(Error::CredentialFile { .. })));
        let (_folder, helper) = file(r#"{"credsStore":"../../bin/sh"}"#);
        assert!(matches!(helper.get("docker.io"), Err(Error::Helper { .. })));
    }
}
