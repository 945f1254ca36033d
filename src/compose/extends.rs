//! `extends`: a service as a change of another one, of the same file or of another.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::load::{Loader, Scope};
use super::paths::{Base, relative};
use super::remote::{self, is_remote};
use super::validate::nearest;
use super::{canonical, interpolate, merge, record};
use crate::base::diagnostic::Diagnostic;
use crate::model::tree::{Map, Mark, Node, Value};

/// Services that extend each other further than this are a mistake.
const MAX_CHAIN: usize = 100;

/// Values of one project that come by `extends`; ten thousand large services have half of that.
const MAX_INHERITED: usize = 500_000;

/// A service on the way, and where it is extended.
struct Link {
    file: PathBuf,
    service: String,
    mark: Mark,
}

/// What an `extends` says.
struct Reference {
    service: String,
    file: Option<String>,
    mark: Mark,
    /// Where the file is named, and where the service is.
    file_mark: Mark,
    service_mark: Mark,
}

/// Replaces every extending service of a file by what it amounts to.
pub(super) fn apply(loader: &mut Loader<'_>, document: &mut Node, file: &Path, scope: &Scope) {
    let Some(services) = document.get("services").and_then(Node::as_map) else { return };
    let extending: Vec<_> = services
        .iter()
        .filter(|(_, (_, service))| service.get("extends").is_some())
        .map(|(name, _)| std::sync::Arc::clone(name))
        .collect();
    for name in extending {
        if loader.reports.is_full() {
            return;
        }
        let Some(services) = document.get("services").and_then(Node::as_map) else { return };
        let merged = extended(loader, services, &name, file, &mut Vec::new(), scope);
        if let (Some(node), Some(services)) = (merged, document.get_mut("services").and_then(Node::as_map_mut))
            && let Some((_, slot)) = services.get_mut(&name)
        {
            *slot = node;
        }
    }
}

/// The service `name` of `services` with everything that it extends.
fn extended(
    loader: &mut Loader<'_>,
    services: &Map,
    name: &str,
    file: &Path,
    chain: &mut Vec<Link>,
    scope: &Scope,
) -> Option<Node> {
    let (_, service) = services.get(name)?;
    let Some(reference) = service.get("extends") else { return Some(service.clone()) };
    let reference = read_reference(loader, reference, name)?;
    if chain.iter().any(|link| link.file == file && link.service == name) || chain.len() >= MAX_CHAIN {
        circular(loader, chain, name, &reference);
        return None;
    }
    chain.push(Link { file: file.to_owned(), service: name.to_owned(), mark: reference.mark });
    let base = match &reference.file {
        None => {
            known(loader, services, &reference, name, file)?;
            extended(loader, services, &reference.service, file, chain, scope)
        }
        Some(other) => {
            let path = match is_remote(other) {
                true => remote::fetch(loader.options, other, reference.file_mark, loader.reports)?,
                false => scope.folder.join(other),
            };
            let before = loader.reports.diagnostics.len();
            let bases = base_services(loader, &path, reference.file_mark, scope, is_remote(other));
            let note = format!("`{name}` extends `{}` of this file from here", reference.service);
            loader.reports.trace(before, reference.file_mark, &note);
            loader.reports.lead(&path, reference.file_mark, note);
            let bases = bases?;
            known(loader, &bases, &reference, name, &path)?;
            extended(loader, &bases, &reference.service, &path, chain, scope)
        }
    };
    chain.pop();
    let mut base = base?;
    if base.is_null() {
        return Some(service.clone());
    }
    loader.inherited += base.size();
    if loader.inherited > MAX_INHERITED {
        let message = format!("services take over more than {MAX_INHERITED} values from those that they extend");
        loader.reports.error("too-large", reference.mark, message);
        return None;
    }
    merge::strip_tags(&mut base);
    if let Some(record) = &mut loader.reports.record {
        record.inherited(name, &record::Base { service: reference.service, mark: reference.mark }, &base);
    }
    let mut merged = merge::services(base, service.clone(), name, loader.depth(), loader.reports);
    if let Some(map) = merged.as_map_mut() {
        map.remove("extends");
    }
    Some(merged)
}

fn read_reference(loader: &mut Loader<'_>, node: &Node, name: &str) -> Option<Reference> {
    let member = |key: &str| node.get(key).and_then(Node::as_str).map(str::to_owned);
    let service = match &node.value {
        Value::String(text) => Some(text.to_string()),
        Value::Map(_) => member("service"),
        _ => None,
    };
    let Some(service) = service else {
        let message = format!("`services.{name}.extends` needs `service`");
        loader.reports.error("missing-key", node.mark, message);
        return None;
    };
    if let Some(file) = node.get("file").filter(|file| !file.is_null() && file.as_str().is_none()) {
        let message = format!("`services.{name}.extends.file` must be text");
        loader.reports.error("wrong-type", file.mark, message);
        return None;
    }
    let mark_of = |key: &str| node.get(key).map_or(node.mark, |node| node.mark);
    let (file_mark, service_mark) = (mark_of("file"), mark_of("service"));
    Some(Reference { service, file: member("file"), mark: node.mark, file_mark, service_mark })
}

fn known(loader: &mut Loader<'_>, services: &Map, reference: &Reference, name: &str, file: &Path) -> Option<()> {
    if services.contains_key(reference.service.as_str()) {
        return Some(());
    }
    let wanted = &reference.service;
    let message = format!("cannot extend service `{name}`: service `{wanted}` not found in `{}`", file.display());
    let mut diagnostic = Diagnostic::error("unknown-service", loader.reports.place(reference.service_mark), message);
    if let Some(nearest) = nearest(wanted, services.keys().map(AsRef::as_ref)) {
        diagnostic = diagnostic.help(format!("did you mean `{nearest}`?"));
    }
    loader.reports.push(diagnostic);
    None
}

fn circular(loader: &mut Loader<'_>, chain: &[Link], name: &str, reference: &Reference) {
    let way = chain.iter().map(|link| link.service.as_str()).chain([name]).collect::<Vec<_>>().join(" -> ");
    let place = loader.reports.place(reference.mark);
    let mut diagnostic = Diagnostic::error("extends-cycle", place, format!("circular reference in `extends`: {way}"));
    for link in chain {
        if let Some(place) = loader.reports.place(link.mark) {
            diagnostic = diagnostic.related(place, format!("`{}` extends from here", link.service));
        }
    }
    loader.reports.push(diagnostic);
}

/// The services of another file in canonical form, their paths seen from where this scope is.
fn base_services(
    loader: &mut Loader<'_>,
    path: &Path,
    mark: Mark,
    scope: &Scope,
    is_elsewhere: bool,
) -> Option<Rc<Map>> {
    if let Some(known) = scope.bases.borrow().get(path) {
        return known.clone();
    }
    let services = read_services(loader, path, mark, scope, is_elsewhere).map(Rc::new);
    scope.bases.borrow_mut().insert(path.to_owned(), services.clone());
    services
}

fn read_services(loader: &mut Loader<'_>, path: &Path, mark: Mark, scope: &Scope, is_elsewhere: bool) -> Option<Map> {
    let input = loader.read(path, mark)?;
    let mut tree = Node::new(Value::from(Map::default()), Mark::default());
    for mut document in input.documents {
        if !loader.options.no_interpolate {
            interpolate::file(&mut document, &scope.environment, loader.reports);
        }
        tree = merge::files(tree, document, loader.depth(), loader.reports);
        merge::enforce_unique(&mut tree, loader.reports);
        canonical::file(&mut tree, loader.depth(), loader.reports);
    }
    let folder = path.parent().unwrap_or(&scope.folder);
    let shown = if scope.shown.is_absolute() || is_elsewhere {
        super::locate::clean(folder)
    } else {
        // The rest of the way is added when the scope's own paths are resolved.
        relative(&scope.folder, &super::locate::clean(folder))
    };
    Base { folder: &shown, home: loader.home.as_deref() }.resolve(&mut tree);
    let services = tree.as_map_mut().and_then(|map| map.remove("services"));
    let Some((_, Node { value: Value::Map(services), .. })) = services else {
        let message = format!("`{}` has no services to extend", path.display());
        loader.reports.error("unknown-service", mark, message);
        return None;
    };
    Some(*services)
}
