//! Files that a Compose file names and that a published project takes along, with their places in the text.

use crate::base::diagnostic::Diagnostic;
use crate::model::tree::{Map, Mark, Node};

use super::report::Reports;
use super::yaml;

/// What a file is named for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedFor {
    /// `extends.file`.
    Extends,
    /// `env_file`.
    Variables,
}

/// A path in the text of a Compose file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    pub used: NamedFor,
    pub path: String,
    /// It may be missing.
    pub optional: bool,
    mark: Mark,
}

/// What a Compose file says about other files.
#[derive(Clone, Debug, Default)]
pub struct Naming {
    pub files: Vec<NamedFile>,
    pub includes: bool,
}

/// Finds the files that the text of a Compose file names.
///
/// # Errors
/// It is no YAML.
pub fn named_files(text: &str) -> Result<Naming, Vec<Diagnostic>> {
    let mut reports = Reports::default();
    let Some(documents) = yaml::parse(text, 0, &mut reports) else { return Err(reports.sorted()) };
    let mut found = Naming::default();
    for document in &documents {
        found.includes |= document.get("include").is_some();
        let services = document.get("services").and_then(Node::as_map).into_iter().flat_map(Map::values);
        for (_, service) in services {
            if let Some(file) = service.get("extends").and_then(|extends| extends.get("file")) {
                found.add(NamedFor::Extends, file, false);
            }
            let Some(variables) = service.get("env_file") else { continue };
            for entry in variables.as_list().unwrap_or(std::slice::from_ref(variables)) {
                let optional = entry.get("required").and_then(Node::as_bool) == Some(false);
                found.add(NamedFor::Variables, entry.get("path").unwrap_or(entry), optional);
            }
        }
    }
    Ok(found)
}

impl Naming {
    fn add(&mut self, used: NamedFor, node: &Node, optional: bool) {
        if let Some(path) = node.as_str() {
            self.files.push(NamedFile { used, path: path.to_owned(), optional, mark: node.mark });
        }
    }
}

/// The text with other paths in the places of those that it names.
///
/// # Errors
/// The line of a path that is written in a way that cannot be replaced.
pub fn rename_files(text: &str, renamed: &[(NamedFile, String)]) -> Result<String, u32> {
    let mut places = Vec::new();
    for (file, name) in renamed {
        let range = place(text, file).ok_or(file.mark.line)?;
        places.push((range, name.as_str()));
    }
    places.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    // What several services have by one alias stands in one place.
    places.dedup();
    let mut text = text.to_owned();
    for (range, name) in places {
        text.replace_range(range, name);
    }
    Ok(text)
}

/// Where a path stands, with its quotes.
fn place(text: &str, file: &NamedFile) -> Option<std::ops::Range<usize>> {
    let line = usize::try_from(file.mark.line).ok()?.checked_sub(1)?;
    let column = usize::try_from(file.mark.column).ok()?.checked_sub(1)?;
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(before..)?;
    let start = before + rest.char_indices().nth(column)?.0;
    let rest = text.get(start..)?;
    // An anchor stands before it.
    let anchor = rest.starts_with('&').then(|| rest.find(' ')).flatten().map_or(0, |end| end + 1);
    let (start, rest) = (start + anchor, rest.get(anchor..)?);
    let written = [file.path.clone(), format!("\"{}\"", file.path), format!("'{}'", file.path)];
    let found = written.iter().find(|written| rest.starts_with(written.as_str()))?;
    Some(start..start + found.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_and_replaced_where_they_stand() {
        let text = "x-f: &f ä.env\nservices:\n  a: {extends: {file: \"b.yaml\", service: b}, env_file: *f}\n  \
                    # c.env\n  c:\n    env_file:\n      - 'c.env'  # c.env\n      - {path: d.env, required: false}\n";
        let found = named_files(text).unwrap();
        let paths: Vec<_> = found.files.iter().map(|file| (file.path.as_str(), file.used, file.optional)).collect();
        let expected = [
            ("b.yaml", NamedFor::Extends, false),
            ("ä.env", NamedFor::Variables, false),
            ("c.env", NamedFor::Variables, false),
            ("d.env", NamedFor::Variables, true),
        ];
        assert_eq!(paths, expected);
        let names = ["1", "2", "3", "4"].map(str::to_owned);
        let renamed = rename_files(text, &found.files.into_iter().zip(names).collect::<Vec<_>>());
        assert_eq!(
            renamed.unwrap(),
            "x-f: &f 2\nservices:\n  a: {extends: {file: 1, service: b}, env_file: *f}\n  \
             # c.env\n  c:\n    env_file:\n      - 3  # c.env\n      - {path: 4, required: false}\n"
        );
        let folded = named_files("services:\n  a:\n    env_file: \"a\\\n      b\"\n").unwrap();
        assert_eq!(rename_files("", &[(folded.files[0].clone(), "x".to_owned())]), Err(3));
        assert!(named_files("include: [x]\nservices: {}\n").unwrap().includes);
    }
}
