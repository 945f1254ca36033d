//! Parser directives, comments, continuations and here-documents: the text of a Dockerfile cut into logical lines.

use super::error::ParseError;
use super::heredoc::{self, Heredoc};

/// More than any Dockerfile needs, in bytes: BuildKit's own limit for a line times what one could read.
pub(super) const MAX_SIZE: usize = 4 << 20;

/// One instruction as text: continuations joined, comments taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// First and last line in the file, counted from 1; here-documents included.
    pub first: usize,
    pub last: usize,
    pub text: String,
    pub heredocs: Vec<Heredoc>,
    /// The comment right above it.
    pub comments: Vec<String>,
}

/// What the text is cut into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    pub escape: char,
    /// `syntax` and `check` directives, in lower case, by name.
    pub directives: Vec<(String, String)>,
    pub lines: Vec<Line>,
    /// Lines that are empty within a continuation.
    pub empty_continuations: Vec<usize>,
}

/// Instructions that may have here-documents.
const WITH_HEREDOCS: [&str; 3] = ["run", "copy", "add"];

/// Cuts the text of a Dockerfile.
///
/// # Errors
/// A directive that is given twice or wrong, a here-document without an end, or text that is too long.
pub(super) fn split(text: &str) -> Result<Lines, ParseError> {
    if text.len() > MAX_SIZE {
        return Err(ParseError::new(1, format!("the file has more than {} MiB", MAX_SIZE >> 20)));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let raw: Vec<&str> = text.split_inclusive('\n').collect();
    let (escape, directives) = directives(&raw)?;
    let mut cut = Lines { escape, directives, lines: Vec::new(), empty_continuations: Vec::new() };
    let mut next = cut.directives.len();
    let mut comments: Vec<String> = Vec::new();
    while let Some(first) = raw.get(next) {
        let start = next + 1;
        next += 1;
        let first = trim_newline(first).trim_start();
        if let Some(text) = first.strip_prefix('#') {
            comments.push(text.trim().to_owned());
            continue;
        }
        if first.is_empty() {
            comments.clear();
            continue;
        }
        let (head, mut goes_on) = continuation(first, escape);
        let mut logical = head.to_owned();
        let mut last = start;
        while goes_on {
            let Some(line) = raw.get(next) else { break };
            next += 1;
            let line = trim_newline(line);
            if line.trim_start().starts_with('#') {
                continue;
            }
            if line.trim().is_empty() {
                cut.empty_continuations.push(next);
                continue;
            }
            last = next;
            let (part, more) = continuation(line, escape);
            logical.push_str(part);
            goes_on = more;
        }
        if logical.trim().is_empty() {
            continue;
        }
        let mut line =
            Line { first: start, last, text: logical, heredocs: Vec::new(), comments: std::mem::take(&mut comments) };
        if may_have_heredocs(&line.text) {
            next = take_heredocs(&mut line, &raw, next)?;
        }
        cut.lines.push(line);
    }
    Ok(cut)
}

fn may_have_heredocs(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let mut word = words.next().unwrap_or_default();
    if word.eq_ignore_ascii_case("onbuild") {
        word = words.next().unwrap_or_default();
    }
    text.contains("<<") && WITH_HEREDOCS.iter().any(|name| word.eq_ignore_ascii_case(name))
}

/// Reads the bodies that follow the line; returns the number of the next raw line.
fn take_heredocs(line: &mut Line, raw: &[&str], mut next: usize) -> Result<usize, ParseError> {
    for mut document in heredoc::of_line(&line.text) {
        let mut ended = false;
        while let Some(body) = raw.get(next) {
            next += 1;
            let bare = trim_newline(body);
            let candidate = if document.chomp { bare.trim_start_matches('\t') } else { bare };
            if candidate == document.name {
                ended = true;
                break;
            }
            document.content.push_str(body);
        }
        if !ended {
            let message = format!("the here-document `{}` has no end", document.name);
            let help = format!("put `{}` alone on the line after it", document.name);
            return Err(ParseError::new(line.first, message).help(help));
        }
        line.heredocs.push(document);
    }
    line.last = line.last.max(next);
    Ok(next)
}

/// The directives are the comments of the form `# name=value` before anything else.
fn directives(raw: &[&str]) -> Result<(char, Vec<(String, String)>), ParseError> {
    let mut escape = '\\';
    let mut found: Vec<(String, String)> = Vec::new();
    for (index, line) in raw.iter().enumerate() {
        let Some(comment) = trim_newline(line).trim_start().strip_prefix('#') else { break };
        let Some((name, value)) = comment.split_once('=') else { break };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if !matches!(name.as_str(), "syntax" | "escape" | "check") {
            break;
        }
        if found.iter().any(|(known, _)| *known == name) {
            return Err(ParseError::new(index + 1, format!("the directive `{name}` is given twice")));
        }
        if name == "escape" {
            escape = match value {
                "\\" => '\\',
                "`" => '`',
                _ => {
                    let message = format!("`{value}` cannot be the escape character");
                    return Err(ParseError::new(index + 1, message).help("it is `\\` or a back-tick"));
                }
            };
        }
        found.push((name, value.to_owned()));
    }
    Ok((escape, found))
}

fn trim_newline(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// The line without its continuation character, and whether it goes on. An escaped escape does not continue.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        split(text).unwrap().lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn continuations_skip_comments_and_empty_lines() {
        let lines = texts("RUN a \\\n  # comment\n\n  b \\\n c\nENV x=y\\\\\nUSER z");
        assert_eq!(lines, ["RUN a   b  c", "ENV x=y\\\\", "USER z"]);
    }

    #[test]
    fn the_escape_character_can_be_changed() {
        let cut = split("# escape=`\nRUN a `\n b\nCOPY c:\\x c:\\y\\\n").unwrap();
        assert_eq!(cut.lines[0].text, "RUN a  b");
        assert_eq!(cut.lines[1].text, "COPY c:\\x c:\\y\\");
        assert!(split("# escape=x\nFROM a").is_err());
        assert!(split("#escape=`\n# escape = `\nFROM a").is_err());
        assert_eq!(split("# just a comment\n# escape=`\nFROM a").unwrap().escape, '\\');
    }

    #[test]
    fn here_documents_follow_their_line() {
        let cut = split("RUN <<EOF\necho a\n# b\nEOF\nCOPY <<-\"A\" <<B /x/\n\tone\n\tA\ntwo\nB\nUSER x").unwrap();
        assert_eq!(cut.lines[0].heredocs[0].content, "echo a\n# b\n");
        assert_eq!((cut.lines[0].first, cut.lines[0].last), (1, 4));
        let names: Vec<_> = cut.lines[1].heredocs.iter().map(|one| (one.name.as_str(), one.expand)).collect();
        assert_eq!(names, [("A", false), ("B", true)]);
        assert_eq!(cut.lines[2].text, "USER x");
        assert!(split("RUN <<EOF\nx\n").is_err());
    }
}
