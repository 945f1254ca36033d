//! Writing images out: the OCI layout, with Docker's manifest beside it for the docker-archive format.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};

use sha2::{Digest as _, Sha256};

use super::compression::Compression;
use super::digest::Digest;
use super::error::{Error, cannot};
use super::host;
use super::incoming::DockerManifest;
use super::manifest::{CONFIG, Descriptor, INDEX, LAYER, LAYER_GZIP, MANIFEST, OciIndex, OciManifest};
use super::recipe;
use super::reference::Reference;
use super::staging::Staging;
use super::store::Store;

/// What kind of archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What `docker save` writes: the OCI layout and `manifest.json`.
    Docker,
    /// The OCI layout alone.
    Oci,
}

impl Store {
    /// Writes images as one tar archive. Layers that several of them have are written once; with
    /// [`Compression::None`], the layers come out byte for byte as they came in. The same images give the same archive.
    ///
    /// # Errors
    /// An image is not there or damaged, or `output` cannot be written.
    pub fn save(
        &self,
        images: &[String],
        format: Format,
        compression: Compression,
        output: &mut dyn Write,
    ) -> Result<(), Error> {
        let staging = Staging::new(self)?;
        let mut writer = Writer { store: self, staging: &staging, compression, output, written: BTreeMap::new() };
        let mut index = OciIndex { schema_version: 2, media_type: INDEX.into(), manifests: Vec::new() };
        let mut docker: Vec<DockerManifest> = Vec::new();
        for name in images {
            if host::is_host(name) {
                return Err(Error::HostImage { name: name.clone() });
            }
            let image = self.resolve(name)?;
            // A name that is only an id is no name.
            let named = Reference::parse(name).filter(|name| image.names.contains(&name.familiar()));
            let (manifest, config, layers) = writer.image(&image.id)?;
            index.manifests.push(Descriptor { annotations: annotations(named.as_ref()), ..manifest });
            let tag = named.iter().map(Reference::familiar);
            match docker.iter_mut().find(|manifest| manifest.config == config) {
                Some(manifest) => manifest.repo_tags.get_or_insert_default().extend(tag),
                None => docker.push(DockerManifest { config, repo_tags: Some(tag.collect()), layers }),
            }
        }
        writer.document("index.json", &index)?;
        if format == Format::Docker {
            writer.document("manifest.json", &docker)?;
        }
        writer.document("oci-layout", &BTreeMap::from([("imageLayoutVersion", "1.0.0")]))?;
        writer.output.write_all(&[0; 1024]).and_then(|()| writer.output.flush()).map_err(cannot_write)
    }
}

fn annotations(name: Option<&Reference>) -> BTreeMap<String, String> {
    let Some(name) = name else { return BTreeMap::new() };
    let tag = name.tag().unwrap_or("latest").to_owned();
    [("io.containerd.image.name", name.to_string()), ("org.opencontainers.image.ref.name", tag)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

struct Writer<'a> {
    store: &'a Store,
    staging: &'a Staging,
    compression: Compression,
    output: &'a mut dyn Write,
    /// Blobs that are in the archive, layers by diff id.
    written: BTreeMap<Digest, Descriptor>,
}

impl Writer<'_> {
    /// Writes an image's blobs; returns its manifest, and the members of its configuration and layers.
    fn image(&mut self, id: &Digest) -> Result<(Descriptor, String, Vec<String>), Error> {
        let (config, document) = self.store.document(id)?;
        let mut layers = Vec::new();
        for diff_id in &document.rootfs.diff_ids {
            layers.push(self.layer(diff_id)?);
        }
        let paths = layers.iter().map(|layer| path(&layer.digest)).collect();
        let config = self.blob(CONFIG, &config)?;
        let config_path = path(&config.digest);
        let manifest = OciManifest { schema_version: 2, media_type: MANIFEST.into(), config, layers };
        let bytes = serde_json::to_vec(&manifest).map_err(io::Error::from).map_err(cannot_write)?;
        Ok((self.blob(MANIFEST, &bytes)?, config_path, paths))
    }

    fn layer(&mut self, diff_id: &Digest) -> Result<Descriptor, Error> {
        if let Some(there) = self.written.get(diff_id) {
            return Ok(there.clone());
        }
        let descriptor = match self.compression {
            Compression::None => self.plain_layer(diff_id)?,
            Compression::Gzip => self.compressed_layer(diff_id, LAYER_GZIP)?,
            Compression::Zstd => self.compressed_layer(diff_id, "application/vnd.oci.image.layer.v1.tar+zstd")?,
        };
        self.written.insert(diff_id.clone(), descriptor.clone());
        Ok(descriptor)
    }

    fn plain_layer(&mut self, diff_id: &Digest) -> Result<Descriptor, Error> {
        let size = self.store.layer(diff_id)?.archive_size;
        self.header(&path(diff_id), size)?;
        replay(self.store, diff_id, &mut self.output)?.map_err(cannot_write)?;
        self.pad(size)?;
        Ok(Descriptor::new(LAYER, diff_id.clone(), size))
    }

    /// Size and digest come before the bytes, so the bytes wait in a file.
    fn compressed_layer(&mut self, diff_id: &Digest, media_type: &str) -> Result<Descriptor, Error> {
        let waiting = self.staging.path().join(diff_id.hex());
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&waiting)
            .map_err(cannot("create", &waiting))?;
        let mut damaged = Ok(());
        self.compression
            .encode(io::BufWriter::new(&file), |output| match replay(self.store, diff_id, output) {
                Ok(written) => written,
                Err(error) => {
                    damaged = Err(error);
                    Ok(())
                }
            })
            .map_err(cannot("write", &waiting))?;
        damaged?;
        let (digest, size) = digest_of(&mut file).map_err(cannot("read", &waiting))?;
        self.header(&path(&digest), size)?;
        io::copy(&mut file, &mut self.output).map_err(cannot_write)?;
        self.pad(size)?;
        std::fs::remove_file(&waiting).map_err(cannot("remove", &waiting))?;
        Ok(Descriptor::new(media_type, digest, size))
    }

    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
        let digest = Digest::of(bytes);
        if let Some(there) = self.written.get(&digest) {
            return Ok(there.clone());
        }
        self.member(&path(&digest), bytes)?;
        let descriptor = Descriptor::new(media_type, digest.clone(), bytes.len() as u64);
        self.written.insert(digest, descriptor.clone());
        Ok(descriptor)
    }

    fn document<T: serde::Serialize>(&mut self, name: &str, document: &T) -> Result<(), Error> {
        let bytes = serde_json::to_vec(document).map_err(io::Error::from).map_err(cannot_write)?;
        self.member(name, &bytes)
    }

    fn member(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        self.header(path, bytes.len() as u64)?;
        self.output.write_all(bytes).map_err(cannot_write)?;
        self.pad(bytes.len() as u64)
    }

    fn header(&mut self, path: &str, size: u64) -> Result<(), Error> {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).map_err(cannot_write)?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        self.output.write_all(header.as_bytes()).map_err(cannot_write)
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        let padding = [0; 512];
        let missing = usize::try_from(size.wrapping_neg() % 512).unwrap_or_default();
        self.output.write_all(padding.get(..missing).unwrap_or_default()).map_err(cannot_write)
    }
}

/// Writes a layer's archive; the outer error is the store's, the inner one `output`'s.
pub(super) fn replay(store: &Store, diff_id: &Digest, output: &mut dyn Write) -> Result<io::Result<()>, Error> {
    let folder = store.layer_path(diff_id);
    let displaced = store.layer(diff_id)?.displaced;
    match recipe::replay(&folder, &displaced, output) {
        Ok(found) if found == *diff_id => Ok(Ok(())),
        Err(recipe::ReplayError::Output(error)) => Ok(Err(error)),
        Ok(_) => Err(Error::DamagedLayer { layer: diff_id.clone(), source: None }),
        Err(recipe::ReplayError::Layer(source)) => {
            Err(Error::DamagedLayer { layer: diff_id.clone(), source: Some(source) })
        }
    }
}

fn digest_of(file: &mut File) -> io::Result<(Digest, u64)> {
    file.rewind()?;
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        size += read as u64;
    }
    file.rewind()?;
    Ok((Digest::finish(hash), size))
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn cannot_write(source: io::Error) -> Error {
    Error::Write(source)
}
