//! Log lines as `docker compose` prints them: `service-N  | text`, a colour for each container.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::logs::Line;
use crate::ui::Colour;
use crate::ui::human;

/// docker compose's cycle.
const CYCLE: [Colour; 10] = [
    Colour::Cyan,
    Colour::Yellow,
    Colour::Green,
    Colour::Magenta,
    Colour::Blue,
    Colour::BrightCyan,
    Colour::BrightYellow,
    Colour::BrightGreen,
    Colour::BrightMagenta,
    Colour::BrightBlue,
];

/// How lines are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStyle {
    pub colour: bool,
    pub prefix: bool,
    pub timestamps: bool,
}

/// Prints the lines of several containers.
pub struct LogPrinter {
    style: LogStyle,
    width: usize,
    prefixes: BTreeMap<String, String>,
    colours: usize,
}

impl LogPrinter {
    /// `names`: the containers known from the beginning (`service-N`), for the width of the column.
    pub fn new<'a>(style: LogStyle, names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut printer = Self { style, width: 0, prefixes: BTreeMap::new(), colours: 0 };
        for name in names {
            printer.width = printer.width.max(name.chars().count());
        }
        printer
    }

    /// # Errors
    /// What `out` returns.
    pub fn print(&mut self, line: &Line<'_>, out: &mut dyn Write) -> io::Result<()> {
        if self.style.prefix && line.begins {
            let prefix = self.prefix(line.container);
            out.write_all(prefix.as_bytes())?;
        }
        if self.style.timestamps && line.begins {
            write!(out, "{} ", human::timestamp(line.time))?;
        }
        out.write_all(line.text)?;
        if line.ends { out.write_all(b"\n") } else { Ok(()) }
    }

    fn prefix(&mut self, name: &str) -> &str {
        if name.chars().count() > self.width {
            // A longer name has appeared: all prefixes grow with it.
            self.width = name.chars().count();
            self.prefixes.clear();
            self.colours = 0;
        }
        let (colours, style, width) = (&mut self.colours, self.style, self.width);
        self.prefixes.entry(name.to_owned()).or_insert_with(|| {
            let text = format!("{name:width$}  | ");
            let colour = CYCLE.get(*colours % CYCLE.len()).copied().unwrap_or(Colour::Cyan);
            *colours += 1;
            if style.colour { colour.paint(&text) } else { text }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Stream;

    fn printed(style: LogStyle, names: &[&str], lines: &[(&str, &[u8])]) -> String {
        let mut printer = LogPrinter::new(style, names.iter().copied());
        let mut out = Vec::new();
        for (container, text) in lines {
            let line = Line {
                container,
                stream: Stream::Stdout,
                time: 1_700_000_000_000_000_005,
                text,
                begins: true,
                ends: true,
                complete: true,
            };
            printer.print(&line, &mut out).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn prefixes_are_as_wide_as_the_longest_name() {
        let style = LogStyle { colour: false, prefix: true, timestamps: false };
        let lines: &[(&str, &[u8])] = &[("long-name-2", b"one"), ("web-1", b"err\r"), ("web-1", b"")];
        let text = printed(style, &["web-1", "long-name-2"], lines);
        assert_eq!(text, "long-name-2  | one\nweb-1        | err\r\nweb-1        | \n");
    }

    #[test]
    fn colours_cycle_by_container() {
        let style = LogStyle { colour: true, prefix: true, timestamps: false };
        let text = printed(style, &["a-1", "b-1"], &[("b-1", b"x"), ("a-1", b"y"), ("b-1", b"z")]);
        assert_eq!(text, "\x1b[36mb-1  | \x1b[0mx\n\x1b[33ma-1  | \x1b[0my\n\x1b[36mb-1  | \x1b[0mz\n");
    }

    #[test]
    fn timestamps_stand_before_the_text() {
        let style = LogStyle { colour: false, prefix: false, timestamps: true };
        assert_eq!(printed(style, &[], &[("a-1", b"x")]), "2023-11-14T22:13:20.000000005Z x\n");
    }
}
