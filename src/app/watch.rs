//! `watch`: what changes on this machine goes into containers that run, as `develop.watch` says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};
use rustix::fs::FlockOperation;

use crate::app::options::{ExecOptions, RestartOptions};
use crate::app::{App, AppError, LoadOptions};
use crate::build::Ignore;
use crate::copy::{self, Owners, Symlinks};
use crate::model::{Hook, Project, WatchAction};
use crate::spec::Phase;

/// Changes are taken together until nothing has happened for so long.
const SILENCE: Duration = Duration::from_millis(500);
/// But not longer than this, where something changes all the time.
const LONGEST: Duration = Duration::from_secs(5);

/// A rule of one service.
struct Rule {
    service: String,
    path: PathBuf,
    action: WatchAction,
    target: Option<String>,
    exec: Option<Hook>,
    ignore: Ignore,
    include: Ignore,
    /// Of the build context, and where that is.
    dockerignore: Option<(PathBuf, Ignore)>,
    initial_sync: bool,
}

/// What a person, and the one who can build, are told.
#[derive(Clone, Copy)]
pub struct Watching<'a> {
    /// One line about what is being done.
    pub say: &'a dyn Fn(&str),
    /// Builds a service's image anew and replaces its containers.
    pub rebuild: &'a dyn Fn(&str) -> Result<(), AppError>,
}

impl App {
    /// Watches until the program ends. What fails is told, and the watch goes on.
    ///
    /// # Errors
    /// Wrong files, nothing to watch, or another `watch` of the same project.
    pub fn watch(&self, services: &[String], watching: Watching<'_>) -> Result<(), AppError> {
        let project = self.load(services)?.project;
        let rules = rules(&project, services);
        if rules.is_empty() {
            let message = "none of the selected services is configured for watch: give one a `develop.watch` section";
            return Err(AppError::Usage(message.to_owned()));
        }
        let _only = self.watch_lock(&project.name)?;
        let (mut watcher, changes) = observe(&rules)?;
        // What is changed in the file meanwhile, and may be half written, is for the next `watch`.
        let load = LoadOptions { project_name: Some(project.name), files: Vec::new(), ..self.load.clone() };
        let named = Self { load, ..self.clone() };
        (watching.say)("Watch enabled");
        for rule in rules.iter().filter(|rule| rule.initial_sync && rule.syncs()) {
            let paths = rule.files(&rule.path);
            named.act(&[(rule, paths)], watching);
        }
        while let Some(paths) = batch(&changes) {
            // A folder that was removed and made again is another one.
            for rule in rules.iter().filter(|rule| paths.contains(&rule.path) && rule.path.is_dir()) {
                watcher.watch(&rule.path, RecursiveMode::Recursive).map_err(failed)?;
            }
            let mut work = Vec::new();
            for rule in &rules {
                let mine: BTreeSet<PathBuf> = paths.iter().flat_map(|path| rule.files(path)).collect();
                if !mine.is_empty() {
                    work.push((rule, mine));
                }
            }
            named.act(&work, watching);
        }
        Ok(())
    }

    /// Held while we watch.
    fn watch_lock(&self, project: &str) -> Result<File, AppError> {
        let path = self.roots.project(project).data().join("watch.lock");
        let locking = || AppError::io(format!("use `{}`", path.display()));
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(locking())?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(AppError::Usage(format!("project `{project}` is already being watched by another process")))
            }
            Err(error) => Err(locking()(error.into())),
        }
    }

    /// In docker compose's order: rebuild, sync, restart, exec.
    fn act(&self, work: &[(&Rule, BTreeSet<PathBuf>)], watching: Watching<'_>) {
        let mut rebuilt = BTreeSet::new();
        for (rule, _) in work.iter().filter(|(rule, _)| rule.action == WatchAction::Rebuild) {
            if rebuilt.insert(rule.service.as_str()) {
                (watching.say)(&format!("Rebuilding service \"{}\" after changes were detected", rule.service));
                report((watching.rebuild)(&rule.service), watching);
            }
        }
        let rest: Vec<_> = work.iter().filter(|(rule, _)| !rebuilt.contains(rule.service.as_str())).collect();
        let mut restarts = BTreeSet::new();
        let mut execs = Vec::new();
        for (rule, paths) in rest {
            if rule.syncs() {
                let count = paths.len();
                (watching.say)(&format!("Syncing service \"{}\" after {count} changes were detected", rule.service));
                report(self.sync(rule, paths), watching);
            }
            if matches!(rule.action, WatchAction::Restart | WatchAction::SyncRestart) {
                restarts.insert(rule.service.clone());
            }
            if let (WatchAction::SyncExec, Some(hook)) = (rule.action, &rule.exec) {
                execs.push((rule.service.clone(), hook));
            }
        }
        for service in restarts {
            (watching.say)(&format!("Restarting service \"{service}\" after changes were detected"));
            let options = RestartOptions { services: vec![service], ..RestartOptions::default() };
            report(self.restart(options, &mut |_| {}), watching);
        }
        for (service, hook) in execs {
            let pair = |(name, value): (&String, &Option<String>)| match value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            };
            let options = ExecOptions {
                service,
                command: hook.command.clone(),
                detach: true,
                privileged: hook.privileged,
                user: hook.user.clone(),
                working_dir: hook.working_dir.clone(),
                environment: hook.environment.iter().map(pair).collect(),
                ..ExecOptions::default()
            };
            report(self.exec(&options, None).map(drop), watching);
        }
    }

    /// Brings the paths in every container of the service to where they are here.
    fn sync(&self, rule: &Rule, paths: &BTreeSet<PathBuf>) -> Result<(), AppError> {
        let Some(target) = &rule.target else { return Ok(()) };
        let here: OwnedFd = File::open("/").map_err(AppError::io("open `/`"))?.into();
        let project = self.locate()?.0;
        let containers = self.observe(&project, &[])?.containers;
        let running = containers.iter().filter(|one| {
            one.service.name == rule.service && one.number > 0 && matches!(one.phase, Phase::Running { .. })
        });
        for container in running {
            let root = self.root_of(container)?;
            for path in paths {
                let inside = rule.inside(target, path);
                let copying = || AppError::io(format!("copy `{}` to container {}", path.display(), container.name));
                if std::fs::symlink_metadata(path).is_err() {
                    copy::remove(&root, &inside).map_err(copying())?;
                    continue;
                }
                let mut stream = Vec::new();
                let name = inside.trim_start_matches('/');
                match copy::archive(&here, &path.to_string_lossy(), name, false, &mut stream) {
                    // It is gone again: its end is the next change.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    other => other.map_err(copying())?,
                }
                copy::extract(&root, "/", stream.as_slice(), Owners::Ours, Symlinks::InRoot).map_err(copying())?;
            }
        }
        Ok(())
    }
}

fn report(result: Result<(), AppError>, watching: Watching<'_>) {
    if let Err(error) = result {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        (watching.say)(&format!("{error}{cause}"));
    }
}

fn rules(project: &Project, services: &[String]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (name, service) in &project.services {
        if !services.is_empty() && !services.contains(name) {
            continue;
        }
        let context = service.build.as_ref().map(|build| PathBuf::from(&build.context));
        let dockerignore = context.and_then(|context| {
            let text = std::fs::read_to_string(context.join(".dockerignore")).ok()?;
            Some((context, Ignore::parse(&text)))
        });
        for watch in service.develop.iter().flat_map(|develop| &develop.watch) {
            rules.push(Rule {
                service: name.clone(),
                path: PathBuf::from(&watch.path),
                action: watch.action,
                target: watch.target.clone(),
                exec: watch.exec.clone(),
                ignore: Ignore::of(watch.ignore.iter().map(String::as_str)),
                include: Ignore::of(watch.include.iter().map(String::as_str)),
                dockerignore: dockerignore.clone(),
                initial_sync: watch.initial_sync,
            });
        }
    }
    rules
}

impl Rule {
    fn syncs(&self) -> bool {
        matches!(self.action, WatchAction::Sync | WatchAction::SyncRestart | WatchAction::SyncExec)
    }

    /// Whether a path is one of this rule's.
    fn takes(&self, path: &Path) -> bool {
        let Ok(relative) = path.strip_prefix(&self.path) else { return false };
        let relative = relative.to_string_lossy();
        let mut names = path.components().filter_map(|part| part.as_os_str().to_str());
        if names.clone().any(|name| name == ".git") || names.next_back().is_some_and(is_editors) {
            return false;
        }
        let excluded = self.dockerignore.as_ref().is_some_and(|(context, patterns)| {
            path.strip_prefix(context).is_ok_and(|inside| patterns.excludes(&inside.to_string_lossy()))
        });
        !excluded
            && !self.ignore.excludes(&relative)
            && (self.include.is_empty() || relative.is_empty() || self.include.excludes(&relative))
    }

    /// The path itself, or the files in a directory, as far as the rule is about them.
    fn files(&self, path: &Path) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            if !self.takes(&path) {
                continue;
            }
            match std::fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => {
                    let entries = std::fs::read_dir(&path).into_iter().flatten();
                    open.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
                }
                _ => drop(found.insert(path)),
            }
        }
        found
    }

    /// Where a path of this machine is in the container.
    fn inside(&self, target: &str, path: &Path) -> String {
        match path.strip_prefix(&self.path) {
            Ok(relative) if !relative.as_os_str().is_empty() => {
                format!("{}/{}", target.trim_end_matches('/'), relative.display())
            }
            _ => target.to_owned(),
        }
    }
}

/// Files that editors make for themselves.
fn is_editors(name: &str) -> bool {
    name.ends_with('~')
        || name.ends_with(".swp")
        || name.ends_with(".swx")
        || name.ends_with(".swo")
        || name.starts_with(".#")
        || (name.starts_with('#') && name.ends_with('#'))
        || name.contains("___jb_")
        || name.ends_with(".kate-swp")
        || name == "4913"
}

fn failed(error: notify::Error) -> AppError {
    AppError::io("watch files")(std::io::Error::other(error))
}

/// What the system tells us of the rules' paths.
fn observe(rules: &[Rule]) -> Result<(notify::RecommendedWatcher, Receiver<PathBuf>), AppError> {
    let (tell, told) = mpsc::channel();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        if !event.kind.is_access() {
            event.paths.into_iter().for_each(|path| drop(tell.send(path)));
        }
    });
    let mut watcher = watcher.map_err(failed)?;
    let mut watched = BTreeMap::new();
    for rule in rules {
        if rule.path.is_dir() {
            watched.insert(rule.path.as_path(), RecursiveMode::Recursive);
        }
        // A new file, or folder, that is put in the place of the old one is seen in the folder above only.
        watched.entry(rule.path.parent().unwrap_or(&rule.path)).or_insert(RecursiveMode::NonRecursive);
    }
    for (folder, mode) in watched {
        watcher.watch(folder, mode).map_err(failed)?;
    }
    Ok((watcher, told))
}

/// The next changes, taken together; `None`: nobody watches any more.
fn batch(changes: &Receiver<PathBuf>) -> Option<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::from([changes.recv().ok()?]);
    let began = Instant::now();
    while let (true, Ok(path)) = (began.elapsed() < LONGEST, changes.recv_timeout(SILENCE)) {
        paths.insert(path);
    }
    Some(paths)
}
