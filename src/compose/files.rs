//! Reading what a user names: never blocking, never without bounds, never guessing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::base::diagnostic::{Diagnostic, Place};
use std::sync::Arc;

/// No file that a person wrote is larger.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum ReadError {
    Missing,
    Other(Diagnostic),
}

/// Reads a text file. Anything but a regular file is an error: nothing is opened that could block.
pub(super) fn read(path: &Path) -> Result<String, ReadError> {
    let shown = path.display();
    let fail = |code, message: String| Err(ReadError::Other(Diagnostic::error(code, None, message)));
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Missing),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return fail("unreadable-file", format!("cannot open `{shown}`: its symbolic links go round in a circle"));
        }
        Err(error) => return fail("unreadable-file", format!("cannot open `{shown}`: {}", reason(&error))),
    };
    let metadata = match file.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return fail("unreadable-file", format!("cannot read `{shown}`: {}", reason(&error))),
    };
    if metadata.is_dir() {
        return fail("not-a-file", format!("`{shown}` is a directory, not a file"));
    }
    if !metadata.is_file() && !is_null_device(path) {
        return fail("not-a-file", format!("`{shown}` is not a regular file"));
    }
    text(file, &shown.to_string(), path)
}

/// Reads standard input to its end.
pub(super) fn read_stdin() -> Result<String, ReadError> {
    text(io::stdin().lock(), "standard input", Path::new("-"))
}

fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

fn is_null_device(path: &Path) -> bool {
    path == Path::new("/dev/null")
}

fn text(source: impl Read, shown: &str, path: &Path) -> Result<String, ReadError> {
    let mut bytes = Vec::new();
    let fail = |place, message: String| Err(ReadError::Other(Diagnostic::error("unreadable-file", place, message)));
    if let Err(error) = source.take(MAX_BYTES + 1).read_to_end(&mut bytes) {
        return fail(None, format!("cannot read `{shown}`: {}", reason(&error)));
    }
    if bytes.len() as u64 > MAX_BYTES {
        return fail(None, format!("`{shown}` is larger than {} MiB", MAX_BYTES >> 20));
    }
    let place = |offset: usize| {
        let before = bytes.get(..offset).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Some(Place { file: Arc::new(PathBuf::from(path)), line: small(line), column: small(column), length: 0 })
    };
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return fail(place(offset), format!("`{shown}` is a binary file, not text: it has a NUL byte"));
    }
    match std::str::from_utf8(&bytes) {
        Ok(_) => {}
        Err(error) => return fail(place(error.valid_up_to()), format!("`{shown}` is not text in UTF-8")),
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => fail(None, format!("`{shown}` is not text in UTF-8")),
    }
}

/// The system's words without the error number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
