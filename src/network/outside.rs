//! The host's own network, for a process whose bridges must lie in a network namespace of their own.
//!
//! Only root may make bridges in the host's network. An ordinary user's project has a network namespace, which the
//! supervisor's main thread lives in, so that everything else here works as for root. What must be the host's (listening
//! sockets of published ports, questions to name servers, new processes) is made by one thread that stays outside.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread;

use netlink_packet_route::RouteNetlinkMessage;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::LinkUnspec;

use crate::network::netlink::{self, ACK, Netlink};
use crate::sys::userns;

type Job = Box<dyn FnOnce() + Send>;

/// Runs work in the host's network. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Outside(Option<mpsc::Sender<Job>>);

/// Moves the calling thread, the process's only one, into the project's network namespace: the one that is held, or a new
/// one. It is returned, for holding. Where bridges can be made in the present one, nothing is done.
///
/// # Errors
/// The kernel gives no network namespace.
pub fn settle(held: Option<&OwnedFd>) -> io::Result<(Outside, Option<OwnedFd>)> {
    if userns::owns("net")? {
        return Ok((Outside::default(), None));
    }
    let outside = Outside::start()?;
    match held {
        Some(netns) => setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?,
        None => {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let up = LinkUnspec::new_with_index(1).up().build();
            Netlink::route()?.send(&netlink::encode(RouteNetlinkMessage::SetLink(up), ACK))?;
        }
    }
    Ok((outside, Some(File::open("/proc/thread-self/ns/net")?.into())))
}

impl Outside {
    /// Whether the host's network is another one than this process's.
    pub fn is_apart(&self) -> bool {
        self.0.is_some()
    }

    fn start() -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        thread::Builder::new().name("outside".into()).stack_size(256 << 10).spawn(move || {
            waiting.into_iter().for_each(|job| job());
        })?;
        Ok(Self(Some(jobs)))
    }

    /// Runs `work` there and waits for it: for what is quick.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let Some(jobs) = &self.0 else { return work() };
        let (tell, told) = mpsc::channel();
        let sent = jobs.send(Box::new(move || drop(tell.send(work()))));
        // The thread ends with the last sender, or by a panic in `work`, which is then the caller's.
        let gone = || resume_unwind(Box::new("the thread in the host's network has ended"));
        sent.ok().and_then(|()| told.recv().ok()).unwrap_or_else(gone)
    }
}
