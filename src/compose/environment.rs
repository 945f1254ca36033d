//! The variables and labels of a service, with those of its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dotenv;
use super::files::{self, ReadError};
use super::locate::push_dotenv_error;
use super::report::Reports;
use crate::base::diagnostic::{Diagnostic, Place};
use crate::model::tree::{Map, Mark, Node, Tag, Value};

/// Resolves the variables of every service: bare names, then what `env_file` says of those that are not given.
pub(super) fn services(
    tree: &mut Node,
    environment: &BTreeMap<String, String>,
    working_dir: &Path,
    reports: &mut Reports,
) {
    let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) else { return };
    let mut added = 0;
    for (name, (_, service)) in services.iter_mut() {
        let mut resolver = Resolver { environment, working_dir, name, reports, added: &mut added };
        resolver.variables(service);
        resolver.labels(service);
        if added > MAX_ADDED {
            let message = format!("services have more than {MAX_ADDED} variables and labels from files");
            reports.error("too-large", service.mark, message);
            return;
        }
    }
}

/// Values of one project that come from `env_file` and `label_file`.
const MAX_ADDED: usize = 500_000;

struct Resolver<'a> {
    environment: &'a BTreeMap<String, String>,
    working_dir: &'a Path,
    name: &'a str,
    reports: &'a mut Reports,
    /// Values that came from files so far.
    added: &'a mut usize,
}

impl Resolver<'_> {
    fn variables(&mut self, service: &mut Node) {
        for (name, (_, value)) in service.get_mut("environment").and_then(Node::as_map_mut).into_iter().flatten() {
            if value.is_null()
                && let Some(found) = self.environment.get(name.as_ref())
            {
                value.value = Value::String(found.as_str().into());
            }
        }
        let Some(map) = service.as_map_mut() else { return };
        let Some((files_mark, files)) = map.remove("env_file") else { return };
        let (mark, own) = map.remove("environment").unwrap_or((files_mark, Node::default()));
        let Node { value: own_value, mark: own_mark, .. } = own;
        let own = if let Value::Map(own) = own_value { *own } else { Map::default() };
        let given = |name: &str| own.get(name).and_then(|(_, node)| node.as_str()).map(str::to_owned);
        let lookup = |name: &str| self.environment.get(name).cloned().or_else(|| given(name));
        let mut variables: BTreeMap<String, String> =
            own.iter().filter_map(|(key, (_, node))| Some((key.to_string(), node.as_str()?.to_owned()))).collect();
        let mut places: BTreeMap<String, Mark> = BTreeMap::new();
        for file in files.as_list().unwrap_or_default() {
            let before = variables.clone();
            let read = read_variables(file, self.working_dir, &mut variables, &lookup, self.name, self.reports);
            if read.is_none() {
                return;
            }
            for (key, value) in &variables {
                if before.get(key) != Some(value) && !own.contains_key(key) {
                    places.insert(key.clone(), file.mark);
                    if let Some(record) = &mut self.reports.record {
                        record
                            .service_files
                            .insert((self.name.to_owned(), key.clone()), path_of(file, self.working_dir));
                    }
                }
            }
        }
        let mut resolved: Vec<(Arc<str>, (Mark, Node))> = variables
            .into_iter()
            .filter(|(key, _)| !own.contains_key(key.as_str()))
            .map(|(key, value)| {
                let mark = places.get(&key).copied().unwrap_or_default();
                (Arc::from(key), (mark, Node::string(value, mark)))
            })
            .collect();
        *self.added += resolved.len();
        resolved.extend(own);
        if resolved.is_empty() {
            return;
        }
        resolved.sort_by(|(a, _), (b, _)| a.cmp(b));
        let node = Node { value: Value::from(resolved.into_iter().collect::<Map>()), mark: own_mark, tag: Tag::None };
        insert_sorted(map, "environment", mark, node);
    }

    fn labels(&mut self, service: &mut Node) {
        let Some(map) = service.as_map_mut() else { return };
        let Some((files_mark, files)) = map.remove("label_file") else { return };
        let mut labels = BTreeMap::new();
        for file in files.as_list().unwrap_or_default() {
            let Some(path) = file.as_str() else { continue };
            let path = self.working_dir.join(path);
            let Some(text) = read_required("label file", &path, file.mark, self.name, self.reports) else { return };
            // Only what the files themselves say counts here, as in the reference.
            if let Err(error) = dotenv::parse(&text, &mut labels, &|_| None) {
                push_dotenv_error(&path, &error, self.reports);
                return;
            }
        }
        let (mark, own) = map.remove("labels").unwrap_or((files_mark, Node::default()));
        let mut merged: BTreeMap<Arc<str>, (Mark, Node)> = labels
            .into_iter()
            .map(|(key, value)| (Arc::from(key), (files_mark, Node::string(value, files_mark))))
            .collect();
        *self.added += merged.len();
        let own_mark = own.mark;
        if let Value::Map(own) = own.value {
            merged.extend(*own);
        }
        let node = Node { value: Value::from(merged.into_iter().collect::<Map>()), mark: own_mark, tag: Tag::None };
        insert_sorted(map, "labels", mark, node);
    }
}

/// Puts an attribute back where the order of the format has it.
fn insert_sorted(map: &mut Map, key: &str, mark: Mark, node: Node) {
    let order = |name: &str| super::schema::SERVICE.attributes.iter().position(|attribute| attribute.name == name);
    map.insert(Arc::from(key), (mark, node));
    map.sort_by(|a, b| match (order(a), order(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => std::cmp::Ordering::Less,
        (None, Some(_)) => std::cmp::Ordering::Greater,
        (None, None) => a.cmp(b),
    });
}

fn read_required(what: &str, path: &Path, mark: Mark, service: &str, reports: &mut Reports) -> Option<String> {
    match files::read(path) {
        Ok(text) => Some(text),
        Err(ReadError::Missing) => {
            let message = format!("{what} `{}` of service `{service}` not found", path.display());
            reports.error("missing-file", mark, message);
            None
        }
        Err(ReadError::Other(mut diagnostic)) => {
            diagnostic.place = diagnostic.place.or_else(|| reports.place(mark));
            reports.push(diagnostic);
            None
        }
    }
}

fn path_of(file: &Node, working_dir: &Path) -> PathBuf {
    working_dir.join(file.get("path").and_then(Node::as_str).unwrap_or_default())
}

/// Adds the variables of one `env_file`; `None` when an error was reported.
pub(super) fn read_variables(
    file: &Node,
    working_dir: &Path,
    variables: &mut BTreeMap<String, String>,
    lookup: &dyn Fn(&str) -> Option<String>,
    service: &str,
    reports: &mut Reports,
) -> Option<()> {
    let path = path_of(file, working_dir);
    let mark = file.get("path").map_or(file.mark, |path| path.mark);
    if std::fs::metadata(&path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        && file.get("required").and_then(Node::as_bool) == Some(false)
    {
        return Some(());
    }
    let text = read_required("env file", &path, mark, service, reports)?;
    let parsed = match file.get("format").and_then(Node::as_str) {
        None | Some("") => dotenv::parse(&text, variables, lookup),
        Some("raw") => dotenv::parse_raw(&text, variables, lookup),
        Some(format) => {
            let message = format!("`{format}` is not a format of env files");
            let mark = file.get("format").map_or(mark, |format| format.mark);
            reports.error_with_help("invalid-value", mark, message, "leave it out, or write `raw`");
            return None;
        }
    };
    if let Err(error) = parsed {
        push_dotenv_error(&path, &error, reports);
        return None;
    }
    Some(())
}

/// Variables of a file in the dialect of `.env`, by what `lookup` knows.
///
/// # Errors
/// When it cannot be read, or a line of it makes no sense.
pub fn env_file(path: &Path, lookup: &dyn Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>, Diagnostic> {
    let text = files::read(path).map_err(|error| match error {
        ReadError::Missing => {
            Diagnostic::error("missing-file", None, format!("cannot open `{}`: no such file", path.display()))
        }
        ReadError::Other(diagnostic) => diagnostic,
    })?;
    let mut variables = BTreeMap::new();
    dotenv::parse(&text, &mut variables, lookup).map_err(|error| {
        let place = Place { file: Arc::new(path.to_owned()), line: error.line, column: 1, length: 0 };
        Diagnostic::error("invalid-env-file", Some(place), error.message)
    })?;
    Ok(variables)
}
