//! The image store from the command line.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::app::{App, AppError};
use crate::image::{Compression, Loaded};
use crate::image::{Digest, Format, Image, Reference, Removed, Store};
use crate::ui::tables::ImageRow;

impl App {
    /// Loads an archive or layout; `None` is standard input.
    ///
    /// # Errors
    /// What the store says.
    pub fn image_load(&self, input: Option<&Path>) -> Result<Vec<Loaded>, AppError> {
        let store = Store::open(&self.roots.data)?;
        Ok(match input {
            Some(path) => store.load(path)?,
            None => store.load_stream(&mut io::stdin().lock())?,
        })
    }

    /// Makes an image of a root file system; `-` is standard input. Returns its id.
    ///
    /// # Errors
    /// What the store says.
    pub fn image_import(&self, file: &Path, name: Option<&str>, changes: &[String]) -> Result<Digest, AppError> {
        let store = Store::open(&self.roots.data)?;
        let mut stdin;
        let mut opened;
        let input: &mut (dyn io::Read + Send) = if file == Path::new("-") {
            stdin = io::stdin();
            &mut stdin
        } else {
            opened = File::open(file).map_err(AppError::io(format!("open `{}`", file.display())))?;
            &mut opened
        };
        Ok(store.import(input, name, changes, "imported")?.id)
    }

    /// All images, one row per name.
    ///
    /// # Errors
    /// What the store says.
    pub fn image_list(&self) -> Result<Vec<ImageRow>, AppError> {
        let mut rows = Vec::new();
        for image in Store::open(&self.roots.data)?.list()? {
            if image.names.is_empty() {
                rows.push(row(&image, "<none>", String::new()));
            }
            rows.extend(image.names.iter().map(|name| row(&image, name, String::new())));
        }
        Ok(rows)
    }

    /// Takes a name, or an image no container was made from, away.
    ///
    /// # Errors
    /// What the store says.
    pub fn image_remove(&self, reference: &str, force: bool) -> Result<Removed, AppError> {
        let in_use = if force { BTreeSet::new() } else { self.images_in_use()? };
        Ok(Store::open(&self.roots.data)?.remove(reference, &in_use)?)
    }

    /// # Errors
    /// What the store says.
    pub fn image_tag(&self, source: &str, target: &str) -> Result<(), AppError> {
        Ok(Store::open(&self.roots.data)?.tag(source, target)?)
    }

    /// Writes a docker archive of images.
    ///
    /// # Errors
    /// What the store or the output says.
    pub fn image_save(&self, references: &[String], output: Option<&Path>) -> Result<(), AppError> {
        let store = Store::open(&self.roots.data)?;
        match output {
            Some(path) => {
                let mut file = File::create(path).map_err(AppError::io(format!("create `{}`", path.display())))?;
                store.save(references, Format::Docker, Compression::None, &mut file)?;
                file.flush().map_err(AppError::io(format!("write `{}`", path.display())))
            }
            None => Ok(store.save(references, Format::Docker, Compression::None, &mut io::stdout().lock())?),
        }
    }

    /// Ids of the images that containers of any project were made from.
    fn images_in_use(&self) -> Result<BTreeSet<Digest>, AppError> {
        let mut ids = BTreeSet::new();
        for project in self.roots.projects().map_err(AppError::io("list the projects"))? {
            let records = self.roots.project(&project).load();
            let records = records.map_err(AppError::io(format!("read project `{project}`")))?;
            ids.extend(records.iter().filter_map(|record| Digest::parse(&record.config.image_id)));
        }
        Ok(ids)
    }
}

/// An image as a row of a table, under the name it is asked for by.
pub(super) fn row(image: &Image, name: &str, container: String) -> ImageRow {
    let reference = Reference::parse(name);
    let created = image.document.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    ImageRow {
        container,
        repository: reference.as_ref().map_or_else(|| name.to_owned(), Reference::familiar_repository),
        tag: reference.as_ref().and_then(Reference::tag).unwrap_or("<none>").to_owned(),
        platform: format!("{}/{}", image.document.os, image.document.architecture),
        id: image.id.to_string(),
        size: image.size,
        created: created.and_then(|time| i64::try_from(time.as_nanosecond()).ok()),
    }
}
