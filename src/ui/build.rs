//! What a build tells, as plain lines: `#5 [web 2/4] RUN make`, `#5 0.123 output`, `#5 DONE 0.4s`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Instant;

use crate::build::Event;
use crate::ui::{visible, visible_name};

/// Writes the lines.
#[derive(Debug)]
pub struct BuildLines<W> {
    output: W,
    began: HashMap<u32, Instant>,
    /// The step of the last line: when another one speaks, a gap shows it.
    last: Option<u32>,
}

impl<W: Write> BuildLines<W> {
    pub fn new(output: W) -> Self {
        Self { output, began: HashMap::new(), last: None }
    }

    /// # Errors
    /// The output is closed.
    pub fn event(&mut self, event: &Event, now: Instant) -> io::Result<()> {
        let (step, text) = match event {
            Event::Warning(text) => return writeln!(self.output, "warning: {}", visible(text)),
            Event::Begin { step, title } => {
                self.began.insert(*step, now);
                (*step, visible_name(title).into_owned())
            }
            Event::Line { step, text } => (*step, text.clone()),
            Event::Cached { step } => (*step, "CACHED".to_owned()),
            Event::Done { step } => {
                let took = self.began.get(step).map_or(0.0, |began| now.duration_since(*began).as_secs_f64());
                (*step, format!("DONE {took:.1}s"))
            }
            Event::Failed { step, message } => (*step, format!("ERROR: {}", visible(message))),
        };
        if self.last.is_some_and(|last| last != step) {
            writeln!(self.output)?;
        }
        self.last = Some(step);
        writeln!(self.output, "#{step} {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_and_warnings_do_nothing_to_the_terminal() {
        let mut lines = BuildLines::new(Vec::new());
        let title = Event::Begin { step: 1, title: "[1/1] RUN \x1b[2J\n#1 DONE".to_owned() };
        for event in [title, Event::Warning("\x1b]0;x\x07".to_owned())] {
            lines.event(&event, Instant::now()).unwrap();
        }
        let expected = "#1 [1/1] RUN \\u{1b}[2J\\n#1 DONE\nwarning: \\u{1b}]0;x\\u{7}\n";
        assert_eq!(String::from_utf8(lines.output).unwrap(), expected);
    }

    #[test]
    fn steps_are_told_apart() {
        let mut lines = BuildLines::new(Vec::new());
        let now = Instant::now();
        for event in [
            Event::Begin { step: 1, title: "[1/2] FROM a".to_owned() },
            Event::Done { step: 1 },
            Event::Begin { step: 2, title: "[2/2] RUN b".to_owned() },
            Event::Line { step: 2, text: "0.001 hi".to_owned() },
            Event::Cached { step: 2 },
        ] {
            lines.event(&event, now).unwrap();
        }
        let expected = "#1 [1/2] FROM a\n#1 DONE 0.0s\n\n#2 [2/2] RUN b\n#2 0.001 hi\n#2 CACHED\n";
        assert_eq!(String::from_utf8(lines.output).unwrap(), expected);
    }
}
