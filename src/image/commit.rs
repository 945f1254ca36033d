//! What a container has changed as a new image: one more layer on its own.

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::archive;
use super::changes;
use super::config::{History, ImageConfig};
use super::digest::Digest;
use super::error::{Error, cannot};
use super::import::names;
use super::incoming::{Incoming, IncomingLayer};
use super::intake::Intake;
use super::layer::{self, Expected, Workplace};
use super::load::Loaded;
use super::store::Store;

/// Files that every container gets from us; what lies below them is only there to be mounted on.
const STUBS: [&[u8]; 3] = [b"etc/hosts", b"etc/hostname", b"etc/resolv.conf"];

/// What is to become an image.
#[derive(Clone, Debug)]
pub struct Commit<'a> {
    /// The image that the container was made from.
    pub base: &'a Digest,
    /// The upper directory of the container's overlay; `None`: the container has changed nothing.
    pub upper: Option<&'a Path>,
    /// What containers of the new image do.
    pub config: ImageConfig,
    /// Dockerfile instructions about that, as [`Store::import`] takes them.
    pub changes: &'a [String],
    pub name: Option<&'a str>,
    pub author: Option<String>,
    pub message: Option<String>,
    /// For the history: what the container ran.
    pub created_by: String,
}

impl Store {
    /// Makes the image. What the container still writes may or may not be in it.
    ///
    /// # Errors
    /// The base image is gone, a change or the name is not valid, or the store cannot be written.
    pub fn commit_container(&self, commit: Commit<'_>) -> Result<Digest, Error> {
        let names = names(commit.name)?;
        let mut config = commit.config;
        for change in commit.changes {
            changes::apply(change, &mut config)?;
        }
        let mut document = self.resolve(&commit.base.to_string())?.document;
        let intake = Intake::new(self)?;
        for layer in &document.rootfs.diff_ids {
            if !intake.hold(layer)? {
                return Err(Error::DamagedLayer { layer: layer.clone(), source: None });
            }
        }
        let diff_id = match commit.upper {
            Some(upper) => Some(self.layer_of(upper, &intake)?),
            None => None,
        };
        let created = Some(jiff::Timestamp::now().to_string());
        document.history.push(History {
            created: created.clone(),
            created_by: Some(commit.created_by),
            comment: commit.message,
            empty_layer: diff_id.is_none(),
        });
        document.config = config;
        document.created = created;
        document.author = commit.author.or(document.author);
        document.rootfs.diff_ids.extend(diff_id);
        let config = serde_json::to_vec(&document).map_err(io::Error::from);
        let config = config.map_err(cannot("write", intake.staging.path()))?;
        let id = Digest::of(&config);
        let diff_ids = document.rootfs.diff_ids.into_iter();
        let layers = diff_ids.map(|diff_id| IncomingLayer { diff_id, member: String::new(), blob: None }).collect();
        let image = Incoming { id, config, names, digest: None, layers };
        let Loaded { id, .. } = self.commit(&intake, vec![image])?.remove(0);
        Ok(id)
    }

    /// The layer that an upper directory is, copied into the store.
    fn layer_of(&self, upper: &Path, intake: &Intake<'_>) -> Result<Digest, Error> {
        let root: OwnedFd = File::open(upper).map_err(cannot("open", upper))?.into();
        let (input, output) = io::pipe().map_err(cannot("read", upper))?;
        let folder = intake.staging.path().join("layer");
        let going_on = AtomicBool::new(false);
        let at = Workplace { folder: &folder, rights: self.rights(), boot: intake.boot(), stop: &going_on };
        let (read, made) = std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut output = BufWriter::with_capacity(1 << 16, output);
                archive::write(&root, self.rights(), &STUBS, &mut output)
            });
            let made = layer::stage(input, "the container's files", &Expected::default(), at);
            (reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), made)
        });
        // Where writing the layer has failed, its reader only sees that nobody listens.
        match read {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(cannot("read", upper)(error)),
            _ => {}
        }
        let layer = made?;
        intake.layer(&layer.diff_id, || Ok(folder.clone()))?;
        Ok(layer.diff_id)
    }
}
