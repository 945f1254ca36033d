//! Flows: `[...]` and `{...}`, also over several lines.

use saphyr_parser::Event;

use super::{Outcome, Reader, Stop};

impl Reader<'_, '_> {
    /// Goes to the next word of a flow, which may be in a later line, further in than the block around it.
    fn flow_word(&mut self, column: u32) -> Result<u8, Stop> {
        let after = self.at;
        if self.line_ends(after) && self.next_line()?.is_none_or(|next| next <= column) {
            return Err(Stop::Unusual);
        }
        Ok(self.here())
    }

    /// `[...]` or `{...}`
    pub(super) fn flow(&mut self, column: u32, anchor: usize, start: usize) -> Outcome {
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
