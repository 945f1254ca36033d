//! The YAML that most files are written in, read several times as fast as the scanner reads it: blocks and flows of
//! plain and quoted scalars on one line, anchors, aliases and comments. What it makes of a text is what the scanner makes of it; a
//! text that has anything else, or anything wrong, is left to the scanner.

mod flow;
mod word;

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, ScalarStyle};

use super::yaml::MAX_DEPTH;
use crate::model::tree::Mark;

/// What ends a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The text needs the scanner.
    Unusual,
    /// The receiver of events wants no more.
    Refused,
}

type Outcome = Result<(), Stop>;

/// Reads a text and hands its events and their places to `receive`, but for those of the ends of the stream and of the
/// document. `receive` returns `None` to end the read.
pub(super) fn read<'t>(text: &'t str, file: u16, receive: &mut dyn FnMut(Event<'t>, Mark) -> Option<()>) -> Outcome {
    if text.bytes().any(|byte| byte < b' ' && byte != b'\n') || text.contains('\u{feff}') {
        return Err(Stop::Unusual);
    }
    let mut reader = Reader {
        text,
        is_ascii: text.is_ascii(),
        at: 0,
        line: 1,
        line_start: 0,
        anchors: HashMap::default(),
        file,
        depth: 0,
        receive,
    };
    let Some(column) = reader.next_line()? else { return Err(Stop::Unusual) };
    reader.mapping(column)?;
    if reader.at < text.len() { Err(Stop::Unusual) } else { Ok(()) }
}

struct Reader<'t, 'r> {
    text: &'t str,
    is_ascii: bool,
    at: usize,
    line: u32,
    line_start: usize,
    anchors: HashMap<&'t str, usize, foldhash::fast::RandomState>,
    file: u16,
    depth: usize,
    receive: &'r mut dyn FnMut(Event<'t>, Mark) -> Option<()>,
}

impl<'t> Reader<'t, '_> {
    /// The byte at a place; a line break where the text has ended.
    fn byte(&self, at: usize) -> u8 {
        self.text.as_bytes().get(at).copied().unwrap_or(b'\n')
    }

    fn here(&self) -> u8 {
        self.byte(self.at)
    }

    fn ends_word(&self, at: usize) -> bool {
        matches!(self.byte(at), b' ' | b'\n')
    }

    fn slice(&self, from: usize, to: usize) -> Result<&'t str, Stop> {
        self.text.get(from..to).ok_or(Stop::Unusual)
    }

    /// Characters between two places of the present line.
    fn characters(&self, from: usize, to: usize) -> u32 {
        let count = match self.is_ascii {
            true => to - from,
            false => self.text.get(from..to).map_or(0, |text| text.chars().count()),
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn column(&self) -> u32 {
        self.characters(self.line_start, self.at)
    }

    /// The place of what begins at `from` in this line and has ended here.
    fn mark(&self, from: usize) -> Mark {
        let length = u16::try_from(self.characters(from, self.at)).unwrap_or(u16::MAX);
        let column = self.characters(self.line_start, from) + 1;
        Mark { file: self.file, length, line: self.line, column }
    }

    fn send(&mut self, event: Event<'t>, mark: Mark) -> Outcome {
        (self.receive)(event, mark).ok_or(Stop::Refused)
    }

    fn blanks(&mut self) {
        while self.byte(self.at) == b' ' {
            self.at += 1;
        }
    }

    /// Whether nothing but a comment follows in this line; `after` is where the last word ended.
    fn line_ends(&mut self, after: usize) -> bool {
        self.blanks();
        self.here() == b'\n' || (self.here() == b'#' && self.at > after)
    }

    /// Goes to the first character of the next line that has any, and returns its column; none at the end of the text.
    fn next_line(&mut self) -> Result<Option<u32>, Stop> {
        loop {
            self.blanks();
            match self.here() {
                b'#' | b'\n' => {
                    let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
                    let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
                        self.at = self.text.len();
                        return Ok(None);
                    };
                    self.at += length + 1;
                    self.line = self.line.checked_add(1).ok_or(Stop::Unusual)?;
                    self.line_start = self.at;
                }
                first => {
                    let column = self.column();
                    let marker = |text: &str| self.text.get(self.at..).is_some_and(|rest| rest.starts_with(text));
                    if column == 0 && (first == b'%' || marker("---") || marker("...")) {
                        return Err(Stop::Unusual);
                    }
                    return Ok(Some(column));
                }
            }
        }
    }

    /// Where the text goes on behind a value of this line: the column, or -1 at its end.
    fn after_value(&mut self, indent: u32, after: usize) -> Result<i64, Stop> {
        if !self.line_ends(after) {
            return Err(Stop::Unusual);
        }
        match self.next_line()? {
            // A scalar of several lines, or a mistake.
            Some(column) if column > indent => Err(Stop::Unusual),
            Some(column) => Ok(i64::from(column)),
            None => Ok(-1),
        }
    }

    fn enter(&mut self) -> Outcome {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(Stop::Unusual) } else { Ok(()) }
    }

    fn is_dash(&self) -> bool {
        self.here() == b'-' && self.ends_word(self.at + 1)
    }

    /// A mapping whose keys stand in the column, up to the first line that does not.
    fn mapping(&mut self, column: u32) -> Outcome {
        self.mapping_with(column, 0, None)
    }

    fn mapping_with(&mut self, column: u32, anchor: usize, mark: Option<Mark>) -> Outcome {
        self.enter()?;
        let mark = mark.unwrap_or_else(|| self.mark(self.at));
        self.send(Event::MappingStart(anchor, None), mark)?;
        loop {
            self.key(false)?;
            let colon = self.mark(self.at);
            self.at += 1;
            let next = if self.line_ends(self.at) {
                self.block_value(column, true, 0, colon)?
            } else {
                self.inline_value(column, true)?
            };
            if next < i64::from(column) {
                break;
            }
            if self.is_dash() {
                return Err(Stop::Unusual);
            }
        }
        self.depth -= 1;
        self.send(Event::MappingEnd, mark)
    }

    /// A list whose dashes stand in the column. `within` a mapping of the same column, it ends where a key begins.
    fn sequence(&mut self, column: u32, within: bool, anchor: usize, mark: Option<Mark>) -> Outcome {
        self.enter()?;
        let dash = self.mark(self.at);
        let mut start = mark;
        loop {
            self.at += 1;
            if self.line_ends(self.at) {
                return Err(Stop::Unusual);
            }
            if start.is_none() {
                // The scanner has a list within a mapping begin at its first item.
                let mark = if within { self.mark(self.at) } else { dash };
                start = Some(mark);
                self.send(Event::SequenceStart(anchor, None), mark)?;
            } else if mark.is_some() && start == mark {
                self.send(Event::SequenceStart(anchor, None), mark.unwrap_or_default())?;
                start = Some(Mark::default());
            }
            let next = self.inline_value(column, false)?;
            if next < i64::from(column) {
                break;
            }
            if !self.is_dash() {
                if within {
                    break;
                }
                return Err(Stop::Unusual);
            }
        }
        self.depth -= 1;
        self.send(Event::SequenceEnd, dash)
    }

    /// The value of a key or item of the column that begins in a later line, if there is any.
    fn block_value(&mut self, column: u32, of_key: bool, anchor: usize, mark: Mark) -> Result<i64, Stop> {
        let at = (anchor > 0).then_some(mark);
        match self.next_line()? {
            Some(next) if next > column => match self.is_dash() {
                true => self.sequence(next, false, anchor, at)?,
                false => self.mapping_with(next, anchor, at)?,
            },
            Some(next) if next == column && of_key && self.is_dash() => self.sequence(next, true, anchor, at)?,
            _ if anchor > 0 || !of_key => return Err(Stop::Unusual),
            _ => self.send(empty(), mark)?,
        }
        self.place(column)
    }

    /// The column of the line that is reached, which belongs to the collection of the column or to one around it.
    fn place(&self, column: u32) -> Result<i64, Stop> {
        if self.at >= self.text.len() {
            return Ok(-1);
        }
        let next = self.column();
        if next > column { Err(Stop::Unusual) } else { Ok(next.into()) }
    }

    /// A value that begins here, of a key or an item of the column.
    fn inline_value(&mut self, column: u32, of_key: bool) -> Result<i64, Stop> {
        match self.here() {
            b'*' => {
                self.alias()?;
                self.after_value(column, self.at)
            }
            b'&' => {
                let start = self.at;
                let anchor = self.anchor()?;
                let mark = self.mark(start);
                if self.line_ends(self.at) {
                    return self.block_value(column, of_key, anchor, mark);
                }
                self.anchored(column, anchor, start)?;
                self.after_value(column, self.at)
            }
            b'-' if self.ends_word(self.at + 1) => {
                if of_key {
                    return Err(Stop::Unusual);
                }
                let inner = self.column();
                self.sequence(inner, false, 0, None)?;
                self.place(column)
            }
            _ if !of_key && self.is_key() => {
                let inner = self.column();
                self.mapping(inner)?;
                self.place(column)
            }
            _ => {
                self.anchored(column, 0, self.at)?;
                self.after_value(column, self.at)
            }
        }
    }

    /// A flow or scalar that begins here; its mark begins at `start`.
    fn anchored(&mut self, column: u32, anchor: usize, start: usize) -> Outcome {
        match self.here() {
            b'[' | b'{' => self.flow(column, anchor, start),
            _ => self.scalar(false, anchor, start),
        }
    }

    /// Whether a key and its colon are next.
    fn is_key(&mut self) -> bool {
        let start = self.at;
        let found = match self.here() {
            b'[' | b'{' => false,
            _ => self.skip_key(false).is_ok(),
        };
        self.at = start;
        found
    }
}

fn empty<'t>() -> Event<'t> {
    Event::Scalar(Cow::Borrowed(""), ScalarStyle::Plain, 0, None)
}

#[cfg(test)]
mod tests;
