//! Answers, and errors as the specification writes them.

use std::io;

use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::body::Answer;
use crate::image;
use crate::image::{Digest, ShelfError};

pub(super) type Answered = Response<Answer>;

/// A request that is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    /// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes>
    code: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn no_blob(digest: &Digest) -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", format!("there is no blob {digest} in the repository"))
    }

    pub(super) fn no_manifest(which: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            format!("there is no manifest `{which}` in the repository"),
        )
    }

    pub(super) fn no_repository() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is no such repository")
    }

    pub(super) fn no_upload() -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
    }

    pub(super) fn answer(self) -> Answered {
        let document = json!({ "errors": [{ "code": self.code, "message": self.message }] });
        json(self.status, &document)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        let message = match error.kind() {
            io::ErrorKind::StorageFull => "no space is left on the disk".to_owned(),
            _ => error.to_string(),
        };
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message)
    }
}

impl From<image::Error> for Refusal {
    fn from(error: image::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", error.to_string())
    }
}

impl From<ShelfError> for Refusal {
    fn from(error: ShelfError) -> Self {
        let message = error.to_string();
        match error {
            ShelfError::WrongDigest { .. } => Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message),
            ShelfError::NoUpload => Self::no_upload(),
            ShelfError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, "DENIED", message),
            ShelfError::Busy => Self::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", message),
            ShelfError::BadManifest(_) => Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message),
            ShelfError::NoBlob(_) => Self::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", message),
            ShelfError::Io(error) => error.into(),
        }
    }
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode, headers: &[(&'static str, String)]) -> Answered {
    with_headers(status, headers, Answer::empty())
}

pub(super) fn json(status: StatusCode, document: &Value) -> Answered {
    let body = Answer::of(document.to_string());
    with_headers(status, &[("content-type", "application/json".to_owned())], body)
}

pub(super) fn with_headers(status: StatusCode, headers: &[(&'static str, String)], body: Answer) -> Answered {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let own = [("docker-distribution-api-version", "registry/2.0".to_owned())];
    for (name, value) in own.iter().chain(headers) {
        // What is put in here are digests, numbers, and names that have been checked.
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    answer
}

/// The answer to `HEAD`: what `GET` would say, without the body.
pub(super) fn head(answer: Answered) -> Answered {
    let length = hyper::body::Body::size_hint(answer.body()).exact().unwrap_or_default();
    let (mut parts, _) = answer.into_parts();
    parts.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    parts.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/octet-stream"));
    Response::from_parts(parts, Answer::empty())
}
