//! What files say and how it was overridden, kept only when `lint` or `config --explain` ask for it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files;
use crate::base::diagnostic::Place;
use crate::model::tree::{Map, Mark, Node, Value};

/// A scalar before its variables were replaced.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) value: Value,
    /// As the file spells it, quotes included; empty when it is longer than a line.
    pub(super) source: String,
}

/// A service that another one extends.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub(super) service: String,
    /// The `extends`.
    pub(super) mark: Mark,
}

/// The history of a project's values.
#[derive(Debug, Default)]
pub(super) struct Record {
    written: HashMap<Mark, Written>,
    /// By the place of a value: the mappings and lists that repeat it by an alias or `<<`.
    repeated: HashMap<Mark, Vec<Mark>>,
    /// By the path and place of a value: the place of the one that it took the place of.
    overridden: HashMap<(String, Mark), Mark>,
    /// By service and the place of a value: where it has it from.
    inherited: HashMap<(String, Mark), Base>,
    /// By file: the value that names it.
    named: HashMap<u16, Mark>,
    /// Files of variables in the order they were read, those that win first.
    pub(super) variable_files: Vec<PathBuf>,
    /// By service and variable: the `env_file` that gives it its value.
    pub(super) service_files: HashMap<(String, String), PathBuf>,
}

impl Record {
    /// Keeps the scalars of a file that was just parsed.
    pub(super) fn file(&mut self, file: u16, named: Mark, text: &str, documents: &[Node]) {
        if named.line > 0 {
            self.named.entry(file).or_insert(named);
        }
        let lines: Vec<&str> = text.lines().collect();
        for document in documents {
            self.scalars(document, &lines);
        }
    }

    fn scalars(&mut self, node: &Node, lines: &[&str]) {
        // What an alias repeats is written before the mapping or list that repeats it.
        let items = node.as_list().unwrap_or_default().iter();
        let inner = items.chain(node.as_map().into_iter().flat_map(Map::values).map(|(_, node)| node));
        for inner in inner.filter(|inner| (inner.mark.line, inner.mark.column) < (node.mark.line, node.mark.column)) {
            self.repeated.entry(inner.mark).or_default().push(node.mark);
        }
        match &node.value {
            Value::List(list) => list.iter().for_each(|item| self.scalars(item, lines)),
            Value::Map(map) => map.values().for_each(|(_, node)| self.scalars(node, lines)),
            value => {
                let written = || Written { value: value.clone(), source: source(node.mark, lines) };
                self.written.entry(node.mark).or_insert_with(written);
            }
        }
    }

    pub(super) fn overridden(&mut self, path: String, after: Mark, before: Mark) {
        if before.line > 0 && before != after {
            self.overridden.insert((path, after), before);
        }
    }

    /// Notes that `service` has every value of `node` from the service it extends.
    pub(super) fn inherited(&mut self, service: &str, base: &Base, node: &Node) {
        if node.mark.line > 0 {
            self.inherited.insert((service.to_owned(), node.mark), base.clone());
        }
        match &node.value {
            Value::List(list) => list.iter().for_each(|item| self.inherited(service, base, item)),
            Value::Map(map) => map.values().for_each(|(_, node)| self.inherited(service, base, node)),
            _ => {}
        }
    }

    pub(super) fn written(&self, mark: Mark) -> Option<&Written> {
        self.written.get(&mark)
    }

    /// What repeats the value within `outer`, which may have become one with others since.
    pub(super) fn repeated(&self, mark: Mark, outer: Mark) -> Option<Mark> {
        let by = self.repeated.get(&mark)?;
        by.iter().find(|by| **by == outer).or(by.first().filter(|_| by.len() == 1)).copied()
    }

    pub(super) fn before(&self, path: &str, mark: Mark) -> Option<Mark> {
        self.overridden.get(&(path.to_owned(), mark)).copied()
    }

    pub(super) fn base(&self, service: &str, mark: Mark) -> Option<&Base> {
        self.inherited.get(&(service.to_owned(), mark))
    }

    pub(super) fn named(&self, mark: Mark) -> Option<Mark> {
        self.named.get(&mark.file).copied()
    }
}

fn source(mark: Mark, lines: &[&str]) -> String {
    let number = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    let line = number(mark.line).checked_sub(1).and_then(|index| lines.get(index)).copied().unwrap_or_default();
    line.chars().skip(number(mark.column).saturating_sub(1)).take(mark.length.into()).collect()
}

/// Where a file of variables sets `name`; the last time counts.
pub(super) fn variable_place(file: &Path, name: &str) -> Option<Place> {
    let text = files::read(file).ok()?;
    let sets = |line: &str| {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(['=', ':']))
    };
    let (_, line) = text.lines().zip(1_u32..).filter(|(line, _)| sets(line)).last()?;
    Some(Place { file: Arc::new(file.to_owned()), line, column: 1, length: 0 })
}
