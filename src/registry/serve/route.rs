//! What a request is about. No socket, no disk.

use hyper::Method;

use crate::image::{Digest, Repository, Which};

/// A request, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Whether the API is here.
    Base,
    Catalog,
    Tags(Repository),
    Referrers(Repository, Digest),
    Manifest(Repository, Which),
    Blob(Repository, Digest),
    /// Begins an upload.
    Uploads(Repository),
    Upload(Repository, String),
}

/// Why a path is none of ours: a code of the specification, and words.
pub(super) type Refused = (&'static str, &'static str);

/// Understands a path.
///
/// # Errors
/// It is not one of the API, or a name in it is not valid.
pub(super) fn route(path: &str) -> Result<Route, Refused> {
    let rest = path.strip_prefix("/v2").ok_or(("UNSUPPORTED", "this is a registry: its paths begin with /v2/"))?;
    if matches!(rest, "" | "/") {
        return Ok(Route::Base);
    }
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    if rest == "_catalog" {
        return Ok(Route::Catalog);
    }
    let name = |name: &str| Repository::parse(name).ok_or(("NAME_INVALID", "the name of the repository is not valid"));
    let digest = |text: &str| Digest::parse(text).ok_or(("DIGEST_INVALID", "only sha256 digests are known here"));
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        return Ok(Route::Tags(name(repository)?));
    }
    if let Some(repository) = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads")) {
        return Ok(Route::Uploads(name(repository)?));
    }
    let (front, last) = rest.rsplit_once('/').ok_or(("NAME_INVALID", "this is not a path of the API"))?;
    if let Some(repository) = front.strip_suffix("/blobs/uploads") {
        return Ok(Route::Upload(name(repository)?, last.to_owned()));
    }
    if let Some(repository) = front.strip_suffix("/blobs") {
        return Ok(Route::Blob(name(repository)?, digest(last)?));
    }
    if let Some(repository) = front.strip_suffix("/manifests") {
        let which = Which::parse(last).ok_or(("MANIFEST_UNKNOWN", "this is neither a tag nor a sha256 digest"))?;
        return Ok(Route::Manifest(name(repository)?, which));
    }
    if let Some(repository) = front.strip_suffix("/referrers") {
        return Ok(Route::Referrers(name(repository)?, digest(last)?));
    }
    Err(("UNSUPPORTED", "this is not a path of the API"))
}

/// The methods that a route has.
pub(super) fn allows(route: &Route, method: &Method) -> bool {
    let read = *method == Method::GET || *method == Method::HEAD;
    match route {
        Route::Base | Route::Catalog | Route::Tags(_) | Route::Referrers(..) => read,
        Route::Manifest(..) => read || *method == Method::PUT || *method == Method::DELETE,
        Route::Blob(..) => read || *method == Method::DELETE,
        Route::Uploads(_) => *method == Method::POST,
        Route::Upload(..) => [Method::GET, Method::PATCH, Method::PUT, Method::DELETE].contains(method),
    }
}

/// The value of a query parameter, unescaped.
pub(super) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let pair = query?.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))?;
    let mut bytes = Vec::new();
    let mut rest = pair.1.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Whether the `Host` of a request is this machine by a name that nobody else can give: a page in a browser that has its own
/// name point to 127.0.0.1 is not answered.
pub(super) fn is_local(host: &str) -> bool {
    let name = crate::registry::settings::host(host);
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

/// The inclusive range of a `Range: bytes=…` header on something of `size` bytes. `None`: send all of it. `Some(None)`:
/// there is no such part.
pub(super) fn range(header: Option<&str>, size: u64) -> Option<Option<(u64, u64)>> {
    let (start, end) = header?.trim().strip_prefix("bytes=")?.split_once('-')?;
    let last = size.checked_sub(1);
    let (start, end) = match (start.parse::<u64>(), end.parse::<u64>()) {
        (Ok(start), Ok(end)) if start <= end => (start, end),
        (Ok(start), Err(_)) if end.is_empty() => (start, u64::MAX),
        // The last so many bytes.
        (Err(_), Ok(count)) if start.is_empty() && count > 0 => (size.saturating_sub(count), u64::MAX),
        _ => return None,
    };
    Some(last.filter(|last| start <= *last).map(|last| (start, end.min(last))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_understood() {
        let hex = "a".repeat(64);
        let repository = |name: &str| Repository::parse(name).unwrap();
        let digest = Digest::from_hex(&hex).unwrap();
        assert_eq!(route("/v2/"), Ok(Route::Base));
        assert_eq!(route("/v2/_catalog"), Ok(Route::Catalog));
        assert_eq!(route("/v2/a/b/tags/list"), Ok(Route::Tags(repository("a/b"))));
        assert_eq!(route("/v2/a/blobs/uploads/"), Ok(Route::Uploads(repository("a"))));
        assert_eq!(route("/v2/a/blobs/uploads/1-2"), Ok(Route::Upload(repository("a"), "1-2".to_owned())));
        assert_eq!(route(&format!("/v2/a/blobs/sha256:{hex}")), Ok(Route::Blob(repository("a"), digest.clone())));
        assert_eq!(route(&format!("/v2/a/referrers/sha256:{hex}")), Ok(Route::Referrers(repository("a"), digest)));
        // A repository may be called like a part of a path.
        assert_eq!(
            route("/v2/manifests/manifests/latest"),
            Ok(Route::Manifest(repository("manifests"), Which::Tag("latest".to_owned())))
        );
        for bad in
            ["/", "/v1/x", "/v2/../etc/manifests/x", "/v2/A/manifests/x", "/v2/a/blobs/sha512:00", "/v2/a/manifests/.."]
        {
            assert!(route(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_are_clipped_or_refused() {
        assert_eq!(range(None, 10), None);
        assert_eq!(range(Some("bytes=2-4"), 10), Some(Some((2, 4))));
        assert_eq!(range(Some("bytes=2-"), 10), Some(Some((2, 9))));
        assert_eq!(range(Some("bytes=2-99"), 10), Some(Some((2, 9))));
        assert_eq!(range(Some("bytes=-3"), 10), Some(Some((7, 9))));
        assert_eq!(range(Some("bytes=10-"), 10), Some(None));
        assert_eq!(range(Some("bytes=0-"), 0), Some(None));
        assert_eq!(range(Some("lines=1-2"), 10), None);
    }

    #[test]
    fn other_names_for_this_machine_are_not_answered() {
        assert!(is_local("localhost:5000") && is_local("127.0.0.1") && is_local("[::1]:5000"));
        assert!(!is_local("attacker.example:5000") && !is_local(""));
    }

    proptest! {
        #[test]
        fn any_path_and_query_ends(text in "\\PC*") {
            let _ = route(&text);
            let _ = route(&format!("/v2/{text}"));
            let _ = parameter(Some(&text), "n");
            let _ = range(Some(&text), 7);
        }
    }
}
