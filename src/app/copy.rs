//! `cp`: files between this machine and containers, which may run or not.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::app::change::News;
use crate::app::options::CopyOptions;
use crate::app::{App, AppError};
use crate::control::{Connection, Reply, Request};
use crate::copy::{self, Kind, Owners, Symlinks};
use crate::spec::{ContainerState, Phase};
use crate::state::RunState;
use crate::sys::process::start_time;

/// One end of a copy.
enum End {
    /// A path on this machine.
    Here(String),
    /// A tar stream from or to our own streams.
    Stream,
    Container {
        service: String,
        path: String,
    },
}

impl End {
    /// `SERVICE:PATH`, a path, or `-`. What begins like a path is one, whatever colons it has.
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Stream,
            Some((service, path)) if !text.starts_with(['/', '.']) => {
                Self::Container { service: service.to_owned(), path: path.to_owned() }
            }
            _ => Self::Here(text.to_owned()),
        }
    }
}

/// A container's files.
struct Files {
    root: OwnedFd,
    /// The supervisor has them mounted until it is hung up on, for a container that does not run.
    _mounted: Option<Connection>,
}

/// Where files go: below a directory, perhaps under another name.
struct Destination {
    folder: String,
    /// Empty: what the source directory holds.
    name: String,
}

impl App {
    /// Copies files. Progress is told as docker compose does.
    ///
    /// # Errors
    /// No such service or file, or what the system says.
    pub fn copy(&self, options: &CopyOptions, news: News<'_>) -> Result<(), AppError> {
        match (End::parse(&options.source), End::parse(&options.destination)) {
            (End::Container { service, path }, to @ (End::Here(_) | End::Stream)) => {
                let container = self.copy_targets(&service, options, true)?.remove(0);
                self.announced(&container, options, true, news, || self.copy_out(&container, &path, &to, options))
            }
            (from @ (End::Here(_) | End::Stream), End::Container { service, path }) => {
                let containers = self.copy_targets(&service, options, false)?;
                if matches!(from, End::Stream) && containers.len() > 1 {
                    let message = "standard input can be copied to one container only: say which with `--index`";
                    return Err(AppError::Usage(message.to_owned()));
                }
                for container in &containers {
                    self.announced(container, options, false, news, || self.copy_in(&from, container, &path, options))?;
                }
                Ok(())
            }
            (End::Container { .. }, End::Container { .. }) => {
                Err(AppError::Usage("copying between services is not supported".to_owned()))
            }
            _ => Err(AppError::Usage("unknown copy direction: one of both must be SERVICE:PATH".to_owned())),
        }
    }

    /// The containers to copy from (the first one) or to (all of them).
    fn copy_targets(&self, service: &str, options: &CopyOptions, one: bool) -> Result<Vec<ContainerState>, AppError> {
        let (_, mut found) = self.containers_of(service, options.index, options.all)?;
        if one {
            found.truncate(1);
        }
        Ok(found)
    }

    /// The project, and the containers that a service has, at least one, in the order of their numbers; those of `run` with
    /// `all`.
    pub(super) fn containers_of(
        &self,
        service: &str,
        index: Option<u32>,
        all: bool,
    ) -> Result<(String, Vec<ContainerState>), AppError> {
        let project = self.locate_with(&[service.to_owned()])?;
        let mut found = self.observe(&project, &[])?.containers;
        found.retain(|container| {
            container.service.name == service
                && (all || container.number > 0)
                && index.is_none_or(|index| index == container.number)
        });
        found.sort_by_key(|container| container.number);
        match found.is_empty() {
            true => Err(AppError::Usage(format!("no container found for service \"{service}\""))),
            false => Ok((project, found)),
        }
    }

    fn announced(
        &self,
        container: &ContainerState,
        options: &CopyOptions,
        out: bool,
        news: News<'_>,
        work: impl FnOnce() -> Result<(), AppError>,
    ) -> Result<(), AppError> {
        let inside = |end: &str| format!("{}:{}", container.name, end.split_once(':').map_or(end, |(_, path)| path));
        let (from, to) = match out {
            true => (inside(&options.source), options.destination.clone()),
            false => (options.source.clone(), inside(&options.destination)),
        };
        let prefix = if self.dry_run { "DRY-RUN MODE -  " } else { "" };
        let id = format!("{prefix}{} copy {from} to {to}", container.name);
        let mut tell =
            |status: &str| news(Reply::Progress { id: id.clone(), status: status.to_owned(), text: String::new() });
        tell("Copying");
        if !self.dry_run {
            work()?;
        }
        tell("Copied");
        Ok(())
    }

    fn copy_out(
        &self,
        container: &ContainerState,
        path: &str,
        to: &End,
        options: &CopyOptions,
    ) -> Result<(), AppError> {
        let files = self.files_of(container)?;
        let root = &files.root;
        let kind = source_kind(root, path, &container.name, options.follow_link)?;
        let reading = AppError::io(format!("read `{path}` in container {}", container.name));
        let End::Here(to) = to else {
            let out = io::stdout().lock();
            return copy::archive(root, path, &base_name(path), options.follow_link, out).map_err(reading);
        };
        let here = machine_root()?;
        let to = self.load.working_dir.join(to).to_string_lossy().into_owned() + trailing_slash(to);
        let Destination { folder, name } = destination(&here, path, kind, &to)?;
        let owners = if options.archive { Owners::Kept } else { Owners::Ours };
        let writing = AppError::io(format!("write to `{to}`"));
        stream(
            |out| copy::archive(root, path, &name, options.follow_link, out),
            |input| copy::extract(&here, &folder, input, owners, Symlinks::Refused),
        )
        .map_err(|failed| failed.either(reading, writing))
    }

    fn copy_in(
        &self,
        from: &End,
        container: &ContainerState,
        path: &str,
        options: &CopyOptions,
    ) -> Result<(), AppError> {
        let files = self.files_of(container)?;
        let root = &files.root;
        let owners = if options.archive { Owners::Kept } else { Owners::Ours };
        let writing = AppError::io(format!("write to `{path}` in container {}", container.name));
        let End::Here(from) = from else {
            if copy::kind(root, path).ok().flatten() != Some(Kind::Directory) {
                return Err(AppError::Usage(format!("`{path}` is no directory in container {}", container.name)));
            }
            return copy::extract(root, path, io::stdin().lock(), owners, Symlinks::InRoot).map_err(writing);
        };
        let here = machine_root()?;
        let from = self.load.working_dir.join(from).to_string_lossy().into_owned() + trailing_slash(from);
        let kind = source_kind(&here, &from, "this machine", options.follow_link)?;
        let Destination { folder, name } = destination(root, &from, kind, path)?;
        let reading = AppError::io(format!("read `{from}`"));
        stream(
            |out| copy::archive(&here, &from, &name, options.follow_link, out),
            |input| copy::extract(root, &folder, input, owners, Symlinks::InRoot),
        )
        .map_err(|failed| failed.either(reading, writing))
    }

    fn files_of(&self, container: &ContainerState) -> Result<Files, AppError> {
        if matches!(container.phase, Phase::Running { .. }) {
            return Ok(Files { root: self.root_of(container)?, _mounted: None });
        }
        let talking = || AppError::io(format!("see into container {}", container.name));
        let request = Request::Files { container: container.name.clone() };
        let session = self.session(&self.locate()?.0);
        // It is asked again where a supervisor that has nothing to do was just leaving.
        let answer = session.request(&request, |reply, connection| match reply {
            Reply::Started { descriptors } => {
                let received = connection.receive_descriptors(descriptors);
                Some(received.and_then(|all| Ok((all, connection.try_clone()?))).map_err(talking()))
            }
            Reply::Failed { failures } => Some(Err(AppError::Failed(failures))),
            _ => None,
        });
        let (descriptors, connection) = answer??;
        let root = descriptors.into_iter().next().ok_or_else(|| talking()(io::ErrorKind::UnexpectedEof.into()))?;
        Ok(Files { root, _mounted: Some(connection) })
    }

    /// The root of a container that runs, as its own processes see it.
    pub(super) fn root_of(&self, container: &ContainerState) -> Result<OwnedFd, AppError> {
        let (Phase::Running { pid, .. }, Some(run)) = (&container.phase, self.run_of(container)?) else {
            let message = format!("container {} does not run, and files are copied while it does", container.name);
            return Err(AppError::Usage(message));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty());
        let root =
            root.map_err(|error| AppError::io(format!("see into container {}", container.name))(error.into()))?;
        // The process of that number is still the container's: then so is the root.
        match start_time(run.pid) == Some(run.start_time) {
            true => Ok(root),
            false => Err(AppError::Usage(format!("container {} has just ended", container.name))),
        }
    }

    fn run_of(&self, container: &ContainerState) -> Result<Option<RunState>, AppError> {
        let project = self.locate()?.0;
        let record = self.roots.project(&project).load_container(&container.id);
        Ok(record.map_err(AppError::io("read the container"))?.and_then(|record| record.state.run))
    }
}

fn machine_root() -> Result<OwnedFd, AppError> {
    File::open("/").map(OwnedFd::from).map_err(AppError::io("open `/`"))
}

fn trailing_slash(path: &str) -> &'static str {
    match path.ends_with("/.") {
        true => "/.",
        false if path.ends_with('/') => "/",
        false => "",
    }
}

fn base_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| "root".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn source_kind(root: &OwnedFd, path: &str, place: &str, follow: bool) -> Result<Kind, AppError> {
    let found = match copy::kind(root, path).map_err(AppError::io(format!("look at `{path}`")))? {
        // A link that leads nowhere can be copied all the same.
        None if !follow && crate::sys::inroot::open(root, path.as_bytes(), OFlags::PATH | OFlags::NOFOLLOW).is_ok() => {
            Some(Kind::Other)
        }
        found => found,
    };
    match found {
        Some(Kind::Other) if path.ends_with('/') => Err(AppError::Usage(format!("`{path}` is no directory"))),
        Some(kind) => Ok(kind),
        None => Err(AppError::Usage(format!("could not find the file `{path}` in {place}"))),
    }
}

/// Where a source goes, by the rules of `docker cp`: into a directory that is there, else under a new name.
fn destination(root: &OwnedFd, source: &str, kind: Kind, path: &str) -> Result<Destination, AppError> {
    let here = copy::kind(root, path).map_err(AppError::io(format!("look at `{path}`")))?;
    let beside = || {
        let whole = Path::new(path.trim_end_matches("/.").trim_end_matches('/'));
        let name = whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let parent = whole.parent().map(|parent| parent.to_string_lossy().into_owned()).unwrap_or_default();
        Destination { folder: if parent.is_empty() { "/".to_owned() } else { parent }, name }
    };
    match (kind, here) {
        (Kind::Directory, Some(Kind::Directory)) if source.ends_with("/.") => {
            Ok(Destination { folder: path.to_owned(), name: String::new() })
        }
        (_, Some(Kind::Directory)) => Ok(Destination { folder: path.to_owned(), name: base_name(source) }),
        (Kind::Directory, Some(Kind::Other)) => {
            Err(AppError::Usage(format!("cannot copy a directory onto the file `{path}`")))
        }
        (Kind::Other, None) if path.ends_with('/') => Err(AppError::Usage(format!("`{path}` is no directory"))),
        _ => {
            let destination = beside();
            match copy::kind(root, &destination.folder).ok().flatten() {
                Some(Kind::Directory) => Ok(destination),
                _ => Err(AppError::Usage(format!("there is no directory `{}`", destination.folder))),
            }
        }
    }
}

/// Which side of a copy failed.
enum StreamError {
    Reading(io::Error),
    Writing(io::Error),
}

impl StreamError {
    fn either(
        self,
        reading: impl FnOnce(io::Error) -> AppError,
        writing: impl FnOnce(io::Error) -> AppError,
    ) -> AppError {
        match self {
            Self::Reading(error) => reading(error),
            Self::Writing(error) => writing(error),
        }
    }
}

/// Runs both ends of a pipe.
fn stream(
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send,
    read: impl FnOnce(&mut dyn Read) -> io::Result<()>,
) -> Result<(), StreamError> {
    let (input, output) = io::pipe().map_err(StreamError::Reading)?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || write(&mut io::BufWriter::with_capacity(1 << 16, output)));
        let mut input = input;
        let extracted = read(&mut input);
        if extracted.is_ok() {
            // Padding behind the end of the archive.
            let _ = io::copy(&mut input, &mut io::sink());
        }
        drop(input);
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (written, extracted) {
            (Err(error), _) if error.kind() != io::ErrorKind::BrokenPipe => Err(StreamError::Reading(error)),
            (_, Err(error)) => Err(StreamError::Writing(error)),
            (Err(error), _) => Err(StreamError::Reading(error)),
            (Ok(()), Ok(())) => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        assert!(matches!(End::parse("-"), End::Stream));
        assert!(matches!(End::parse("./a:b"), End::Here(path) if path == "./a:b"));
        assert!(matches!(End::parse("/a:b"), End::Here(_)));
        assert!(
            matches!(End::parse("web:/x:y"), End::Container { service, path } if service == "web" && path == "/x:y")
        );
    }

    #[test]
    fn destinations_follow_the_rules_of_docker_cp() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("dir")).unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let root: OwnedFd = File::open(folder.path()).unwrap().into();
        let to = |source: &str, kind, path: &str| {
            destination(&root, source, kind, path)
                .map(|found| (found.folder, found.name))
                .map_err(|error| error.to_string())
        };
        let pair = |folder: &str, name: &str| Ok((folder.to_owned(), name.to_owned()));
        assert_eq!(to("/a/x", Kind::Other, "/dir"), pair("/dir", "x"));
        assert_eq!(to("/a/x", Kind::Other, "/dir/y"), pair("/dir", "y"));
        assert_eq!(to("/a/x", Kind::Other, "/file"), pair("/", "file"));
        assert_eq!(to("/a/x", Kind::Directory, "/dir/"), pair("/dir/", "x"));
        assert_eq!(to("/a/x/.", Kind::Directory, "/dir"), pair("/dir", ""));
        assert_eq!(to("/a/x", Kind::Directory, "/new"), pair("/", "new"));
        assert!(to("/a/x", Kind::Directory, "/file").is_err());
        assert!(to("/a/x", Kind::Other, "/new/").is_err());
        assert!(to("/a/x", Kind::Other, "/nope/new").is_err());
    }
}
