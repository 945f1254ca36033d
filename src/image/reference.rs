//! Image names: `[registry/]path[:tag][@digest]`, normalised as Docker does.

use std::fmt;

use super::digest::Digest;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";

/// A normalised name: registry and path complete, and a tag unless there is a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses what a person writes after `image:`; `None` when it is no image name.
    /// <https://github.com/distribution/reference> has the grammar.
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) || Digest::from_hex(name).is_some() {
            return None;
        }
        let (registry, path) = split_registry(name);
        let path =
            if registry == DEFAULT_REGISTRY && !path.contains('/') { format!("library/{path}") } else { path.into() };
        if !is_registry(registry) || !path.split('/').all(is_path_component) || registry.len() + path.len() > 254 {
            return None;
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Some(Self { registry: registry.to_owned(), path, tag, digest })
    }

    /// Registry and path, such as `docker.io/library/redis`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }

    /// Such as `docker.io` or `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository on its registry, such as `library/redis`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is after `:`.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// What is after `@`.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The short repository that people write: `redis` for `docker.io/library/redis`.
    pub fn familiar_repository(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.repository();
        }
        self.path.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(&self.path).to_owned()
    }

    /// The short form that people write, with its tag: `redis:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_repository())
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name = format!("{name}:{tag}");
        }
        if let Some(digest) = &self.digest {
            name = format!("{name}@{digest}");
        }
        name
    }

    /// The key in the store's name table: where there is a digest, the tag says nothing.
    pub(super) fn key(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.repository()),
            (None, tag) => format!("{}:{}", self.repository(), tag.as_deref().unwrap_or(DEFAULT_TAG)),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.repository()))
    }
}

fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", path)) => (DEFAULT_REGISTRY, path),
        Some((first, path))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.contains(|c: char| c.is_ascii_uppercase()) =>
        {
            (first, path)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let valid = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
                return valid && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
            }
            None => return false,
        },
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        let valid = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        valid && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut rest = text.as_bytes();
    loop {
        let letters = rest.iter().take_while(|b| word(**b)).count();
        rest = rest.get(letters..).unwrap_or_default();
        if letters == 0 || rest.is_empty() {
            return letters > 0;
        }
        let separator = rest.iter().take_while(|b| !word(**b)).count();
        let (joint, after) = rest.split_at(separator);
        if !(matches!(joint, b"." | b"_" | b"__") || joint.iter().all(|b| *b == b'-')) {
            return false;
        }
        rest = after;
    }
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let valid = text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'));
    valid && text.bytes().next().is_some_and(word) && text.len() <= 128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_as_docker_does() {
        let hex = "a".repeat(64);
        let cases = [
            ("redis", "docker.io/library/redis:latest", "redis:latest"),
            ("redis:7.2-alpine", "docker.io/library/redis:7.2-alpine", "redis:7.2-alpine"),
            ("me/app", "docker.io/me/app:latest", "me/app:latest"),
            ("rcompose/host", "docker.io/rcompose/host:latest", "rcompose/host:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
            ("ghcr.io/a/b/c", "ghcr.io/a/b/c:latest", "ghcr.io/a/b/c:latest"),
            ("index.docker.io/library/redis", "docker.io/library/redis:latest", "redis:latest"),
            ("docker.io/redis", "docker.io/library/redis:latest", "redis:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("a__b/c-----d.e_f", "docker.io/a__b/c-----d.e_f:latest", "a__b/c-----d.e_f:latest"),
            (
                &format!("redis@sha256:{hex}"),
                &format!("docker.io/library/redis@sha256:{hex}"),
                &format!("redis@sha256:{hex}"),
            ),
        ];
        for (text, full, familiar) in cases {
            let reference = Reference::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (full, familiar));
        }
    }

    #[test]
    fn a_digest_decides_over_a_tag() {
        let hex = "b".repeat(64);
        let with_tag = Reference::parse(&format!("redis:7@sha256:{hex}")).unwrap();
        assert_eq!(with_tag.key(), Reference::parse(&format!("redis@sha256:{hex}")).unwrap().key());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let hex = "c".repeat(64);
        let too_long = "a".repeat(300);
        let bad = [
            "",
            "Redis",
            "re dis",
            "a//b",
            "/a",
            "a/",
            "a:",
            ":a",
            "-a",
            "a-",
            "a..b",
            "a:b c",
            "a@sha256:12",
            "../x",
            "h.io/",
        ];
        for text in bad.into_iter().chain([hex.as_str(), too_long.as_str()]) {
            assert_eq!(Reference::parse(text), None, "{text}");
        }
    }
}
