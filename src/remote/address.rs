//! What a text means: a file to be had by HTTP, a repository, or nothing of the kind. Pure.
//! <https://docs.docker.com/build/concepts/context/#remote-context>

use super::Error;

/// Something that can be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `http://` or `https://`.
    File(String),
    Git(Repository),
}

/// `URL#REFERENCE:FOLDER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    pub url: String,
    /// A branch, tag or commit; `None`: where the repository's HEAD leads.
    pub reference: Option<String>,
    /// A folder of the repository.
    pub folder: Option<String>,
}

impl Address {
    /// Whether a text is an address rather than a path.
    pub fn is_one(text: &str) -> bool {
        ["http://", "https://", "git://", "ssh://", "git@", "github.com/"].iter().any(|start| text.starts_with(start))
    }

    /// Reads an address. `https://HOST/PATH.git` is a repository, other paths are files.
    ///
    /// # Errors
    /// It is none, or holds what could be taken for something else.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |reason| Error::Address { text: without_password(text), reason };
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(bad("it has a blank or a control character"));
        }
        if !Self::is_one(text) {
            return Err(bad("it begins with none of http://, https://, git://, ssh://, git@"));
        }
        let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
        let is_http = url.starts_with("http://") || url.starts_with("https://");
        if is_http && !url.trim_end_matches('/').ends_with(".git") {
            return match host(url) {
                "" => Err(bad("it names no host")),
                _ => Ok(Self::File(url.to_owned())),
            };
        }
        let url = if url.starts_with("github.com/") { format!("https://{url}") } else { url.to_owned() };
        // A host with a dash in front would be an option of ssh.
        if host(&url).is_empty() || host(&url).starts_with('-') {
            return Err(bad("it names no host"));
        }
        let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
        // What git takes for a refspec, a range or an option is no reference.
        if reference.starts_with(['-', '+', '^', ':']) || reference.contains([':', '*', '?', '[', '\\', '~', '^']) {
            return Err(bad("what stands after `#` is no branch, tag or commit"));
        }
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Ok(Self::Git(Repository { url, reference: some(reference), folder: some(folder.trim_matches('/')) }))
    }
}

/// The host of a URL, or of `USER@HOST:PATH`; without user and port.
pub(super) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// A URL as it may be shown.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{name}:***@{host}{path}")
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn git(url: &str, reference: Option<&str>, folder: Option<&str>) -> Address {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Address::Git(Repository { url: url.to_owned(), reference: owned(reference), folder: owned(folder) })
    }

    #[test]
    fn addresses_as_docker_takes_them() {
        let cases = [
            ("https://a.example/x.git", git("https://a.example/x.git", None, None)),
            ("https://a.example/x.git#v1", git("https://a.example/x.git", Some("v1"), None)),
            ("https://a.example/x.git#v1:sub/dir", git("https://a.example/x.git", Some("v1"), Some("sub/dir"))),
            ("git://h/x#:docker/", git("git://h/x", None, Some("docker"))),
            ("git@h.example:me/x.git#main", git("git@h.example:me/x.git", Some("main"), None)),
            ("ssh://me@h:22/x", git("ssh://me@h:22/x", None, None)),
            ("github.com/me/x", git("https://github.com/me/x", None, None)),
            ("https://a.example/x.tar.gz#y", Address::File("https://a.example/x.tar.gz".to_owned())),
        ];
        for (text, expected) in cases {
            assert_eq!(Address::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_could_be_an_option_or_something_else_is_refused() {
        for text in [
            "--upload-pack=x",
            "ext::sh -c x",
            "file:///etc",
            "ssh://-oProxyCommand=x/y",
            "git@-oProxyCommand=x:y",
            "https://h/x.git#--upload-pack=x",
            "https://h/x.git#+a",
            "https://h/x.git#a\nb",
            "https://h/x.git#a:b:c\u{7f}",
            "https://",
            "",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
        let shown = Address::parse("https://me:secret@h/a b").unwrap_err().to_string();
        assert!(!shown.contains("secret"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_text_ends_and_nothing_becomes_an_option(text in "(https?|git|ssh)?(://|@)?[-a-z.:/#@+^]{0,20}") {
            if let Ok(Address::Git(found)) = Address::parse(&text) {
                prop_assert!(!found.url.starts_with('-'));
                prop_assert!(!found.reference.is_some_and(|reference| reference.starts_with('-')));
            }
        }
    }
}
