//! Variables in values, and the casts that follow from them.

use std::collections::{BTreeMap, BTreeSet};

use super::path::Path;
use super::report::Reports;
use super::schema::{Cast, Members, PROJECT, Shape, Text};
use super::template::{self, MAX_LENGTH, TemplateError};
use crate::base::diagnostic::Diagnostic;
use crate::model::tree::{Mark, Node, Value};

/// Replaces the variables of every value of a file, then turns text into booleans and numbers where the format
/// wants them. Keys are left alone.
pub(super) fn file(root: &mut Node, environment: &BTreeMap<String, String>, reports: &mut Reports) {
    let mut walker = Walker { environment, reports, missing: BTreeSet::new(), replaced: 0 };
    walker.members(root, Some(Members::Struct(&PROJECT)), &Path::ROOT);
}

struct Walker<'a> {
    environment: &'a BTreeMap<String, String>,
    reports: &'a mut Reports,
    missing: BTreeSet<String>,
    /// Bytes of all texts whose variables were replaced.
    replaced: usize,
}

/// For one file, which is of 16 MiB at most.
const MAX_REPLACED: usize = 64 * 1024 * 1024;

impl Walker<'_> {
    fn node(&mut self, node: &mut Node, shape: Option<&'static Shape>, path: &Path<'_>) {
        match &mut node.value {
            Value::String(text) => {
                if text.contains('$') {
                    let Some(replaced) = self.substitute(text, node.mark, path) else { return };
                    node.value = Value::String(replaced.into());
                }
                // Where no text may stand, validation says so.
                if let Some(shape) = shape.filter(|shape| !matches!(shape.text, Text::No)) {
                    self.cast(node, shape.cast, path);
                }
            }
            Value::List(list) => {
                let items = shape.and_then(|shape| shape.list).map(|items| items.shape);
                for (index, item) in list.iter_mut().enumerate() {
                    self.node(item, items, &path.index(index));
                }
            }
            Value::Map(_) => self.members(node, shape.map(|shape| shape.map), path),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
        }
    }

    fn members(&mut self, node: &mut Node, members: Option<Members>, path: &Path<'_>) {
        let Some(map) = node.as_map_mut() else { return };
        for (key, (_, value)) in map.iter_mut() {
            let shape = match members {
                Some(Members::Struct(members)) => members.attribute(key).map(|found| found.shape),
                Some(Members::Named { value, .. }) => Some(value),
                Some(Members::No) | None => None,
            };
            self.node(value, shape, &path.key(key));
        }
    }

    fn substitute(&mut self, text: &str, mark: Mark, path: &Path<'_>) -> Option<String> {
        if self.replaced > MAX_REPLACED {
            return None;
        }
        let lookup = |name: &str| self.environment.get(name).cloned();
        let mut unset = BTreeSet::new();
        let mut note = |name: &str| {
            if !unset.contains(name) {
                unset.insert(name.to_owned());
            }
        };
        let replaced = template::substitute(text, &lookup, &mut note);
        for name in unset {
            self.warn_unset(name, mark);
        }
        match replaced {
            Ok(text) => {
                self.replaced += text.len();
                if self.replaced > MAX_REPLACED {
                    let message = format!("the values of variables make this file longer than {MAX_REPLACED} bytes");
                    self.reports.error("too-large", mark, message);
                    return None;
                }
                Some(text.into_owned())
            }
            Err(TemplateError::Syntax) => {
                self.reports.error_with_help(
                    "invalid-interpolation",
                    mark,
                    format!("invalid interpolation format for `{path}`: `{text}`"),
                    "write `$$` for a literal dollar sign",
                );
                None
            }
            Err(TemplateError::TooLong) => {
                let message = format!("`{path}` is longer than {MAX_LENGTH} bytes with the values of its variables");
                self.reports.error("too-large", mark, message);
                None
            }
            Err(TemplateError::Required { variable, message }) => {
                let reason = if message.is_empty() { String::new() } else { format!(": {message}") };
                self.reports.error_with_help(
                    "required-variable",
                    mark,
                    format!("required variable `{variable}` is missing a value{reason}"),
                    format!("set it in the environment or in `.env`, as in `{variable}=value`"),
                );
                None
            }
        }
    }

    fn warn_unset(&mut self, name: String, mark: Mark) {
        if self.missing.contains(&name) {
            return;
        }
        let message = format!("the `{name}` variable is not set, so it is replaced by an empty text");
        let help = format!("set it in the environment or in `.env`, or give a default: `${{{name}:-default}}`");
        let diagnostic = Diagnostic::warning("unset-variable", self.reports.place(mark), message).help(help);
        self.reports.push(diagnostic);
        self.missing.insert(name);
    }

    fn cast(&mut self, node: &mut Node, cast: Cast, path: &Path<'_>) {
        let Some(text) = node.as_str() else { return };
        let (value, wanted) = match cast {
            Cast::Bool => (boolean(text).map(Value::Bool), "a boolean, such as `true` or `false`"),
            Cast::Int | Cast::Unsigned => (whole(text).map(Value::Int), "a whole number"),
            Cast::Float => (text.parse().ok().map(Value::Float), "a number"),
            _ => return,
        };
        let Some(value) = value else {
            let message = format!("`{path}` must be {wanted}, but it is `{text}`");
            self.reports.error("wrong-type", node.mark, message);
            return;
        };
        if matches!(value, Value::Bool(_)) && !text.eq_ignore_ascii_case("true") && !text.eq_ignore_ascii_case("false")
        {
            let message = format!("`{text}` as a boolean is not YAML 1.2");
            let diagnostic = Diagnostic::warning("old-boolean", self.reports.place(node.mark), message)
                .help("write `true` or `false`");
            self.reports.push(diagnostic);
        }
        node.value = value;
    }
}

/// The booleans of YAML 1.1.
fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "y" | "yes" | "on" => Some(true),
        "false" | "n" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Decimal digits with an optional sign.
pub(super) fn whole(text: &str) -> Option<i64> {
    text.strip_prefix('+').unwrap_or(text).parse().ok()
}
