//! Patterns of `ignore`, `include` and `.dockerignore`: `*`, `?`, `**`, and `!` that takes back.

/// Patterns in order; the last one that matches counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns(Vec<(bool, Vec<String>)>);

impl Patterns {
    pub(super) fn new<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let parse = |line: &str| {
            let text = line.trim();
            let (taken_back, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
            let parts = text.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned);
            let parts: Vec<String> = parts.collect();
            (!parts.is_empty()).then_some((taken_back, parts))
        };
        Self(lines.filter_map(parse).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a relative path, or a folder above it, matches.
    pub(super) fn match_path(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let covers = |pattern: &[String]| {
            (1..=parts.len()).any(|length| matches(pattern, parts.get(..length).unwrap_or_default()))
        };
        self.0.iter().rev().find(|(_, pattern)| covers(pattern)).is_some_and(|(taken_back, _)| !taken_back)
    }
}

fn matches(pattern: &[String], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => {
            matches(rest, path) || path.split_first().is_some_and(|(_, below)| matches(pattern, below))
        }
        (Some((first, rest)), Some((name, below))) => {
            name_matches(first.as_bytes(), name.as_bytes()) && matches(rest, below)
        }
        _ => false,
    }
}

/// Goes back to the last `*` only, so the time is at most the product of the lengths.
fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut here) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while here < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, here));
                at += 1;
            }
            Some(byte) if *byte == b'?' || name.get(here) == Some(byte) => {
                at += 1;
                here += 1;
            }
            _ => {
                let Some((star_at, from)) = star else { return false };
                star = Some((star_at, from + 1));
                at = star_at + 1;
                here = from + 1;
            }
        }
    }
    pattern.iter().skip(at).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pattern_counts() {
        let patterns = Patterns::new(["*.log", "node_modules/", "!keep.log", "**/tmp", "src/**/gen?"].into_iter());
        for (path, expected) in [
            ("a.log", true),
            ("keep.log", false),
            ("sub/a.log", false),
            ("node_modules/x/y", true),
            ("a/b/tmp/x", true),
            ("src/a/b/gen1", true),
            ("src/gen12", false),
            ("main.rs", false),
        ] {
            assert_eq!(patterns.match_path(path), expected, "{path}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        assert!(!name_matches(&b"*a".repeat(2000), &[b'a'; 1500]));
    }
}
