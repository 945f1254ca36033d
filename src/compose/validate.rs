//! Kinds, keys and enumerations against the schema; every problem with its place and the nearest right key.

use std::collections::HashMap;

use super::path::Path;
use super::report::Reports;
use super::scalar;
use super::schema::{Cast, Members, Number, PROJECT, Shape, Struct, Text};
use crate::base::diagnostic::Diagnostic;
use crate::model::tree::{Map, Mark, Node, Tag, Value};

/// Checks a merged file.
pub(super) fn file(root: &Node, reports: &mut Reports) {
    if let Value::Map(map) = &root.value {
        structure(map, root.mark, &PROJECT, &Path::ROOT, reports);
    }
}

fn value(node: &Node, shape: &'static Shape, path: &Path<'_>, reports: &mut Reports) {
    let fits = match &node.value {
        Value::Null => shape.null,
        Value::Bool(_) => shape.boolean,
        Value::Int(number) => integer(*number, shape, path, node.mark, reports),
        Value::Float(number) => float(*number, shape, path, node.mark, reports),
        Value::String(_) if node.tag == Tag::Date => false,
        Value::String(text) => text_fits(text, shape, path, node.mark, reports),
        Value::List(list) => match shape.list {
            Some(items) => {
                for (index, item) in list.iter().enumerate() {
                    value(item, items.shape, &path.index(index), reports);
                }
                if items.unique {
                    unique(list, path, reports);
                }
                true
            }
            None => false,
        },
        Value::Map(map) => match shape.map {
            Members::Struct(members) => {
                structure(map, node.mark, members, path, reports);
                true
            }
            Members::Named { keys, value: member, others } => {
                for (key, (mark, node)) in map.iter() {
                    if keys.fits(key) {
                        value(node, member, &path.key(key), reports);
                    } else if !others && !key.starts_with("x-") {
                        let message = format!("`{key}` is not a name that `{path}` may have");
                        let help = "use letters, digits, `.`, `_` and `-`";
                        reports.error_with_help("invalid-name", *mark, message, help);
                    }
                }
                true
            }
            Members::No => is_any(shape),
        },
    };
    if !fits {
        wrong_type(node, shape, path, reports);
    }
}

/// The shape that takes anything takes lists and mappings as well.
fn is_any(shape: &'static Shape) -> bool {
    std::ptr::eq(shape, &raw const super::schema::ANY)
}

fn integer(number: i64, shape: &Shape, path: &Path<'_>, mark: Mark, reports: &mut Reports) -> bool {
    if let Number::Between(least, most) = shape.number
        && (number < least || number > most)
    {
        let range = if most == i64::MAX { format!("at least {least}") } else { format!("{least} to {most}") };
        reports.error("out-of-range", mark, format!("`{path}` must be {range}, but it is {number}"));
    }
    !matches!(shape.number, Number::No)
}

/// A number without a fraction is an integer, however it is written.
fn float(number: f64, shape: &Shape, path: &Path<'_>, mark: Mark, reports: &mut Reports) -> bool {
    match shape.number {
        Number::No => false,
        Number::Any => true,
        Number::Integer => number.fract() == 0.0,
        // What is larger than the largest integer becomes it.
        Number::Between(..) => number.fract() == 0.0 && integer(number as i64, shape, path, mark, reports),
    }
}

fn text_fits(text: &str, shape: &Shape, path: &Path<'_>, mark: Mark, reports: &mut Reports) -> bool {
    match shape.text {
        Text::No => false,
        Text::Any => true,
        Text::OneOf(words) => {
            if !words.contains(&text) {
                let all = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
                let message = format!("`{path}` must be one of {all}, but it is `{text}`");
                let mut diagnostic = Diagnostic::error("invalid-value", reports.place(mark), message);
                if let Some(word) = nearest(text, words.iter().copied()) {
                    diagnostic = diagnostic.help(format!("did you mean `{word}`?"));
                }
                reports.push(diagnostic);
            }
            true
        }
        Text::Like(pattern, fits) => {
            if !fits(text) {
                let message = format!("`{path}` is `{text}`, which does not match `{pattern}`");
                reports.error("invalid-value", mark, message);
            }
            true
        }
    }
}

fn structure(map: &Map, mark: Mark, members: &'static Struct, path: &Path<'_>, reports: &mut Reports) {
    for (key, (key_mark, node)) in map {
        if let Some(attribute) = members.attribute(key) {
            value(node, attribute.shape, &path.key(key), reports);
        } else if members.open {
            let message = format!("`{}` is not known, so it is ignored", path.key(key));
            reports.warning("ignored-key", *key_mark, message);
        } else if !(members.extensions && key.starts_with("x-")) {
            unknown_key(key, *key_mark, members, path, reports);
        }
    }
    for required in members.required {
        if !map.contains_key(required) {
            reports.error("missing-key", mark, format!("`{path}` needs `{required}`"));
        }
    }
}

fn unknown_key(key: &str, mark: Mark, members: &'static Struct, path: &Path<'_>, reports: &mut Reports) {
    let place = path.to_string();
    let message = if place.is_empty() {
        format!("`{key}` is not a top-level key of a Compose file")
    } else {
        format!("`{place}` may not have `{key}`: additional properties are not allowed")
    };
    let mut diagnostic = Diagnostic::error("unknown-key", reports.place(mark), message);
    let names = members.attributes.iter().map(|attribute| attribute.name);
    if reports.is_full() {
        // Only counted.
    } else if let Some(name) = nearest(key, names) {
        diagnostic = diagnostic.help(format!("did you mean `{name}`?"));
    } else if members.extensions {
        diagnostic = diagnostic.help("keys of your own start with `x-`");
    }
    reports.push(diagnostic);
}

fn unique(list: &[Node], path: &Path<'_>, reports: &mut Reports) {
    if list.len() < 2 {
        return;
    }
    let mut seen: HashMap<String, Mark> = HashMap::with_capacity(list.len());
    for item in list {
        let key = match &item.value {
            Value::String(text) => format!("\"{text}"),
            _ => item.to_json().to_string(),
        };
        if let Some(first) = seen.insert(key, item.mark) {
            let shown = scalar::text(&item.value).unwrap_or_else(|| "this item".to_owned());
            let message = format!("the items of `{path}` must be unique, but `{shown}` is there twice");
            let mut diagnostic = Diagnostic::error("duplicate-item", reports.place(item.mark), message);
            if let Some(place) = reports.place(first) {
                diagnostic = diagnostic.related(place, "first given here");
            }
            reports.push(diagnostic);
        }
    }
}

fn wrong_type(node: &Node, shape: &Shape, path: &Path<'_>, reports: &mut Reports) {
    let given = match &node.value {
        Value::Null => "empty",
        Value::Bool(_) => "a boolean",
        Value::Int(_) | Value::Float(_) => "a number",
        Value::String(_) if node.tag == Tag::Date => "a date",
        Value::String(_) => "text",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    };
    let message = format!("`{path}` must be {}, but it is {given}", wanted(shape));
    let mut diagnostic = Diagnostic::error("wrong-type", reports.place(node.mark), message);
    let scalar = !matches!(node.value, Value::Null | Value::List(_) | Value::Map(_));
    if shape.cast == Cast::Duration && matches!(node.value, Value::Int(_) | Value::Float(_)) {
        diagnostic = diagnostic.help("write it with a unit, such as `30s` or `1m30s`");
    } else if scalar && !matches!(shape.text, Text::No) {
        diagnostic = diagnostic.help("put it in quotes");
    }
    reports.push(diagnostic);
}

fn wanted(shape: &Shape) -> String {
    let kinds = [
        (!matches!(shape.text, Text::No), "text"),
        (matches!(shape.number, Number::Any), "a number"),
        (matches!(shape.number, Number::Integer | Number::Between(..)), "a whole number"),
        (shape.boolean, "a boolean"),
        (shape.list.is_some(), "a list"),
        (!matches!(shape.map, Members::No), "a mapping"),
        (shape.null, "empty"),
    ];
    let kinds: Vec<&str> = kinds.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
    match kinds.as_slice() {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        _ => kinds.concat(),
    }
}

/// The candidate that is a typing mistake away from `word`.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = (word.chars().count() / 3).clamp(1, 3);
    let with_distance = candidates.map(|candidate| (distance(word, candidate), candidate));
    with_distance.filter(|(distance, _)| *distance <= most).min().map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours; case and `-` for `_` cost nothing.
fn distance(a: &str, b: &str) -> usize {
    let folded = |text: &str| text.to_lowercase().replace('-', "_").chars().take(64).collect::<Vec<char>>();
    let (a, b) = (folded(a), folded(b));
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let cell = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best = (cell(&last, j + 1) + 1).min(cell(&row, j) + 1).min(cell(&last, j) + usize::from(x != y));
            if i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x) {
                best = best.min(cell(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::schema::SERVICE;
    use super::*;

    #[test]
    fn typing_mistakes_find_their_key() {
        let names = || SERVICE.attributes.iter().map(|attribute| attribute.name);
        let cases = [
            ("enviroment", Some("environment")),
            ("healtcheck", Some("healthcheck")),
            ("imagee", Some("image")),
            ("depends-on", Some("depends_on")),
            ("prots", Some("ports")),
            ("frobnicate", None),
        ];
        for (key, expected) in cases {
            assert_eq!(nearest(key, names()), expected, "{key}");
        }
    }
}
