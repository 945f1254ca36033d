//! A root file system as an image of one layer.

use std::io::Read;
use std::sync::atomic::AtomicBool;

use super::changes;
use super::config::{History, ImageConfig, ImageDocument, RootFs};
use super::digest::Digest;
use super::error::{Error, cannot};
use super::host;
use super::incoming::{Incoming, IncomingLayer};
use super::intake::Intake;
use super::layer::{self, Expected, Workplace};
use super::load::Loaded;
use super::manifest::Platform;
use super::reference::Reference;
use super::store::Store;

impl Store {
    /// Makes an image of the tar archive `input` (plain, gzip or zstd). `changes` are Dockerfile instructions about the
    /// configuration: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `HEALTHCHECK`, `LABEL`, `ONBUILD`, `STOPSIGNAL`, `USER`,
    /// `VOLUME`, `WORKDIR`.
    ///
    /// # Errors
    /// The archive is damaged or refused, a change or the name is not valid, or the store cannot be written.
    pub fn import(
        &self,
        input: &mut (dyn Read + Send),
        name: Option<&str>,
        changes: &[String],
        message: &str,
    ) -> Result<Loaded, Error> {
        let names = names(name)?;
        let mut config = ImageConfig::default();
        for change in changes {
            changes::apply(change, &mut config)?;
        }
        let intake = Intake::new(self)?;
        let folder = intake.staging.path().join("layer");
        let going_on = AtomicBool::new(false);
        let at = Workplace { folder: &folder, rights: self.rights(), boot: intake.boot(), stop: &going_on };
        let layer = layer::stage(input, "archive", &Expected::default(), at)?;
        intake.layer(&layer.diff_id, || Ok(folder.clone()))?;
        let created = Some(jiff::Timestamp::now().to_string());
        let history = History { created: created.clone(), comment: Some(message.to_owned()), ..History::default() };
        let document = ImageDocument {
            created,
            author: None,
            architecture: Platform::host().architecture,
            os: "linux".to_owned(),
            variant: None,
            config,
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![layer.diff_id.clone()] },
            history: vec![history],
            build_cache: Vec::new(),
        };
        let config = serde_json::to_vec(&document).map_err(std::io::Error::from).map_err(cannot("write", &folder))?;
        let layers = vec![IncomingLayer { diff_id: layer.diff_id, member: String::new(), blob: None }];
        let id = Digest::of(&config);
        let image = Incoming { id: id.clone(), config, names, digest: None, layers };
        let loaded = self.commit(&intake, vec![image])?;
        Ok(loaded.into_iter().next().unwrap_or(Loaded { id, names: Vec::new() }))
    }
}

/// A name for a new image, as a person gave it; there may be none.
pub(super) fn names(name: Option<&str>) -> Result<Vec<Reference>, Error> {
    let name = name.map(|text| {
        let reference = Reference::parse(text).filter(|name| name.digest().is_none() && !host::is_host(text));
        reference.ok_or_else(|| Error::BadName { text: text.to_owned() })
    });
    Ok(name.transpose()?.into_iter().collect())
}
