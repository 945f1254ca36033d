//! The YAML that most files are written in, read several times as fast as the scanner reads it: blocks and flows of
//! plain and quoted scalars on one line, anchors, aliases and comments. What it makes of a text is what the scanner makes of it; a
//! text that has anything else, or anything wrong, is left to the scanner.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, ScalarStyle};

use super::yaml::MAX_DEPTH;
use crate::model::tree::Mark;

/// Keys that are longer than this are none for the scanner; it counts characters, and this is well below.
const MAX_KEY: usize = 500;

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

    /// Passes a key; its colon is next then.
    fn skip_key(&mut self, flow: bool) -> Result<(Cow<'t, str>, ScalarStyle, usize), Stop> {
        let start = self.at;
        let (text, style) = match self.here() {
            b'\'' | b'"' => self.quoted()?,
            _ => (Cow::Borrowed(self.plain(flow, true)?), ScalarStyle::Plain),
        };
        let end = self.at;
        self.blanks();
        if self.here() != b':' || !self.ends_word(self.at + 1) || end - start > MAX_KEY {
            return Err(Stop::Unusual);
        }
        Ok((text, style, end))
    }

    fn key(&mut self, flow: bool) -> Outcome {
        let start = self.at;
        let (text, style, end) = self.skip_key(flow)?;
        let colon = std::mem::replace(&mut self.at, end);
        let mark = self.mark(start);
        self.at = colon;
        self.send(Event::Scalar(text, style, 0, None), mark)
    }

    fn scalar(&mut self, flow: bool, anchor: usize, start: usize) -> Outcome {
        let (text, style) = match self.here() {
            b'\'' | b'"' => self.quoted()?,
            _ => (Cow::Borrowed(self.plain(flow, false)?), ScalarStyle::Plain),
        };
        let mark = self.mark(start);
        self.send(Event::Scalar(text, style, anchor, None), mark)
    }

    /// A plain scalar of one line. A key ends before its colon, anything else has none with a blank behind it.
    fn plain(&mut self, flow: bool, key: bool) -> Result<&'t str, Stop> {
        let start = self.at;
        match self.here() {
            b',' | b'[' | b']' | b'{' | b'}' | b'#' | b'&' | b'*' | b'!' | b'|' | b'>' | b'\'' | b'"' | b'%' | b'@'
            | b'`' | b'?' | b':' | b'\n' => return Err(Stop::Unusual),
            b'-' if self.ends_word(start + 1) || matches!(self.byte(start + 1), b',' | b'[' | b']' | b'{' | b'}') => {
                return Err(Stop::Unusual);
            }
            _ => {}
        }
        let bytes = self.text.as_bytes();
        let mut end = start;
        let mut at = start;
        loop {
            match bytes.get(at) {
                None | Some(b'\n') => break,
                Some(b' ') => {
                    at += 1;
                    continue;
                }
                Some(b'#') if at > end => break,
                Some(b':') if self.ends_word(at + 1) => {
                    if key {
                        break;
                    }
                    return Err(Stop::Unusual);
                }
                Some(b':') if flow && matches!(self.byte(at + 1), b',' | b'[' | b']' | b'{' | b'}') => {
                    return Err(Stop::Unusual);
                }
                Some(b',' | b'[' | b']' | b'{' | b'}') if flow => break,
                Some(_) => {}
            }
            at += 1;
            end = at;
        }
        self.at = end;
        self.slice(start, end)
    }

    fn quoted(&mut self) -> Result<(Cow<'t, str>, ScalarStyle), Stop> {
        let quote = self.here();
        self.at += 1;
        let start = self.at;
        let mut owned: Option<String> = None;
        let mut copied = start;
        loop {
            let byte = self.here();
            if byte == b'\n' {
                return Err(Stop::Unusual);
            }
            let escaped = match (quote, byte) {
                (b'\'', b'\'') if self.byte(self.at + 1) == b'\'' => Some('\''),
                (b'"', b'\\') => Some(match self.byte(self.at + 1) {
                    b'"' => '"',
                    b'\\' => '\\',
                    b'n' => '\n',
                    b't' => '\t',
                    _ => return Err(Stop::Unusual),
                }),
                _ => None,
            };
            if let Some(char) = escaped {
                let before = self.slice(copied, self.at)?;
                let text = owned.get_or_insert_default();
                text.push_str(before);
                text.push(char);
                self.at += 2;
                copied = self.at;
            } else if byte == quote {
                break;
            } else {
                self.at += 1;
            }
        }
        let rest = self.slice(copied, self.at)?;
        self.at += 1;
        let text = match owned {
            Some(text) => Cow::Owned(text + rest),
            None => Cow::Borrowed(rest),
        };
        Ok((text, if quote == b'"' { ScalarStyle::DoubleQuoted } else { ScalarStyle::SingleQuoted }))
    }

    /// The name behind `&` or `*`.
    fn name(&mut self) -> Result<&'t str, Stop> {
        self.at += 1;
        let start = self.at;
        while !matches!(self.here(), b' ' | b'\n' | b',' | b'[' | b']' | b'{' | b'}') {
            self.at += 1;
        }
        let name = self.slice(start, self.at)?;
        if name.is_empty() || name.contains(':') { Err(Stop::Unusual) } else { Ok(name) }
    }

    fn anchor(&mut self) -> Result<usize, Stop> {
        let name = self.name()?;
        let Some(anchor) = self.anchors.len().checked_add(1) else { return Err(Stop::Unusual) };
        // The scanner counts a name that is used again as one more.
        if self.anchors.insert(name, anchor).is_some() { Err(Stop::Unusual) } else { Ok(anchor) }
    }

    fn alias(&mut self) -> Outcome {
        let start = self.at;
        let name = self.name()?;
        let anchor = *self.anchors.get(name).ok_or(Stop::Unusual)?;
        let mark = self.mark(start);
        self.send(Event::Alias(anchor), mark)
    }

    /// Goes to the next word of a flow, which may be in a later line, further in than the block around it.
    fn flow_word(&mut self, column: u32) -> Result<u8, Stop> {
        let after = self.at;
        if self.line_ends(after) && self.next_line()?.is_none_or(|next| next <= column) {
            return Err(Stop::Unusual);
        }
        Ok(self.here())
    }

    /// `[...]` or `{...}`
    fn flow(&mut self, column: u32, anchor: usize, start: usize) -> Outcome {
        self.enter()?;
        let is_list = self.here() == b'[';
        self.at += 1;
        let mark = self.mark(start);
        let (begin, end, closing) = match is_list {
            true => (Event::SequenceStart(anchor, None), Event::SequenceEnd, b']'),
            false => (Event::MappingStart(anchor, None), Event::MappingEnd, b'}'),
        };
        self.send(begin, mark)?;
        let mut word = self.flow_word(column)?;
        while word != closing {
            if !is_list {
                self.key(true)?;
                self.at += 1;
                self.flow_word(column)?;
            }
            self.flow_value(column)?;
            word = self.flow_word(column)?;
            match word {
                b',' => {
                    self.at += 1;
                    word = self.flow_word(column)?;
                }
                _ if word == closing => {}
                _ => return Err(Stop::Unusual),
            }
        }
        self.at += 1;
        self.depth -= 1;
        self.send(end, mark)
    }

    fn flow_value(&mut self, column: u32) -> Outcome {
        let start = self.at;
        let anchor = match self.here() {
            b'*' => return self.alias(),
            b'&' => {
                let anchor = self.anchor()?;
                self.blanks();
                anchor
            }
            _ => 0,
        };
        match self.here() {
            b'[' | b'{' => self.flow(column, anchor, start),
            _ => self.scalar(true, anchor, start),
        }
    }
}

fn empty<'t>() -> Event<'t> {
    Event::Scalar(Cow::Borrowed(""), ScalarStyle::Plain, 0, None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saphyr_parser::Parser;

    use super::*;

    /// With line and column. How long a thing is the scanner does not tell well: a comment behind a quoted text counts, too.
    type Events = Vec<(String, (u32, u32))>;

    /// Nobody asks where a collection ends.
    fn shown(event: &Event<'_>, place: (u32, u32)) -> (String, (u32, u32)) {
        let ends = matches!(event, Event::MappingEnd | Event::SequenceEnd);
        (format!("{event:?}"), if ends { (0, 0) } else { place })
    }

    /// `None`: left to the scanner.
    fn by_reader(text: &str) -> Option<Events> {
        let mut events = Vec::new();
        let read = read(text, 0, &mut |event, mark| {
            events.push(shown(&event, (mark.line, mark.column)));
            Some(())
        });
        read.ok().map(|()| events)
    }

    /// `None`: not YAML.
    fn by_scanner(text: &str) -> Option<Events> {
        let mut events = Vec::new();
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.ok()?;
            let place = (span.start.line() as u32, span.start.col() as u32 + 1);
            match event {
                Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
                event => events.push(shown(&event, place)),
            }
        }
        Some(events)
    }

    /// Whether the reader took the text.
    #[track_caller]
    fn check(text: &str) -> bool {
        let Some(ours) = by_reader(text) else { return false };
        let theirs = by_scanner(text);
        let shown = |events: &Option<Events>| events.as_ref().map(|all| format!("{all:#?}"));
        assert_eq!(shown(&Some(ours)), shown(&theirs), "{text:?}");
        true
    }

    #[test]
    fn what_most_files_have_is_read_as_the_scanner_reads_it() {
        for text in [
            "a: 1\n",
            "a:\n  b: [x, 'y', \"z\\n\"]\n  c: {d: e, f: [1, 2]} # comment\nlist:\n- one\n- two: 2\n  three: 3\n-  - x\n   - y\n",
            "x-a: &a\n  k: v\nb: *a\nc:\n  <<: *a\n  d: &b [1]\n  e: &c text\n",
            "é: 'it''s'\nb: \"\\\"q\\\"\"\n\n# end",
            "a:\nb:\n  -  c\n",
            "a: [\n  b,\n  c\n ]\n",
            "a:\n    b: x#y\n    c: http://host:80/x?y=z\n",
        ] {
            assert!(check(text), "left to the scanner: {text:?}");
        }
    }

    const WORDS: &[&str] = &[
        "a",
        "b",
        "key",
        "1",
        "~",
        "x y",
        "'q'",
        "'it''s'",
        "\"d\"",
        "\"\\n\"",
        "é",
        "&a x",
        "*a",
        "&b",
        "[a, b]",
        "{a: b}",
        "[]",
        "{}",
        "[",
        "]",
        "{",
        "}",
        "|",
        ">",
        "!reset",
        "<<",
        "# c",
        "a:b",
        "a#b",
        "x: y",
        "- z",
        "-",
        "?",
        "%",
        "---",
        "...",
        "@",
        "`",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{a0}",
        "a,b",
        ",",
        ":",
        "a:",
        "[a,",
        "{a",
        "&a [x]",
        "&c {y: z}",
        "'",
        "\"",
        "a  ",
        "-a",
        ":a",
        "''",
    ];

    fn line() -> impl Strategy<Value = String> {
        let word = || proptest::sample::select(WORDS);
        (0..5_usize, 0..3_usize, word(), any::<bool>(), word(), 0..9_u8).prop_map(
            |(indent, dashes, key, keyed, value, last)| {
                let colon = if keyed { ": " } else { "" };
                let end = if last == 0 { " # c" } else { "" };
                let value = if last == 1 { "" } else { value };
                format!("{}{}{key}{colon}{value}{end}\n", " ".repeat(indent), "- ".repeat(dashes))
            },
        )
    }

    /// Mappings and lists as people write them.
    fn tree() -> impl Strategy<Value = String> {
        let key = || proptest::sample::select(&["a", "b", "c", "'d e'", "é", "x-y"][..]);
        let scalar = || {
            proptest::sample::select(
                &["1", "x y", "'q'", "\"d\\\\\"", "", "[a, 'b c']", "{a: 1, b: [2]}", "a:b", "é"][..],
            )
        };
        let leaf = (key(), scalar()).prop_map(|(key, value)| format!("{key}: {value}\n"));
        leaf.prop_recursive(4, 24, 4, move |inner| {
            let deeper = |text: &str, by: &str| text.lines().map(|line| format!("{by}{line}\n")).collect::<String>();
            prop_oneof![
                (key(), proptest::collection::vec(inner.clone(), 1..4))
                    .prop_map(move |(key, items)| format!("{key}:\n{}", deeper(&items.concat(), "  "))),
                (key(), proptest::collection::vec(inner, 1..4), any::<bool>()).prop_map(move |(key, items, flush)| {
                    let by = if flush { "" } else { "  " };
                    let item = |text: &String| format!("{by}- {}", deeper(text, &format!("{by}  ")).trim_start());
                    format!("{key}:\n{}", items.iter().map(item).collect::<String>())
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn lines_of_all_kinds(lines in proptest::collection::vec(line(), 1..8)) {
            check(&lines.concat());
        }

        #[test]
        fn soup(words in proptest::collection::vec(proptest::sample::select(
            &["a", ": ", "- ", "\n", "\n  ", "\n    ", " ", "#", "'", "\"", "[", "]", "{", "}", ", ", ":", "*a", "&a ", "!", "é", "\\"][..],
        ), 1..24)) {
            check(&words.concat());
        }

        #[test]
        fn trees(items in proptest::collection::vec(tree(), 1..4)) {
            prop_assert!(check(&items.concat()), "left to the scanner: {:?}", items.concat());
        }
    }
}
