//! Collects what is wrong with a project while it is loaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::record::Record;
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
    /// By file: what led to it, for problems that are found when its values are in another one.
    led_by: HashMap<PathBuf, (Place, String)>,
    /// Only where it was asked for: it costs time and memory.
    pub(super) record: Option<Box<Record>>,
}

impl Reports {
    /// One that keeps where values come from.
    pub(super) fn recording() -> Self {
        Self { record: Some(Box::default()), ..Self::default() }
    }

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
    pub(super) fn push(&mut self, mut diagnostic: Diagnostic) {
        if self.is_full() {
            self.errors += usize::from(diagnostic.severity == Severity::Error);
            return;
        }
        let file = diagnostic.place.as_ref().map(|place| place.file.as_path());
        diagnostic.related.extend(file.and_then(|file| self.led_by.get(file)).cloned());
        if self.diagnostics.contains(&diagnostic) {
            return;
        }
        let is_error = diagnostic.severity == Severity::Error;
        // A second error at one place follows from the first.
        let follows = |known: &Diagnostic| known.severity == Severity::Error && known.place == diagnostic.place;
        if is_error && diagnostic.place.is_some() && self.diagnostics.iter().any(follows) {
            return;
        }
        self.errors += usize::from(is_error);
        // However many warnings there are, the first error is shown.
        if self.diagnostics.len() < MOST || (is_error && self.errors == 1) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// What was found: by file in the order in which they were read, and by line; last what has no place.
    pub(super) fn sorted(&mut self) -> Vec<Diagnostic> {
        let file = |place: &Place| self.sources.0.iter().position(|source| *source == place.file).unwrap_or(usize::MAX);
        let key = |known: &Diagnostic| match &known.place {
            Some(place) => (false, file(place), place.line, place.column),
            None => (true, 0, 0, 0),
        };
        let mut found = std::mem::take(&mut self.diagnostics);
        found.sort_by_cached_key(key);
        found
    }

    /// Of what has been reported since there were `before` of them, forgets what may follow from earlier errors: a variable
    /// without its value, or what a file that could not be taken over would have brought.
    pub(super) fn keep_certain(&mut self, before: usize) {
        let since = self.diagnostics.split_off(before.min(self.diagnostics.len()));
        let certain = |known: &Diagnostic| !known.message.contains("${") && !matches!(known.code, "no-image");
        self.diagnostics.extend(since.into_iter().filter(certain));
    }

    /// Forgets what has been reported with these codes since there were `before` of them.
    pub(super) fn forget(&mut self, before: usize, codes: &[&str]) {
        let since = self.diagnostics.split_off(before.min(self.diagnostics.len()));
        self.diagnostics.extend(since.into_iter().filter(|known| !codes.contains(&known.code)));
    }

    /// Forgets warnings of these codes.
    pub(super) fn ignore(&mut self, codes: &[&str]) {
        self.diagnostics.retain(|known| known.severity == Severity::Error || !codes.contains(&known.code));
    }

    /// Whether what comes now is counted only. The words of a problem need not be found then.
    pub(super) fn is_full(&self) -> bool {
        self.errors > 0 && self.diagnostics.len() >= MOST
    }

    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    /// Notes the `extends` that brought a file in, for problems that are found from now on.
    pub(super) fn lead(&mut self, file: &Path, mark: Mark, note: String) {
        if let Some(place) = self.place(mark) {
            self.led_by.entry(file.to_owned()).or_insert((place, note));
        }
    }

    /// Adds the place that led to every problem reported since there were `before` of them: the `include` or
    /// `extends` that brought the file in.
    pub(super) fn trace(&mut self, before: usize, mark: Mark, note: &str) {
        let Some(place) = self.place(mark) else { return };
        let elsewhere = |known: &&mut Diagnostic| known.place.as_ref() != Some(&place);
        for diagnostic in self.diagnostics.iter_mut().skip(before).filter(elsewhere) {
            diagnostic.related.push((place.clone(), note.to_owned()));
        }
    }
}
