//! Cutting an instruction's arguments into words.

/// Splits at blanks outside of quotes; quotes and escapes stay in the words.
pub(super) fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut started = false;
    let mut quote: Option<char> = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match quote {
            None if c.is_whitespace() => {
                if std::mem::take(&mut started) {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == escape => {
                // An escape at the very end counts for nothing.
                let Some(next) = characters.next() else { break };
                started = true;
                word.push(c);
                word.push(next);
                continue;
            }
            Some('"') if c == escape => {
                let Some(next) = characters.next() else { break };
                word.push(c);
                word.push(next);
                continue;
            }
            Some(open) if c == open => quote = None,
            _ => {}
        }
        started = true;
        word.push(c);
    }
    if started {
        words.push(word);
    }
    words
}

/// A JSON list of texts: `None` when it is no list, an error when it is one of other things.
pub(super) fn json_list(text: &str) -> Result<Option<Vec<String>>, &'static str> {
    let text = text.trim();
    if !text.starts_with('[') {
        return Ok(None);
    }
    match serde_json::from_str::<Vec<serde_json::Value>>(text) {
        Err(_not_json) => Ok(None),
        Ok(values) => {
            let texts = values.into_iter().map(|value| match value {
                serde_json::Value::String(text) => Ok(text),
                _ => Err("a list in brackets may hold only texts in double quotes"),
            });
            texts.collect::<Result<_, _>>().map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_escapes_keep_words_together() {
        let found = words(r#"a="b c" 'd e'f g\ h "i \" j" k"#, '\\');
        assert_eq!(found, [r#"a="b c""#, "'d e'f", r"g\ h", r#""i \" j""#, "k"]);
        assert!(words("   ", '\\').is_empty());
    }

    #[test]
    fn lists_of_texts() {
        assert_eq!(json_list(r#" ["a", "b c"] "#), Ok(Some(vec!["a".to_owned(), "b c".to_owned()])));
        assert_eq!(json_list("[ -f x ]"), Ok(None));
        assert!(json_list("[1]").is_err());
    }
}
