//! Images whose manifest is known and whose blobs come from elsewhere, one by one.

use std::io::{self, Read};

use super::config::ImageDocument;
use super::digest::Digest;
use super::error::{Error, UnpackError};
use super::incoming::{Incoming, IncomingLayer};
use super::intake::Intake;
use super::load::{LayerStep, Loaded};
use super::manifest::{Descriptor, Platform};
use super::reference::Reference;
use super::store::Store;

/// Layers on their way at once: one is held up by the network while another is unpacked.
const WORKERS: usize = 3;

/// An image as a registry has it.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The name that it is asked for by.
    pub name: Reference,
    /// Digest of what the name leads to: the manifest, or the index that has it.
    pub manifest: Digest,
    /// What the manifest says of the configuration, and the configuration itself.
    pub config: (Descriptor, Vec<u8>),
    /// Lowest first.
    pub layers: Vec<Descriptor>,
}

/// Opens a blob; it must have as many bytes as its descriptor says.
pub type Fetch<'a> = &'a (dyn Fn(&Descriptor) -> io::Result<Box<dyn Read + Send + 'a>> + Sync);

impl Store {
    /// Takes in an image, layer by layer: each is unpacked while it is read, and counts when its digests are right. Layers
    /// that the store has are not fetched; what was made before a failure stays for the next try. Where two processes take
    /// in the same layer, one does it and the other waits.
    ///
    /// # Errors
    /// The configuration or a layer is not what its digest says or is refused, a blob cannot be fetched, or the store
    /// cannot be written. The image is then not there.
    pub fn take(
        &self,
        offer: Offer,
        fetch: Fetch<'_>,
        told: &(dyn Fn(&Digest, LayerStep) + Sync),
    ) -> Result<Loaded, Error> {
        let image = incoming(&offer)?;
        let blob = |layer: &IncomingLayer| offer.layers.iter().find(|one| Some(&one.digest) == layer.blob.as_ref());
        let open = |layer: &IncomingLayer| -> Result<Box<dyn Read + Send>, Error> {
            let found = blob(layer).ok_or(io::ErrorKind::NotFound.into()).and_then(fetch);
            found.map_err(|source| Error::Unpack { layer: layer.member.clone(), source: UnpackError::Read(source) })
        };
        let intake = Intake::new(self)?;
        let layers: Vec<_> = image.layers.iter().collect();
        let told = |layer: &IncomingLayer, step| layer.blob.iter().for_each(|blob| told(blob, step));
        let (_, outcome) = self.take_layers(&intake, &layers, WORKERS, &open, &told);
        outcome?;
        let id = image.id.clone();
        let repository = offer.name.repository();
        for (layer, blob) in image.layers.iter().zip(&offer.layers) {
            self.note_blob(&layer.diff_id, blob, &repository)?;
        }
        let loaded = self.commit(&intake, vec![image])?;
        Ok(loaded.into_iter().next().unwrap_or(Loaded { id, names: Vec::new() }))
    }
}

impl Store {
    /// Gives an image that came from a registry before its name again, without another look at it. `None`: it is not here,
    /// or another platform's. `manifest` is the digest of what the name leads to.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn name_again(
        &self,
        name: &Reference,
        manifest: &Digest,
        platform: &Platform,
    ) -> Result<Option<Digest>, Error> {
        let key = format!("{}@{manifest}", name.repository());
        let Ok(image) = self.resolve(&key) else { return Ok(None) };
        if !platform.accepts(&image.document.platform()) {
            return Ok(None);
        }
        self.change(|database| {
            // It may have gone in the meantime.
            let id = database.digests.get(&key).cloned();
            if let (Some(id), None) = (&id, name.digest()) {
                database.name(name.key(), id.clone(), jiff::Timestamp::now().as_second());
            }
            Ok(id)
        })
    }

    /// When a name was given to its image last, in seconds since the epoch; `None`: nobody wrote it down.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn named_at(&self, name: &Reference) -> Result<Option<i64>, Error> {
        Ok(self.database()?.named_at.get(&name.key()).copied())
    }
}

fn incoming(offer: &Offer) -> Result<Incoming, Error> {
    let (descriptor, config) = &offer.config;
    let name = offer.name.familiar();
    let member = descriptor.digest.to_string();
    let found = Digest::of(config);
    if found != descriptor.digest {
        return Err(Error::WrongDigest { member, expected: descriptor.digest.clone(), found });
    }
    let refused = |reason: String| Error::Refused { archive: name.clone(), member: member.clone(), reason };
    let document: ImageDocument = serde_json::from_slice(config).map_err(|source| Error::BadDocument {
        archive: name.clone(),
        member: member.clone(),
        source,
    })?;
    let diff_ids = document.rootfs.diff_ids;
    if diff_ids.len() != offer.layers.len() {
        return Err(refused(format!("it names {} layers, the manifest {}", diff_ids.len(), offer.layers.len())));
    }
    let layers = diff_ids.into_iter().zip(&offer.layers).map(|(diff_id, blob)| IncomingLayer {
        diff_id,
        member: blob.digest.to_string(),
        blob: Some(blob.digest.clone()),
    });
    let tagged = offer.name.digest().is_none();
    Ok(Incoming {
        id: found,
        config: config.clone(),
        names: if tagged { vec![offer.name.clone()] } else { Vec::new() },
        digest: Some(format!("{}@{}", offer.name.repository(), offer.manifest)),
        layers: layers.collect(),
    })
}
