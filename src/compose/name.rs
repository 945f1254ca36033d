//! The name of the project.

use std::collections::BTreeMap;

use super::load::Inputs;
use super::report::Reports;
use super::template::{self, TemplateError};
use crate::model::tree::{Mark, Node};

/// Lower case, only `[a-z0-9_-]`, and not starting with `-` or `_`.
pub(super) fn normalize(name: &str) -> String {
    let lower = name.to_lowercase();
    let kept: String =
        lower.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(*c)).collect();
    kept.trim_start_matches(['-', '_']).to_owned()
}

/// Whether a project can have this name.
pub fn is_project_name(name: &str) -> bool {
    !name.is_empty() && normalize(name) == name
}

/// The name: `-p`, `COMPOSE_PROJECT_NAME`, that of the last file that has one, that of the folder.
pub(super) fn project(
    explicit: Option<&str>,
    inputs: &Inputs,
    folder: &str,
    environment: &BTreeMap<String, String>,
    interpolate: bool,
    reports: &mut Reports,
) -> Option<String> {
    let variable = environment.get("COMPOSE_PROJECT_NAME").map(String::as_str);
    if let Some(name) = explicit.filter(|name| !name.is_empty()).or(variable.filter(|name| !name.is_empty())) {
        if normalize(name) != name {
            let message = format!(
                "invalid project name `{name}`: it must consist only of lower-case letters, digits, hyphens and \
                 underscores, and start with a letter or digit"
            );
            let help = format!("`{}` would do", normalize(name));
            reports.error_with_help("invalid-project-name", Mark::default(), message, help);
            return None;
        }
        return Some(name.to_owned());
    }
    let mut given = inputs.files.iter().flat_map(|input| &input.documents).filter_map(|document| document.get("name"));
    let given = given.rfind(|name| name.as_str().is_some_and(|text| !text.is_empty()));
    if let Some(node) = given {
        let name = text(node, environment, interpolate, reports)?;
        let name = normalize(&name);
        return not_empty(name, node.mark, reports);
    }
    match normalize(folder) {
        // A file that could not be read may have one.
        name if name.is_empty() && !inputs.complete => Some("unknown".to_owned()),
        name => not_empty(name, Mark::default(), reports),
    }
}

fn not_empty(name: String, mark: Mark, reports: &mut Reports) -> Option<String> {
    if name.is_empty() {
        let help = "give one of `[a-z0-9_-]` with `-p NAME`, or with `name:` in the file";
        reports.error_with_help("invalid-project-name", mark, "project name must not be empty", help);
        return None;
    }
    Some(name)
}

fn text(
    node: &Node,
    environment: &BTreeMap<String, String>,
    interpolate: bool,
    reports: &mut Reports,
) -> Option<String> {
    let text = node.as_str()?;
    if !interpolate {
        return Some(text.to_owned());
    }
    match template::substitute(text, &|name| environment.get(name).cloned(), &mut |_| {}) {
        Ok(text) => Some(text.into_owned()),
        Err(error) => {
            let message = match error {
                TemplateError::TooLong => "the project name is too long".to_owned(),
                TemplateError::Syntax => format!("invalid interpolation format for `name`: `{text}`"),
                TemplateError::Required { variable, message } => {
                    let reason = if message.is_empty() { message } else { format!(": {message}") };
                    format!("required variable `{variable}` is missing a value{reason}")
                }
            };
            reports.error("invalid-interpolation", node.mark, message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_normalised() {
        for (name, expected) in [("My.App", "myapp"), ("_-x_Y", "x_y"), ("Bad Name", "badname"), ("é", "")] {
            assert_eq!(super::normalize(name), expected);
        }
    }
}
