//! Files to one merged tree: parse, interpolate, extend, include, merge, validate, expand; file by file.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::canonical::{self, Depth};
use super::files::{self, ReadError};
use super::paths::Base;
use super::report::Reports;
use super::short::mapping;
use super::{LoadOptions, checks, defaults, extends, include, interpolate, merge, validate, yaml};
use crate::base::diagnostic::Diagnostic;
use crate::model::tree::{Map, Mark, Node, Tag, Value};

/// More than any person runs on one machine; a service takes some kilobytes of memory.
pub(super) const MAX_SERVICES: usize = 20_000;

/// A file that was read and parsed, not yet interpolated.
pub(super) struct Input {
    pub(super) path: PathBuf,
    pub(super) documents: Vec<Node>,
}

/// The files of a project, or of one `include`.
pub(super) struct Inputs {
    pub(super) files: Vec<Input>,
    /// All of them could be read.
    pub(super) complete: bool,
}

/// What is done with a service, by name, when it is complete.
pub(super) type Last<'a> = &'a dyn Fn(&str, &mut Node, &mut Reports);

/// Where a group of files stands: the project's own, or those of one `include`.
pub(super) struct Scope {
    /// Where `extends` and `include` look for files; absolute.
    pub(super) folder: PathBuf,
    /// The same as relative paths are resolved from it: absolute, or relative to the project where paths are to
    /// stay relative.
    pub(super) shown: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
    /// Files that led here by `include`, outermost first.
    pub(super) included: Vec<PathBuf>,
    /// Services of files that `extends` named.
    pub(super) bases: RefCell<HashMap<PathBuf, Option<Rc<Map>>>>,
}

impl Scope {
    pub(super) fn new(folder: PathBuf, shown: PathBuf, environment: BTreeMap<String, String>) -> Self {
        Self { folder, shown, environment, included: Vec::new(), bases: RefCell::default() }
    }
}

pub(super) struct Loader<'a> {
    pub(super) options: &'a LoadOptions,
    pub(super) home: Option<String>,
    pub(super) reports: &'a mut Reports,
    /// Files that were read.
    pub(super) reads: usize,
    /// Values that services took over from those that they extend.
    pub(super) inherited: usize,
}

impl Loader<'_> {
    /// Reads and parses one file. `named` is the value that names it, when a file does.
    pub(super) fn read(&mut self, path: &Path, named: Mark) -> Option<Input> {
        self.reads += 1;
        if self.reads > include::MAX_READS {
            let message = format!("more than {} files are read for this project", include::MAX_READS);
            self.reports.error("too-large", named, message);
            return None;
        }
        let is_stdin = path.as_os_str() == "-";
        let text = match if is_stdin { files::read_stdin() } else { files::read(path) } {
            Ok(text) => text,
            Err(ReadError::Missing) => {
                let message = format!("cannot open `{}`: no such file", path.display());
                self.reports.error("missing-file", named, message);
                return None;
            }
            Err(ReadError::Other(mut diagnostic)) => {
                diagnostic.place = diagnostic.place.or_else(|| self.reports.place(named));
                self.reports.push(diagnostic);
                return None;
            }
        };
        self.parse(path, named, &text)
    }

    /// The file that a command's flags amount to.
    pub(super) fn overlay(&mut self, text: &str) -> Option<Input> {
        self.parse(Path::new("command line"), Mark::default(), text)
    }

    fn parse(&mut self, path: &Path, named: Mark, text: &str) -> Option<Input> {
        let sources = &mut self.reports.sources.0;
        let known = sources.iter().position(|source| source.as_path() == path);
        let index = known.unwrap_or_else(|| {
            sources.push(Arc::new(path.to_owned()));
            sources.len() - 1
        });
        let Ok(index) = u16::try_from(index) else {
            self.reports.error("too-many-files", named, "the project has more than 65536 files");
            return None;
        };
        let text = text.trim_start_matches('\u{feff}');
        let documents = yaml::parse(text, index, self.reports)?;
        if let Some(record) = &mut self.reports.record {
            record.file(index, named, text, &documents);
        }
        Some(Input { path: path.to_owned(), documents })
    }

    /// Reads all files that there are, so that what is wrong with one hides nothing of the others.
    pub(super) fn read_all(&mut self, paths: &[PathBuf], named: Mark) -> Inputs {
        let files: Vec<_> = paths.iter().filter_map(|path| self.read(path, named)).collect();
        Inputs { complete: files.len() == paths.len(), files }
    }

    /// Merges files into one canonical tree with defaults and resolved paths; `last` is done with each service of it.
    /// `None`: a part is missing, and what would be said about the rest might be wrong.
    pub(super) fn model(&mut self, inputs: Inputs, scope: &Scope, last: Last<'_>) -> Option<Model> {
        let mut tree = Node::new(Value::from(Map::default()), Mark::default());
        let errors = self.reports.errors();
        let mut complete = inputs.complete;
        let files = inputs.files.into_iter();
        let mut documents =
            files.flat_map(|file| file.documents.into_iter().map(move |node| (file.path.clone(), node))).peekable();
        while let Some((file, document)) = documents.next() {
            let (before, is_sound) = (self.reports.diagnostics.len(), complete && self.reports.errors() == errors);
            complete &= self.document(&mut tree, document, &file, scope);
            let last = (complete && documents.peek().is_none()).then_some(last);
            self.apply_rules(&mut tree, scope, last);
            if !is_sound {
                // What is merged over errors would be blamed for them.
                self.reports.forget(before, &["cannot-override", "missing-key"]);
            }
        }
        complete.then(|| Model { tree, sound: self.reports.errors() == errors })
    }

    /// Merges a document over the tree. False: there is no telling what else the file says.
    fn document(&mut self, tree: &mut Node, mut document: Node, file: &Path, scope: &Scope) -> bool {
        if document.as_map().is_none() {
            let message = "the top level of a Compose file must be a mapping, such as `services:`";
            self.reports.error("wrong-type", document.mark, message);
            return false;
        }
        if !self.options.no_interpolate {
            interpolate::file(&mut document, &scope.environment, self.reports);
        }
        let mut complete = self.services_are_mappings(&document);
        if complete {
            extends::apply(self, &mut document, file, scope);
            let errors = self.reports.errors();
            include::apply(self, &mut document, file, scope);
            complete = self.reports.errors() == errors;
        }
        *tree = merge::files(std::mem::take(tree), document, self.depth(), self.reports);
        complete
    }

    /// Checks what has been merged and makes it canonical; `last` comes with the last document.
    fn apply_rules(&mut self, tree: &mut Node, scope: &Scope, last: Option<Last<'_>>) {
        let depth = self.depth();
        let base = Base { folder: &scope.shown, home: self.home.as_deref() };
        let has_paths = scope.shown.is_absolute() || !scope.included.is_empty();
        by_service(tree, |part| {
            merge::strip_tags(part);
            merge::enforce_unique(part, self.reports);
            validate::file(part, self.reports);
            // Short forms are read whatever is wrong, to tell what is wrong with them in one go.
            canonical::file(part, depth, self.reports);
            // Ranges of ports, now expanded, may repeat what another item says.
            merge::enforce_unique(part, self.reports);
            let Some(last) = last else { return };
            defaults::set(part);
            checks::resources(part, self.reports);
            if has_paths {
                checks::bind_sources(part, self.reports);
                base.resolve(part);
            }
            if !self.options.no_interpolate {
                bare_variables(part, &scope.environment);
            }
            for (name, (_, service)) in part.get_mut("services").and_then(Node::as_map_mut).into_iter().flatten() {
                last(name, service, self.reports);
            }
        });
        if let Some((mark, _)) = tree.as_map_mut().and_then(|map| map.remove("version")) {
            let message = "the attribute `version` is obsolete and is ignored";
            let diagnostic =
                Diagnostic::warning("obsolete-version", self.reports.place(mark), message).help("remove it");
            self.reports.push(diagnostic);
        }
    }

    pub(super) fn depth(&self) -> Depth {
        if self.options.no_interpolate { Depth::Uninterpolated } else { Depth::Full }
    }

    /// A null service is an error of the merged file, but no other kind may get that far. False when an error was reported.
    fn services_are_mappings(&mut self, document: &Node) -> bool {
        let errors = self.reports.errors();
        let Some(services) = document.get("services") else { return true };
        let Some(map) = services.as_map() else {
            if services.tag != Tag::None {
                return true;
            }
            self.reports.error("wrong-type", services.mark, "`services` must be a mapping");
            return false;
        };
        if map.len() > MAX_SERVICES {
            let message =
                format!("this file has {} services; more than {MAX_SERVICES} services are refused", map.len());
            self.reports.error("too-large", services.mark, message);
            return false;
        }
        for (name, (mark, service)) in map {
            if service.as_map().is_none() && !service.is_null() {
                let mark = if service.mark.line > 0 { service.mark } else { *mark };
                self.reports.error("wrong-type", mark, format!("`services.{name}` must be a mapping"));
            }
        }
        self.reports.errors() == errors
    }
}

/// What files amount to.
pub(super) struct Model {
    pub(super) tree: Node,
    /// There was no error.
    pub(super) sound: bool,
}

/// Does something to a file: to each service in turn, in a file that has nothing else, and to the file without services.
/// A large project does not fit into a cache, so what is done to a service is done in one go.
fn by_service(tree: &mut Node, mut change: impl FnMut(&mut Node)) {
    let services = tree.get_mut("services").filter(|services| services.tag == Tag::None).and_then(Node::as_map_mut);
    let services = services.map(std::mem::take).unwrap_or_default();
    change(tree);
    let mut changed = Map::with_capacity(services.len());
    for service in services {
        let mut part = mapping(Mark::default(), [("services", Value::from(Map::from_iter([service])))]);
        change(&mut part);
        changed.extend(part.get_mut("services").and_then(Node::as_map_mut).map(std::mem::take).unwrap_or_default());
    }
    if let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) {
        *services = changed;
    }
}

/// A bare name among a service's variables takes the value that its own scope has for it.
fn bare_variables(tree: &mut Node, environment: &BTreeMap<String, String>) {
    let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) else { return };
    for (_, service) in services.values_mut() {
        let Some(variables) = service.get_mut("environment").and_then(Node::as_map_mut) else { continue };
        for (name, (_, value)) in variables.iter_mut() {
            if value.is_null()
                && let Some(found) = environment.get(name.as_ref())
            {
                value.value = Value::String(found.as_str().into());
            }
        }
    }
}
