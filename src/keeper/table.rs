//! What the keeper knows of each process.

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use super::launch::Starting;
use super::{ExitRecord, OomSource, Process};
use crate::base::disk::{self, Durability};

/// One process, from its clone until its end has been told and released.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) process: Process,
    pub(super) pidfd: OwnedFd,
    pub(super) exit_file: PathBuf,
    pub(super) oom: Option<OomSource>,
    pub(super) stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Has not executed its program yet.
    Starting(Box<Starting>),
    Running,
    /// Not our child. `since`: seen to have ended, its own parent has yet to reap it.
    Adopted {
        since: Option<Instant>,
    },
    /// Kept for the supervisors to come.
    Ended(ExitRecord),
}

impl Entry {
    pub(super) fn lives(&self) -> bool {
        !matches!(self.stage, Stage::Ended(_))
    }

    /// Writes the exit record, before anybody is told.
    ///
    /// # Errors
    /// When it cannot be written although its directory is there.
    pub(super) fn record(&self, code: Option<i32>) -> (ExitRecord, io::Result<()>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let oom = match &self.oom {
            Some(OomSource::Counter(file)) => oom_kills(file) > 0,
            None => false,
        };
        let record = ExitRecord { code, oom, at };
        match disk::replace_json(&self.exit_file, &record, Durability::Kill) {
            // The container is being removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => (record, Ok(())),
            result => (record, result),
        }
    }
}

/// The `oom_kill` line of `memory.events` or `memory.oom_control`; 0 when the group is gone.
fn oom_kills(file: &Path) -> u64 {
    let mut text = String::new();
    let read = fs::File::open(file).and_then(|file| file.take(4096).read_to_string(&mut text));
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    if read.is_ok() { line.and_then(|count| count.trim().parse().ok()).unwrap_or(0) } else { 0 }
}
