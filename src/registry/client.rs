//! All registries as one process sees them: their servers, found once, and the documents they have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ureq::Body;
use ureq::http::Response;

use super::credentials::{CredentialFile, Credentials};
use super::endpoint::{Endpoint, Scope};
use super::error::Error;
use super::settings::Settings;
use super::transport;
use crate::image::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST};
use crate::image::{Digest, Manifest, Reference};

/// Manifests are kept in memory.
const MAX_MANIFEST: u64 = 8 * 1024 * 1024;
const MANIFEST_TYPES: [&str; 4] = [INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

/// The registries that this process talks to.
#[derive(Debug)]
pub struct Registries {
    pub(super) settings: Settings,
    endpoints: Mutex<BTreeMap<String, Arc<Vec<Endpoint>>>>,
}

/// A manifest as a server sent it.
pub(super) struct Sent {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
}

/// A manifest that was read.
pub(super) struct Fetched {
    pub(super) digest: Digest,
    pub(super) manifest: Manifest,
}

impl Registries {
    /// A client without a connection.
    pub fn new(settings: Settings) -> Self {
        Self { settings, endpoints: Mutex::default() }
    }

    /// [`Self::new`] with [`Settings::read`].
    ///
    /// # Errors
    /// As there.
    pub fn from_environment(environment: &BTreeMap<String, String>) -> Result<Self, Error> {
        Ok(Self::new(Settings::read(environment)?))
    }

    /// The digest of what a name leads to at its registry, without fetching it.
    ///
    /// # Errors
    /// Whatever the registry says, or that it cannot be reached.
    pub fn digest(&self, name: &Reference) -> Result<Digest, Error> {
        if let Some(digest) = name.digest() {
            return Ok(digest.clone());
        }
        self.first(name, |endpoint| {
            let answer = self.ask(endpoint, name, true, &tag_or_digest(name))?;
            let header = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
            match header.and_then(Digest::parse) {
                Some(digest) => Ok(digest),
                // Older registries do not say it.
                None => Ok(self.manifest(endpoint, name, &tag_or_digest(name))?.digest),
            }
        })
    }

    /// Whether a registry takes the credentials; they are not kept.
    ///
    /// # Errors
    /// It does not, or cannot be reached.
    pub fn check(&self, registry: &str, credentials: &Credentials) -> Result<(), Error> {
        match self.endpoints(registry)?.last() {
            Some(endpoint) => endpoint.login(&self.settings, credentials),
            None => Ok(()),
        }
    }

    /// The file that keeps credentials.
    pub fn credentials(&self) -> &CredentialFile {
        &self.settings.credentials
    }

    /// The first server's answer that is one; else the last one's failure.
    pub(super) fn first<T>(&self, name: &Reference, ask: impl Fn(&Endpoint) -> Result<T, Error>) -> Result<T, Error> {
        let endpoints = self.endpoints(name.registry())?;
        let Some((last, mirrors)) = endpoints.split_last() else {
            return Err(super::settings::setting("registry-mirrors", "there is no server to ask"));
        };
        for mirror in mirrors {
            match ask(mirror) {
                Err(error) if error.is_of_the_registry() => {}
                answer => return answer,
            }
        }
        ask(last)
    }

    pub(super) fn endpoints(&self, registry: &str) -> Result<Arc<Vec<Endpoint>>, Error> {
        let mut known = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(registry) {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(Endpoint::all(&self.settings, registry)?);
        known.insert(registry.to_owned(), Arc::clone(&found));
        Ok(found)
    }

    /// Fetches a manifest by tag or digest; a digest is checked.
    pub(super) fn manifest(&self, endpoint: &Endpoint, name: &Reference, which: &str) -> Result<Fetched, Error> {
        let Sent { digest, media_type, bytes } = self.manifest_bytes(endpoint, name, which)?;
        let manifest =
            Manifest::parse(&media_type, &bytes).map_err(|source| Error::Manifest { name: name.familiar(), source })?;
        Ok(Fetched { digest, manifest })
    }

    /// Fetches a manifest as it was written.
    pub(super) fn manifest_bytes(&self, endpoint: &Endpoint, name: &Reference, which: &str) -> Result<Sent, Error> {
        let answer = self.ask(endpoint, name, false, which)?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let media_type = header("content-type").unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let said = header("docker-content-digest");
        let body = answer.into_body().into_with_config().limit(MAX_MANIFEST).read_to_vec();
        let bytes = body.map_err(|error| transport::failure(&endpoint.registry, error))?;
        let digest = Digest::of(&bytes);
        if let Some(expected) = Digest::parse(which).or_else(|| said.as_deref().and_then(Digest::parse))
            && expected != digest
        {
            return Err(Error::WrongDigest { registry: endpoint.registry.clone(), expected, found: digest });
        }
        Ok(Sent { digest, media_type, bytes })
    }

    fn ask(&self, endpoint: &Endpoint, name: &Reference, head: bool, which: &str) -> Result<Response<Body>, Error> {
        let url = format!("{}/v2/{}/manifests/{which}", endpoint.base, name.path());
        let answer = endpoint.request(&self.settings, &Scope::pull(name.path()), &mut |agent, authorization| {
            let mut request = if head { agent.head(&url) } else { agent.get(&url) };
            for media_type in MANIFEST_TYPES {
                request = request.header("accept", media_type);
            }
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            request.call()
        });
        answer.map_err(|error| match error {
            Error::NotFound { registry, .. } => Error::NotFound { registry, name: name.familiar() },
            other => other,
        })
    }
}

/// How a manifest is asked for.
pub(super) fn tag_or_digest(name: &Reference) -> String {
    match (name.digest(), name.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}
