//! A root file system as an image of one layer.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::atomic::AtomicBool;

use super::changes;
use super::config::{History, ImageConfig, ImageDocument, RootFs};
use super::digest::Digest;
use super::error::{Error, cannot};
use super::host;
use super::incoming::{self, Incoming, IncomingLayer};
use super::layer::{self, Expected};
use super::load::Loaded;
use super::reference::Reference;
use super::staging::Staging;
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
        let name = name.map(|text| {
            let reference = Reference::parse(text).filter(|name| name.digest().is_none() && !host::is_host(text));
            reference.ok_or_else(|| Error::BadName { text: text.to_owned() })
        });
        let names: Vec<Reference> = name.transpose()?.into_iter().collect();
        let mut config = ImageConfig::default();
        for change in changes {
            changes::apply(change, &mut config)?;
        }
        let staging = Staging::new(self)?;
        let folder = staging.path().join("layer");
        let going_on = AtomicBool::new(false);
        let layer = layer::stage(input, "archive", &Expected::default(), &folder, self.rights(), &going_on)?;
        let (_locks, missing) = self.claim(&BTreeSet::from([layer.diff_id.clone()]))?;
        if !missing.is_empty() {
            let named = staging.path().join(layer.diff_id.hex());
            std::fs::rename(&folder, &named).map_err(cannot("rename", &folder))?;
            self.keep_layers(&staging, missing.iter())?;
        }
        let created = Some(jiff::Timestamp::now().to_string());
        let history = History { created: created.clone(), comment: Some(message.to_owned()), ..History::default() };
        let document = ImageDocument {
            created,
            author: None,
            architecture: incoming::architecture().to_owned(),
            os: "linux".to_owned(),
            variant: None,
            config,
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![layer.diff_id.clone()] },
            history: vec![history],
        };
        let config = serde_json::to_vec(&document).map_err(std::io::Error::from).map_err(cannot("write", &folder))?;
        let layers = vec![IncomingLayer { diff_id: layer.diff_id, member: String::new(), blob: None }];
        let id = Digest::of(&config);
        let loaded = self.commit(vec![Incoming { id: id.clone(), config, names, layers }])?;
        Ok(loaded.into_iter().next().unwrap_or(Loaded { id, names: Vec::new() }))
    }
}
