//! Plain, gzip and zstd streams, told apart by their first bytes.

use std::io::{self, BufRead, Read, Write};

/// How a layer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// The archive formats nobody here reads, by their first bytes, so that the error can name them.
const FOREIGN: &[(&[u8], &str)] =
    &[(b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"PK\x03\x04", "zip"), (b"\x04\x22\x4d\x18", "lz4")];

impl Compression {
    /// Looks at the first bytes without taking them.
    ///
    /// # Errors
    /// Reading fails, or the bytes begin a format that is not supported.
    pub(super) fn sniff(input: &mut impl BufRead) -> io::Result<Self> {
        let start = input.fill_buf()?;
        if start.starts_with(&[0x1f, 0x8b]) {
            return Ok(Self::Gzip);
        }
        // A zstd frame, or one of the sixteen skippable frames that chunked images begin with.
        if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
            || (start.get(1..4) == Some(&[0x2a, 0x4d, 0x18]) && start.first().is_some_and(|byte| byte & 0xf0 == 0x50))
        {
            return Ok(Self::Zstd);
        }
        match FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)) {
            Some((_, name)) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} compression is not supported")))
            }
            None => Ok(Self::None),
        }
    }

    pub(super) fn decoder<'a>(self, input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(input),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        })
    }

    /// Copies `input` to `output`, compressed. The result depends on the bytes only: no name, no time in it.
    ///
    /// # Errors
    /// What `copy` or the output says.
    pub fn encode(self, output: impl Write, copy: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::None => {
                let mut output = output;
                copy(&mut output)
            }
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(output, flate2::Compression::new(6));
                copy(&mut encoder)?;
                encoder.finish().map(drop)
            }
            Self::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(output, 3)?;
                copy(&mut encoder)?;
                encoder.finish().map(drop)
            }
        }
    }
}
