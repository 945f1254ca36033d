//! `--name=value` words in front of an instruction's arguments.

/// One flag; `None`: it was given without `=`.
pub(super) type Flag = (String, Option<String>);

/// Takes the flags off the front: what they are, and the rest of the text. Quotes in flags are taken away.
pub(super) fn take(text: &str) -> (Vec<Flag>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while let Some(after) = rest.strip_prefix("--") {
        let (word, next) = word(after);
        rest = next.trim_start();
        if word.is_empty() {
            // `--` alone ends the flags.
            break;
        }
        match word.split_once('=') {
            Some((name, value)) => flags.push((name.to_owned(), Some(value.to_owned()))),
            None => flags.push((word, None)),
        }
    }
    (flags, rest)
}

fn word(text: &str) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((index, c)) = characters.next() {
        match quote {
            None if c.is_whitespace() => return (word, text.get(index..).unwrap_or_default()),
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ if c == '\\' => word.extend(characters.next().map(|(_, next)| next)),
            _ => word.push(c),
        }
    }
    (word, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_at_the_first_other_word() {
        let (flags, rest) = take(" --from=a --link  --chown='x y' b --c=d");
        let flag = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        assert_eq!(flags, [flag("from", Some("a")), flag("link", None), flag("chown", Some("x y"))]);
        assert_eq!(rest, "b --c=d");
        assert_eq!(take("-- --x"), (Vec::new(), "--x"));
    }
}
