//! Whether a context has changed since an image was built from it: by the sizes and times of the files that were copied.
//!
//! `<data>/images/build/contexts/<image>.json` holds one [`Record`]. It serves a hint only, so losing it harms nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ignore::Ignore;
use super::tree::Tree;
use crate::base::disk::{self, Durability};
use crate::image::Digest;

/// Contexts with more files than this give no hint: looking at them would cost more than it is worth.
pub(super) const MOST_FILES: usize = 20_000;

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    context: PathBuf,
    ignore: String,
    /// What was copied, from the context's root.
    paths: BTreeSet<String>,
    /// Size and time of last change, in nanoseconds since the epoch.
    files: BTreeMap<String, (u64, i64)>,
}

/// Writes down what an image was built from.
pub(super) fn note(
    folder: &Path,
    image: &Digest,
    context: &Path,
    ignore: String,
    paths: BTreeSet<String>,
) -> io::Result<()> {
    let Some(files) = look(context, &ignore, &paths)? else { return Ok(()) };
    fs::create_dir_all(folder)?;
    let record = Record { context: context.to_owned(), ignore, paths, files };
    disk::replace_json(&folder.join(format!("{}.json", image.hex())), &record, Durability::Kill)
}

/// How many files differ from those that `image` was built from; `None` when that is not known. `data` is the data directory.
pub fn changed_files(data: &Path, image: &Digest, context: &Path) -> Option<usize> {
    let path = data.join("images/build/contexts").join(format!("{}.json", image.hex()));
    let record: Record = disk::read_json(&path).ok()??;
    if record.context != context {
        return None;
    }
    let now = look(context, &record.ignore, &record.paths).ok()??;
    let gone = record.files.keys().filter(|path| !now.contains_key(*path)).count();
    let differs = now.iter().filter(|(path, found)| record.files.get(*path) != Some(found)).count();
    Some(gone + differs)
}

/// The files below the paths; `None`: too many.
fn look(context: &Path, ignore: &str, paths: &BTreeSet<String>) -> io::Result<Option<BTreeMap<String, (u64, i64)>>> {
    let tree = Tree::of_context(fs::File::open(context)?.into(), Ignore::parse(ignore));
    let mut files = BTreeMap::new();
    for path in paths {
        if let Some(found) = tree.find_exact(path)?
            && !tree.files(&found, MOST_FILES, &mut files)?
        {
            return Ok(None);
        }
    }
    Ok(Some(files))
}
