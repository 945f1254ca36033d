//! What registries refuse, and why they cannot be reached, in a person's words.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::image::Digest;
use crate::image::manifest::ManifestError;

/// A failure at a registry. [`Error::help`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "registry `{registry}` denies access to `{repository}`: it does not exist, or it may only be used after a login"
    )]
    Denied { registry: String, repository: String, logged_in: bool },
    #[error("registry `{registry}` does not accept the user name or password")]
    WrongPassword { registry: String },
    #[error("registry `{registry}` has no `{name}`")]
    NotFound { registry: String, name: String },
    #[error("registry `{registry}` takes no more requests for now{}", wait(*.retry_after))]
    TooManyRequests { registry: String, retry_after: Option<Duration> },
    #[error("registry `{registry}` answers with status {code}{}", said(.message))]
    Status { registry: String, code: u16, message: String },
    #[error("the certificate of registry `{registry}` is not trusted: {reason}")]
    Certificate { registry: String, reason: String },
    #[error("registry `{registry}` wants to see a certificate of ours, or does not take the one it sees")]
    OwnCertificate { registry: String },
    #[error("registry `{registry}` cannot be found: there is no such host name, or no name server answers")]
    UnknownHost { registry: String },
    #[error("registry `{registry}` cannot be reached")]
    Unreachable { registry: String, source: io::Error },
    #[error("registry `{registry}` does not answer in time")]
    Timeout { registry: String },
    #[error("the connection to registry `{registry}` broke")]
    Broken { registry: String, source: io::Error },
    #[error("what registry `{registry}` answers is not HTTP as it should be: {reason}")]
    Protocol { registry: String, reason: String },
    #[error("registry `{registry}` wants a kind of login that is not known here: `{header}`")]
    UnknownChallenge { registry: String, header: String },
    #[error("registry `{registry}` sends `{what}` with {found} bytes instead of {expected}")]
    WrongSize { registry: String, what: String, expected: u64, found: u64 },
    #[error("registry `{registry}` sends something else as `{expected}`: it has the digest {found}")]
    WrongDigest { registry: String, expected: Digest, found: Digest },
    #[error("the manifest of `{name}` cannot be used")]
    Manifest { name: String, source: ManifestError },
    #[error("`{name}` is no Compose project but {what}")]
    NoProject { name: String, what: String },
    #[error("`{path}` cannot be used")]
    CredentialFile { path: PathBuf, source: io::Error },
    #[error("credential helper `docker-credential-{helper}` failed: {message}")]
    Helper { helper: String, message: String },
    #[error("registry setting {name} is not valid: {reason}")]
    Setting { name: String, reason: String },
    #[error(transparent)]
    Store(#[from] crate::image::Error),
}

impl Error {
    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Denied { registry, logged_in: false, .. } => {
                format!("check the name, or log in with `rcompose login{}`", argument(registry))
            }
            Self::Denied { registry, logged_in: true, .. } => {
                format!(
                    "check the name and what your account may do, or log in again with `rcompose login{}`",
                    argument(registry)
                )
            }
            Self::WrongPassword { registry } => format!("log in again with `rcompose login{}`", argument(registry)),
            Self::NotFound { .. } => "check the name and the tag".to_owned(),
            Self::TooManyRequests { registry, .. } => {
                format!("wait, or log in with `rcompose login{}`: many registries allow more then", argument(registry))
            }
            Self::Certificate { registry, .. } => format!(
                "put the certificate of its authority into `/etc/docker/certs.d/{registry}/ca.crt`, or name the registry in RCOMPOSE_INSECURE_REGISTRIES if you do not need to know who it is"
            ),
            Self::OwnCertificate { registry } => {
                format!(
                    "put certificate and key into `/etc/docker/certs.d/{registry}/` as `client.cert` and `client.key`"
                )
            }
            Self::UnknownHost { .. } => "check the name, your network, and HTTPS_PROXY if you need a proxy".to_owned(),
            Self::Unreachable { .. } | Self::Timeout { .. } => {
                "check that it runs and that nothing blocks the way (firewall, VPN, HTTPS_PROXY)".to_owned()
            }
            Self::Protocol { registry, .. } => {
                format!("if it speaks plain HTTP, name `{registry}` in RCOMPOSE_INSECURE_REGISTRIES")
            }
            Self::Status { code: 500.., .. } => "that is a fault of the registry; try again later".to_owned(),
            _ => return None,
        })
    }

    /// Whether another registry with the same images may do better.
    pub(super) fn is_of_the_registry(&self) -> bool {
        !matches!(self, Self::Store(_) | Self::CredentialFile { .. } | Self::Helper { .. } | Self::Setting { .. })
    }
}

fn argument(registry: &str) -> String {
    if registry == "docker.io" { String::new() } else { format!(" {registry}") }
}

fn wait(time: Option<Duration>) -> String {
    match time.map(|time| time.as_secs()) {
        None => String::new(),
        Some(seconds @ ..120) => format!("; it says to wait {seconds} s"),
        Some(seconds) => format!("; it says to wait {} minutes", seconds.div_ceil(60)),
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
