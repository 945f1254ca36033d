//! The way out of a project whose network is apart from the host's: started when it is needed, again when it is killed.

use std::os::fd::AsFd;
use std::time::Duration;

use tokio::io::Interest;
use tokio::sync::watch as value;

use super::Host;
use crate::keeper::COMPANIONS;
use crate::network::uplink::Uplink;
use crate::supervisor::NETWORK;
use crate::supervisor::failure::because;
use crate::sys::watch;

/// A way out that ends at once is not started again faster than this.
const PAUSE: Duration = Duration::from_secs(1);

/// Name under which the keeper, too, holds what the way out lives by.
const LIFE: &str = "uplink";

/// How far the way out has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No container needs it.
    Unneeded,
    Needed,
    /// It is there, or cannot be had.
    Settled,
    /// The project is going, and the way out with it.
    Leaving,
}

pub(super) fn stage() -> value::Sender<Stage> {
    value::channel(Stage::Unneeded).0
}

impl Host {
    /// Says that the project has networks that lead out.
    pub(super) fn need_uplink(&self) {
        if self.connections.outside.is_apart() {
            self.connections.uplink.send_if_modified(|stage| {
                let first = *stage == Stage::Unneeded;
                if first {
                    *stage = Stage::Needed;
                }
                first
            });
        }
    }

    /// Waits until containers can reach the outside, or it is clear that they cannot.
    pub(in crate::supervisor) async fn uplink_settled(&self) {
        let mut stage = self.connections.uplink.subscribe();
        // The sender lives as long as we do.
        let _ = stage.wait_for(|stage| *stage != Stage::Needed).await;
    }

    /// Starts the way out when it is needed, and again when it ends. Runs as long as this process.
    pub(in crate::supervisor) async fn keep_uplink(self) {
        let mut stage = self.connections.uplink.subscribe();
        if stage.wait_for(|stage| *stage == Stage::Needed).await.is_err() {
            return;
        }
        loop {
            let running = self.running_uplink().await;
            let watched = running.and_then(|uplink| watch::watch(uplink.pidfd()?, Interest::READABLE));
            self.connections.uplink.send_replace(Stage::Settled);
            let pidfd = match watched {
                Ok(watched) => watched,
                Err(error) => {
                    let text = because("containers of this project cannot reach the outside", &error).message;
                    return self.notice(&format!("{text} (`rcompose doctor` says what is missing)"));
                }
            };
            let ended = pidfd.readable().await.map(drop);
            if *self.connections.uplink.borrow() == Stage::Leaving {
                return;
            }
            self.warn(&format!("the way out of the project's network has ended ({ended:?}), starting it again"));
            tokio::time::sleep(PAUSE).await;
            let again = self.connections.uplink.send_if_modified(|stage| {
                let goes_on = *stage == Stage::Settled;
                if goes_on {
                    *stage = Stage::Needed;
                }
                goes_on
            });
            if !again {
                return;
            }
        }
    }

    async fn running_uplink(&self) -> std::io::Result<Uplink> {
        let folder = self.dir.run().to_owned();
        let recorded = Uplink::recorded(&folder)?;
        let netns = self.link.held(NETWORK)?.into_iter().next().ok_or(std::io::ErrorKind::NotFound)?;
        // One that nobody has written down: its supervisor was killed at that moment.
        let uplink = match recorded.or_else(|| Uplink::of_namespace(netns.as_fd())) {
            Some(uplink) => uplink,
            None => {
                let (theirs, ours) = Uplink::life()?;
                let (outside, project) = (self.connections.outside.clone(), self.project.clone());
                let folder = folder.clone();
                let starting = move || outside.run(move || Uplink::start(&project, netns.as_fd(), &folder, theirs));
                let uplink = tokio::task::spawn_blocking(starting).await.map_err(std::io::Error::other)??;
                self.link.hold(LIFE, vec![ours.into()])?;
                uplink
            }
        };
        if recorded != Some(uplink) {
            uplink.record(&folder)?;
        }
        // When no supervisor can be started any more, the keeper ends it.
        self.link.hold(COMPANIONS, vec![uplink.pidfd()?])?;
        Ok(uplink)
    }

    /// Ends the way out, with the project, for good.
    pub(in crate::supervisor) fn end_uplink(&self) {
        self.connections.uplink.send_replace(Stage::Leaving);
        match Uplink::recorded(self.dir.run()) {
            Ok(Some(uplink)) => {
                if let Err(error) = uplink.end() {
                    self.warn(&format!("cannot end the way out of the project's network: {error}"));
                }
            }
            Ok(None) => {}
            Err(error) => self.warn(&format!("cannot read what the way out of the project's network is: {error}")),
        }
    }
}
