//! Patterns on texts: `*`, `?`, `\`, and for file names `[…]`. In variables brackets mean themselves, as in BuildKit.

/// Takes the part that matches off the front or the end: the shortest, or the longest.
pub(super) fn trim(text: &str, pattern: &str, front: bool, longest: bool) -> String {
    let pattern: Vec<char> = pattern.chars().collect();
    let mut cuts: Vec<usize> = text.char_indices().map(|(index, _)| index).chain([text.len()]).collect();
    // At the front the shortest match ends first, at the end it begins last.
    if front == longest {
        cuts.reverse();
    }
    for cut in cuts {
        let (head, tail) = text.split_at(cut);
        let (part, rest) = if front { (head, tail) } else { (tail, head) };
        if matches(&pattern, &part.chars().collect::<Vec<_>>(), Brackets::Literal) {
            return rest.to_owned();
        }
    }
    text.to_owned()
}

/// Replaces the first part that matches (the longest at its place), or all of them.
pub(super) fn replace(text: &str, pattern: &str, replacement: &str, all: bool) -> String {
    let pattern: Vec<char> = pattern.chars().collect();
    let characters: Vec<char> = text.chars().collect();
    if pattern.is_empty() {
        return text.to_owned();
    }
    let mut output = String::new();
    let mut at = 0;
    while at < characters.len() {
        let found = (at + 1..=characters.len())
            .rev()
            .find(|end| characters.get(at..*end).is_some_and(|part| matches(&pattern, part, Brackets::Literal)));
        match found {
            Some(end) => {
                output.push_str(replacement);
                at = end;
                if !all {
                    break;
                }
            }
            None => {
                output.extend(characters.get(at));
                at += 1;
            }
        }
    }
    output.extend(characters.get(at..).unwrap_or_default());
    output
}

/// Whether brackets are classes of characters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Brackets {
    Class,
    Literal,
}

/// Whether the whole text matches. Takes time in proportion to the product of both lengths.
fn matches(pattern: &[char], text: &[char], brackets: Brackets) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last `*` did not match.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match (pattern.get(p), text.get(t)) {
            (Some('*'), _) => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            (None, None) => return true,
            (Some(_), Some(c)) => one(pattern, p, *c, brackets),
            _ => None,
        };
        match (step, star) {
            (Some(next), _) => (p, t) = (next, t + 1),
            (None, Some((after, from))) if from < text.len() => {
                star = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            (None, _) => return false,
        }
    }
}

/// Matches one character; the position after the part of the pattern that did.
fn one(pattern: &[char], at: usize, c: char, brackets: Brackets) -> Option<usize> {
    match pattern.get(at)? {
        '?' => Some(at + 1),
        '\\' => pattern.get(at + 1).filter(|next| **next == c).map(|_| at + 2),
        '[' if brackets == Brackets::Class => class(pattern, at, c),
        literal => (*literal == c).then_some(at + 1),
    }
}

fn class(pattern: &[char], at: usize, c: char) -> Option<usize> {
    let negated = pattern.get(at + 1) == Some(&'^');
    let first = at + 1 + usize::from(negated);
    let mut position = first;
    let mut inside = false;
    loop {
        let low = *pattern.get(position)?;
        if low == ']' && position > first {
            break;
        }
        match (pattern.get(position + 1), pattern.get(position + 2)) {
            (Some('-'), Some(high)) if *high != ']' => {
                inside |= low <= c && c <= *high;
                position += 3;
            }
            _ => {
                inside |= low == c;
                position += 1;
            }
        }
    }
    (inside != negated).then_some(position + 1)
}

/// Whether one part of a path matches one part of a pattern.
pub(super) fn matches_name(pattern: &str, name: &str) -> bool {
    matches(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>(), Brackets::Class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_as_docker_has_them() {
        for (pattern, text, expected) in [
            ("*.txt", "a.txt", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("[a-c]?", "bz", true),
            ("[^a-c]", "b", false),
            // As in Go, and not as in shells.
            ("[!a]", "b", false),
            ("[!a]", "!", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[", "[", false),
            ("", "", true),
        ] {
            assert_eq!(matches_name(pattern, text), expected, "{pattern} {text}");
        }
        assert_eq!(replace("a[b]", "[b]", "", true), "a");
    }
}
