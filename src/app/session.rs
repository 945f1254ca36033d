//! Reaching the supervisor of a project, and starting one where there is none.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rustix::process::{Resource, getrlimit};

use crate::control::Connection;
use crate::control::Reply;
use crate::control::Request;
use crate::keeper;
use crate::keeper::CONTROL;
use crate::keeper::Program;
use crate::keeper::SpawnOptions;
use crate::state::ContainerRecord;
use crate::state::ProjectDir;
use crate::state::Roots;
use crate::state::RunState;
use crate::sys::peer::{Peer, Why, peer};
use crate::sys::process::{self, start_time};
use crate::sys::userns;

/// How often a supervisor may vanish during one request before we give up.
const ATTEMPTS: u32 = 5;
/// So many open files are enough for keeper and supervisor of a project without containers.
const FILES: u64 = 64;
/// How long a supervisor may leave a connection waiting when so many others wait that there is no room for one more.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a socket may be held by a keeper that has ended.
const TAKE_OVER: Duration = Duration::from_secs(5);

/// Why a project's supervisor cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("cannot use `{path}`")]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot start the supervisor of project `{project}`")]
    Start { project: String, source: io::Error },
    #[error("cannot talk to the supervisor of project `{project}`")]
    Talk { project: String, source: io::Error },
    #[error("`{}` is held by {who}, not by the keeper of project `{project}`: nothing is said to it", path.display())]
    Impostor { project: String, path: PathBuf, who: String, help: String },
    #[error(
        "the supervisor of project `{project}` takes no connection: it was stopped or hangs, and too many commands wait for it"
    )]
    Deaf { project: String },
    #[error(
        "the containers of project `{project}` that run need {wanted} open files in its processes, and this command may have {files}"
    )]
    Files { project: String, wanted: u64, files: u64 },
    #[error("the supervisor of project `{project}` ended {ATTEMPTS} times without an answer; see `{log}`")]
    Gone { project: String, log: PathBuf },
}

impl SessionError {
    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        // Stopped first: each of them starts the other one again.
        let end_both = |project: &str| {
            format!(
                "end both of its processes at once (`pkill -STOP -f {0}; pkill -KILL -f {0}`): the containers go on, and the next \
                 command takes them over",
                processes(project)
            )
        };
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        match self {
            Self::Impostor { help, .. } => Some(help.clone()),
            Self::Start { .. } | Self::Gone { .. } if files < FILES => {
                Some(format!("this command may have {files} open files: allow it {FILES} or more (`ulimit -n`)"))
            }
            Self::Deaf { project } => Some(format!(
                "`pkill -CONT -f {}` lets it go on if it was stopped; if not, {}",
                processes(project),
                end_both(project)
            )),
            Self::Talk { project, .. } | Self::Gone { project, .. } => {
                Some(format!("if it is of another build of this program, {}", end_both(project)))
            }
            Self::Files { .. } => Some(
                "give the command where the hard limit is higher (`ulimit -Hn`, `LimitNOFILE=` of a systemd service, `nofile` in \
                 /etc/security/limits.conf)"
                    .to_owned(),
            ),
            Self::Folder { .. } | Self::Start { .. } => None,
        }
    }
}

/// What finds a project's own processes, for pgrep and pkill.
fn processes(project: &str) -> String {
    format!("'^rcompose: (keeper|supervisor) {project} '")
}

/// A project that can be talked to.
#[derive(Clone, Debug)]
pub struct Session {
    pub project: String,
    roots: Roots,
    pub dir: ProjectDir,
}

impl Session {
    pub fn new(project: &str, roots: &Roots) -> Self {
        Self { project: project.to_owned(), roots: roots.clone(), dir: roots.project(project) }
    }

    /// Where keeper and supervisor write what nobody else can be told.
    fn log(&self) -> PathBuf {
        self.dir.data().join("supervisor.log")
    }

    /// Connects to the running supervisor; `None` when there is none. One that is another build of this program has been
    /// replaced by then: two builds need not understand each other.
    ///
    /// # Errors
    /// When the socket is there but cannot be used.
    pub fn connect(&self) -> Result<Option<Connection>, SessionError> {
        let Some(connection) = self.connect_to_ours()? else { return Ok(None) };
        let talk = |source| SessionError::Talk { project: self.project.clone(), source };
        match std::fs::read_to_string(self.dir.program()) {
            Ok(theirs) if theirs != process::program().map_err(talk)? => {}
            _ => return Ok(Some(connection)),
        }
        replace(connection).map_err(talk)?;
        self.connect_to_ours()
    }

    /// Whether the project's own processes are there, whatever build they are: nothing is said to them, and nobody replaced.
    pub fn is_served(&self) -> bool {
        matches!(self.connect_to_any(), Ok(Some((_, Peer::Ours))))
    }

    /// Connects where this project's keeper listens, and tells nobody else anything.
    fn connect_to_ours(&self) -> Result<Option<Connection>, SessionError> {
        let deadline = Instant::now() + TAKE_OVER;
        loop {
            let Some((connection, listener)) = self.connect_to_any()? else { return Ok(None) };
            match listener {
                Peer::Ours => return Ok(Some(connection)),
                // A keeper that died is being replaced, by whoever starts one or by the supervisor.
                Peer::Gone if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Peer::Gone => {
                    return Err(self.impostor("a process that took it over from one that has ended".to_owned(), true));
                }
                Peer::Foreign { pid, why } => {
                    let keeper = matches!(why, Why::Capabilities(_));
                    return Err(self.impostor(format!("process {pid}, which {why}"), keeper));
                }
            }
        }
    }

    /// `keeper`: it can be this project's after all, of an early build or started with fewer capabilities.
    fn impostor(&self, who: String, keeper: bool) -> SessionError {
        let (project, path) = (self.project.clone(), self.dir.socket().to_owned());
        let remove = "stop what has that folder mounted, and remove the socket";
        let help = if keeper {
            let pattern = processes(&project);
            format!(
                "if `pgrep -af {pattern}` shows the project's processes, they are of an early build, or were started with fewer \
                 capabilities than this command has. End both at once (`pkill -STOP -f {pattern}; pkill -KILL -f {pattern}`): \
                 the containers go on, and the next command takes them over. Otherwise {remove}"
            )
        } else {
            remove.to_owned()
        };
        SessionError::Impostor { project, path, who, help }
    }

    fn connect_to_any(&self) -> Result<Option<(Connection, Peer)>, SessionError> {
        let folder = match self.open_run_folder() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| self.folder_error(source))?,
        };
        match connect(&short_path(&folder), PATIENCE) {
            Ok(stream) => {
                let listener = peer(&stream);
                let listener =
                    listener.map_err(|source| SessionError::Talk { project: self.project.clone(), source })?;
                Ok(Some((Connection::new(stream), listener)))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(SessionError::Deaf { project: self.project.clone() })
            }
            Err(source) => Err(SessionError::Talk { project: self.project.clone(), source }),
        }
    }

    /// Connects to the supervisor, starting keeper and supervisor where there are none.
    ///
    /// # Errors
    /// When the directories cannot be made, or the processes cannot be started.
    pub fn connect_or_start(&self) -> Result<Connection, SessionError> {
        loop {
            if let Some(connection) = self.connect()? {
                return Ok(connection);
            }
            self.make_folder(self.dir.run())?;
            // A supervisor that leaves takes the folder along, with the lock in it.
            let Some(_lock) = self.lock()? else { continue };
            // Another client may have been faster.
            if let Some(connection) = self.connect()? {
                return Ok(connection);
            }
            self.make_folder(self.dir.data())?;
            let failed = |source| SessionError::Start { project: self.project.clone(), source };
            let running = self.running().map_err(failed)?;
            self.check_files(&running)?;
            return self.start(&running).map_err(failed);
        }
    }

    fn make_folder(&self, path: &Path) -> Result<(), SessionError> {
        std::fs::create_dir_all(path).map_err(|source| SessionError::Folder { path: path.to_owned(), source })
    }

    /// Sends a request and hands every reply to `on_reply` until that says it is the last one. When the supervisor is
    /// replaced meanwhile, the same request goes to its successor, which goes on with it.
    ///
    /// # Errors
    /// As [`Session::connect_or_start`], or when supervisors keep vanishing.
    pub fn request<T>(
        &self,
        request: &Request,
        mut on_reply: impl FnMut(Reply, &mut Connection) -> Option<T>,
    ) -> Result<T, SessionError> {
        for _ in 0..ATTEMPTS {
            let mut connection = self.connect_or_start()?;
            match exchange(&mut connection, request, &mut on_reply) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(source) => return Err(SessionError::Talk { project: self.project.clone(), source }),
            }
        }
        Err(SessionError::Gone { project: self.project.clone(), log: self.log() })
    }

    /// Binds the control socket and starts the keeper with it; whoever connects from now on waits in its backlog. We do so
    /// first: a supervisor that finds nothing to do and nobody waiting ends.
    fn start(&self, running: &[ContainerRecord]) -> io::Result<Connection> {
        let folder = self.open_run_folder()?;
        match std::fs::remove_file(self.dir.socket()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(short_path(&folder))?;
        rustix::fs::chmod(short_path(&folder), Mode::RUSR | Mode::WUSR)?;
        let stream = UnixStream::connect(short_path(&folder))?;
        let log = File::options().append(true).create(true).open(self.log()).ok();
        keeper::spawn(SpawnOptions {
            binary: "/proc/self/exe".into(),
            project: self.project.clone(),
            supervisor: Program::supervisor(&self.project, &self.roots.data, &self.roots.run),
            held: vec![(CONTROL.to_owned(), listener.as_fd())],
            log,
            like: living(running).as_ref().map(AsFd::as_fd),
        })?;
        Ok(Connection::new(stream))
    }

    /// Containers that outlived keeper and supervisor, and may end any time.
    fn running(&self) -> io::Result<Vec<ContainerRecord>> {
        let boot = crate::base::boot::boot_id()?;
        let mut records = self.dir.load()?;
        records.retain(|record| {
            let run = record.state.run.as_ref().filter(|run| run.boot_id == boot);
            run.is_some_and(|run| start_time(run.pid) == Some(run.start_time))
        });
        Ok(records)
    }

    /// A keeper has this command's hard limit, and could not take over what runs with less than it was started with.
    fn check_files(&self, running: &[ContainerRecord]) -> Result<(), SessionError> {
        let taken: usize = running.iter().map(|one| one.config.service.container.network.descriptors()).sum();
        let wanted = FILES.saturating_add(taken as u64);
        match getrlimit(Resource::Nofile).maximum {
            Some(files) if taken > 0 && files < wanted => {
                Err(SessionError::Files { project: self.project.clone(), wanted, files })
            }
            _ => Ok(()),
        }
    }

    /// The lock of who starts or removes what the project has; `None` when it has been removed meanwhile.
    fn lock(&self) -> Result<Option<File>, SessionError> {
        let path = self.dir.lock();
        // What others can open they can lock, and keep everybody's commands waiting.
        let open = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let locked = open.and_then(|file| {
            rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
            let (ours, there) = (file.metadata()?, std::fs::metadata(&path)?);
            Ok(((ours.dev(), ours.ino()) == (there.dev(), there.ino())).then_some(file))
        });
        match locked {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            locked => locked.map_err(|source| SessionError::Folder { path, source }),
        }
    }

    fn open_run_folder(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(self.dir.run(), flags, Mode::empty())?)
    }

    fn folder_error(&self, source: io::Error) -> SessionError {
        SessionError::Folder { path: self.dir.run().to_owned(), source }
    }
}

/// The user namespace of one of these containers.
fn living(running: &[ContainerRecord]) -> Option<File> {
    let namespace = |run: &RunState| {
        let file = userns::of(run.pid).ok()?;
        (start_time(run.pid) == Some(run.start_time)).then_some(file)
    };
    running.iter().filter_map(|record| record.state.run.as_ref()).find_map(namespace)
}

/// Has keeper and supervisor replaced by this program. Returns when that is done or failed: whoever is there then is asked.
fn replace(mut connection: Connection) -> io::Result<()> {
    let program = File::from(rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
    let asked = connection.send(&Request::GiveWay).and_then(|()| connection.send_descriptor(program.as_fd()));
    match asked.and_then(|()| connection.receive::<Reply>()) {
        // Somebody else has done it, or it has just gone.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
        other => other.map(drop),
    }
}

/// `None`: the supervisor hung up before the last reply.
fn exchange<T>(
    connection: &mut Connection,
    request: &Request,
    on_reply: &mut impl FnMut(Reply, &mut Connection) -> Option<T>,
) -> io::Result<Option<T>> {
    match connection.send(request) {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            return Ok(None);
        }
        other => other?,
    }
    while let Some(reply) = connection.receive()? {
        if let Some(answer) = on_reply(reply, connection) {
            return Ok(Some(answer));
        }
    }
    Ok(None)
}

/// Connects to a socket. Without room in its queue the kernel would have us wait for ever.
fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(path)?;
    let deadline = Instant::now() + patience;
    loop {
        match rustix::net::connect(&socket, &address) {
            Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            connected => break connected?,
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Socket addresses hold 107 bytes; the folder's descriptor stands for a path of any length.
fn short_path(folder: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/control.sock", folder.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_talked_to_comes_with_a_way_out() {
        let project = "x".to_owned();
        let talk = SessionError::Talk { project: project.clone(), source: io::ErrorKind::InvalidData.into() };
        for error in [SessionError::Deaf { project }, talk] {
            let help = error.help().unwrap();
            assert!(help.contains("pkill -STOP -f '^rcompose: (keeper|supervisor) x '; pkill -KILL"), "{help}");
        }
    }

    #[test]
    fn who_finds_no_room_in_the_queue_does_not_wait_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let patience = Duration::from_millis(50);
        let first = connect(&path, patience).unwrap();
        assert_eq!(connect(&path, patience).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop((listener.accept().unwrap(), first));
        connect(&path, patience).unwrap();
    }
}
