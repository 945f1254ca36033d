//! `COPY` and `ADD`.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::archive;
use super::args;
use super::chmod::Chmod;
use super::copy::Copier;
use super::error::BuildError;
use super::ignore::Ignore;
use super::parse::Copy;
use super::remote::is_remote;
use super::stage::StageBuilder;
use super::tree::{self, Found, Tree};
use crate::image::{Digest, Draft};

/// Everything of the instruction that is decided before anything is written.
struct Plan {
    /// Absolute; a `/` at its end makes it a directory.
    destination: String,
    sources: Vec<PlannedSource>,
    documents: Vec<Document>,
    owner: Option<(u32, u32)>,
    chmod: Option<Chmod>,
    exclude: Ignore,
}

struct PlannedSource {
    tree: Arc<Tree>,
    found: Found,
    /// With `--parents`: the folders above the source, from the destination.
    below: Option<String>,
    /// If it is an archive, it is unpacked.
    unpack: bool,
}

struct Document {
    name: String,
    content: String,
}

impl StageBuilder<'_> {
    pub(super) fn copy(&mut self, copy: &Copy, title: &str) -> Result<(), BuildError> {
        let (plan, said) = self.plan_copy(copy)?;
        let contents = plan.hash().map_err(|error| BuildError::because("cannot read what is to be copied", &error))?;
        let key = self.state.key.then("copy", &[contents.hex().as_bytes()]);
        let step = self.layer(&key, title, |stage, _| {
            let draft = stage.builder.workshop.draft()?;
            stage.write(&plan, &draft)?;
            stage.finish(draft)
        })?;
        self.state.push(step, key, format!("{said} # buildkit"));
        Ok(())
    }

    /// The plan, and how the history names the instruction.
    fn plan_copy(&self, copy: &Copy) -> Result<(Plan, String), BuildError> {
        let destination = self.expand(&copy.destination)?;
        let mut said = if copy.add { "ADD".to_owned() } else { "COPY".to_owned() };
        for (flag, given) in [("--chown", &copy.chown), ("--chmod", &copy.chmod)] {
            if let Some(value) = given {
                said.push_str(&format!(" {flag}={}", self.expand(value)?));
            }
        }
        let mut plan = Plan {
            destination: self.state.absolute(&destination),
            sources: Vec::new(),
            documents: Vec::new(),
            owner: self.owner(copy.chown.as_deref())?,
            chmod: self.chmod(copy.chmod.as_deref())?,
            exclude: self.exclude(copy)?,
        };
        for source in &copy.sources {
            let source = self.expand(source)?;
            said.push_str(&format!(" {source}"));
            self.plan_source(copy, &source, &mut plan)?;
        }
        for document in &copy.documents {
            let text = document.text();
            let content = if document.expand {
                args::document(&text, self.builder.escape, &self.state.env).map_err(BuildError::new)?
            } else {
                text
            };
            said.push_str(&format!(" <<{}", document.name));
            plan.documents.push(Document { name: document.name.clone(), content });
        }
        if destination == "." || destination.is_empty() {
            plan.destination.push('/');
        }
        said.push_str(&format!(" {destination}"));
        Ok((plan, said))
    }

    fn exclude(&self, copy: &Copy) -> Result<Ignore, BuildError> {
        let patterns = copy.exclude.iter().map(|pattern| self.expand(pattern)).collect::<Result<Vec<_>, _>>()?;
        Ok(Ignore::of(patterns.iter().map(String::as_str)))
    }

    fn plan_source(&self, copy: &Copy, source: &str, plan: &mut Plan) -> Result<(), BuildError> {
        if copy.add && is_remote(source) {
            let checksum = copy.checksum.as_deref().map(|text| self.expand(text)).transpose()?;
            let (tree, found) = self.builder.remote(source, copy.keep_git_dir, checksum.as_deref())?;
            plan.sources.push(PlannedSource { tree, found, below: None, unpack: copy.unpack == Some(true) });
            return Ok(());
        }
        if copy.checksum.is_some() {
            return Err(BuildError::new("ADD: `--checksum` is for remote sources"));
        }
        let tree = match &copy.from {
            Some(from) => self.builder.tree(from, self.number)?,
            None => self.builder.context()?,
        };
        let reading = |error: std::io::Error| BuildError::because(format!("cannot read `{source}`"), &error);
        let found = tree.find(source).map_err(reading)?;
        // A wildcard may find nothing, as there.
        if found.is_empty() && !source.contains(['*', '?', '[']) {
            return Err(Self::missing(copy, source));
        }
        // `a/./b/c` goes below `b`.
        let pivot = source.split_once("/./").map_or(0, |(above, _)| tree::clean(above).len());
        for found in found {
            let below = copy.parents.then(|| {
                let above = found.path.rsplit_once('/').map_or("", |(above, _)| above);
                above.split('/').skip(pivot).collect::<Vec<_>>().join("/")
            });
            if copy.from.is_none() {
                self.builder.use_of_context(&found.path);
            }
            let unpack = copy.add && copy.unpack != Some(false);
            plan.sources.push(PlannedSource { tree: Arc::clone(&tree), found, below, unpack });
        }
        Ok(())
    }

    fn missing(copy: &Copy, source: &str) -> BuildError {
        let Some(from) = &copy.from else {
            let error = BuildError::new(format!("`{source}` is not in the context"));
            return error.help("paths begin at the context's folder; `.dockerignore` may leave it out");
        };
        BuildError::new(format!("`{source}` is not in `{from}`"))
    }

    fn write(&self, plan: &Plan, draft: &Draft) -> Result<(), BuildError> {
        let root = self.writable(draft)?;
        let mut copier = Copier::new(&root, plan.owner, plan.chmod.clone(), &plan.exclude);
        for source in &plan.sources {
            let name = if source.found.path.is_empty() { "." } else { &source.found.path };
            let failed = |error: std::io::Error| BuildError::because(format!("cannot copy `{name}`"), &error);
            let archive = source.unpack && !source.found.is_directory();
            let archive = if archive { archive::open(&source.found).map_err(failed)? } else { None };
            if let Some(archive) = archive {
                let target = copier.directory(plan.destination.trim_matches('/')).map_err(failed)?;
                archive::unpack(archive, &target, plan.owner).map_err(failed)?;
                continue;
            }
            let destination = source.destination(plan);
            copier.copy(&source.tree, &source.found, &destination).map_err(failed)?;
        }
        for document in &plan.documents {
            let mtime = self.builder.request.source_date_epoch;
            let mut content = document.content.as_bytes();
            let written = copier.write(&document.name, &mut content, 0o644, mtime, &plan.destination);
            written.map_err(|error| BuildError::because(format!("cannot write `{}`", document.name), &error))?;
        }
        Ok(())
    }
}

impl PlannedSource {
    fn destination(&self, plan: &Plan) -> String {
        let above = plan.destination.trim_end_matches('/');
        match &self.below {
            None => plan.destination.clone(),
            // A directory goes by its name, too, not only what is in it.
            Some(below) if self.found.is_directory() => format!("{above}/{below}/{}", self.found.base_name()),
            Some(below) => format!("{above}/{below}/"),
        }
    }
}

impl Plan {
    /// All that the layer depends on, but for what it lies on.
    fn hash(&self) -> std::io::Result<Digest> {
        let mut hash = Sha256::new();
        let settings = format!("{:?}", (&self.destination, self.owner, &self.chmod, &self.exclude));
        hash.update(settings.as_bytes());
        for source in &self.sources {
            hash.update(format!("\0{:?}\0", (&source.below, source.unpack)).as_bytes());
            source.tree.hash(&source.found, &self.exclude, &mut hash)?;
        }
        for document in &self.documents {
            hash.update(format!("\0{}\0{}\0", document.name, document.content.len()).as_bytes());
            hash.update(document.content.as_bytes());
        }
        Ok(Digest::finish(hash))
    }
}
