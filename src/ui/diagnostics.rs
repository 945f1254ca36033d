//! Diagnostics as a person reads them: the place, the line of source with a mark under the spot, what to do.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::json;

use crate::base::diagnostic::{Diagnostic, Place, Severity};
use crate::ui::{Colour, visible, visible_name};

/// Source lines are cut to this many characters.
const MAX_WIDTH: usize = 160;
/// Files are read again for their lines; no Compose file is larger.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Renders diagnostics in order, errors and warnings, each with its source lines.
pub fn render(diagnostics: &[Diagnostic], colour: bool) -> String {
    Page::new(colour, false).render(diagnostics)
}

/// As [`render`], with the code of each, such as `warning[floating-tag]:`.
pub fn render_with_codes(diagnostics: &[Diagnostic], colour: bool) -> String {
    Page::new(colour, true).render(diagnostics)
}

/// A JSON list for editors: severity, code, place, excerpt (the line of source), message, related places, help.
pub fn json(diagnostics: &[Diagnostic]) -> String {
    let mut page = Page::new(false, false);
    let list: Vec<_> = diagnostics
        .iter()
        .map(|diagnostic| {
            let related =
                diagnostic.related.iter().map(|(place, note)| json!({ "place": json_place(place), "note": note }));
            json!({
                "severity": match diagnostic.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                },
                "code": diagnostic.code,
                "message": diagnostic.message,
                "place": diagnostic.place.as_ref().map(json_place),
                "excerpt": diagnostic.place.as_ref().and_then(|place| page.source(place)),
                "related": related.collect::<Vec<_>>(),
                "help": diagnostic.help,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::Array(list))
}

fn json_place(place: &Place) -> serde_json::Value {
    json!({ "file": place.file, "line": place.line, "column": place.column, "length": place.length })
}

struct Page<'a> {
    colour: bool,
    codes: bool,
    files: HashMap<&'a Path, Source>,
    text: String,
}

impl<'a> Page<'a> {
    fn new(colour: bool, codes: bool) -> Self {
        Self { colour, codes, files: HashMap::new(), text: String::new() }
    }

    fn render(mut self, diagnostics: &'a [Diagnostic]) -> String {
        for diagnostic in diagnostics {
            self.diagnostic(diagnostic);
        }
        self.text
    }

    fn paint(&self, text: &str, colour: Colour) -> String {
        if self.colour { colour.paint(text) } else { text.to_owned() }
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text.trim_end());
        self.text.push('\n');
    }

    fn diagnostic(&mut self, diagnostic: &'a Diagnostic) {
        let (label, colour) = match diagnostic.severity {
            Severity::Error => ("error", Colour::Red),
            Severity::Warning => ("warning", Colour::Yellow),
        };
        let code = if self.codes { format!("[{}]", diagnostic.code) } else { String::new() };
        let label = self.paint(&format!("{label}{code}:"), colour);
        self.line(&format!("{label} {}", visible(&diagnostic.message)));
        let places = diagnostic.place.iter().chain(diagnostic.related.iter().map(|(place, _)| place));
        let gutter = places.map(|place| place.line.to_string().len()).max().unwrap_or(1);
        if let Some(place) = &diagnostic.place {
            self.excerpt(place, gutter, "^", colour, None);
        }
        for (place, note) in &diagnostic.related {
            self.excerpt(place, gutter, "-", Colour::Blue, Some(&visible_name(note)));
        }
        if let Some(help) = &diagnostic.help {
            let label = self.paint("help:", Colour::Cyan);
            self.line(&format!("{} {label} {}", " ".repeat(gutter), visible(help)));
        }
    }

    fn excerpt(&mut self, place: &'a Place, gutter: usize, mark: &str, colour: Colour, note: Option<&str>) {
        let pad = " ".repeat(gutter);
        let at = place.to_string();
        let at = visible(&at);
        let arrow = self.paint("-->", Colour::Blue);
        let Some(source) = self.source(place) else {
            let note = note.map(|note| format!(" ({note})")).unwrap_or_default();
            self.line(&format!("{pad}{arrow} {at}{note}"));
            return;
        };
        let bar = self.paint("|", Colour::Blue);
        let column = usize::try_from(place.column).unwrap_or(1).saturating_sub(1);
        let width = source.chars().count();
        let length = usize::try_from(place.length).unwrap_or(1).clamp(1, width.saturating_sub(column).max(1));
        // A tab is as wide in the line of the mark as above it.
        let before: String = source.chars().take(column).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let marks = self.paint(&mark.repeat(length), colour);
        let note = note.map(|note| format!(" {note}")).unwrap_or_default();
        let number = self.paint(&format!("{:>gutter$}", place.line), Colour::Blue);
        self.line(&format!("{pad}{arrow} {at}"));
        self.line(&format!("{number} {bar} {source}"));
        if column < MAX_WIDTH {
            self.line(&format!("{pad} {bar} {before}{marks}{note}"));
        }
    }

    /// The line of a place, without control characters; `None` when the file has gone or has no such line.
    fn source(&mut self, place: &'a Place) -> Option<String> {
        let path = place.file.as_path();
        let source = self.files.entry(path).or_insert_with(|| Source::read(path));
        let line = source.line(usize::try_from(place.line).ok()?.checked_sub(1)?)?;
        Some(line.chars().take(MAX_WIDTH).map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect())
    }
}

/// The text of a file, and where its lines begin.
struct Source {
    text: String,
    lines: Vec<u32>,
}

impl Source {
    /// Reads a regular file; of any other there is nothing.
    fn read(path: &Path) -> Self {
        let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        let mut bytes = Vec::new();
        let read = is_file.then(|| File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)));
        if !matches!(read, Some(Ok(_))) {
            // The diagnostic is shown without its line then.
            bytes.clear();
        }
        let text =
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        let ends = text.bytes().zip(1..).filter(|(byte, _)| *byte == b'\n').map(|(_, next)| next);
        let lines = std::iter::once(0).chain(ends).collect();
        Self { text, lines }
    }

    fn line(&self, index: usize) -> Option<&str> {
        let start = usize::try_from(*self.lines.get(index)?).ok()?;
        self.text.get(start..)?.lines().next()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn names_of_files_do_nothing_to_the_terminal() {
        let place = Place { file: Arc::new("/a\u{1b}[2J".into()), line: 1, column: 1, length: 1 };
        let diagnostic = Diagnostic::error("x", Some(place.clone()), "m").related(place, "n");
        assert_eq!(render(&[diagnostic], false).matches("/a\\u{1b}[2J").count(), 2);
    }

    #[test]
    fn the_spot_is_marked_and_the_other_place_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("compose.yaml");
        std::fs::write(&path, "services:\n  web:\n\timagee: x\n").unwrap();
        let file = Arc::new(path.clone());
        let place = |line, column, length| Place { file: Arc::clone(&file), line, column, length };
        let diagnostic = Diagnostic::error("unknown-key", Some(place(3, 2, 6)), "no `imagee` here")
            .related(place(2, 3, 3), "of this service")
            .help("did you mean `image`?");
        let shown = render(&[diagnostic], false).replace(&path.display().to_string(), "FILE");
        let expected = "error: no `imagee` here\n --> FILE:3:2\n3 | \timagee: x\n  | \t^^^^^^\n --> FILE:2:3\n2 |   web:\n  |   --- of this service\n  help: did you mean `image`?\n";
        assert_eq!(shown, expected);
    }
}
