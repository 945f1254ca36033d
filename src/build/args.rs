//! Variables: replacing them in arguments of instructions, and which of them are in scope.

use indexmap::IndexMap;

use super::pattern;

/// What names mean where they are used.
type Scope = IndexMap<String, String>;

/// Replaces variables and takes quotes and escapes away: one word.
///
/// # Errors
/// A `${` that is not closed, a modifier that is not known, or `${x:?message}` without `x`.
pub fn word(text: &str, escape: char, scope: &Scope) -> Result<String, String> {
    Ok(Expander::new(text, escape, scope, false).all()?.0)
}

/// Replaces variables as in [`word`], and splits the outcome at blanks that no quotes hold.
///
/// # Errors
/// As [`word`].
pub fn words(text: &str, escape: char, scope: &Scope) -> Result<Vec<String>, String> {
    Ok(Expander::new(text, escape, scope, false).all()?.1)
}

/// Replaces variables, but leaves quotes as they are: here-documents.
///
/// # Errors
/// As [`word`].
pub fn document(text: &str, escape: char, scope: &Scope) -> Result<String, String> {
    Ok(Expander::new(text, escape, scope, true).all()?.0)
}

/// The variables of a word that are not in scope, and without which it does not do.
pub fn undefined(text: &str, escape: char, scope: &Scope) -> Vec<String> {
    let mut expander = Expander::new(text, escape, scope, false);
    // What is wrong with it is told where it is used.
    let _ = expander.until(None, &mut Output::default());
    expander.undefined
}

/// Deeper nesting of `${a:-${b:-…}}` than anybody writes.
const MAX_DEPTH: usize = 100;

struct Expander<'a> {
    characters: Vec<char>,
    position: usize,
    escape: char,
    scope: &'a Scope,
    /// Quotes are ordinary characters.
    raw: bool,
    depth: usize,
    /// Names that were asked for and are not in scope.
    undefined: Vec<String>,
}

/// The outcome as one text, and cut into words.
#[derive(Default)]
struct Output {
    text: String,
    words: Vec<String>,
    word: String,
    in_word: bool,
}

impl Output {
    fn push(&mut self, c: char) {
        self.text.push(c);
        self.word.push(c);
        self.in_word = true;
    }

    /// Text that may hold blanks at which words end.
    fn push_loose(&mut self, text: &str) {
        for c in text.chars() {
            if c.is_whitespace() {
                self.blank(c);
            } else {
                self.push(c);
            }
        }
    }

    fn push_held(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
        self.in_word = true;
    }

    fn blank(&mut self, c: char) {
        self.text.push(c);
        if std::mem::take(&mut self.in_word) {
            self.words.push(std::mem::take(&mut self.word));
        }
    }
}

impl<'a> Expander<'a> {
    fn new(text: &str, escape: char, scope: &'a Scope, raw: bool) -> Self {
        let characters = text.chars().collect();
        Self { characters, position: 0, escape, scope, raw, depth: 0, undefined: Vec::new() }
    }

    /// The value of a variable that must be there.
    fn value(&mut self, name: &str) -> String {
        let value = self.scope.get(name).cloned();
        value.unwrap_or_else(|| {
            self.undefined.push(name.to_owned());
            String::new()
        })
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.position).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.position += usize::from(next.is_some());
        next
    }

    fn all(mut self) -> Result<(String, Vec<String>), String> {
        let mut output = Output::default();
        self.until(None, &mut output)?;
        if output.in_word {
            output.words.push(output.word);
        }
        Ok((output.text, output.words))
    }

    /// Reads up to the end, or up to `stop` (which is taken).
    fn until(&mut self, stop: Option<char>, output: &mut Output) -> Result<(), String> {
        while let Some(c) = self.next() {
            match c {
                c if Some(c) == stop => return Ok(()),
                '\'' if !self.raw => self.single_quotes(output)?,
                '"' if !self.raw => self.double_quotes(output)?,
                '$' => {
                    let value = self.variable()?;
                    output.push_loose(&value);
                }
                c if c == self.escape => match self.next() {
                    // In a document only a dollar and the escape itself can be escaped.
                    Some(next) if self.raw && next != '$' && next != self.escape => {
                        output.push(c);
                        output.push(next);
                    }
                    Some(next) => output.push(next),
                    None if self.raw => output.push(c),
                    None => {}
                },
                c if c.is_whitespace() => output.blank(c),
                c => output.push(c),
            }
        }
        match stop {
            Some(_) => Err("`${` is not closed with `}`".to_owned()),
            None => Ok(()),
        }
    }

    fn single_quotes(&mut self, output: &mut Output) -> Result<(), String> {
        output.in_word = true;
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(c) => output.push(c),
                None => return Err("a single quote is not closed".to_owned()),
            }
        }
    }

    fn double_quotes(&mut self, output: &mut Output) -> Result<(), String> {
        output.in_word = true;
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some('$') => {
                    let value = self.variable()?;
                    output.push_held(&value);
                }
                Some(c) if c == self.escape => match self.next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => output.push(next),
                    Some(next) => {
                        output.push(c);
                        output.push(next);
                    }
                    None => return Err("a double quote is not closed".to_owned()),
                },
                Some(c) => output.push(c),
                None => return Err("a double quote is not closed".to_owned()),
            }
        }
    }

    /// The value of what follows a dollar.
    fn variable(&mut self) -> Result<String, String> {
        match self.peek() {
            Some('{') => {
                self.position += 1;
                self.braces()
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let name = self.name();
                Ok(self.value(&name))
            }
            // Positional and special parameters of shells: there are none, as in BuildKit.
            Some(c) if c.is_ascii_digit() || "@*#".contains(c) => {
                self.position += 1;
                Ok(String::new())
            }
            _ => Ok("$".to_owned()),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
            self.position += 1;
        }
        name
    }

    fn braces(&mut self) -> Result<String, String> {
        let name = self.name();
        if name.is_empty() {
            return Err("the name in `${…}` is missing".to_owned());
        }
        let value = self.scope.get(&name).cloned();
        match self.next() {
            Some('}') => Ok(self.value(&name)),
            Some(':') => {
                let modifier = self.next();
                let modifier = modifier.ok_or_else(|| format!("`${{{name}:` is not closed with `}}`"))?;
                let word = self.operand('}')?;
                self.choose(&name, value.filter(|value| !value.is_empty()), modifier, word)
            }
            Some(modifier @ ('+' | '-' | '?')) => {
                let word = self.operand('}')?;
                self.choose(&name, value, modifier, word)
            }
            Some(side @ ('#' | '%')) => {
                let longest = self.peek() == Some(side);
                self.position += usize::from(longest);
                let pattern = self.operand('}')?;
                Ok(pattern::trim(&self.value(&name), &pattern, side == '#', longest))
            }
            Some('/') => {
                let all = self.peek() == Some('/');
                self.position += usize::from(all);
                let pattern = self.operand('/')?;
                let replacement = self.operand('}')?;
                Ok(pattern::replace(&self.value(&name), &pattern, &replacement, all))
            }
            Some(other) => Err(format!("`{other}` is not a modifier in `${{{name}{other}…}}`")),
            None => Err(format!("`${{{name}` is not closed with `}}`")),
        }
    }

    /// What follows a modifier, with its own variables replaced.
    fn operand(&mut self, stop: char) -> Result<String, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("`${…}` is nested too deep".to_owned());
        }
        let mut output = Output::default();
        self.until(Some(stop), &mut output)?;
        self.depth -= 1;
        Ok(output.text)
    }

    fn choose(&self, name: &str, value: Option<String>, modifier: char, word: String) -> Result<String, String> {
        match modifier {
            '+' => Ok(value.map_or_else(String::new, |_| word)),
            '-' => Ok(value.unwrap_or(word)),
            '?' => value.ok_or_else(|| {
                let word = if word.is_empty() { "is not set or empty" } else { &word };
                format!("`{name}`: {word}")
            }),
            other => Err(format!("`:{other}` is not a modifier in `${{{name}:{other}…}}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope() -> IndexMap<String, String> {
        let pairs = [("A", "a"), ("E", ""), ("P", "x/y/z.tar.gz"), ("S", "two words")];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn every_modifier() {
        let cases = [
            ("$A-${A}b$N", "a-ab"),
            ("${N:-d}${E:-e}${E-x}", "de"),
            ("${A:+y}${E:+y}${E+z}${N+w}", "yz"),
            ("${N:-${A:-q}}", "a"),
            ("${P#*/}|${P##*/}", "y/z.tar.gz|z.tar.gz"),
            ("${P%.*}|${P%%.*}", "x/y/z.tar|x/y/z"),
            ("${P/\\//_}|${P//\\//_}", "x_y/z.tar.gz|x_y_z.tar.gz"),
            (r#"'$A' "$A" \$A "\$A" a\ b"#, "$A a $A $A a b"),
            (r#""a\b" $ $"#, r"a\b $ $"),
            ("$1$@x", "x"),
        ];
        for (text, expected) in cases {
            assert_eq!(word(text, '\\', &scope()).as_deref(), Ok(expected), "{text}");
        }
        for bad in ["${A", "${}", "${A:", "${A:=x}", "${A!}", "${N:?}", "${N?gone}", "'x", "\"x"] {
            assert!(word(bad, '\\', &scope()).is_err(), "{bad}");
        }
        assert!(word("${N?gone}", '\\', &scope()).unwrap_err().contains("gone"));
    }

    #[test]
    fn values_are_split_unless_quoted() {
        assert_eq!(words("$S \"$S\" x", '\\', &scope()).unwrap(), ["two", "words", "two words", "x"]);
        assert_eq!(words("'' a", '\\', &scope()).unwrap(), ["", "a"]);
    }

    #[test]
    fn documents_keep_their_quotes() {
        assert_eq!(document("it's \"$A\" \\$A \\n", '\\', &scope()).unwrap(), "it's \"a\" $A \\n");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(pieces in proptest::collection::vec(proptest::sample::select(vec![
            "$", "{", "}", "A", ":", "-", "+", "?", "#", "%", "/", "*", "\\", "'", "\"", " ", "${A:-", "${P%%", "[", "ä", "?",
        ]), 0..30)) {
            let text = pieces.concat();
            let _ = word(&text, '\\', &scope());
            let _ = document(&text, '`', &scope());
        }
    }
}
