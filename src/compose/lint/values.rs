//! Values that are not what they look like.

use super::{Findings, Scene};
use crate::compose::record::Written;
use crate::compose::scalar;
use crate::compose::template;
use crate::model::tree::{Map, Node, Value};

/// Where values are free text, and what they are called in messages.
const FREE_TEXT: [(&str, &str); 4] =
    [("environment", "variable"), ("labels", "label"), ("build.args", "build argument"), ("annotations", "annotation")];

fn written_pairs<'a>(scene: &Scene<'a>, mut visit: impl FnMut(&'a str, &'static str, &'a str, &'a Node, &'a Written)) {
    for (service, _, node) in scene.services() {
        for (path, kind) in FREE_TEXT {
            for (name, (_, value)) in node.at(path).and_then(Node::as_map).into_iter().flat_map(Map::iter) {
                if let Some(written) = scene.written(value.mark) {
                    visit(service, kind, name, value, written);
                }
            }
        }
    }
}

pub(super) fn changed(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    written_pairs(scene, |service, kind, name, node, written| {
        let is_scalar = matches!(written.value, Value::Bool(_) | Value::Int(_) | Value::Float(_));
        let value = scalar::text(&node.value).unwrap_or_default();
        let source = written.source.trim();
        if is_scalar && !source.is_empty() && value != source {
            let message =
                format!("{kind} `{name}` of service `{service}` is written `{source}`, but becomes `{value}`");
            findings.service(service, node.mark, message, format!("quote it: `\"{source}\"`"));
        }
    });
}

pub(super) fn sexagesimal(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    written_pairs(scene, |service, kind, name, node, written| {
        let source = written.source.trim();
        if is_sexagesimal(source) {
            let message = format!(
                "{kind} `{name}` of service `{service}` is `{source}` here, but a number of base 60 to YAML 1.1 readers"
            );
            findings.service(service, node.mark, message, format!("quote it: `\"{source}\"`"));
        }
    });
}

/// `[1-9][0-9]*(:[0-5]?[0-9])+`
fn is_sexagesimal(text: &str) -> bool {
    let Some((first, rest)) = text.split_once(':') else { return false };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let below_60 = |part: &str| part.len() <= 2 && digits(part) && part.parse::<u8>().is_ok_and(|number| number < 60);
    digits(first) && !first.starts_with('0') && rest.split(':').all(below_60)
}

pub(super) fn decimal_mode(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    let references = ["configs", "secrets", "build.secrets"].into_iter().flat_map(|path| scene.items(path));
    let modes = references.map(|(service, item)| (service, item.get("mode")));
    let tmpfs = scene.items("volumes").map(|(service, item)| (service, item.at("tmpfs.mode")));
    for (service, mode) in modes.chain(tmpfs) {
        let Some(mode) = mode else { continue };
        let Some(Written { value: Value::Int(number), source }) = scene.written(mode.mark) else { continue };
        let source = source.trim();
        if *number == 0 || source.starts_with('0') || !source.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let message =
            format!("mode `{source}` of service `{service}` is a decimal number, so the mode is `0{number:o}`");
        let meant = if source.bytes().all(|byte| byte < b'8') { source.to_owned() } else { format!("{number:o}") };
        findings.service(service, mode.mark, message, format!("write it in octal: `0{meant}`"));
    }
}

pub(super) fn swallowed_dollar(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    for (service, _, node) in scene.services() {
        leaves(scene, service, "", node, findings);
    }
}

fn leaves(scene: &Scene<'_>, service: &str, key: &str, node: &Node, findings: &mut Findings<'_>) {
    match &node.value {
        Value::List(list) => list.iter().for_each(|item| leaves(scene, service, key, item, findings)),
        Value::Map(map) => map.iter().for_each(|(key, (_, node))| leaves(scene, service, key, node, findings)),
        Value::String(_) => {
            let Some(Written { value: Value::String(text), .. }) = scene.written(node.mark) else { return };
            let key = text.split_once('=').map_or(key, |(name, _)| if is_name(name) { name } else { key });
            for name in swallowed(key, text, |name| scene.environment.contains_key(name)) {
                let message = format!(
                    "`${name}` in `{key}` of service `{service}` is taken for a variable, which is not set: the text is lost"
                );
                let help = format!("write `$${name}` for the text, or `${{{name}:-}}` when it is a variable");
                findings.service(service, node.mark, message, help);
            }
        }
        _ => {}
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Variables without braces that are not set, right inside a word or anywhere in a secret.
fn swallowed<'a>(key: &str, text: &'a str, is_set: impl Fn(&str) -> bool) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (start, name) in template::bare_names(text) {
        let before = text.get(..start).and_then(|before| before.chars().next_back());
        let in_word = before.is_some_and(|c| c.is_alphanumeric() || "!@#%^&*".contains(c));
        if !is_set(name) && (in_word || is_secret(key)) {
            found.push(name);
        }
    }
    found
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_uppercase();
    ["PASS", "PWD", "SECRET", "TOKEN", "CREDENTIAL", "API_KEY", "APIKEY"].iter().any(|word| key.contains(word))
}
