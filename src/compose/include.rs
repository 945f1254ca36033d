//! `include`: other projects whose resources become part of this one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::load::{Loader, Scope};
use super::locate::{clean, read_env_files};
use super::paths::relative;
use super::remote::{self, is_remote};
use crate::base::diagnostic::Diagnostic;
use crate::model::tree::{Map, Mark, Node, Value};

/// Included projects may include others this far.
const MAX_DEPTH: usize = 50;
/// Files that are read for one project, the same file twice counted twice: includes of includes can double.
pub(super) const MAX_READS: usize = 10_000;

/// One entry of `include`.
struct Entry {
    paths: Vec<String>,
    project_directory: Option<String>,
    env_files: Vec<String>,
    mark: Mark,
}

/// Brings what `include` names into a file.
pub(super) fn apply(loader: &mut Loader<'_>, document: &mut Node, file: &Path, scope: &Scope) {
    let Some((_, include)) = document.as_map_mut().and_then(|map| map.remove("include")) else { return };
    let Some(entries) = include.as_list() else {
        if !include.is_null() {
            loader.reports.error("wrong-type", include.mark, "`include` must be a list");
        }
        return;
    };
    for entry in entries {
        let Some(entry) = read_entry(loader, entry) else { continue };
        let before = loader.reports.diagnostics.len();
        let imported = project(loader, &entry, file, scope);
        loader.reports.trace(before, entry.mark, "included from here");
        if let Some(imported) = imported {
            import(loader, imported, document, &entry);
        }
    }
}

/// One text or a list of them; `None` when it is something else, which is reported.
fn texts(loader: &mut Loader<'_>, node: Option<&Node>, what: &str) -> Option<Vec<String>> {
    let Some(node) = node.filter(|node| !node.is_null()) else { return Some(Vec::new()) };
    let items = node.as_list().unwrap_or(std::slice::from_ref(node));
    if let Some(wrong) = items.iter().find(|item| item.as_str().is_none()) {
        loader.reports.error("wrong-type", wrong.mark, format!("`{what}` must be text or a list of texts"));
        return None;
    }
    Some(items.iter().filter_map(Node::as_str).map(str::to_owned).collect())
}

fn read_entry(loader: &mut Loader<'_>, node: &Node) -> Option<Entry> {
    const KEYS: [&str; 3] = ["path", "project_directory", "env_file"];
    let (paths, directory, env_files) = match &node.value {
        Value::Null => return None,
        Value::Map(map) => {
            for (key, (mark, _)) in map.iter().filter(|(key, _)| !KEYS.contains(&key.as_ref())) {
                let message = format!("`include` does not know `{key}`, so it is ignored");
                loader.reports.warning("ignored-key", *mark, message);
            }
            let paths = texts(loader, node.get("path"), "include.path")?;
            let env_files = texts(loader, node.get("env_file"), "include.env_file")?;
            (paths, node.get("project_directory").filter(|node| !node.is_null()), env_files)
        }
        Value::String(path) => (vec![path.to_string()], None, Vec::new()),
        _ => {
            loader.reports.error("wrong-type", node.mark, "an entry of `include` must be a path or a mapping");
            return None;
        }
    };
    if let Some(wrong) = directory.filter(|node| node.as_str().is_none()) {
        loader.reports.error("wrong-type", wrong.mark, "`include.project_directory` must be text");
        return None;
    }
    // An entry without a path includes nothing, as in the reference.
    if paths.is_empty() {
        return None;
    }
    let project_directory = directory.and_then(Node::as_str).map(str::to_owned).filter(|path| !path.is_empty());
    Some(Entry { paths, project_directory, env_files, mark: node.mark })
}

/// Loads the project of one entry.
fn project(loader: &mut Loader<'_>, entry: &Entry, file: &Path, scope: &Scope) -> Option<Node> {
    let located = entry.paths.iter().map(|path| match is_remote(path) {
        true => remote::fetch(loader.options, path, entry.mark, loader.reports),
        false => Some(clean(&scope.folder.join(path))),
    });
    let located: Vec<PathBuf> = located.collect::<Option<_>>()?;
    let main = located.first()?;
    let mut included = scope.included.clone();
    included.push(file.to_owned());
    if included.contains(main) || included.len() > MAX_DEPTH {
        let way = included.iter().chain([main]).map(|file| file.display().to_string()).collect::<Vec<_>>();
        let message = format!("include cycle detected: {}", way.join(" -> "));
        loader.reports.error("include-cycle", entry.mark, message);
        return None;
    }
    let folder = match &entry.project_directory {
        Some(directory) => clean(&scope.folder.join(directory)),
        None => main.parent()?.to_owned(),
    };
    // What was fetched has no place relative to the project.
    let is_elsewhere = entry.project_directory.is_none() && entry.paths.first().is_some_and(|path| is_remote(path));
    let shown = match scope.shown.is_absolute() || is_elsewhere {
        true => folder.clone(),
        false => scope.shown.join(relative(&scope.folder, &folder)),
    };
    let mut environment = scope.environment.clone();
    let env_files = env_files(loader, entry, &folder, scope)?;
    read_env_files(&env_files, &mut environment, loader.reports)?;
    let inputs = loader.read_all(&located, entry.mark);
    let mut inner = Scope::new(folder, shown, environment);
    inner.included = included;
    loader.model(inputs, &inner, &|_, _, _| {}).filter(|model| model.sound).map(|model| model.tree)
}

fn env_files(loader: &mut Loader<'_>, entry: &Entry, folder: &Path, scope: &Scope) -> Option<Vec<PathBuf>> {
    if entry.env_files.is_empty() {
        let file = folder.join(".env");
        let usable = std::fs::metadata(&file).is_ok_and(|metadata| !metadata.is_dir());
        return Some(if usable { vec![file] } else { Vec::new() });
    }
    let mut files = Vec::new();
    for file in entry.env_files.iter().filter(|file| file.as_str() != "/dev/null") {
        let path = clean(&scope.folder.join(file));
        if std::fs::metadata(&path).is_err() {
            let message = format!("couldn't find env file: `{}`", path.display());
            loader.reports.error("missing-file", entry.mark, message);
            return None;
        }
        files.push(path);
    }
    Some(files)
}

/// Adds resources that the including file does not have; the same one twice is fine when it is equal.
fn import(loader: &mut Loader<'_>, imported: Node, document: &mut Node, entry: &Entry) {
    let Value::Map(mut imported) = imported.value else { return };
    let Some(document) = document.as_map_mut() else { return };
    for kind in ["services", "volumes", "networks", "secrets", "configs", "models"] {
        let Some((mark, Node { value: Value::Map(resources), .. })) = imported.remove(kind) else { continue };
        let empty = || (mark, Node::new(Value::from(Map::default()), mark));
        let (_, target) = document.get_or_insert_with(Arc::from(kind), empty);
        let Some(target) = target.as_map_mut() else { continue };
        for (name, (mark, resource)) in *resources {
            match target.get(&name) {
                Some((_, existing)) if *existing == resource => {}
                Some((existing, _)) => {
                    let message = format!("`{kind}.{name}` conflicts with imported resource");
                    let place = loader.reports.place(*existing);
                    let mut diagnostic = Diagnostic::error("include-conflict", place, message)
                        .help("rename one of them, or change it in an override file of the include");
                    for (mark, note) in [(mark, "imported from here"), (entry.mark, "by this include")] {
                        if let Some(place) = loader.reports.place(mark) {
                            diagnostic = diagnostic.related(place, note);
                        }
                    }
                    loader.reports.push(diagnostic);
                }
                None => {
                    target.insert(name, (mark, resource));
                }
            }
        }
    }
}
