//! Patterns of `.dockerignore`, `--exclude` and `develop.watch`: which paths they mean.

use super::pattern::matches_name;

/// Patterns in order; the last one that matches counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    /// `!`: takes back what earlier ones left out.
    exception: bool,
    parts: Vec<String>,
}

impl Ignore {
    /// Reads the text of a `.dockerignore`.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self { patterns: lines.filter_map(Pattern::parse).collect() }
    }

    /// From a list, in which `#` begins no comment.
    pub fn of<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        Self { patterns: patterns.into_iter().filter_map(Pattern::parse).collect() }
    }

    /// Whether nothing is left out of the context.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether they mean the path (relative, clean): the last pattern counts that matches it or a folder above it. The empty path
    /// is the folder that they are about; none of them means it.
    pub fn excludes(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let last = self.patterns.iter().rev().find(|pattern| pattern.covers(&parts));
        last.is_some_and(|pattern| !pattern.exception)
    }

    /// Whether something below a folder that is left out may be in all the same.
    pub(super) fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.exception)
    }
}

impl Pattern {
    fn parse(line: &str) -> Option<Self> {
        let text = line.trim();
        let (exception, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest.trim()));
        let mut parts: Vec<String> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                "**" => parts.push(part.to_owned()),
                // `**` beside other characters goes over folders, too.
                part if part.contains("**") => parts.extend(["**".to_owned(), part.replace("**", "*")]),
                part => parts.push(part.to_owned()),
            }
        }
        // What ends with `/**` means all in a folder, and not the folder.
        if parts.len() > 1 && parts.last().is_some_and(|part| part == "**") {
            parts.push("*".to_owned());
        }
        // `.` and `/` alone mean everything, and nothing means nothing.
        if parts.is_empty() && !text.is_empty() {
            parts.push("**".to_owned());
        }
        (!parts.is_empty()).then_some(Self { exception, parts })
    }

    fn covers(&self, path: &[&str]) -> bool {
        (1..=path.len()).any(|length| matches(&self.parts, path.get(..length).unwrap_or_default()))
    }
}

/// One row of the table at a time, so that no pattern takes more than the product of the lengths.
fn matches(pattern: &[String], path: &[&str]) -> bool {
    // Which numbers of parts of the path the pattern so far may have taken.
    let mut reached = vec![false; path.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    for part in pattern {
        let mut next = vec![false; path.len() + 1];
        if part == "**" {
            let mut any = false;
            for (here, there) in reached.iter().zip(&mut next) {
                any |= *here;
                *there = any;
            }
        } else {
            for ((here, name), there) in reached.iter().zip(path).zip(next.iter_mut().skip(1)) {
                *there = *here && matches_name(part, name);
            }
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_as_docker_reads_them() {
        let ignore =
            Ignore::parse("# comment\n*.log\n/build/\n!build/keep\n**/*.tmp\ndocs/**/secret\n !a.log \nall/**\n");
        for (path, excluded) in [
            ("x.log", true),
            ("a.log", false),
            ("sub/x.log", false),
            ("build", true),
            ("build/out/x", true),
            ("build/keep", false),
            ("build/keep/x", false),
            ("x.tmp", true),
            ("a/b/x.tmp", true),
            ("docs/secret", true),
            ("docs/a/b/secret/x", true),
            ("all", false),
            ("all/a/b", true),
            ("# comment", false),
        ] {
            assert_eq!(ignore.excludes(path), excluded, "{path}");
        }
        assert!(ignore.has_exceptions() && !Ignore::parse("a\n").has_exceptions());
    }

    #[test]
    fn patterns_in_a_list() {
        let ignore = Ignore::of(["#a", "*.[oa]", "gen**", "*"]);
        assert!(Ignore::of(["#a"]).excludes("#a") && !Ignore::parse("#a").excludes("#a"));
        assert!(Ignore::of(["*.[oa]"]).excludes("x.o") && Ignore::of(["a/../b"]).excludes("b"));
        assert!(!ignore.excludes(""), "the folder itself");
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "*a".repeat(2000);
        assert!(!Ignore::of([pattern.as_str()]).excludes(&format!("{}b", "a".repeat(1500))));
    }

    #[test]
    fn everything_but() {
        let ignore = Ignore::parse("*\n!src/**/*.rs\n!Cargo.toml");
        assert!(ignore.excludes("src") && ignore.excludes("src/x.c") && ignore.excludes("README"));
        assert!(!ignore.excludes("src/a/b.rs") && !ignore.excludes("src/b.rs") && !ignore.excludes("Cargo.toml"));
    }
}
