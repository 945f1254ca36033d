//! Keys, scalars, anchors and aliases: what stands within one line.

use std::borrow::Cow;

use saphyr_parser::{Event, ScalarStyle};

use super::{Outcome, Reader, Stop};

/// Keys that are longer than this are none for the scanner; it counts characters, and this is well below.
const MAX_KEY: usize = 500;

impl<'t> Reader<'t, '_> {
    /// Passes a key; its colon is next then.
    pub(super) fn skip_key(&mut self, flow: bool) -> Result<(Cow<'t, str>, ScalarStyle, usize), Stop> {
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

    pub(super) fn key(&mut self, flow: bool) -> Outcome {
        let start = self.at;
        let (text, style, end) = self.skip_key(flow)?;
        let colon = std::mem::replace(&mut self.at, end);
        let mark = self.mark(start);
        self.at = colon;
        self.send(Event::Scalar(text, style, 0, None), mark)
    }

    pub(super) fn scalar(&mut self, flow: bool, anchor: usize, start: usize) -> Outcome {
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

    pub(super) fn anchor(&mut self) -> Result<usize, Stop> {
        let name = self.name()?;
        let Some(anchor) = self.anchors.len().checked_add(1) else { return Err(Stop::Unusual) };
        // The scanner counts a name that is used again as one more.
        if self.anchors.insert(name, anchor).is_some() { Err(Stop::Unusual) } else { Ok(anchor) }
    }

    pub(super) fn alias(&mut self) -> Outcome {
        let start = self.at;
        let name = self.name()?;
        let anchor = *self.anchors.get(name).ok_or(Stop::Unusual)?;
        let mark = self.mark(start);
        self.send(Event::Alias(anchor), mark)
    }
}
