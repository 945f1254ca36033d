//! Why an image was not built, with the place in the Dockerfile.

use std::fmt;

use super::parse::ParseError;

/// A failed build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildError {
    /// Lower case, no full stop; the causes joined with `: `.
    pub message: String,
    pub help: Option<String>,
    pub place: Option<Box<Place>>,
    /// The last lines that a failed `RUN` has printed, or what checks have found.
    pub output: Vec<String>,
    /// Another part of the build failed first: nothing to tell.
    pub cancelled: bool,
}

/// Where in which Dockerfile, with the lines around.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    /// First and last line of the instruction, counted from 1.
    pub first: usize,
    pub last: usize,
    /// The text of the file around it, with the number of its first line.
    pub excerpt: (usize, Vec<String>),
}

/// A Dockerfile, for messages about it.
#[derive(Clone, Debug)]
pub struct SourceText {
    pub name: String,
    pub text: String,
}

impl BuildError {
    /// A failure without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, place: None, output: Vec::new(), cancelled: false }
    }

    /// With the causes of an error.
    pub fn because(doing: impl fmt::Display, error: &dyn std::error::Error) -> Self {
        let mut message = format!("{doing}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self::new(message)
    }

    /// A part that ended because another failed.
    pub fn cancelled() -> Self {
        Self { cancelled: true, ..Self::new("another part of the build failed") }
    }

    /// Adds how it is mended.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds lines of the Dockerfile, counted from 1.
    #[must_use]
    pub fn at(mut self, source: &SourceText, first: usize, last: usize) -> Self {
        const AROUND: usize = 2;
        if self.place.is_none() {
            let start = first.saturating_sub(AROUND).max(1);
            let lines = source.text.lines().skip(start - 1).take(last + AROUND + 1 - start);
            let excerpt = (start, lines.map(str::to_owned).collect());
            self.place = Some(Box::new(Place { file: source.name.clone(), first, last, excerpt }));
        }
        self
    }

    /// The Dockerfile cannot be read.
    pub fn of_parse(error: ParseError, source: &SourceText) -> Self {
        let ParseError { line, message, help } = error;
        Self { help, ..Self::new(message) }.at(source, line, line)
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for line in &self.output {
            write!(f, "\n  | {line}")?;
        }
        let Some(place) = &self.place else { return Ok(()) };
        let Place { file, first, last, excerpt: (start, lines) } = &**place;
        write!(f, "\n --> {file}:{first}")?;
        let width = (start + lines.len()).to_string().len();
        for (number, line) in (*start..).zip(lines) {
            let mark = if (*first..=*last).contains(&number) { '>' } else { ' ' };
            write!(f, "\n{mark} {number:width$} | {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for BuildError {}

impl From<crate::image::Error> for BuildError {
    fn from(error: crate::image::Error) -> Self {
        Self::because("the image store", &error)
    }
}
