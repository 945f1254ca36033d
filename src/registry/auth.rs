//! How a registry wants to be asked: `WWW-Authenticate` challenges and token answers, without a socket.
//!
//! <https://distribution.github.io/distribution/spec/auth/token/>, RFC 9110 section 11, RFC 6750.

use serde::Deserialize;

/// The longest life that we believe a token to have, in seconds; a token that says nothing lives for a minute.
const MAX_LIFE: u64 = 3600;
const DEFAULT_LIFE: u64 = 60;

/// One way to prove who one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token, to be had from `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The challenges of a `WWW-Authenticate` header that we can answer; several may stand in one header.
pub(super) fn challenges(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header.trim_start_matches([',', ' ', '\t']);
    while !rest.is_empty() {
        let (scheme, after) = word(rest);
        if scheme.is_empty() {
            break;
        }
        let (parameters, after) = parameters(after);
        let value = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = value("realm")
        {
            found.push(Challenge::Bearer { realm, service: value("service"), scope: value("scope") });
        }
        rest = after;
    }
    found
}

/// `name="value"` pairs, up to the next scheme; what is left begins with that.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([',', ' ', '\t']);
    loop {
        let (name, after) = word(rest);
        let Some(after) = after.trim_start().strip_prefix('=').filter(|_| !name.is_empty()) else {
            return (found, rest);
        };
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted),
            None => {
                let end = after.find([',', ' ', '\t']).unwrap_or(after.len());
                let (value, after) = after.split_at(end);
                (value.to_owned(), after)
            }
        };
        found.push((name.to_owned(), value));
        rest = after.trim_start_matches([',', ' ', '\t']);
    }
}

fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)));
    text.split_at(end.unwrap_or(text.len()))
}

/// What stands before the closing quote, and what after it.
fn quoted_string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, text.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub value: String,
    /// Seconds that it can be used from now on.
    pub life: u64,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("life", &self.life).finish_non_exhaustive()
    }
}

/// The token of a token server's answer; `None` when there is none in it that a header can carry.
pub(super) fn token(answer: &[u8]) -> Option<Token> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        access_token: Option<String>,
        #[serde(default)]
        expires_in: Option<u64>,
    }
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let value = answer.token.filter(|token| !token.is_empty()).or(answer.access_token)?;
    let usable = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
    let life = answer.expires_in.filter(|life| *life > 0).unwrap_or(DEFAULT_LIFE).min(MAX_LIFE);
    usable.then_some(Token { value, life })
}

/// A value for a query, with everything escaped that could mean something in it.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

/// Where to ask for a token.
pub(super) fn token_url(realm: &str, service: Option<&str>, scope: &str, account: Option<&str>) -> String {
    let mut url = realm.to_owned();
    let pairs = [("service", service), ("scope", Some(scope).filter(|scope| !scope.is_empty())), ("account", account)];
    for (name, value) in pairs.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(&format!("{name}={}", escape(value)));
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) }
    }

    #[test]
    fn challenges_as_registries_write_them() {
        let cases = [
            ("Basic realm=\"Registry\"", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://auth.example/token\",service=\"registry.example\",scope=\"repository:a/b:pull,push\"",
                vec![bearer("https://auth.example/token", Some("registry.example"), Some("repository:a/b:pull,push"))],
            ),
            ("bearer realm = https://a/t , service=x", vec![bearer("https://a/t", Some("x"), None)]),
            (
                "Negotiate, Bearer realm=\"https://a/\\\"t\", Basic realm=\"x\"",
                vec![bearer("https://a/\"t", None, None), Challenge::Basic],
            ),
            ("Bearer service=\"no realm\"", vec![]),
            ("", vec![]),
            ("=,\"", vec![]),
        ];
        for (header, expected) in cases {
            assert_eq!(challenges(header), expected, "{header}");
        }
    }

    #[test]
    fn tokens_under_both_names_and_nothing_else() {
        assert_eq!(token(br#"{"token":"a.b","expires_in":300}"#).unwrap(), Token { value: "a.b".into(), life: 300 });
        assert_eq!(token(br#"{"token":"","access_token":"c"}"#).unwrap(), Token { value: "c".into(), life: 60 });
        for bad in [&b"{}"[..], b"", br#"{"token":"a\nb"}"#, br#"{"token":7}"#] {
            assert_eq!(token(bad), None);
        }
        assert!(!format!("{:?}", token(br#"{"token":"secret"}"#)).contains("secret"));
    }

    #[test]
    fn the_scope_cannot_add_parameters() {
        assert_eq!(
            token_url("https://a/t?x=1", Some("r e"), "repository:a/b:pull&c=d", None),
            "https://a/t?x=1&service=r%20e&scope=repository%3Aa%2Fb%3Apull%26c%3Dd"
        );
    }

    proptest! {
        #[test]
        fn any_header_ends(header in "\\PC*") {
            let _ = challenges(&header);
        }
    }
}
