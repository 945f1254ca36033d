//! From a request to its answer.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, HOST, ORIGIN, RANGE};
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::Library;
use super::answer::{Answered, Refusal, empty, head, json, with_headers};
use super::body::Answer;
use super::route::{Route, allows, is_local, parameter, range, route};
use crate::image::{Digest, Kept, Repository, Shared, ShelfError, Upload, Which};

/// Manifests are kept in memory; larger ones are refused.
const MAX_MANIFEST: usize = 4 * 1024 * 1024;
/// So much of what is too large is read.
const PATIENCE: usize = 64 * 1024 * 1024;
/// So long it may take to notice that a connection is gone.
const BROKEN_OFF: Duration = Duration::from_secs(2);
const INDEX: &str = crate::image::manifest::INDEX;

/// Answers one request; whatever goes wrong is an answer, too.
pub(super) async fn handle(library: &Library, request: Request<Incoming>) -> Answered {
    let is_head = request.method() == Method::HEAD;
    let answer = answer(library, request).await.unwrap_or_else(Refusal::answer);
    if is_head { head(answer) } else { answer }
}

async fn answer(library: &Library, request: Request<Incoming>) -> Result<Answered, Refusal> {
    let host = header(&request, &HOST).unwrap_or_default();
    if library.is_local && !is_local(host) {
        let message = "this registry is for this machine, by the names `localhost` and 127.0.0.1";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "DENIED", message));
    }
    // No client of registries says so, and a browser always does where a page of one site has something sent to another.
    if header(&request, &ORIGIN).is_some() {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "DENIED", "this registry is not for pages in a browser"));
    }
    let route = route(request.uri().path());
    let route = route.map_err(|(code, message)| {
        let status = if code == "UNSUPPORTED" { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
        let status = if code == "MANIFEST_UNKNOWN" { StatusCode::NOT_FOUND } else { status };
        Refusal::new(status, code, message)
    })?;
    if !allows(&route, request.method()) {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this is not done to such a path"));
    }
    match route {
        Route::Base => Ok(json(StatusCode::OK, &json!({}))),
        Route::Catalog => catalog(library, &request),
        Route::Tags(repository) => tags(library, &repository, &request),
        Route::Referrers(repository, subject) => referrers(library, &repository, &subject, &request),
        Route::Manifest(repository, which) => manifest(library, &repository, &which, request).await,
        Route::Blob(repository, digest) => blob(library, &repository, &digest, &request),
        Route::Uploads(repository) => begin(library, &repository, request).await,
        Route::Upload(repository, id) => upload(library, &repository, &id, request).await,
    }
}

fn header<'a>(request: &'a Request<Incoming>, name: &hyper::header::HeaderName) -> Option<&'a str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}

type Headers = Vec<(&'static str, String)>;

/// A page of a sorted list, and where the next one is.
fn page(all: Vec<String>, request: &Request<Incoming>) -> Result<(Vec<String>, Headers), Refusal> {
    let query = request.uri().query();
    let last = parameter(query, "last");
    let mut names: Vec<String> = all.into_iter().filter(|name| last.as_ref().is_none_or(|last| name > last)).collect();
    let Some(count) = parameter(query, "n") else { return Ok((names, Vec::new())) };
    let bad = || Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", "`n` is not a number");
    let count: usize = count.parse().map_err(|_| bad())?;
    let more = names.len() > count;
    names.truncate(count);
    let link = names
        .last()
        .filter(|_| more)
        .map(|last| ("link", format!("<{}?n={count}&last={last}>; rel=\"next\"", request.uri().path())));
    Ok((names, link.into_iter().collect()))
}

fn catalog(library: &Library, request: &Request<Incoming>) -> Result<Answered, Refusal> {
    let (names, headers) = page(library.shelf.repositories()?.into_iter().collect(), request)?;
    let mut answer = json(StatusCode::OK, &json!({ "repositories": names }));
    answer.headers_mut().extend(empty(StatusCode::OK, &headers).headers().clone());
    Ok(answer)
}

fn tags(library: &Library, repository: &Repository, request: &Request<Incoming>) -> Result<Answered, Refusal> {
    let mut all = library.shelf.tags(repository)?;
    all.extend(library.store.shared_tags(repository)?);
    if all.is_empty() && !library.shelf.has(repository) {
        return Err(Refusal::no_repository());
    }
    let (names, headers) = page(all.into_iter().collect(), request)?;
    let mut answer = json(StatusCode::OK, &json!({ "name": repository.name(), "tags": names }));
    answer.headers_mut().extend(empty(StatusCode::OK, &headers).headers().clone());
    Ok(answer)
}

fn referrers(
    library: &Library,
    repository: &Repository,
    subject: &Digest,
    request: &Request<Incoming>,
) -> Result<Answered, Refusal> {
    let mut found = library.shelf.referrers(repository, subject)?;
    let mut headers = vec![("content-type", INDEX.to_owned())];
    if let Some(wanted) = parameter(request.uri().query(), "artifactType") {
        found.retain(|one| one.get("artifactType").and_then(|kind| kind.as_str()) == Some(&wanted));
        headers.push(("oci-filters-applied", "artifactType".to_owned()));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": found });
    Ok(with_headers(StatusCode::OK, &headers, Answer::of(index.to_string())))
}

async fn manifest(
    library: &Library,
    repository: &Repository,
    which: &Which,
    request: Request<Incoming>,
) -> Result<Answered, Refusal> {
    match *request.method() {
        Method::PUT => put_manifest(library, repository, which, request).await,
        Method::DELETE => match library.shelf.delete_manifest(repository, which)? {
            true => Ok(empty(StatusCode::ACCEPTED, &[])),
            false => Err(Refusal::no_manifest(&shown(which))),
        },
        _ => {
            let kept = find_manifest(library, repository, which)?.ok_or_else(|| Refusal::no_manifest(&shown(which)))?;
            let headers = [
                ("content-type", kept.media_type),
                ("docker-content-digest", kept.digest.to_string()),
                ("etag", format!("\"{}\"", kept.digest)),
            ];
            Ok(with_headers(StatusCode::OK, &headers, Answer::of(kept.bytes)))
        }
    }
}

fn shown(which: &Which) -> String {
    match which {
        Which::Tag(tag) => tag.clone(),
        Which::Digest(digest) => digest.to_string(),
    }
}

/// What was pushed; else an image of the store.
fn find_manifest(library: &Library, repository: &Repository, which: &Which) -> Result<Option<Kept>, Refusal> {
    if let Some(kept) = library.shelf.manifest(repository, which)? {
        return Ok(Some(kept));
    }
    match which {
        Which::Tag(tag) => Ok(library.store.shared_manifest(repository, tag)?),
        Which::Digest(digest) => {
            for tag in library.store.shared_tags(repository)? {
                let found = library.store.shared_manifest(repository, &tag)?;
                if let Some(kept) = found.filter(|kept| kept.digest == *digest) {
                    return Ok(Some(kept));
                }
            }
            Ok(None)
        }
    }
}

/// A body that must be small. A larger one is read to its end all the same, so that its sender hears the answer.
async fn document(mut body: Incoming, silence: Duration) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let mut count = 0;
    while let Some(data) = next_part(&mut body, silence, "MANIFEST_INVALID").await? {
        count += data.len();
        if count <= MAX_MANIFEST {
            bytes.extend_from_slice(&data);
        } else if count > PATIENCE {
            break;
        }
    }
    match count <= MAX_MANIFEST {
        true => Ok(bytes),
        false => Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", "it is larger than 4 MiB")),
    }
}

async fn put_manifest(
    library: &Library,
    repository: &Repository,
    which: &Which,
    request: Request<Incoming>,
) -> Result<Answered, Refusal> {
    let media_type = header(&request, &CONTENT_TYPE).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
    let bytes = document(request.into_body(), library.silence).await?;
    let (digest, subject) = library.shelf.put_manifest(repository, which, &media_type, &bytes)?;
    let mut headers = vec![
        ("location", format!("/v2/{}/manifests/{digest}", repository.name())),
        ("docker-content-digest", digest.to_string()),
    ];
    headers.extend(subject.map(|subject| ("oci-subject", subject.to_string())));
    Ok(empty(StatusCode::CREATED, &headers))
}

fn blob(
    library: &Library,
    repository: &Repository,
    digest: &Digest,
    request: &Request<Incoming>,
) -> Result<Answered, Refusal> {
    if *request.method() == Method::DELETE {
        return match library.shelf.delete_blob(repository, digest)? {
            true => Ok(empty(StatusCode::ACCEPTED, &[])),
            false => Err(Refusal::no_blob(digest)),
        };
    }
    let wanted = header(request, &RANGE);
    if let Some(file) = library.shelf.blob(repository, digest)? {
        let size = file.metadata()?.len();
        return stretch(digest, wanted, size, |start, end| Answer::part_of(file, start, end));
    }
    match library.store.shared_blob(repository, digest)?.ok_or_else(|| Refusal::no_blob(digest))? {
        Shared::Document(bytes) => stretch(digest, wanted, bytes.len() as u64, |start, end| {
            let place = |at: u64| usize::try_from(at).map_err(io::Error::other);
            Ok(Answer::of(bytes.get(place(start)?..=place(end)?).unwrap_or_default().to_vec()))
        }),
        Shared::Layer(size) if *request.method() == Method::HEAD => {
            let headers = [("content-length", size.to_string()), ("docker-content-digest", digest.to_string())];
            Ok(empty(StatusCode::OK, &headers))
        }
        Shared::Layer(size) => {
            let (store, layer) = (library.store.clone(), digest.clone());
            stretch(digest, wanted, size, |start, end| {
                Answer::written(start, end, move |output| {
                    store.write_layer(&layer, output).map_err(|error| match error {
                        crate::image::Error::Write(error) => error,
                        other => io::Error::other(other),
                    })
                })
            })
        }
    }
}

/// A whole blob, or the part that is asked for.
fn stretch(
    digest: &Digest,
    wanted: Option<&str>,
    size: u64,
    body: impl FnOnce(u64, u64) -> io::Result<Answer>,
) -> Result<Answered, Refusal> {
    let mut headers = vec![
        ("content-type", "application/octet-stream".to_owned()),
        ("docker-content-digest", digest.to_string()),
        ("accept-ranges", "bytes".to_owned()),
    ];
    let (status, start, end) = match range(wanted, size) {
        Some(None) => {
            let headers = [("content-range", format!("bytes */{size}"))];
            return Ok(empty(StatusCode::RANGE_NOT_SATISFIABLE, &headers));
        }
        Some(Some((start, end))) => {
            headers.push(("content-range", format!("bytes {start}-{end}/{size}")));
            (StatusCode::PARTIAL_CONTENT, start, end)
        }
        None if size == 0 => return Ok(with_headers(StatusCode::OK, &headers, Answer::empty())),
        None => (StatusCode::OK, 0, size - 1),
    };
    Ok(with_headers(status, &headers, body(start, end)?))
}

async fn begin(library: &Library, repository: &Repository, request: Request<Incoming>) -> Result<Answered, Refusal> {
    let query = request.uri().query().map(str::to_owned);
    let digest = |name| parameter(query.as_deref(), name).map(|text| Digest::parse(&text).ok_or_else(bad_digest));
    if let Some(wanted) = digest("mount").transpose()? {
        let from = parameter(query.as_deref(), "from").and_then(|name| Repository::parse(&name));
        if library.shelf.mount(repository, &wanted, from.as_ref())? {
            return Ok(created(repository, &wanted));
        }
    }
    let whole = digest("digest").transpose()?;
    let id = library.shelf.begin()?;
    match whole {
        Some(digest) => finish(library, repository, &id, &digest, request).await,
        None => Ok(progress(StatusCode::ACCEPTED, repository, &id, 0)),
    }
}

fn bad_digest() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "only sha256 digests are known here")
}

fn created(repository: &Repository, digest: &Digest) -> Answered {
    let headers = [
        ("location", format!("/v2/{}/blobs/{digest}", repository.name())),
        ("docker-content-digest", digest.to_string()),
    ];
    empty(StatusCode::CREATED, &headers)
}

/// How far an upload is.
fn progress(status: StatusCode, repository: &Repository, id: &str, size: u64) -> Answered {
    let headers = [
        ("location", format!("/v2/{}/blobs/uploads/{id}", repository.name())),
        ("docker-upload-uuid", id.to_owned()),
        ("range", format!("0-{}", size.saturating_sub(1))),
    ];
    empty(status, &headers)
}

async fn upload(
    library: &Library,
    repository: &Repository,
    id: &str,
    request: Request<Incoming>,
) -> Result<Answered, Refusal> {
    match *request.method() {
        Method::DELETE => match library.shelf.cancel(id)? {
            true => Ok(empty(StatusCode::NO_CONTENT, &[])),
            false => Err(Refusal::no_upload()),
        },
        Method::PATCH => match append(library, repository, id, request).await? {
            Ok(refused) => Ok(refused),
            Err(upload) => Ok(progress(StatusCode::ACCEPTED, repository, id, upload.file.metadata()?.len())),
        },
        Method::PUT => {
            let digest = parameter(request.uri().query(), "digest").and_then(|text| Digest::parse(&text));
            finish(library, repository, id, &digest.ok_or_else(bad_digest)?, request).await
        }
        _ => {
            let file = library.shelf.upload(id)?.ok_or_else(Refusal::no_upload)?;
            Ok(progress(StatusCode::NO_CONTENT, repository, id, file.metadata()?.len()))
        }
    }
}

async fn finish(
    library: &Library,
    repository: &Repository,
    id: &str,
    digest: &Digest,
    request: Request<Incoming>,
) -> Result<Answered, Refusal> {
    match append(library, repository, id, request).await? {
        Ok(refused) => Ok(refused),
        Err(upload) => {
            library.shelf.finish(repository, upload, digest)?;
            Ok(created(repository, digest))
        }
    }
}

/// Writes a request's body to the end of an upload. `Ok(Err(…))`: the upload, held still; `Ok(Ok(…))`: the answer to
/// a chunk that does not begin there.
async fn append(
    library: &Library,
    repository: &Repository,
    id: &str,
    request: Request<Incoming>,
) -> Result<Result<Answered, Upload>, Refusal> {
    let mut upload = alone(library, id).await?;
    let size = upload.file.metadata()?.len();
    if let Some(text) = header(&request, &CONTENT_RANGE) {
        let start =
            text.trim_start_matches("bytes ").split('-').next().and_then(|start| start.trim().parse::<u64>().ok());
        if start != Some(size) {
            return Ok(Ok(progress(StatusCode::RANGE_NOT_SATISFIABLE, repository, id, size)));
        }
    }
    // What came of a chunk that broke off stays: the client asks how far it is and goes on there.
    let mut body = request.into_body();
    while let Some(bytes) = next_part(&mut body, library.silence, "BLOB_UPLOAD_INVALID").await? {
        if let Err(full) = library.shelf.check_room(&upload.file) {
            library.shelf.cancel(id)?;
            // So that its sender hears the answer.
            let mut count = 0;
            while let Some(bytes) = next_part(&mut body, library.silence, "BLOB_UPLOAD_INVALID").await?
                && count < PATIENCE
            {
                count += bytes.len();
            }
            return Err(full.into());
        }
        upload.file.write_all(&bytes)?;
    }
    Ok(Err(upload))
}

/// An upload for one request: two chunks at once would be mixed. The request before may have broken off a moment ago, and the
/// thread of its connection not have noticed.
async fn alone(library: &Library, id: &str) -> Result<Upload, Refusal> {
    let deadline = Instant::now() + BROKEN_OFF;
    loop {
        match library.shelf.upload_alone(id) {
            Err(ShelfError::Busy) if Instant::now() < deadline => sleep(BROKEN_OFF / 100).await,
            got => return Ok(got?),
        }
    }
}

/// The next bytes of a body; `None` at its end. Who sends nothing any more is not waited for: there are only so many connections.
async fn next_part(body: &mut Incoming, silence: Duration, code: &'static str) -> Result<Option<Bytes>, Refusal> {
    loop {
        let Ok(frame) = timeout(silence, body.frame()).await else {
            return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, code, "the rest of the body has not come"));
        };
        let Some(frame) = frame else { return Ok(None) };
        let frame = frame.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, code, error.to_string()))?;
        // Trailers mean nothing here.
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
}
