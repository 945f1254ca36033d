//! Collects what is wrong with a project while it is loaded.

use crate::base::diagnostic::{Diagnostic, Place, Severity};
use crate::model::tree::{Mark, Sources};

/// More than this many problems help nobody; what comes after is counted only.
const MOST: usize = 200;

/// The problems found so far and the files they are in.
#[derive(Debug, Default)]
pub(super) struct Reports {
    pub(super) sources: Sources,
    pub(super) diagnostics: Vec<Diagnostic>,
    errors: usize,
}

impl Reports {
    pub(super) fn place(&self, mark: Mark) -> Option<Place> {
        self.sources.place(mark)
    }

    pub(super) fn error(&mut self, code: &'static str, mark: Mark, message: impl Into<String>) {
        let diagnostic = Diagnostic::error(code, self.place(mark), message);
        self.push(diagnostic);
    }

    pub(super) fn warning(&mut self, code: &'static str, mark: Mark, message: impl Into<String>) {
        let diagnostic = Diagnostic::warning(code, self.place(mark), message);
        self.push(diagnostic);
    }

    pub(super) fn error_with_help(
        &mut self,
        code: &'static str,
        mark: Mark,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let diagnostic = Diagnostic::error(code, self.place(mark), message).help(help);
        self.push(diagnostic);
    }

    /// Adds a problem unless it is known already: a file is looked at once per merge.
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        if self.diagnostics.len() >= MOST || self.diagnostics.contains(&diagnostic) {
            return;
        }
        self.errors += usize::from(diagnostic.severity == Severity::Error);
        self.diagnostics.push(diagnostic);
    }

    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    /// Adds the place that led to every problem reported since there were `before` of them: the `include` or
    /// `extends` that brought the file in.
    pub(super) fn trace(&mut self, before: usize, mark: Mark, note: &str) {
        let Some(place) = self.place(mark) else { return };
        for diagnostic in self.diagnostics.iter_mut().skip(before) {
            diagnostic.related.push((place.clone(), note.to_owned()));
        }
    }
}
