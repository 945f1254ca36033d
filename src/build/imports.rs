//! Steps that were made elsewhere.

use super::builder::Site;
use super::cache::Key;
use super::error::BuildError;
use super::request::{CachePlace, Event, Outside, Request};
use crate::image::{CacheOffer, Digest, MadeLayer};

/// The caches that a build looks into when this machine's own does not have a step.
pub(super) struct Imports<'a> {
    site: &'a Site<'a>,
    outside: &'a Outside<'a>,
    found: Vec<(CachePlace, CacheOffer)>,
}

impl<'a> Imports<'a> {
    /// Opens them. One that cannot be used is told, and the build goes on without it.
    pub(super) fn open(site: &'a Site<'a>, outside: &'a Outside<'a>, request: &Request) -> Self {
        let mut found = Vec::new();
        for place in if request.no_cache { &[] } else { request.cache_from.as_slice() } {
            let step = site.begin(outside, format!("[{}internal] import the cache of {place}", request.prefix()));
            let opened = (outside.caches.open)(place);
            (outside.tell)(match &opened {
                Ok(_) => Event::Done { step },
                Err(error) => {
                    let message = format!("{}: the build goes on without this cache", error.message);
                    Event::Failed { step, message }
                }
            });
            found.extend(opened.map(|offer| (place.clone(), offer)));
        }
        Self { site, outside, found }
    }

    /// The layer that the step has made elsewhere, when, and where that is.
    pub(super) fn bring(&self, key: &Key, step: u32) -> Option<(MadeLayer, String, String)> {
        for (place, offer) in &self.found {
            let Some(found) = offer.steps.iter().find(|step| step.key == *key.digest()) else { continue };
            match self.layer(place, offer, &found.layer) {
                Ok(layer) => return Some((layer, found.created.clone(), place.to_string())),
                Err(error) => {
                    let text = format!("the layer cannot be had from {place}: {}", error.message);
                    (self.outside.tell)(Event::Line { step, text });
                }
            }
        }
        None
    }

    fn layer(&self, place: &CachePlace, offer: &CacheOffer, layer: &Digest) -> Result<MadeLayer, BuildError> {
        let here = self.site.workshop.hold(std::slice::from_ref(layer))?;
        if let Some(layer) = here.and_then(|held| held.into_iter().next()) {
            return Ok(layer);
        }
        let blob = offer.blobs.get(layer).ok_or_else(|| BuildError::new("it is not there any more"))?;
        (self.outside.caches.bring)(place, layer, blob)
    }
}
