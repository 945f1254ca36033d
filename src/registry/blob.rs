//! A blob being fetched: whatever cuts the connection, reading goes on where it stopped.

use std::io::{self, Read};
use std::thread;

use ureq::http::StatusCode;
use ureq::{Body, BodyReader};

use super::endpoint::{Endpoint, Scope};
use super::error::Error;
use super::retry::{self, Attempt};
use super::settings::Settings;
use super::transport;
use crate::image::Descriptor;

/// The bytes of a blob, as many as its descriptor says. Whoever reads them checks the digest.
pub(super) struct BlobReader<'a> {
    settings: &'a Settings,
    endpoint: &'a Endpoint,
    scope: Scope,
    url: String,
    blob: Descriptor,
    /// Bytes that have been read.
    position: u64,
    body: Option<BodyReader<'static>>,
    /// Connections in a row that brought nothing.
    failures: u32,
    /// Is told the position.
    told: Box<dyn Fn(u64) + Send + 'a>,
}

impl<'a> BlobReader<'a> {
    /// Asks for the blob.
    pub(super) fn open(
        settings: &'a Settings,
        endpoint: &'a Endpoint,
        repository: &str,
        blob: &Descriptor,
        told: Box<dyn Fn(u64) + Send + 'a>,
    ) -> Result<Self, Error> {
        let url = format!("{}/v2/{repository}/blobs/{}", endpoint.base, blob.digest);
        let scope = Scope::pull(repository);
        let blob = blob.clone();
        let mut reader = Self { settings, endpoint, scope, url, blob, position: 0, body: None, failures: 0, told };
        reader.body = Some(reader.connect()?);
        Ok(reader)
    }

    /// The blob from the present position on.
    fn connect(&self) -> Result<BodyReader<'static>, Error> {
        let answer = self.endpoint.request(self.settings, &self.scope, &mut |agent, authorization| {
            let mut request = agent.get(&self.url).header("accept-encoding", "identity");
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            if self.position > 0 {
                request = request.header("range", format!("bytes={}-", self.position));
            }
            request.call()
        });
        let answer = answer.map_err(|error| match error {
            Error::NotFound { registry, .. } => Error::NotFound { registry, name: self.blob.digest.to_string() },
            other => other,
        })?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let length = header("content-length").and_then(|text| text.parse::<u64>().ok());
        let is_part = answer.status() == StatusCode::PARTIAL_CONTENT;
        let start = if is_part { range_start(header("content-range").unwrap_or_default()) } else { Some(0) };
        let expected = self.blob.size - if is_part { self.position } else { 0 };
        if let Some(found) = length.filter(|length| *length != expected) {
            let (registry, what) = (self.endpoint.registry.clone(), self.blob.digest.to_string());
            return Err(Error::WrongSize { registry, what, expected, found });
        }
        let mut body: BodyReader<'static> = Body::into_reader(answer.into_body());
        let skip = match start {
            Some(start) if start == self.position => 0,
            // A server without ranges begins again.
            Some(0) => self.position,
            _ => {
                let reason = "it sends another part of a blob than it was asked for".to_owned();
                return Err(Error::Protocol { registry: self.endpoint.registry.clone(), reason });
            }
        };
        match io::copy(&mut body.by_ref().take(skip), &mut io::sink()) {
            Ok(skipped) if skipped == skip => Ok(body),
            Ok(_) => Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn broken(&self, source: io::Error) -> Error {
        match source.downcast::<ureq::Error>() {
            Ok(error) => transport::failure(&self.endpoint.registry, error),
            Err(source) => Error::Broken { registry: self.endpoint.registry.clone(), source },
        }
    }

    /// The connection is lost: waits a little, or gives up.
    fn pause(&mut self, error: Error) -> Result<(), Error> {
        self.body = None;
        self.failures += 1;
        match (&error, retry::pause(Attempt::Connection, self.failures)) {
            (
                Error::Broken { .. } | Error::Timeout { .. } | Error::Unreachable { .. } | Error::Protocol { .. },
                Some(pause),
            ) => {
                thread::sleep(pause);
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn read_once(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        if self.body.is_none() {
            self.body = Some(self.connect()?);
        }
        let Some(body) = &mut self.body else { return Ok(0) };
        loop {
            match body.read(buffer) {
                Ok(0) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => return Ok(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.size - self.position;
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        loop {
            match self.read_once(buffer.get_mut(..length).unwrap_or_default()) {
                Ok(read) => {
                    self.failures = 0;
                    self.position += read as u64;
                    (self.told)(self.position);
                    return Ok(read);
                }
                Err(error) => self.pause(error).map_err(io::Error::other)?,
            }
        }
    }
}

/// The first byte's number in `bytes 5-9/10`.
fn range_start(header: &str) -> Option<u64> {
    header.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(range_start("bytes 5-9/10"), Some(5));
        assert_eq!(range_start("bytes */10"), None);
        assert_eq!(range_start("items 1-2/3"), None);
        assert_eq!(range_start(""), None);
    }
}
