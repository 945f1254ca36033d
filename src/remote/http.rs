//! A file by HTTP.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::address::without_password;
use super::{Error, Limits};
use crate::registry::{Settings, downloads};

/// So long after a file has changed its time says which version it is, which counts seconds.
const SETTLED: Duration = Duration::from_secs(60);

/// What a server has said about a version of a file, to ask whether it is still that one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    etag: Option<String>,
    last_modified: Option<String>,
}

impl Version {
    pub(super) const fn can_be_asked(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    fn of(answer: &Response<Body>) -> Self {
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let time = |text: &Option<String>| httpdate::parse_http_date(text.as_deref()?).ok();
        let (last_modified, date) = (header("last-modified"), header("date"));
        let age = time(&date).zip(time(&last_modified)).and_then(|(now, then)| now.duration_since(then).ok());
        Self { etag: header("etag"), last_modified: last_modified.filter(|_| age.is_some_and(|age| age >= SETTLED)) }
    }
}

/// Fetches a file to `into`, a path that does not exist. It has mode 0600 and the time that the server says, or else the epoch.
/// Returns its version, or `None` when the server still has the one that is `known`.
///
/// # Errors
/// The server cannot be reached or refuses, or the disk's own.
pub(super) fn download(
    settings: &Settings,
    url: &str,
    into: &Path,
    known: Option<&Version>,
    limits: Limits,
) -> Result<Option<Version>, Error> {
    let shown = || without_password(url);
    let (plain, authorization) = without_user(url);
    let agent = downloads(settings, url)?;
    let mut request = agent.get(&plain).config().timeout_global(Some(limits.time)).build();
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    for (condition, value) in known.iter().flat_map(|known| match &known.etag {
        Some(etag) => Some(("if-none-match", etag)),
        None => known.last_modified.as_ref().map(|time| ("if-modified-since", time)),
    }) {
        request = request.header(condition, value);
    }
    let answer = request.call().map_err(|error| failure(shown(), error))?;
    if known.is_some() && answer.status() == StatusCode::NOT_MODIFIED {
        return Ok(None);
    }
    if !answer.status().is_success() {
        return Err(Error::Status { url: shown(), code: answer.status().as_u16() });
    }
    let version = Version::of(&answer);
    let header = answer.headers().get("last-modified").and_then(|value| value.to_str().ok());
    let time = header.and_then(|value| httpdate::parse_http_date(value).ok()).unwrap_or(SystemTime::UNIX_EPOCH);
    let length = answer.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let encoded = answer.headers().contains_key("content-encoding");
    let slow = || Error::TooSlow { url: shown(), seconds: limits.time.as_secs() };
    let written = (|| {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(into)?;
        let copied = io::copy(&mut answer.into_body().into_reader().take(limits.bytes + 1), &mut file)?;
        if copied > limits.bytes {
            return Ok(false);
        }
        if let Some(length) = length.filter(|length| *length != copied && !encoded) {
            return Err(io::Error::other(format!("{copied} of {length} bytes have come")));
        }
        file.set_modified(time).map(|()| true)
    })();
    let failed = |source: io::Error| match source.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(ureq::Error::Timeout(ureq::Timeout::Global)) => slow(),
        _ => Error::Io { url: shown(), source },
    };
    match written.map_err(failed)? {
        true => Ok(Some(version)),
        false => Err(Error::TooLarge { url: shown(), bytes: limits.bytes }),
    }
}

/// The URL without user and password, and the header that they are.
fn without_user(url: &str) -> (String, Option<String>) {
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').unwrap_or((user, ""));
            let text = STANDARD.encode(format!("{}:{}", decoded(user.0), decoded(user.1)));
            (format!("{scheme}://{host}{path}"), Some(format!("Basic {text}")))
        }
        None => (url.to_owned(), None),
    }
}

/// What a file is called when the destination is a folder.
pub(super) fn name(url: &str) -> String {
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let path = decoded(path);
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if matches!(name, "" | "." | "..") || name.contains('\0') { "__unnamed__".to_owned() } else { name.to_owned() }
}

/// `%20` is a blank.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        match (*first, digits) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (byte, _) => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn failure(url: String, error: ureq::Error) -> Error {
    match error {
        ureq::Error::Io(source) => Error::Io { url, source },
        ureq::Error::HostNotFound => Error::Refused { url, reason: "there is no such host".to_owned() },
        ureq::Error::Timeout(_) => Error::Refused { url, reason: "the server does not answer in time".to_owned() },
        ureq::Error::RequireHttpsOnly(_) => {
            Error::Refused { url, reason: "it leads on to an address without https".to_owned() }
        }
        // What the URL was, with what is wrong: the crate's words.
        other => Error::Refused { url, reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_what_the_path_ends_with() {
        for (url, expected) in [
            ("https://h/a/b.tar?x=/y", "b.tar"),
            ("http://h", "__unnamed__"),
            ("http://h/", "__unnamed__"),
            ("http://h/a%20b", "a b"),
            ("http://h/x/%2e%2e", "__unnamed__"),
            ("http://h/..%2f..%2fetc%2fpasswd", "passwd"),
        ] {
            assert_eq!(name(url), expected, "{url}");
        }
    }

    #[test]
    fn who_asks_goes_into_a_header() {
        let (url, header) = without_user("https://me:p%40ss@h:1/x");
        assert_eq!((url.as_str(), header.as_deref()), ("https://h:1/x", Some("Basic bWU6cEBzcw==")));
        assert_eq!(without_user("http://h/@"), ("http://h/@".to_owned(), None));
    }

    /// A server that gives one answer after the other, and what it was asked.
    fn serve(answers: Vec<String>) -> (u16, std::thread::JoinHandle<Vec<String>>) {
        use std::io::Write;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let work = move || {
            let asked = |answer: &String| {
                let (mut client, _) = listener.accept().unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    client.read_exact(&mut byte).unwrap();
                    head.extend(byte);
                }
                // Slowly; who has heard enough goes away.
                let mut parts = answer.split_inclusive('~');
                while parts.next().is_some_and(|part| client.write_all(part.as_bytes()).is_ok()) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                String::from_utf8(head).unwrap().to_ascii_lowercase()
            };
            answers.iter().map(asked).collect()
        };
        (port, std::thread::spawn(work))
    }

    fn fetch(url: &str, bytes: u64, time: Duration) -> Result<Vec<u8>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("file");
        let settings = Settings::read(&std::collections::BTreeMap::new()).unwrap();
        download(&settings, url, &into, None, Limits { bytes, time })?;
        Ok(std::fs::read(into).unwrap())
    }

    #[test]
    fn who_leads_elsewhere_gives_nothing_away() {
        const LONG: Duration = Duration::from_secs(30);
        let ok = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok".to_owned();
        let (other, asked_there) = serve(vec![ok]);
        let to = |location: &str| format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let answers = vec![to(&format!("http://localhost:{other}/x")), to("file:///etc/passwd")];
        let (port, asked_here) = serve(answers);
        let url = format!("http://me:secret@127.0.0.1:{port}/a");
        assert_eq!(fetch(&url, 1 << 20, LONG).unwrap(), b"ok");
        assert!(fetch(&url, 1 << 20, LONG).is_err(), "a file of this machine");
        assert!(asked_here.join().unwrap().iter().all(|head| head.contains("authorization: basic")));
        let there = asked_there.join().unwrap();
        assert!(!there[0].contains("authorization") && !there[0].contains("secret"), "{there:?}");
    }

    #[test]
    fn a_body_ends_by_its_size_or_its_time() {
        let body = |text: &str| format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{text}");
        let (port, _) = serve(vec![body(&"x".repeat(5000)), body(&"x~".repeat(500))]);
        let url = format!("http://127.0.0.1:{port}/a");
        assert!(matches!(fetch(&url, 1000, Duration::from_secs(30)), Err(Error::TooLarge { .. })));
        let slow = fetch(&url, 1000, Duration::from_secs(1));
        assert!(matches!(slow, Err(Error::TooSlow { .. })), "{slow:?}");
    }
}
