//! `events`: what happens to the containers of a project, from the file that its supervisor writes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use serde_json::Value;

use crate::app::options::EventsOptions;
use crate::app::{App, AppError, now};
use crate::state::ProjectDir;

/// How often a file is looked at that nothing has been written to. It may not be there yet, and neither may the project.
const PAUSE: Duration = Duration::from_millis(100);

impl App {
    /// Hands over each event until `until`, or until `emit` has had enough (false).
    ///
    /// # Errors
    /// Wrong services, or an unreadable file.
    pub fn events(&self, options: &EventsOptions, emit: &mut dyn FnMut(&Value) -> bool) -> Result<(), AppError> {
        let project = self.locate_with(&options.services)?;
        let dir = self.roots.project(&project);
        let wanted = |event: &Value| {
            let service = event.get("service").and_then(Value::as_str).unwrap_or_default();
            let at = time_of(event);
            options.since.is_none_or(|since| at >= since)
                && options.until.is_none_or(|until| at <= until)
                && (options.services.is_empty() || options.services.iter().any(|one| one == service))
        };
        let reading = || AppError::io(format!("read the events of project `{project}`"));
        let mut reader = Reader { dir, older: true, file: None, line: String::new() };
        if options.since.is_none() {
            reader.skip().map_err(reading())?;
        }
        loop {
            while let Some(event) = reader.next().map_err(reading())? {
                if wanted(&event) && !emit(&event) {
                    return Ok(());
                }
            }
            if options.until.is_some_and(|until| now() >= until) {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Nanoseconds since the epoch; 0 when it does not say.
fn time_of(event: &Value) -> i64 {
    let time = event.get("time").and_then(Value::as_str).and_then(|time| time.parse::<jiff::Timestamp>().ok());
    time.and_then(|time| i64::try_from(time.as_nanosecond()).ok()).unwrap_or(0)
}

/// Goes through the files of events as they are written and replaced.
struct Reader {
    dir: ProjectDir,
    /// The file before the present one is still to be read.
    older: bool,
    file: Option<BufReader<File>>,
    /// A line whose end has not been written yet.
    line: String,
}

impl Reader {
    /// Passes over what is there: by place, since the machine's clock may be set back.
    fn skip(&mut self) -> io::Result<()> {
        self.older = false;
        match File::open(self.dir.events()) {
            Ok(mut file) => {
                file.seek(SeekFrom::End(0))?;
                self.file = Some(BufReader::new(file));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `None`: nothing more for now.
    fn next(&mut self) -> io::Result<Option<Value>> {
        loop {
            let Some(file) = &mut self.file else {
                let older = std::mem::take(&mut self.older);
                match File::open(if older { self.dir.older_events() } else { self.dir.events() }) {
                    Ok(file) => self.file = Some(BufReader::new(file)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound && older => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error),
                }
                continue;
            };
            file.read_line(&mut self.line)?;
            if self.line.ends_with('\n') {
                let line = std::mem::take(&mut self.line);
                if let Ok(event) = serde_json::from_str(&line) {
                    return Ok(Some(event));
                }
            } else if self.is_current()? {
                return Ok(None);
            } else {
                // Read to its end, and another one is in its place.
                self.file = None;
                self.line.clear();
            }
        }
    }

    fn is_current(&self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(true) };
        let ours = file.get_ref().metadata()?;
        match std::fs::metadata(self.dir.events()) {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            // The project is gone; it may come again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
