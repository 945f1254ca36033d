//! Containers' output, straight from the disk.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use crate::app::options::LogsOptions;
use crate::app::{App, AppError};
use crate::base::ids::ContainerId;
use crate::logs::{Follow, Line, LogReader, Query, Scan, Source, follow, lengths};
use crate::spec::Phase;
use crate::state::ContainerRecord;
use crate::state::ProjectDir;

/// Where lines go.
pub type Emit<'a> = &'a mut dyn FnMut(Line<'_>) -> io::Result<()>;

/// Who hears of ends.
pub type Hear<'a> = &'a mut dyn FnMut(Ended) -> io::Result<()>;

/// A container whose output is complete: it has ended and will not be started again by its policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// As in front of its lines.
    pub name: String,
    pub service: String,
    /// `None`: it was removed before it could be asked.
    pub code: Option<i32>,
    /// Its policy starts it again.
    pub restarting: bool,
}

/// Which containers' output.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Empty: all.
    pub services: BTreeSet<String>,
    pub without: BTreeSet<String>,
    /// Replica number.
    pub index: Option<u32>,
    /// This container alone, whatever it is.
    pub container: Option<String>,
}

/// How far output and ends had come at some moment. What comes after it is told by places, not by times: the machine's clock may be
/// set back meanwhile. The default is the beginning.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    lengths: BTreeMap<ContainerId, [u64; 2]>,
    ends: BTreeSet<(ContainerId, i64)>,
}

/// What is followed.
struct Followed<'a> {
    project: &'a str,
    selection: &'a Selection,
    /// Whose output is shown, of those that are selected.
    shown: &'a dyn Fn(&ContainerRecord) -> bool,
    /// What is not told any more.
    reached: Reached,
    query: Query,
}

impl Selection {
    fn takes(&self, record: &ContainerRecord) -> bool {
        let config = &record.config;
        if let Some(name) = &self.container {
            return *name == config.name;
        }
        config.number > 0
            && (self.services.is_empty() || self.services.contains(&config.service.name))
            && !self.without.contains(&config.service.name)
            && self.index.is_none_or(|index| index == config.number)
    }
}

impl App {
    /// Names of the containers whose output `logs` does not show, because their log driver keeps it from being read.
    ///
    /// # Errors
    /// Wrong services, unreadable state.
    pub fn hidden_logs(&self, options: &LogsOptions) -> Result<Vec<String>, AppError> {
        let project = self.locate_with(&options.services)?;
        let services = options.services.iter().cloned().collect();
        let selection = Selection { services, index: options.index, ..Selection::default() };
        let records = self.selected(&project, &selection).map_err(AppError::io("read the logs"))?;
        Ok(records.into_iter().filter(is_hidden).map(|record| record.config.name).collect())
    }

    /// `logs`: what the containers of a project have printed, and with `follow` what they print until none of them runs or
    /// `stop` is readable; `ended` hears of each end meanwhile, after the container's last line.
    ///
    /// # Errors
    /// Wrong services, unreadable logs, or what the callbacks return.
    pub fn logs(
        &self,
        options: &LogsOptions,
        stop: BorrowedFd<'_>,
        emit: Emit<'_>,
        ended: Hear<'_>,
    ) -> Result<(), AppError> {
        let project = self.locate_with(&options.services)?;
        let selection = Selection {
            services: options.services.iter().cloned().collect(),
            index: options.index,
            ..Selection::default()
        };
        let query = Query { tail: options.tail, since: options.since, until: options.until, raw: false };
        let wrong = AppError::io("read the logs");
        if let (Some(index), Some(service)) = (options.index, options.services.first()) {
            let there = self.selected(&project, &selection).map_err(AppError::io("read the logs"))?;
            if there.is_empty() {
                return Err(AppError::NotRunning { service: service.clone(), index: Some(index) });
            }
        }
        if options.follow {
            let mut over = || Ok(self.is_over(&project, &selection)? && !self.is_changing(&project)?);
            let shown = |record: &ContainerRecord| !is_hidden(record);
            let ends = self.reached(&project, &selection).map_err(AppError::io("read the logs"))?.ends;
            let reached = Reached { ends, ..Reached::default() };
            let what = Followed { project: &project, selection: &selection, shown: &shown, reached, query };
            self.follow(what, &mut over, stop, emit, ended).map_err(wrong)
        } else {
            let records = self.selected(&project, &selection).map_err(AppError::io("read the logs"))?;
            let dir = self.roots.project(&project);
            let shown = records.iter().filter(|one| !is_hidden(one));
            let sources = shown.map(|one| source(&dir, &project, one, one.is_open(), &Reached::default())).collect();
            LogReader::open(sources, query).and_then(|mut reader| reader.read(emit)).map_err(wrong)
        }
    }

    /// Follows the containers of a project as they come and go, until `stop` is readable, or `over` (asked whenever something has
    /// come or gone) says so; one container also until it is gone, since whoever removes it need not wait for us to see its end.
    /// What had been `reached` is left out; `ended` hears of each end after the container's last line.
    ///
    /// # Errors
    /// Unreadable state or logs, or what the callbacks return.
    pub fn follow_project(
        &self,
        project: &str,
        selection: &Selection,
        reached: Reached,
        (stop, over): (BorrowedFd<'_>, &dyn Fn() -> io::Result<bool>),
        emit: Emit<'_>,
        ended: Hear<'_>,
    ) -> io::Result<()> {
        // Of one container, who follows it is at its side.
        let query = Query { raw: selection.container.is_some(), ..Query::default() };
        let what = Followed { project, selection, shown: &|_| true, reached, query };
        let mut gone =
            || Ok(over()? || (selection.container.is_some() && self.selected(project, selection)?.is_empty()));
        self.follow(what, &mut gone, stop, emit, ended)
    }

    fn follow(
        &self,
        what: Followed<'_>,
        over: &mut dyn FnMut() -> io::Result<bool>,
        stop: BorrowedFd<'_>,
        emit: Emit<'_>,
        ended: Hear<'_>,
    ) -> io::Result<()> {
        let Followed { project, selection, shown, reached, query } = what;
        let dir = self.roots.project(project);
        let mut told = reached.ends.clone();
        let mut running = BTreeMap::new();
        let pending = RefCell::new(Vec::new());
        let mut look = || -> io::Result<Scan> {
            // The end comes first: what is over by then is complete in the sources that are looked up after it.
            let over = over()?;
            let mut records = self.selected(project, selection)?;
            records.retain(shown);
            for record in &records {
                let id = &record.config.id;
                if let Some((end, at)) = end_of(project, record) {
                    running.remove(id);
                    if told.insert((id.clone(), at)) {
                        pending.borrow_mut().push(end);
                    }
                } else if record.state.run.is_some() {
                    running.insert(id.clone(), removed(project, record));
                }
            }
            let gone = running.extract_if(.., |id, _| !records.iter().any(|record| record.config.id == *id));
            pending.borrow_mut().extend(gone.map(|(_, end)| end));
            // The keeper may have written of an end before the rest of the output is in the files: that line is not over yet.
            let unfinished = |record: &ContainerRecord| record.state.run.is_some();
            let sources = records.iter().map(|one| source(&dir, project, one, unfinished(one), &reached)).collect();
            Ok(Scan { sources, over })
        };
        let sources = look()?.sources;
        let mut reader = LogReader::open(sources, query)?;
        let mut settled = || pending.borrow_mut().drain(..).try_for_each(&mut *ended);
        let how = Follow { folders: &|| folders(&dir), rescan: &mut look, settled: &mut settled, stop };
        follow(&mut reader, how, emit)
    }

    /// How far the containers' output and ends have come.
    ///
    /// # Errors
    /// Unreadable state or logs.
    pub fn reached(&self, project: &str, selection: &Selection) -> io::Result<Reached> {
        let dir = self.roots.project(project);
        let mut reached = Reached::default();
        for record in self.selected(project, selection)? {
            let id = record.config.id.clone();
            reached.ends.extend(end_of(project, &record).map(|(_, at)| (id.clone(), at)));
            reached.lengths.insert(id.clone(), lengths(&dir.container(&id).join("log"))?);
        }
        Ok(reached)
    }

    /// Whether none of the containers runs, or will run again by its policy.
    ///
    /// # Errors
    /// Unreadable state.
    pub fn is_over(&self, project: &str, selection: &Selection) -> io::Result<bool> {
        let records = self.selected(project, selection)?;
        Ok(records.iter().all(|record| match end_of(project, record) {
            Some((end, _)) => !end.restarting,
            None => record.observe(|_| true).phase == Phase::Created,
        }))
    }

    /// Whether a change of the project is under way.
    ///
    /// # Errors
    /// Unreadable state.
    pub fn is_changing(&self, project: &str) -> io::Result<bool> {
        Ok(self.roots.project(project).record()?.change.is_some())
    }

    fn selected(&self, project: &str, selection: &Selection) -> io::Result<Vec<ContainerRecord>> {
        let records = self.roots.project(project).load()?;
        Ok(records.into_iter().filter(|record| selection.takes(record)).collect())
    }
}

fn is_hidden(record: &ContainerRecord) -> bool {
    record.config.service.container.logging.hidden
}

/// The end of a container whose output is complete (the supervisor has noted it), and when that was.
fn end_of(project: &str, record: &ContainerRecord) -> Option<(Ended, i64)> {
    let exit = record.state.exit.filter(|_| record.state.run.is_none())?;
    let service = &record.config.service;
    let state = &record.state;
    let wanted = state.rejoins || service.restart.wants_restart(exit.code, state.restarts);
    let restarting = wanted && !state.stopped_by_user;
    let name = short_name(project, &record.config.name);
    Some((Ended { name, service: service.name.clone(), code: Some(exit.code), restarting }, exit.at))
}

/// The end of a container of which nothing is left to ask.
fn removed(project: &str, record: &ContainerRecord) -> Ended {
    let name = short_name(project, &record.config.name);
    Ended { name, service: record.config.service.name.clone(), code: None, restarting: false }
}

fn source(dir: &ProjectDir, project: &str, record: &ContainerRecord, running: bool, reached: &Reached) -> Source {
    let id = &record.config.id;
    let from = reached.lengths.get(id).copied().unwrap_or_default();
    Source { name: short_name(project, &record.config.name), folder: dir.container(id).join("log"), running, from }
}

/// A container's name without its project's: `web-1`.
fn short_name(project: &str, container: &str) -> String {
    let short = container.strip_prefix(project).and_then(|rest| rest.strip_prefix('-'));
    short.unwrap_or(container).to_owned()
}

/// The folders in which containers appear and change: also those of containers that are still being made.
fn folders(dir: &ProjectDir) -> io::Result<Vec<PathBuf>> {
    let mut folders = vec![dir.data().to_owned(), dir.containers()];
    match std::fs::read_dir(dir.containers()) {
        Ok(entries) => folders.extend(entries.filter_map(|entry| Some(entry.ok()?.path()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(folders)
}
