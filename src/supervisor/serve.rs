//! The control socket: one task per client.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::control::connection::{MAX_DESCRIPTORS, checked_length, encode, receive_descriptors};
use crate::control::{Exec, Failed, MAX_MESSAGE, NetworkChange, Reply, Request, Wait};
use crate::network::routes;
use crate::plan::Change;
use crate::plan::ChangeKind;
use crate::reconcile;
use crate::reconcile::{Command, Update};
use crate::supervisor::host::Host;
use crate::supervisor::link::Streams;
use crate::supervisor::process::{Inside, Refused};
use crate::sys::peer::{Peer, Why, peer};

/// Who is not obeyed has no more bytes read, as what he sends is kept until it is whole.
const STRANGERS: u32 = 1 << 20;

/// How long who has connected may take to ask for something, where he alone keeps this process from ending. Clients ask at once,
/// and one that is hung up on asks the next supervisor.
const SILENCE: Duration = Duration::from_secs(2);

/// How long nobody is accepted when no descriptor is left.
const FULL: Duration = Duration::from_millis(50);

/// The socket and what requests need.
pub(super) struct Server {
    shared: Rc<Shared>,
    listener: tokio::net::UnixListener,
}

struct Shared {
    host: Host,
    commands: mpsc::UnboundedSender<Command>,
    /// Nothing runs.
    idle: watch::Receiver<bool>,
    /// The change under way: its time of request, and who else waits for its outcome.
    current: RefCell<Option<Current>>,
    /// Clients being served, and changes that leave something to clear away.
    busy: Cell<usize>,
    left: Notify,
}

#[derive(Clone)]
struct Current {
    requested_at: i64,
    /// It goes on from before a crash: nobody who asked for it need be there any more.
    resumed: bool,
    outcome: watch::Receiver<Option<Vec<Failed>>>,
    updates: Rc<RefCell<Vec<mpsc::UnboundedSender<Reply>>>>,
}

impl Server {
    pub(super) fn new(
        host: Host,
        listener: UnixListener,
        commands: mpsc::UnboundedSender<Command>,
        idle: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let current = RefCell::new(None);
        let shared = Shared { host, commands, idle, current, busy: Cell::new(0), left: Notify::new() };
        Ok(Self { shared: Rc::new(shared), listener: tokio::net::UnixListener::from_std(listener)? })
    }

    /// Goes on with the change that the process before this one had begun.
    pub(super) fn resume(&self, change: Change) {
        let shared = Rc::clone(&self.shared);
        let joined = shared.begin(change, None, true);
        tokio::task::spawn_local(async move {
            if let Ok(mut joined) = joined {
                let _ = joined.outcome.wait_for(Option::is_some).await;
            }
        });
    }

    /// Serves until nothing is left to do.
    ///
    /// # Errors
    /// When the socket fails.
    pub(super) async fn run(self) -> io::Result<()> {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.serve(stream),
                    // Whoever is served now gives some back.
                    Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                        tokio::time::sleep(FULL).await;
                    }
                    Err(error) => return Err(error),
                },
                () = done(&self.shared) => {
                    if !self.accept_late()? {
                        break;
                    }
                }
            }
        }
        self.shared.host.leave().await;
        Ok(())
    }

    fn serve(&self, stream: UnixStream) {
        let shared = Rc::clone(&self.shared);
        shared.busy.set(shared.busy.get() + 1);
        tokio::task::spawn_local(async move {
            if let Err(error) = shared.answer(stream).await
                && !is_hang_up(&error)
            {
                shared.host.warn(&format!("a client could not be served: {error}"));
            }
            shared.busy.set(shared.busy.get() - 1);
            shared.left.notify_one();
        });
    }

    /// Whoever connected just before the end is served after all.
    fn accept_late(&self) -> io::Result<bool> {
        use std::task::{Context, Poll, Waker};
        match self.listener.poll_accept(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(accepted) => {
                self.serve(accepted?.0);
                Ok(true)
            }
            Poll::Pending => Ok(false),
        }
    }
}

/// Waits until nothing runs, nothing is under way or left over, and nobody is connected.
async fn done(shared: &Shared) {
    let mut idle = shared.idle.clone();
    loop {
        if idle.wait_for(|idle| *idle).await.is_err() {
            return;
        }
        if shared.current.borrow().is_none() && shared.busy.get() == 0 {
            return;
        }
        tokio::select! {
            () = shared.left.notified() => {}
            changed = idle.changed() => if changed.is_err() { return },
        }
    }
}

/// A client's part in a change.
struct Joined {
    outcome: watch::Receiver<Option<Vec<Failed>>>,
    updates: mpsc::UnboundedReceiver<Reply>,
}

impl Shared {
    async fn answer(self: &Rc<Self>, mut stream: UnixStream) -> io::Result<()> {
        let client = peer(&stream)?;
        let most = if client == Peer::Ours { MAX_MESSAGE } else { STRANGERS };
        let request = tokio::select! {
            biased;
            request = receive(&mut stream, most) => request?,
            () = self.silence() => None,
        };
        let Some(request) = request else { return Ok(()) };
        match client {
            Peer::Ours => {}
            // Nobody waits for what would be done.
            Peer::Gone => return Ok(()),
            Peer::Foreign { pid, why } => {
                let message = format!("process {pid} {why}: it is not obeyed");
                self.host.warn(&message);
                let help = matches!(why, Why::Capabilities(_)).then(|| {
                    "give the command where it may get all capabilities that the project was brought up with".to_owned()
                });
                return send(&mut stream, &Reply::Failed { failures: vec![Failed { message, help }] }).await;
            }
        }
        // Its folder was moved while it runs: what it would look at is not the project.
        if !self.host.dir.socket().exists() {
            let message = format!(
                "project `{}` runs with its state in `{}`, which was moved or removed",
                self.host.project,
                self.host.roots.data.display()
            );
            let help = Some("move it back; after `down` it can be moved".to_owned());
            send(&mut stream, &Reply::Failed { failures: vec![Failed { message, help }] }).await?;
            // Once it is back, another one shall look at it anew.
            std::process::exit(1);
        }
        match request {
            Request::Change { change, wait } => self.change(&mut stream, *change, wait).await,
            Request::Exec(exec) => self.exec(&mut stream, &exec).await,
            Request::Attach { container } => self.attach(&mut stream, &container).await,
            Request::Network { container, change } => self.network(&mut stream, &container, change).await,
            Request::Files { container } => self.files(&mut stream, &container).await,
            Request::Events => self.events(&mut stream).await,
            Request::GiveWay => self.give_way(&mut stream).await,
        }
    }

    /// Waits until whoever has asked for nothing is not waited for any more.
    async fn silence(&self) {
        loop {
            tokio::time::sleep(SILENCE).await;
            if *self.idle.borrow() && self.current.borrow().is_none() {
                return;
            }
        }
    }

    /// Ends this process once another program has the keeper's place.
    async fn give_way(&self, stream: &mut UnixStream) -> io::Result<()> {
        let program = loop {
            stream.readable().await?;
            match stream.try_io(Interest::READABLE, || receive_descriptors(&*stream, 1)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => break received?.pop().ok_or(io::ErrorKind::InvalidData)?,
            }
        };
        self.host.link.hand_over(program).await?;
        send(stream, &Reply::Done).await?;
        // Not by our own decision, as far as the keeper is concerned.
        std::process::exit(1)
    }

    async fn change(self: &Rc<Self>, stream: &mut UnixStream, change: Change, wait: Option<Wait>) -> io::Result<()> {
        self.let_resumed_finish(stream, &change).await?;
        let Joined { mut outcome, mut updates } = match self.begin(change, wait, false) {
            Ok(joined) => joined,
            Err(failed) => return send(stream, &Reply::Failed { failures: vec![failed] }).await,
        };
        loop {
            tokio::select! {
                biased;
                Some(update) = updates.recv() => send(stream, &update).await?,
                ended = outcome.wait_for(Option::is_some) => {
                    let lost = || vec![Failed { message: "the supervisor gave the change up".to_owned(), help: None }];
                    let failures = ended.ok().and_then(|failures| failures.clone()).unwrap_or_else(lost);
                    while let Ok(update) = updates.try_recv() {
                        send(stream, &update).await?;
                    }
                    let last = if failures.is_empty() { Reply::Done } else { Reply::Failed { failures } };
                    return send(stream, &last).await;
                }
            }
        }
    }

    /// A change that goes on from before a crash is no reason to refuse the one that a person asks for now.
    async fn let_resumed_finish(&self, stream: &mut UnixStream, change: &Change) -> io::Result<()> {
        let current = self.current.borrow().clone();
        let waits = matches!(change.kind, ChangeKind::Up { .. } | ChangeKind::Run { .. } | ChangeKind::Start { .. });
        if let Some(mut current) = current
            && current.resumed
            && current.requested_at != change.requested_at
            && waits
        {
            let text = "waiting for the change that goes on since before the supervisor was replaced";
            send(stream, &Reply::Warning(text.to_owned())).await?;
            // Its failures are nobody's; what is left to do is part of the new change.
            let _ = current.outcome.wait_for(Option::is_some).await;
        }
        Ok(())
    }

    /// Begins a change, or joins it when it is the one under way.
    fn begin(self: &Rc<Self>, mut change: Change, wait: Option<Wait>, resumed: bool) -> Result<Joined, Failed> {
        let (tell, updates) = mpsc::unbounded_channel();
        if let Some(current) = &*self.current.borrow()
            && current.requested_at == change.requested_at
        {
            current.updates.borrow_mut().push(tell);
            return Ok(Joined { outcome: current.outcome.clone(), updates });
        }
        let requested_at = change.requested_at;
        if !resumed {
            change.requested_at = self.host.requested(requested_at);
        }
        let journal = serde_json::to_value(&change)
            .map_err(|error| Failed { message: format!("the change cannot be written down: {error}"), help: None })?;
        let (progress, mut news) = mpsc::unbounded_channel();
        let (done, mut ended) = oneshot::channel();
        let wait = wait.map(|wait| reconcile::Wait { timeout: wait.timeout });
        let command = Command { change, wait, progress, done };
        let (publish, outcome) = watch::channel(None);
        let listeners = Rc::new(RefCell::new(vec![tell]));
        let current = Current { requested_at, resumed, outcome: outcome.clone(), updates: Rc::clone(&listeners) };
        if resumed {
            *self.current.borrow_mut() = Some(current.clone());
        }
        let shared = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let failures = shared.make(command, journal, current, &listeners, &mut news, &mut ended).await;
            shared.busy.set(shared.busy.get() + 1);
            let removals = shared.host.begin_removal().await;
            let _ = publish.send(Some(failures));
            shared.host.end_removal(removals).await;
            shared.host.sweep_links().await;
            shared.busy.set(shared.busy.get() - 1);
            shared.left.notify_one();
        });
        Ok(Joined { outcome, updates })
    }

    /// Hands a change to the reconciler and sees it to its end. It is written down from its first step on.
    async fn make(
        &self,
        command: Command,
        journal: serde_json::Value,
        current: Current,
        listeners: &RefCell<Vec<mpsc::UnboundedSender<Reply>>>,
        news: &mut mpsc::UnboundedReceiver<Update>,
        ended: &mut oneshot::Receiver<Result<(), Vec<reconcile::Failure>>>,
    ) -> Vec<Failed> {
        let requested_at = current.requested_at;
        let remember_project = project_of(&command.change);
        if self.commands.send(command).is_err() {
            return vec![Failed { message: "the reconciler has ended".to_owned(), help: None }];
        }
        let mut accepted = Some((journal, current));
        let (tell, mut notices) = mpsc::unbounded_channel();
        loop {
            tokio::select! {
                biased;
                Some(text) = notices.recv() => tell_all(listeners, &Reply::Warning(text)),
                Some(update) = news.recv() => {
                    let begun = !matches!(update, Update::Waits(_));
                    if begun && let Some((journal, current)) = accepted.take() {
                        self.accept(journal, current, remember_project.as_ref());
                        *self.host.notices.borrow_mut() = Some(tell.clone());
                    }
                    let reply = match update {
                        Update::Progress { id, status, text } => {
                            Reply::Progress { id, status: status.to_owned(), text }
                        }
                        Update::Warning(text) | Update::Waits(text) => Reply::Warning(text),
                    };
                    tell_all(listeners, &reply);
                }
                result = &mut *ended => {
                    while let Ok(text) = notices.try_recv() {
                        tell_all(listeners, &Reply::Warning(text));
                    }
                    for clash in self.host.clashes() {
                        tell_all(listeners, &Reply::Warning(format!("{clash}. {}", routes::CLASH_REMEDY)));
                    }
                    self.finish(requested_at);
                    return match result {
                        Ok(Ok(())) => Vec::new(),
                        Ok(Err(failures)) => failures
                            .into_iter()
                            .map(|failure| Failed { message: failure.message, help: failure.help })
                            .collect(),
                        Err(_) => vec![Failed { message: "the change was given up".to_owned(), help: None }],
                    };
                }
            }
        }
    }

    fn accept(&self, journal: serde_json::Value, current: Current, project: Option<&crate::spec::ProjectSpec>) {
        *self.current.borrow_mut() = Some(current);
        let written = self.host.change_record(|record| {
            record.change = Some(journal);
            if let Some(project) = project {
                record.working_dir.clone_from(&project.working_dir);
                record.config_files.clone_from(&project.config_files);
            }
        });
        if let Err(error) = written {
            self.host.warn(&format!("the change cannot be written down: {error}"));
        }
    }

    fn finish(&self, requested_at: i64) {
        let mut current = self.current.borrow_mut();
        if current.as_ref().is_some_and(|current| current.requested_at == requested_at) {
            *current = None;
            if let Err(error) = self.host.change_record(|record| record.change = None) {
                self.host.warn(&format!("the end of the change cannot be written down: {error}"));
            }
        }
    }

    async fn exec(&self, stream: &mut UnixStream, exec: &Exec) -> io::Result<()> {
        let Inside { id, launched, end } = match self.host.exec(exec).await {
            Ok(inside) => inside,
            Err(Refused { error, status }) => {
                let failures = vec![Failed { message: error.message, help: error.help }];
                send(stream, &Reply::Failed { failures }).await?;
                return send(stream, &Reply::Exited { code: status }).await;
            }
        };
        let sent = self.hand_over(stream, &id, launched.streams).await;
        let record = end.await;
        self.host.release_process(&id);
        sent?;
        let code = record.ok().and_then(|record| record.code).unwrap_or(255);
        send(stream, &Reply::Exited { code }).await
    }

    /// Gives a client our ends of a process's streams, and lets go of its input so that the client can end it.
    async fn hand_over(&self, stream: &mut UnixStream, id: &str, streams: Streams) -> io::Result<()> {
        let descriptors: Vec<OwnedFd> = match streams {
            Streams::Terminal { master } => vec![master],
            Streams::Pipes { stdout, stderr, stdin } => stdin.into_iter().chain([stdout, stderr]).collect(),
        };
        self.host.link.release(&format!("stdin:{id}"))?;
        send(stream, &Reply::Started { descriptors: descriptors.len() }).await?;
        send_descriptors(stream, &descriptors).await
    }

    async fn attach(&self, stream: &mut UnixStream, container: &str) -> io::Result<()> {
        let mut lives = self.host.watch_lives();
        let (id, descriptors) = match self.host.streams_of(container) {
            Ok(found) => found,
            Err(error) => {
                let failures = vec![Failed { message: error.message, help: error.help }];
                return send(stream, &Reply::Failed { failures }).await;
            }
        };
        self.host.link.release(&format!("stdin:{id}"))?;
        send(stream, &Reply::Started { descriptors: descriptors.len() }).await?;
        send_descriptors(stream, &descriptors).await?;
        drop(descriptors);
        while let Some(event) = lives.recv().await {
            if let crate::control::Event::Exited { container: name, code, .. } = event
                && name == container
            {
                return send(stream, &Reply::Exited { code }).await;
            }
        }
        Ok(())
    }

    /// Until the client hangs up.
    async fn files(&self, stream: &mut UnixStream, container: &str) -> io::Result<()> {
        let served = self.host.with_files(container, async |root| {
            send(stream, &Reply::Started { descriptors: 1 }).await?;
            send_descriptors(stream, &[root]).await?;
            stream.read(&mut [0]).await.map(drop)
        });
        match served.await {
            Ok(served) => served,
            Err(error) => {
                let failures = vec![Failed { message: error.message, help: error.help }];
                send(stream, &Reply::Failed { failures }).await
            }
        }
    }

    async fn network(&self, stream: &mut UnixStream, container: &str, change: NetworkChange) -> io::Result<()> {
        let made = match change {
            NetworkChange::Join(attachment) => self.host.join(container, attachment),
            NetworkChange::Leave { network } => self.host.leave_network(container, &network),
        };
        let reply = match made {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed { failures: vec![Failed { message: error.message, help: error.help }] },
        };
        send(stream, &reply).await
    }

    async fn events(&self, stream: &mut UnixStream) -> io::Result<()> {
        let mut lives = self.host.watch_lives();
        let mut byte = [0];
        loop {
            tokio::select! {
                event = lives.recv() => match event {
                    Some(event) => send(stream, &Reply::Event(event)).await?,
                    None => return Ok(()),
                },
                // Nothing is expected from the client but its end.
                _ = stream.read(&mut byte) => return Ok(()),
            }
        }
    }
}

fn tell_all(listeners: &RefCell<Vec<mpsc::UnboundedSender<Reply>>>, reply: &Reply) {
    listeners.borrow_mut().retain(|listener| listener.send(reply.clone()).is_ok());
}

fn project_of(change: &Change) -> Option<crate::spec::ProjectSpec> {
    match &change.kind {
        ChangeKind::Up { project, .. } | ChangeKind::Run { project, .. } => Some(project.clone()),
        _ => None,
    }
}

/// `most`: the longest message that is taken.
async fn receive(stream: &mut UnixStream, most: u32) -> io::Result<Option<Request>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if is_hang_up(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = checked_length(length)?;
    if length > most as usize {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

async fn send(stream: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    stream.write_all(&encode(reply)?).await
}

async fn send_descriptors(stream: &UnixStream, descriptors: &[OwnedFd]) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    loop {
        stream.writable().await?;
        let sent = stream.try_io(Interest::WRITABLE, || {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(&borrowed));
            Ok(sendmsg(stream, &[io::IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?)
        });
        match sent {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
