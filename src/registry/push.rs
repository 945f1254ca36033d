//! From an image in the store to a registry.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::{Mutex, PoisonError};
use std::thread;

use ureq::http::{Response, StatusCode};
use ureq::{Body, SendBody};

use super::client::Registries;
use super::endpoint::{Endpoint, Scope};
use super::error::Error;
use super::retry::{self, Attempt};
use crate::image::manifest::{CONFIG, MANIFEST, OciManifest};
use crate::image::{Descriptor, Digest, Reference, Store};

/// Layers on their way at once.
const WORKERS: usize = 3;

/// What happens to a layer that is pushed; the layer is named by the digest of its uncompressed archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushStep {
    Preparing,
    /// So many bytes have gone, of so many.
    Bytes(u64, u64),
    Exists,
    /// It was taken over from another repository of the registry.
    Mounted,
    Pushed,
}

/// Is told what happens; from several threads.
pub type PushTold<'a> = &'a (dyn Fn(&Digest, PushStep) + Sync);

impl Registries {
    /// Pushes the image that the store has as `name`. Returns the manifest's digest and its size in bytes. Layers that the
    /// registry has are not sent again.
    ///
    /// # Errors
    /// There is no such image; the registry refuses or cannot be reached.
    pub fn push(&self, store: &Store, name: &Reference, told: PushTold<'_>) -> Result<(Digest, u64), Error> {
        let image = store.resolve(&name.familiar())?;
        let (config, document) = store.document(&image.id)?;
        let pushed = self.push_parts(store, name, &config, &document.rootfs.diff_ids, told)?;
        store.note_pushed(name, &pushed.0)?;
        Ok(pushed)
    }

    /// Pushes an image of this configuration, which the store need not have, and of these layers, which it has.
    ///
    /// # Errors
    /// The registry refuses or cannot be reached.
    pub fn push_parts(
        &self,
        store: &Store,
        name: &Reference,
        config: &[u8],
        layers: &[Digest],
        told: PushTold<'_>,
    ) -> Result<(Digest, u64), Error> {
        self.with(store, name, told, |push| {
            let layers = push.layers(layers)?;
            let config = push.bytes(CONFIG, config)?;
            let manifest = OciManifest { schema_version: 2, media_type: MANIFEST.to_owned(), config, layers };
            let bytes = serde_json::to_vec(&manifest).unwrap_or_default();
            Ok((push.manifest(&bytes)?, bytes.len() as u64))
        })
    }

    /// Pushes a small blob of an artifact.
    pub(super) fn push_bytes(
        &self,
        store: &Store,
        name: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, Error> {
        self.with(store, name, &|_, _| {}, |push| push.bytes(media_type, bytes))
    }

    /// Pushes the manifest of an artifact, whose blobs are there. Returns its digest.
    pub(super) fn push_manifest(&self, store: &Store, name: &Reference, bytes: &[u8]) -> Result<Digest, Error> {
        self.with(store, name, &|_, _| {}, |push| push.manifest(bytes))
    }

    fn with<T>(
        &self,
        store: &Store,
        name: &Reference,
        told: PushTold<'_>,
        push: impl FnOnce(&Push<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // Mirrors are only read from.
        let endpoints = self.endpoints(name.registry())?;
        let endpoint = endpoints.last().ok_or_else(|| super::settings::setting("registry-mirrors", "no server"))?;
        push(&Push { registries: self, endpoint, store, name, told })
    }
}

fn with<T>(request: ureq::RequestBuilder<T>, authorization: Option<&str>) -> ureq::RequestBuilder<T> {
    match authorization {
        Some(value) => request.header("authorization", value),
        None => request,
    }
}

/// What is uploaded; it can be sent again.
enum Content<'a> {
    Bytes(&'a [u8]),
    /// A layer.
    File(&'a File, &'a Digest),
}

/// A file that tells how much of it has been read.
struct Counting<'a> {
    file: &'a File,
    count: u64,
    told: &'a dyn Fn(u64),
}

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.count += read as u64;
        (self.told)(self.count);
        Ok(read)
    }
}

struct Push<'a> {
    registries: &'a Registries,
    endpoint: &'a Endpoint,
    store: &'a Store,
    name: &'a Reference,
    told: PushTold<'a>,
}

impl Push<'_> {
    fn scope(&self, from: Option<String>) -> Scope {
        Scope { repository: self.name.path().to_owned(), actions: "pull,push", from }
    }

    /// Sees to it that the registry has the layers; their blobs there, lowest first.
    fn layers(&self, diff_ids: &[Digest]) -> Result<Vec<Descriptor>, Error> {
        let mut distinct = diff_ids.to_vec();
        distinct.sort();
        distinct.dedup();
        let queue = Mutex::new(distinct.iter());
        let done = Mutex::new((BTreeMap::new(), None));
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some(layer) = next() {
                let outcome = self.layer(layer);
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                match outcome {
                    Ok(blob) => drop(done.0.insert(layer.clone(), blob)),
                    Err(error) => drop(done.1.get_or_insert(error)),
                }
                if done.1.is_some() {
                    return;
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..WORKERS.min(distinct.len()) {
                scope.spawn(work);
            }
            work();
        });
        let (blobs, failure) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        match failure {
            Some(failure) => Err(failure),
            None => Ok(diff_ids.iter().filter_map(|layer| blobs.get(layer).cloned()).collect()),
        }
    }

    fn layer(&self, layer: &Digest) -> Result<Descriptor, Error> {
        (self.told)(layer, PushStep::Preparing);
        let known = self.store.known_blobs(layer);
        for one in &known {
            if self.exists(&one.blob)? {
                (self.told)(layer, PushStep::Exists);
                return Ok(one.blob.clone());
            }
        }
        let registry = format!("{}/", self.name.registry());
        for one in &known {
            let from = one.repositories.iter().filter_map(|repository| repository.strip_prefix(&registry));
            for from in from {
                if self.mount(&one.blob, from)? {
                    self.store.note_blob(layer, &one.blob, &self.name.repository())?;
                    (self.told)(layer, PushStep::Mounted);
                    return Ok(one.blob.clone());
                }
            }
        }
        let (blob, file) = self.store.compressed(layer)?;
        if self.exists(&blob)? {
            (self.told)(layer, PushStep::Exists);
        } else {
            self.upload(&blob, &Content::File(&file, layer))?;
            (self.told)(layer, PushStep::Pushed);
        }
        self.store.note_blob(layer, &blob, &self.name.repository())?;
        Ok(blob)
    }

    /// A small blob, sent unless it is there.
    fn bytes(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
        let blob = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
        if !self.exists(&blob)? {
            self.upload(&blob, &Content::Bytes(bytes))?;
        }
        Ok(blob)
    }

    /// Puts a manifest under the name's tag. Returns its digest.
    fn manifest(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        let which = self.name.tag().map_or_else(|| digest.to_string(), str::to_owned);
        let url = format!("{}/v2/{}/manifests/{which}", self.endpoint.base, self.name.path());
        self.endpoint.request(&self.registries.settings, &self.scope(None), &mut |agent, authorization| {
            let request = agent.put(&url).header("content-type", MANIFEST);
            with(request, authorization).send(bytes)
        })?;
        Ok(digest)
    }

    fn exists(&self, blob: &Descriptor) -> Result<bool, Error> {
        let url = format!("{}/v2/{}/blobs/{}", self.endpoint.base, self.name.path(), blob.digest);
        let asked = self.endpoint.request(&self.registries.settings, &self.scope(None), &mut |agent, authorization| {
            with(agent.head(&url), authorization).call()
        });
        match asked {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes a blob over from another repository. Whether the registry did.
    fn mount(&self, blob: &Descriptor, from: &str) -> Result<bool, Error> {
        if from == self.name.path() {
            return Ok(false);
        }
        let path = self.name.path();
        let url = format!("{}/v2/{path}/blobs/uploads/?mount={}&from={from}", self.endpoint.base, blob.digest);
        let scope = self.scope(Some(from.to_owned()));
        let answer = self.endpoint.once(&self.registries.settings, &scope, &mut |agent, authorization| {
            with(agent.post(&url), authorization).send_empty()
        })?;
        if answer.status() == StatusCode::ACCEPTED {
            // It began an upload instead, which nobody wants.
            if let Some(location) = self.location(&answer) {
                let _ = self.endpoint.once(&self.registries.settings, &scope, &mut |agent, authorization| {
                    with(agent.delete(&location), authorization).call()
                });
            }
        }
        Ok(answer.status() == StatusCode::CREATED)
    }

    /// Sends a blob whole; from the beginning again when the connection breaks.
    fn upload(&self, blob: &Descriptor, content: &Content<'_>) -> Result<(), Error> {
        let (settings, scope) = (&self.registries.settings, self.scope(None));
        let begin = format!("{}/v2/{}/blobs/uploads/", self.endpoint.base, self.name.path());
        let mut number = 1;
        loop {
            let answer = self.endpoint.request(settings, &scope, &mut |agent, authorization| {
                with(agent.post(&begin), authorization).send_empty()
            })?;
            let location = self.location(&answer).ok_or_else(|| Error::Protocol {
                registry: self.endpoint.registry.clone(),
                reason: "it does not say where to upload to".to_owned(),
            })?;
            let join = if location.contains('?') { '&' } else { '?' };
            let url = format!("{location}{join}digest={}", super::auth::escape(&blob.digest.to_string()));
            let sent = self.endpoint.once(settings, &scope, &mut |agent, authorization| {
                let request = agent.put(&url).header("content-type", "application/octet-stream");
                let request = request.header("content-length", blob.size.to_string());
                let request = with(request, authorization);
                match content {
                    Content::Bytes(bytes) => request.send(*bytes),
                    Content::File(file, layer) => {
                        let mut file: &File = file;
                        file.rewind()?;
                        let mut body = Counting {
                            file,
                            count: 0,
                            told: &|count| {
                                (self.told)(layer, PushStep::Bytes(count, blob.size));
                            },
                        };
                        request.send(SendBody::from_reader(&mut body))
                    }
                }
            });
            let (attempt, error) = match sent {
                Ok(answer) if answer.status() == StatusCode::CREATED || answer.status() == StatusCode::NO_CONTENT => {
                    return Ok(());
                }
                Ok(answer) => self.endpoint.refusal(&scope, answer),
                Err(error @ (Error::Broken { .. } | Error::Timeout { .. })) => (Attempt::Connection, error),
                Err(error) => return Err(error),
            };
            match retry::pause(attempt, number) {
                Some(pause) => thread::sleep(pause),
                None => return Err(error),
            }
            number += 1;
        }
    }

    /// The `Location` of an answer, which may leave out the server.
    fn location(&self, answer: &Response<Body>) -> Option<String> {
        let location = answer.headers().get("location")?.to_str().ok()?;
        Some(if location.starts_with('/') {
            format!("{}{location}", self.endpoint.origin())
        } else {
            location.to_owned()
        })
    }
}
