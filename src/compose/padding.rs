//! Lines that are read with more indentation than they have. The scanner wants the lines of a `[...]`, a `{...}` or a
//! text in quotes to be indented, where libyaml, and so the reference, does not care.

use std::collections::BTreeSet;

use saphyr_parser::ScanError;

use super::yaml::MAX_DEPTH;

/// The lines, and how much they get.
#[derive(Default)]
pub(super) struct Padding {
    /// By line, from 1.
    lines: BTreeSet<usize>,
    width: usize,
}

impl Padding {
    /// Pads the lines that an error complains of; false when that would not help.
    pub(super) fn mend(&mut self, error: &ScanError, text: &str) -> bool {
        let line = error.marker().line();
        if self.width == 0 {
            let indent = |line: &str| line.len() - line.trim_start().len();
            self.width = text.lines().map(indent).max().unwrap_or(0) + 2 * MAX_DEPTH;
        }
        let before = self.lines.len();
        match error.info() {
            "invalid indentation" | "invalid indentation in flow construct" => {
                let last = line + flow_lines(text.split_inclusive('\n').skip(line.saturating_sub(1)));
                self.lines.extend(line..=last);
            }
            // The error is where the text begins; the lines at fault are those that follow.
            "invalid indentation in quoted scalar" => {
                // The column is of the text as it was read.
                let column = self.column(line, error.marker().col());
                let lines = text.split_inclusive('\n').skip(line.saturating_sub(1));
                // One at a time where the end cannot be told.
                let more = quoted_lines(lines, column);
                let one = || (line + 1..).find(|line| !self.lines.contains(line)).unwrap_or(line);
                let last = if more > 0 { line + more } else { one() };
                self.lines.extend(line + 1..=last.min(text.lines().count()));
            }
            _ => {}
        }
        self.lines.len() > before
    }

    pub(super) fn apply(&self, text: &str) -> String {
        let blanks = " ".repeat(self.width);
        let mut padded = String::with_capacity(text.len() + self.lines.len() * self.width);
        for (line, number) in text.split_inclusive('\n').zip(1..) {
            if self.lines.contains(&number) {
                padded.push_str(&blanks);
            }
            padded.push_str(line);
        }
        padded
    }

    /// The column of the file for one of the text that was read.
    pub(super) fn column(&self, line: usize, column: usize) -> usize {
        if self.lines.contains(&line) { column.saturating_sub(self.width) } else { column }
    }
}

/// How many lines after the first one still belong to the text in quotes that begins at `column` of that.
fn quoted_lines<'a>(lines: impl Iterator<Item = &'a str>, column: usize) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (index, line) in lines.enumerate() {
        let skipped = if index == 0 { column } else { 0 };
        let mut chars = line.chars().skip(skipped).peekable();
        while let Some(char) = chars.next() {
            match quote {
                None if matches!(char, '"' | '\'') => quote = Some(char),
                None => return 0,
                Some('"') if escaped => escaped = false,
                Some('"') if char == '\\' => escaped = true,
                Some('\'') if char == '\'' && chars.peek() == Some(&'\'') => drop(chars.next()),
                Some(end) if char == end => return index,
                Some(_) => {}
            }
        }
    }
    0
}

/// How many lines after the first one are within the brackets that the first one is within.
fn flow_lines<'a>(lines: impl Iterator<Item = &'a str>) -> usize {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut before = ' ';
    for (index, line) in lines.enumerate() {
        for char in line.chars() {
            match (quote, char) {
                (Some(end), _) if char == end && before != '\\' => quote = None,
                (Some(_), _) => {}
                (None, '#') if before.is_whitespace() => break,
                (None, '"' | '\'') if before.is_whitespace() || "[{,:".contains(before) => quote = Some(char),
                (None, '[' | '{') => depth += 1,
                (None, ']' | '}') => match depth.checked_sub(1) {
                    Some(less) => depth = less,
                    None => return index,
                },
                (None, _) => {}
            }
            before = char;
        }
        before = '\n';
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_brackets_end_where_they_are_closed() {
        let quoted = |text: &str, column| quoted_lines(text.split_inclusive('\n'), column);
        assert_eq!(quoted("a: \"x\ny\\\"\nz\" b\n\"\n", 3), 2);
        assert_eq!(quoted("'x''\n'\n", 0), 1);
        assert_eq!(quoted("'x\n", 0), 0);
        let flow = |text: &str| flow_lines(text.split_inclusive('\n'));
        assert_eq!(flow("a, [b,\nc], ']' # ]\n, it's\n]\nd\n"), 3);
        assert_eq!(flow("a\nb\n"), 0);
    }
}
