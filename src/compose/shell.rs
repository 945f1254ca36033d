//! Splits a command as a shell would, without being one.

/// Words of `line`. Quotes and backslashes work as in a shell, and an unquoted `;`, `&`, `|`, `<` or `>` ends the
/// command: what follows is dropped, as the reference does. `None` when a quote is not closed.
pub fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut single, mut double, mut back, mut dollar) = (false, false, false, false);
    let (mut escaped, mut started) = (false, false);
    for char in line.chars() {
        if escaped {
            word.push(match char {
                't' => '\t',
                'n' => '\n',
                other => other,
            });
            escaped = false;
            started = true;
            continue;
        }
        let quoted = single || double || back || dollar;
        match char {
            '\\' if single => word.push(char),
            '\\' => {
                escaped = true;
                continue;
            }
            ' ' | '\t' | '\r' | '\n' => {
                if quoted {
                    word.push(char);
                } else if started {
                    words.push(std::mem::take(&mut word));
                    started = false;
                }
                continue;
            }
            '`' => {
                if !single && !double && !dollar {
                    back = !back;
                }
                word.push(char);
            }
            ')' => {
                if !single && !double && !back {
                    dollar = !dollar;
                }
                word.push(char);
            }
            '(' if !single && !double && !back => {
                if dollar || !word.ends_with('$') {
                    return None;
                }
                dollar = true;
                word.push(char);
            }
            '"' if !single && !dollar => {
                if double {
                    started = true;
                }
                double = !double;
                continue;
            }
            '\'' if !double && !dollar => {
                if single {
                    started = true;
                }
                single = !single;
                continue;
            }
            ';' | '&' | '|' | '<' | '>' if !quoted => {
                if char == '>' && word.starts_with(|c: char| c.is_ascii_digit()) {
                    started = false;
                }
                break;
            }
            _ => word.push(char),
        }
        started = true;
    }
    if started {
        words.push(word);
    }
    (!(escaped || single || double || back || dollar)).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_quotes_and_escapes() {
        let cases: [(&str, &[&str]); 7] = [
            ("a  b\tc", &["a", "b", "c"]),
            ("sh -c 'x \"y\" $Z'", &["sh", "-c", "x \"y\" $Z"]),
            (r#"a\ b "c\"d""#, &["a b", "c\"d"]),
            ("'' x", &["", "x"]),
            ("echo a && b", &["echo", "a"]),
            ("echo $(date)", &["echo", "$(date)"]),
            ("", &[]),
        ];
        for (line, words) in cases {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
        for wrong in ["'x", "\"x", "a\\", "(x)", "`x"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }
}
