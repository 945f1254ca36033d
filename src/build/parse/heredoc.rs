//! Here-documents: `<<EOF`, `<<-EOF`, `<<"EOF"`, `3<<EOF`.

/// One here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    pub name: String,
    /// Variables are replaced in it: its name has no quotes.
    pub expand: bool,
    /// Leading tabs go (`<<-`).
    pub chomp: bool,
    pub descriptor: u32,
    pub content: String,
}

impl Heredoc {
    /// The content as the instruction means it.
    pub fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// Whether a command is a here-document and nothing else.
pub fn is_heredoc(command: &str) -> bool {
    let words = words(command);
    words.len() == 1 && words.iter().all(|word| of_word(word).is_some())
}

/// The here-documents that a line announces, still without content.
pub(super) fn of_line(line: &str) -> Vec<Heredoc> {
    words(line).iter().filter_map(|word| of_word(word)).collect()
}

/// The here-document that a word announces. Nothing may follow its name.
pub(super) fn of_word(word: &str) -> Option<Heredoc> {
    let digits = word.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = word.split_at(digits);
    let rest = rest.strip_prefix("<<")?;
    let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    if rest.contains('<') {
        return None;
    }
    let descriptor = if number.is_empty() { 0 } else { number.parse().ok()? };
    // Quotes around any part of the name switch replacing off.
    let mut name = String::new();
    let mut expand = true;
    let mut quote = None;
    for c in rest.chars() {
        match (quote, c) {
            (None, '"' | '\'') => (quote, expand) = (Some(c), false),
            (Some(open), c) if open == c => quote = None,
            (None, c) if c.is_whitespace() || "&;|()>".contains(c) => return None,
            (_, c) => name.push(c),
        }
    }
    if name.is_empty() || quote.is_some() {
        return None;
    }
    Some(Heredoc { name, expand, chomp, descriptor, content: String::new() })
}

/// Words as a shell sees them, with their quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None | Some('"'), '\\') => {
                word.push(c);
                word.extend(characters.next());
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_announce_a_document() {
        let one = of_word("3<<-'E F'").unwrap();
        assert_eq!((one.name.as_str(), one.expand, one.chomp, one.descriptor), ("E F", false, true, 3));
        for no in ["<<", "<<<x", "a<<b", "<<-", "<<a\"", "<<a;"] {
            assert_eq!(of_word(no), None, "{no}");
        }
        assert!(of_line("RUN cat \"<<EOF\" <<A").iter().map(|one| one.name.as_str()).eq(["A"]));
    }

    #[test]
    fn chomping_takes_tabs_away() {
        let document = Heredoc { chomp: true, content: "\t\ta\n\tb\t\nc".to_owned(), ..of_word("<<-X").unwrap() };
        assert_eq!(document.text(), "a\nb\t\nc");
    }
}
