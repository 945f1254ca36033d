//! The supervisor's side of the keeper: launches, signals, held descriptors, and a new keeper when the old one dies.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use tokio::sync::{Notify, mpsc, oneshot};

use crate::init::Launch;
use crate::init::LaunchFailure;
use crate::init::Stdio;
use crate::keeper;
use crate::keeper::Event;
use crate::keeper::ExitRecord;
use crate::keeper::KeeperHandle;
use crate::keeper::OomSource;
use crate::keeper::Process;
use crate::keeper::Program;
use crate::keeper::Request;
use crate::keeper::SpawnOptions;
use crate::network::Outside;
use crate::supervisor::failure;

/// A process that runs.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) process: Process,
    pub(super) streams: Streams,
}

/// Our ends of a process's standard streams.
#[derive(Debug)]
pub(super) enum Streams {
    Pipes { stdout: OwnedFd, stderr: OwnedFd, stdin: Option<OwnedFd> },
    Terminal { master: OwnedFd },
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error("the process could not be made")]
    Refused(LaunchFailure),
    #[error("the keeper could not be reached")]
    Keeper(#[from] io::Error),
    #[error("the keeper ended while it was starting the process")]
    Gone,
}

/// What a process was launched with, so that a new keeper can take it over.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) exit_file: PathBuf,
    pub(super) oom: Option<OomSource>,
}

/// What the keeper handed to this supervisor when it started.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    pub(super) processes: Vec<Process>,
    pub(super) held: HashMap<String, Vec<OwnedFd>>,
    /// Ends that no supervisor has acknowledged yet.
    pub(super) ended: Vec<(String, ExitRecord)>,
}

/// The connection to the keeper. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link(Rc<Inner>);

/// A process, with its pidfd and what a new keeper must know.
type Running = (Rc<OwnedFd>, Process, Watched);

/// Who waits for the outcome of a launch.
type Answer = oneshot::Sender<Result<(Process, Vec<OwnedFd>), LaunchFailure>>;

struct Inner {
    project: String,
    program: Program,
    log: PathBuf,
    /// The keeper lives in the host's network, as `network_mode: host` is meant.
    outside: Outside,
    keeper: RefCell<Rc<KeeperHandle>>,
    launching: RefCell<HashMap<String, Answer>>,
    /// Who waits until the mounts of a starting process are made.
    mounting: RefCell<HashMap<String, oneshot::Sender<i32>>>,
    /// Who waits for the end of a process that is no container.
    waiting: RefCell<HashMap<String, oneshot::Sender<ExitRecord>>>,
    /// Copies of everything the keeper holds, for its successor.
    held: RefCell<HashMap<String, Rc<Vec<OwnedFd>>>>,
    running: RefCell<HashMap<String, Running>>,
    released: Notify,
    /// The keeper has been told to end.
    finished: Cell<bool>,
    /// The program that takes our place and the keeper's, and who waits until it has the keeper's.
    successor: RefCell<Option<(OwnedFd, oneshot::Sender<()>)>>,
    exits: mpsc::UnboundedSender<(String, ExitRecord)>,
}

impl Link {
    /// Takes over the connection after the keeper's greeting has been read.
    pub(super) fn new(
        project: &str,
        program: Program,
        log: PathBuf,
        keeper: KeeperHandle,
        outside: Outside,
    ) -> (Self, mpsc::UnboundedReceiver<(String, ExitRecord)>) {
        let (exits, ended) = mpsc::unbounded_channel();
        let inner = Inner {
            project: project.to_owned(),
            program,
            log,
            outside,
            keeper: RefCell::new(Rc::new(keeper)),
            launching: RefCell::default(),
            mounting: RefCell::default(),
            waiting: RefCell::default(),
            held: RefCell::default(),
            finished: Cell::new(false),
            successor: RefCell::default(),
            running: RefCell::default(),
            released: Notify::new(),
            exits,
        };
        (Self(Rc::new(inner)), ended)
    }

    /// Reads the greeting of a keeper that has just started this supervisor.
    ///
    /// # Errors
    /// When the keeper is gone before it said everything.
    pub(super) async fn greeting(keeper: &KeeperHandle) -> io::Result<Inherited> {
        let mut inherited = Inherited::default();
        loop {
            match keeper.recv().await? {
                Some((Event::Welcome { processes }, _)) => inherited.processes = processes,
                Some((Event::Held { name }, descriptors)) => {
                    inherited.held.insert(name, descriptors);
                }
                Some((Event::Exited { id, record }, _)) => inherited.ended.push((id, record)),
                Some((Event::Ready, _)) => return Ok(inherited),
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// What the keeper held and ran when it started us counts as ours from now on.
    pub(super) fn restore(&self, name: &str, descriptors: Vec<OwnedFd>) -> Rc<Vec<OwnedFd>> {
        let descriptors = Rc::new(descriptors);
        self.0.held.borrow_mut().insert(name.to_owned(), Rc::clone(&descriptors));
        descriptors
    }

    /// Copies of descriptors that are held; empty when nothing has that name.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub(super) fn held(&self, name: &str) -> io::Result<Vec<OwnedFd>> {
        let held = self.0.held.borrow().get(name).cloned();
        held.iter().flat_map(|descriptors| descriptors.iter()).map(OwnedFd::try_clone).collect()
    }

    /// Notes a process that runs already, so that a later keeper learns of it.
    pub(super) fn restore_process(&self, process: Process, pidfd: OwnedFd, watched: Watched) {
        let id = process.id.clone();
        self.0.running.borrow_mut().insert(id, (Rc::new(pidfd), process, watched));
    }

    /// Makes the keeper watch a process that it did not start.
    ///
    /// # Errors
    /// When the keeper cannot be reached.
    pub(super) fn adopt(&self, process: Process, pidfd: OwnedFd, watched: Watched) -> io::Result<()> {
        let request = adoption(&process, &watched);
        self.keeper().send(&request, &[pidfd.as_fd()])?;
        self.restore_process(process, pidfd, watched);
        Ok(())
    }

    /// Starts a process and waits until its program has been executed.
    ///
    /// # Errors
    /// When it could not be made: see [`LaunchError`].
    pub(super) async fn launch(
        &self,
        id: &str,
        launch: Launch,
        descriptors: &[OwnedFd],
        watched: Watched,
    ) -> Result<Launched, LaunchError> {
        let with_input = matches!(launch.stdio, Stdio::Pipes { stdin: true });
        let (tell, told) = oneshot::channel();
        self.0.launching.borrow_mut().insert(id.to_owned(), tell);
        let request = Request::Launch {
            id: id.to_owned(),
            exit_file: watched.exit_file.clone(),
            oom: watched.oom.clone(),
            launch: Box::new(launch),
        };
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        if let Err(error) = self.keeper().send(&request, &descriptors) {
            self.0.launching.borrow_mut().remove(id);
            return Err(error.into());
        }
        let (process, mut received) = told.await.map_err(|_| LaunchError::Gone)?.map_err(LaunchError::Refused)?;
        let input = if with_input && received.len() > 3 { received.pop() } else { None };
        let copies = |all: &[OwnedFd]| all.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>();
        self.restore(&format!("stdio:{id}"), copies(&received)?);
        if let Some(input) = &input {
            self.restore(&format!("stdin:{id}"), copies(std::slice::from_ref(input))?);
        }
        let mut received = received.into_iter();
        let pidfd = received.next().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        self.restore_process(process.clone(), pidfd, watched);
        let streams =
            Streams::from_parts(received, input).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Launched { process, streams })
    }

    /// The pid of a process whose mounts are made, and that waits for [`Link::go_on`]. To be asked for before it is launched.
    pub(super) fn mounted(&self, id: &str) -> oneshot::Receiver<i32> {
        let (tell, told) = oneshot::channel();
        self.0.mounting.borrow_mut().insert(id.to_owned(), tell);
        told
    }

    /// Lets it run the rest of its steps.
    ///
    /// # Errors
    /// When the keeper cannot be reached.
    pub(super) fn go_on(&self, id: &str) -> io::Result<()> {
        self.keeper().send(&Request::GoOn { id: id.to_owned() }, &[])
    }

    /// The end of a process that is no container. To be asked for before the process is launched: it may end at once.
    pub(super) fn end_of(&self, id: &str) -> oneshot::Receiver<ExitRecord> {
        let (tell, told) = oneshot::channel();
        self.0.waiting.borrow_mut().insert(id.to_owned(), tell);
        told
    }

    /// Sends a signal; a process that has ended already is no error.
    ///
    /// # Errors
    /// When the keeper cannot be reached.
    pub(super) fn signal(&self, id: &str, signal: i32) -> io::Result<()> {
        self.keeper().send(&Request::Signal { id: id.to_owned(), signal }, &[])
    }

    /// Has the keeper hold these descriptors, for whoever comes after this supervisor.
    ///
    /// # Errors
    /// When the keeper cannot be reached.
    pub(super) fn hold(&self, name: &str, descriptors: Vec<OwnedFd>) -> io::Result<Rc<Vec<OwnedFd>>> {
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        self.keeper().send(&Request::Hold { name: name.to_owned() }, &borrowed)?;
        Ok(self.restore(name, descriptors))
    }

    /// Lets go of held descriptors, or of an ended process and its streams.
    ///
    /// # Errors
    /// When the keeper cannot be reached.
    pub(super) fn release(&self, name: &str) -> io::Result<()> {
        let mut held = self.0.held.borrow_mut();
        held.remove(name);
        held.remove(&format!("stdio:{name}"));
        held.remove(&format!("stdin:{name}"));
        self.0.running.borrow_mut().remove(name);
        self.0.released.notify_waiters();
        self.keeper().send(&Request::Release { name: name.to_owned() }, &[])
    }

    /// Waits until a process has ended and has been released.
    pub(super) async fn gone(&self, id: &str) {
        while self.0.running.borrow().contains_key(id) {
            self.0.released.notified().await;
        }
    }

    /// The keeper may end with its last process: this supervisor is done.
    ///
    /// # Errors
    /// When the keeper cannot be reached.
    pub(super) fn finish(&self) -> io::Result<()> {
        self.0.finished.set(true);
        self.keeper().send(&Request::Finish, &[])
    }

    /// Puts another program in the keeper's place. It starts the next supervisor once this process has ended.
    ///
    /// # Errors
    /// When the keeper cannot be reached, or the program is none of ours.
    pub(super) async fn hand_over(&self, program: OwnedFd) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        *self.0.successor.borrow_mut() = Some((program, tell));
        self.keeper().send(&Request::Leave, &[])?;
        told.await.map_err(|_| io::Error::other("the other program did not start"))?;
        self.keeper().flushed().await;
        Ok(())
    }

    /// Reads the keeper's events until the end of this process; replaces a keeper that has died.
    pub(super) async fn run(self) -> io::Result<()> {
        loop {
            let keeper = self.keeper();
            match keeper.recv().await {
                Ok(Some((event, descriptors))) => self.dispatch(event, descriptors),
                // It went because we told it to.
                Ok(None) | Err(_) if self.0.finished.get() => return Ok(()),
                gone => {
                    let why = gone.err().map_or_else(|| "it has ended".to_owned(), |error| error.to_string());
                    failure::log(&format!("the keeper is replaced: {why}"));
                    self.replace_keeper()?;
                }
            }
        }
    }

    fn keeper(&self) -> Rc<KeeperHandle> {
        Rc::clone(&self.0.keeper.borrow())
    }

    fn dispatch(&self, event: Event, descriptors: Vec<OwnedFd>) {
        match event {
            Event::Launched { id, process } => {
                let tell = self.0.launching.borrow_mut().remove(&id);
                // Nobody waits for it any more: it must not run on unseen.
                if tell.is_none_or(|tell| tell.send(Ok((process, descriptors))).is_err())
                    && let Err(error) = self.signal(&id, libc::SIGKILL)
                {
                    failure::log(&format!("a process that nobody wants cannot be ended: {error}"));
                }
            }
            Event::LaunchFailed { id, failure } => {
                self.0.mounting.borrow_mut().remove(&id);
                if let Some(tell) = self.0.launching.borrow_mut().remove(&id) {
                    let _ = tell.send(Err(failure));
                }
            }
            Event::Mounted { id, pid } => {
                // When nobody waits any more, the launch has been given up.
                if let Some(tell) = self.0.mounting.borrow_mut().remove(&id) {
                    let _ = tell.send(pid);
                }
            }
            Event::Exited { id, record } => match self.0.waiting.borrow_mut().remove(&id) {
                Some(tell) => {
                    let _ = tell.send(record);
                }
                None => {
                    let _ = self.0.exits.send((id, record));
                }
            },
            Event::Welcome { .. } | Event::Held { .. } | Event::Ready => {}
        }
    }

    /// Starts a new keeper and hands it everything: descriptors first, then the processes.
    fn replace_keeper(&self) -> io::Result<()> {
        if let Some((program, tell)) = self.0.successor.take() {
            match self.start_keeper(format!("/proc/self/fd/{}", program.as_raw_fd()).into()) {
                Ok(()) => {
                    let _ = tell.send(());
                    return Ok(());
                }
                Err(error) => failure::log(&format!("another program cannot take over: {error}")),
            }
        }
        self.start_keeper("/proc/self/exe".into())
    }

    fn start_keeper(&self, binary: PathBuf) -> io::Result<()> {
        // Dropping the senders ends the launches that the dead keeper will never answer.
        self.0.launching.borrow_mut().clear();
        self.0.mounting.borrow_mut().clear();
        let options = SpawnOptions {
            binary,
            project: self.0.project.clone(),
            supervisor: self.0.program.clone(),
            held: Vec::new(),
            log: File::options().append(true).create(true).open(&self.0.log).ok(),
            like: None,
        };
        let socket = self.0.outside.run(move || keeper::spawn_replacement(options))?;
        let keeper = Rc::new(KeeperHandle::from_fd(socket)?);
        for (name, descriptors) in self.0.held.borrow().iter() {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            keeper.send(&Request::Hold { name: name.clone() }, &borrowed)?;
        }
        for (pidfd, process, watched) in self.0.running.borrow().values() {
            keeper.send(&adoption(process, watched), &[pidfd.as_fd()])?;
        }
        *self.0.keeper.borrow_mut() = keeper;
        Ok(())
    }
}

impl Streams {
    /// From what the keeper hands over after the pidfd.
    pub(super) fn from_parts(mut output: impl Iterator<Item = OwnedFd>, stdin: Option<OwnedFd>) -> Option<Self> {
        match (output.next()?, output.next()) {
            (stdout, Some(stderr)) => Some(Self::Pipes { stdout, stderr, stdin }),
            (master, None) => Some(Self::Terminal { master }),
        }
    }
}

fn adoption(process: &Process, watched: &Watched) -> Request {
    Request::Adopt {
        id: process.id.clone(),
        pid: process.pid,
        exit_file: watched.exit_file.clone(),
        oom: watched.oom.clone(),
    }
}
