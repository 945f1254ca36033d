//! The per-project process: owns the reconciler, log pump, DNS, ports, health probes and the control socket.
//!
//! It may be killed at any moment: what it knows it has read from disk, kernel and keeper, and its successor does so again.

mod adopt;
mod check;
mod connect;
mod create;
mod end;
mod events;
mod failure;
mod files;
mod hooks;
mod host;
mod label;
mod leave;
mod link;
mod other;
mod output;
mod process;
mod serve;
mod start;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::{JoinSet, LocalSet};

use crate::base::trash::Trash;
use crate::engine::cgroup::Hierarchies;
use crate::engine::selinux::Policy;
use crate::image::Store;
use crate::keeper::CONTROL;
use crate::keeper::KeeperHandle;
use crate::keeper::Program;
use crate::logs::LogPump;
use crate::network::uplink::Uplink;
use crate::network::{self, Outside};
use crate::plan::Change;
use crate::reconcile::Handle;
use crate::reconcile::Reconciler;
use crate::state::Roots;
use crate::state::RunState;
use crate::supervisor::connect::Connections;
use crate::supervisor::host::{Host, Parts};
use crate::supervisor::link::Link;
use crate::supervisor::serve::Server;
use crate::volume::Volumes;

pub use crate::keeper::SUPERVISOR as ROLE;

/// Name under which the keeper holds the project's network namespace, where it has one of its own.
const NETWORK: &str = "network";

/// Whether the process of a run still exists and is the same one. `boot_id` is the present boot's.
pub fn is_same_process(boot_id: &str, run: &RunState) -> bool {
    run.boot_id == boot_id && crate::sys::process::start_time(run.pid).is_some_and(|started| started == run.start_time)
}

/// Runs the supervisor: `arguments` are the project's name and the two roots.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn complain(error: &dyn Error) {
    failure::log(&failure::because("the supervisor has failed", error).message);
}

fn start(arguments: Vec<OsString>) -> Result<(), Box<dyn Error>> {
    let [project, data, run]: [OsString; 3] =
        arguments.try_into().map_err(|_| "the supervisor is started by the keeper only")?;
    let project = project.into_string().map_err(|_| "the project's name is not UTF-8")?;
    let roots = Roots { data: PathBuf::from(data), run: PathBuf::from(run) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, supervise(project, roots))
}

async fn supervise(project: String, roots: Roots) -> Result<(), Box<dyn Error>> {
    let keeper = KeeperHandle::from_stdin()?;
    let mut inherited = Link::greeting(&keeper).await?;
    let program = Program::supervisor(&project, &roots.data, &roots.run);
    let log = roots.project(&project).data().join("supervisor.log");
    let held = inherited.held.get(NETWORK).and_then(|descriptors| descriptors.first());
    let outlived = if held.is_none() { Uplink::left(roots.project(&project).run())? } else { None };
    // While this thread is the only one.
    let (outside, netns) = network::outside::settle(held.or(outlived.as_ref()))?;
    let held = std::mem::take(&mut inherited.held);
    let is_new = !held.contains_key(NETWORK);
    let (link, ends) = Link::new(&project, program, log, keeper, outside.clone());
    let listener = match restore(&link, held) {
        Ok(listener) => listener,
        Err(error) => {
            // Nobody can reach us, and no successor would do better: the next command starts both anew.
            link.finish()?;
            return Err(error.into());
        }
    };
    if let Some(netns) = netns.filter(|_| is_new) {
        link.hold(NETWORK, vec![netns])?;
    }
    let pumping = link.clone();
    tokio::task::spawn_local(async move {
        if let Err(error) = pumping.run().await {
            // Without a keeper nothing can be started and nothing is safe: the next command starts both anew.
            complain(&error);
            std::process::exit(1);
        }
    });
    let host = host(project, roots, link, ends, outside)?;
    host.take_over(inherited).await?;
    let (reconciler, Handle { commands, idle }) = Reconciler::new(Rc::new(host.clone()));
    tokio::task::spawn_local(async move {
        if let Err(error) = reconciler.run().await {
            complain(&error);
            std::process::exit(1);
        }
    });
    tokio::task::spawn_local(host.clone().keep_uplink());
    let journal = journal(&host);
    if let Err(error) = std::fs::write(host.dir.program(), crate::sys::process::program()?) {
        host.warn(&format!("a client of another build will not know of it: {error}"));
        // Half a name would be another build's.
        let _ = std::fs::remove_file(host.dir.program());
    }
    let server = Server::new(host, listener, commands, idle)?;
    if let Some(change) = journal {
        server.resume(change);
    }
    server.run().await?;
    Ok(())
}

/// Notes everything that the keeper holds, and finds the control socket among it.
fn restore(link: &Link, held: HashMap<String, Vec<OwnedFd>>) -> io::Result<UnixListener> {
    let mut control = None;
    for (name, descriptors) in held {
        let held = link.restore(&name, descriptors);
        if name == CONTROL {
            control = held.first().map(OwnedFd::try_clone).transpose()?;
        }
    }
    control.map(UnixListener::from).ok_or_else(|| io::Error::other("the keeper holds no control socket"))
}

fn host(
    project: String,
    roots: Roots,
    link: Link,
    ends: mpsc::UnboundedReceiver<(String, crate::keeper::ExitRecord)>,
    outside: Outside,
) -> Result<Host, Box<dyn Error>> {
    let dir = roots.project(&project);
    let record = dir.record()?;
    Ok(Host::new(Parts {
        boot_id: crate::base::boot::boot_id()?,
        store: Store::open(&roots.data)?,
        images: RefCell::default(),
        volumes: Volumes::open(&roots.data)?,
        trash: Trash::new(&roots.data),
        trash_waits: Rc::default(),
        hierarchies: Hierarchies::detect()?,
        selinux: Policy::of_host().ok(),
        pump: LogPump::start(|container, error| complain(&io::Error::other(format!("{container}: {error}"))))?,
        forwarders: RefCell::default(),
        cgroup_parents: RefCell::default(),
        connections: Connections::new(&roots.data, outside),
        record: RefCell::new(record),
        live: RefCell::new(BTreeMap::new()),
        starting: RefCell::default(),
        notices: RefCell::default(),
        said_single: Cell::new(false),
        started: Notify::new(),
        held: RefCell::default(),
        let_go: Notify::new(),
        room: Cell::default(),
        ends: Mutex::new((ends, JoinSet::new())),
        watchers: RefCell::default(),
        latest: Cell::new(0),
        next_process: Cell::new(0),
        project,
        dir,
        roots,
        link,
    }))
}

/// The change that was under way when the process before this one ended.
fn journal(host: &Host) -> Option<Change> {
    let change = host.record.borrow().change.clone()?;
    match serde_json::from_value(change) {
        Ok(change) => Some(change),
        Err(error) => {
            host.warn(&format!("the change under way cannot be read and is given up: {error}"));
            None
        }
    }
}
