//! Text of others, written so that it does nothing to whoever looks at it.

use std::borrow::Cow;

/// Text that is not ours, such as what a container's program has said, for a message of ours: what would do something to the
/// terminal, or turn what follows around, is written out (`\u{1b}`). Lines and tabs stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    written_out(text, |c| deceives(c) && !matches!(c, '\n' | '\t'))
}

/// The same for what is a part of a line, such as a name: it makes no lines of its own.
pub fn visible_name(text: &str) -> Cow<'_, str> {
    written_out(text, deceives)
}

fn deceives(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn written_out(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hidden(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_does_nothing_to_the_terminal() {
        assert_eq!(visible("a\tb\nc ä"), "a\tb\nc ä");
        assert_eq!(visible("\x1b]0;title\x07 \r\u{9b}2J"), "\\u{1b}]0;title\\u{7} \\r\\u{9b}2J");
        assert_eq!(visible("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(visible_name("a\nb\tc ä"), "a\\nb\\tc ä");
    }
}
