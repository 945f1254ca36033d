//! Files of `KEY=VALUE` lines: the dotenv dialect of Compose, and the raw one of `docker run --env-file`. Pure.

use std::collections::BTreeMap;

use super::template::{self, MAX_LENGTH, TemplateError};

/// What is wrong, and in which line (from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DotenvError {
    pub(super) line: u32,
    pub(super) message: String,
}

/// Parses dotenv text into `variables`, which may hold earlier ones. `lookup` knows the values that win over
/// those when a value refers to a variable or a bare name has no value.
pub(super) fn parse(
    text: &str,
    variables: &mut BTreeMap<String, String>,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<(), DotenvError> {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let mut parser = Parser { rest: &text, line: 1, lookup };
    parser.run(variables)
}

/// More than any file has that a person wrote.
const MAX_VARIABLES: usize = 100_000;

/// All values of one file together.
const MAX_BYTES: usize = 16 * 1024 * 1024;

struct Parser<'a> {
    rest: &'a str,
    line: u32,
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Parser<'a> {
    fn run(&mut self, variables: &mut BTreeMap<String, String>) -> Result<(), DotenvError> {
        let mut bytes = 0;
        loop {
            self.skip_to_statement();
            if self.rest.is_empty() {
                return Ok(());
            }
            let line = self.line;
            let (key, bare) = self.key()?;
            if key.contains(' ') {
                return Err(DotenvError { line, message: "key cannot contain a space".to_owned() });
            }
            if bare {
                if let Some(value) = (self.lookup)(&key) {
                    variables.insert(key, value);
                }
                continue;
            }
            let value = self.value(variables)?;
            bytes += value.len();
            if bytes > MAX_BYTES {
                return self.error(too_long(MAX_BYTES));
            }
            variables.insert(key, value);
            if variables.len() > MAX_VARIABLES {
                return self.error(too_many());
            }
        }
    }

    fn error<T>(&self, message: String) -> Result<T, DotenvError> {
        Err(DotenvError { line: self.line, message })
    }

    fn advance(&mut self, bytes: usize) {
        let (skipped, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        let lines = skipped.bytes().filter(|b| *b == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.rest = rest;
    }

    /// Over blanks, empty lines and comments.
    fn skip_to_statement(&mut self) {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.advance(blank);
            if !self.rest.starts_with('#') {
                return;
            }
            self.advance(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
    }

    /// The name, and whether the line ends right after it.
    fn key(&mut self) -> Result<(String, bool), DotenvError> {
        if let Some(after) = self.rest.strip_prefix("export")
            && after.starts_with(|c: char| c.is_whitespace())
        {
            self.advance(self.rest.len() - after.trim_start_matches(is_blank).len());
        }
        let end = self.rest.find(|c: char| !is_key(c) && !is_blank(c)).unwrap_or(self.rest.len());
        let (key, after) = self.rest.split_at(end);
        let bare = match after.chars().next() {
            Some('=' | ':') => false,
            Some('\n') | None => true,
            Some(other) => {
                let line = self.rest.lines().next().unwrap_or_default();
                return self.error(format!("unexpected character `{other}` in variable name `{line}`"));
            }
        };
        let key = key.trim_end().to_owned();
        self.advance((end + 1).min(self.rest.len()));
        if !bare {
            self.advance(self.rest.len() - self.rest.trim_start_matches(is_blank).len());
        }
        Ok((key, bare))
    }

    fn value(&mut self, variables: &BTreeMap<String, String>) -> Result<String, DotenvError> {
        match self.rest.bytes().next() {
            Some(quote @ (b'"' | b'\'')) => self.quoted(quote, variables),
            _ => {
                let line = self.rest.split('\n').next().unwrap_or_default();
                let value = line.split(" #").next().unwrap_or_default().trim_end();
                let value = self.expand(value, variables)?;
                self.advance(line.len());
                Ok(value)
            }
        }
    }

    /// A value in quotes, which may go over several lines.
    fn quoted(&mut self, quote: u8, variables: &BTreeMap<String, String>) -> Result<String, DotenvError> {
        let mut raw = Vec::new();
        let mut escaped = false;
        for (index, byte) in self.rest.bytes().enumerate().skip(1) {
            if byte == quote && !escaped {
                let raw = String::from_utf8_lossy(&raw).into_owned();
                let value = if quote == b'"' { self.expand(&unescape(&raw), variables)? } else { raw };
                self.advance(index + 1);
                return Ok(value);
            }
            if byte == b'\\' && !escaped {
                escaped = true;
                continue;
            }
            if escaped && byte != quote {
                raw.push(b'\\');
            }
            escaped = false;
            raw.push(byte);
        }
        let shown = self.rest.lines().next().unwrap_or_default().to_owned();
        self.error(format!("unterminated quoted value {shown}"))
    }

    fn expand(&self, value: &str, variables: &BTreeMap<String, String>) -> Result<String, DotenvError> {
        let lookup = |name: &str| (self.lookup)(name).or_else(|| variables.get(name).cloned());
        match template::substitute(value, &lookup, &mut |_| {}) {
            Ok(value) => Ok(value.into_owned()),
            Err(TemplateError::TooLong) => self.error(too_long(MAX_LENGTH)),
            Err(TemplateError::Syntax) => self.error(format!("invalid interpolation format: `{value}`")),
            Err(TemplateError::Required { variable, message }) => {
                let reason = if message.is_empty() { message } else { format!(": {message}") };
                self.error(format!("required variable `{variable}` is missing a value{reason}"))
            }
        }
    }
}

fn too_many() -> String {
    format!("there are more than {MAX_VARIABLES} variables")
}

fn too_long(most: usize) -> String {
    format!("the values of variables are more than {most} bytes together")
}

fn is_blank(char: char) -> bool {
    matches!(char, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

fn is_key(char: char) -> bool {
    char.is_alphanumeric() || matches!(char, '_' | '.' | '-' | '[' | ']')
}

/// The escapes of double quotes; `\$` becomes the `$$` of templates.
fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char != '\\' {
            result.push(char);
            continue;
        }
        let known = match chars.peek() {
            Some('a') => Some('\u{7}'),
            Some('b') => Some('\u{8}'),
            Some('f') => Some('\u{c}'),
            Some('n') => Some('\n'),
            Some('r') => Some('\r'),
            Some('t') => Some('\t'),
            Some('v') => Some('\u{b}'),
            Some('"') => Some('"'),
            Some('\\') => Some('\\'),
            _ => None,
        };
        match (known, chars.peek()) {
            (Some(known), _) => {
                result.push(known);
                chars.next();
            }
            (None, Some('$')) => {
                result.push_str("$$");
                chars.next();
            }
            (None, Some('0')) => octal(&mut chars, &mut result),
            _ => result.push('\\'),
        }
    }
    result
}

/// `\0` and exactly three octal digits; anything else stays as written.
fn octal(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, result: &mut String) {
    let mut digits = String::new();
    while digits.len() < 4 {
        match chars.peek() {
            Some(digit) if digit.is_ascii_digit() => digits.push(*digit),
            _ => break,
        }
        chars.next();
    }
    let code = digits.get(1..).filter(|digits| digits.len() == 3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
    match code {
        Some(code) => result.push(char::from(code)),
        None => {
            result.push('\\');
            result.push_str(&digits);
        }
    }
}

/// Parses raw lines: no quotes, no variables, no comments after values.
pub(super) fn parse_raw(
    text: &str,
    variables: &mut BTreeMap<String, String>,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<(), DotenvError> {
    let text = text.trim_start_matches('\u{feff}');
    for (line, number) in text.lines().zip(1..) {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let wrong = |message: String| Err(DotenvError { line: number, message });
        let (key, value) = match content.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (content, None),
        };
        if key.is_empty() {
            return wrong(format!("no variable name on line `{content}`"));
        }
        if key.contains(char::is_whitespace) {
            return wrong(format!("variable `{key}` contains whitespaces"));
        }
        if let Some(value) = value.map(str::to_owned).or_else(|| lookup(key)) {
            variables.insert(key.to_owned(), value);
            if variables.len() > MAX_VARIABLES {
                return wrong(too_many());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load(text: &str) -> Result<Vec<(String, String)>, DotenvError> {
        let mut variables = BTreeMap::new();
        let lookup = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        parse(text, &mut variables, &lookup)?;
        Ok(variables.into_iter().collect())
    }

    fn one(text: &str) -> String {
        let variables = load(text).unwrap();
        variables.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn every_form_of_a_line() {
        let cases = [
            ("A=1", "A=1"),
            ("export A = 1 # c", "A=1"),
            ("A: x", "A=x"),
            ("A=a#b", "A=a#b"),
            ("A='x $HOME\\'y'", "A=x $HOME'y"),
            ("A=\"x\\n$HOME \\$y\"", "A=x\n/root $y"),
            ("A=$HOME/$B\nB=2", "A=/root/|B=2"),
            ("A=1\nB=${A}2", "A=1|B=12"),
            ("HOME\nNOPE", "HOME=/root"),
            ("A=\"l1\nl2\" # c\nB=1", "A=l1\nl2|B=1"),
            ("A=a\\tb", "A=a\\tb"),
            ("# c\n\nA=\n", "A="),
            ("A=\"\\0101\"", "A=A"),
            ("\u{feff}A=1\r\nB=2\r\n", "A=1|B=2"),
        ];
        for (text, expected) in cases {
            assert_eq!(one(text), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_name_their_line() {
        let cases =
            [("A=1\nB C=2", 2, "space"), ("A=\"x", 1, "unterminated"), ("\nlol$wut=1", 2, "unexpected character `$`")];
        for (text, line, message) in cases {
            let error = load(text).unwrap_err();
            assert!(error.line == line && error.message.contains(message), "{text}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[A-C=:'\"\\\\$#{}0 \n-]{0,40}|\\PC{0,40}") {
            let _ = load(&text);
            let _ = parse_raw(&text, &mut BTreeMap::new(), &|_| None);
        }
    }
}
