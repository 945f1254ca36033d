//! What others do to the host while containers run: a firewall that is loaded anew, a VPN whose routes come.

use std::time::Duration;

use super::Host;
use crate::network::monitor::{FirewallNews, RouteNews};
use crate::network::{NetworkRecord, firewall, foreign, routes};
use crate::runtime::RuntimeError;
use crate::supervisor::failure::because;

/// Changes come in bursts, as firewalls are loaded by one command per rule; they are looked at together, and the less often the
/// longer it goes on: there may be hundreds of projects that look.
const BURST: Duration = Duration::from_millis(50);
const LONGEST_BURST: Duration = Duration::from_secs(1);

impl Host {
    /// Follows the changes from now on; once is enough.
    pub(super) fn watch_host(&self) {
        if self.connections.watched.replace(true) {
            return;
        }
        let host = self.clone();
        tokio::task::spawn_local(async move {
            let ended = host.follow_firewall().await;
            host.warn(&because("changes of the host's firewall are not noticed any more", &ended).message);
        });
        let host = self.clone();
        tokio::task::spawn_local(async move {
            let ended = host.follow_routes().await;
            host.warn(&because("changes of the host's routes are not noticed any more", &ended).message);
        });
    }

    async fn follow_firewall(&self) -> std::io::Error {
        let news = match FirewallNews::open(firewall::table_name(&self.firewall_name())) {
            Ok(news) => news,
            Err(error) => return error,
        };
        // What has changed while no supervisor looked is seen at once.
        let mut wait = BURST;
        loop {
            tokio::time::sleep(wait).await;
            if let Err(error) = self.mend_firewall() {
                self.warn(&error.message);
            }
            let bridges: Vec<String> =
                self.connections.known.borrow().iter().map(|network| network.bridge.clone()).collect();
            let looked = tokio::time::Instant::now();
            if let Err(error) = news.changed(&bridges).await {
                return error;
            }
            wait = if looked.elapsed() < wait { (wait * 2).min(LONGEST_BURST) } else { BURST };
        }
    }

    /// Puts back what others have taken away, and passes what they have put in the way.
    fn mend_firewall(&self) -> Result<(), RuntimeError> {
        let what = "cannot mend the firewall's rules";
        let ours = self.own_networks()?;
        if !ours.is_empty() && !firewall::exists(&self.firewall_name()).map_err(|error| because(what, &error))? {
            self.apply_firewall()?;
            self.warn("somebody has removed the project's firewall rules; they are there again");
        }
        foreign::admit(&ours.iter().collect::<Vec<_>>()).map_err(|error| because(what, &error))
    }

    async fn follow_routes(&self) -> std::io::Error {
        let news = match RouteNews::open() {
            Ok(news) => news,
            Err(error) => return error,
        };
        loop {
            let ranges = match news.ranges().await {
                Ok(ranges) => ranges,
                Err(error) => return error,
            };
            let near = |network: &NetworkRecord| network.overlaps(&ranges);
            // Each network of each project has routes that come: reading all records for all of them would never end.
            let networks: Vec<_> =
                self.connections.known.borrow().iter().filter(|known| near(known)).cloned().collect();
            for network in &networks {
                for clash in routes::clashes(network).unwrap_or_default() {
                    let mut told = self.connections.clashes.borrow_mut();
                    if !told.contains(&clash) {
                        self.warn(&format!("{clash}. {}", routes::CLASH_REMEDY));
                        told.push(clash);
                    }
                }
            }
        }
    }

    /// Routes of the host that hide networks of the project, after some have come.
    pub(in crate::supervisor) fn clashes(&self) -> Vec<String> {
        if self.connections.clashes.borrow().is_empty() {
            return Vec::new();
        }
        let known = self.connections.known.borrow();
        let found: Vec<String> =
            known.iter().flat_map(|network| routes::clashes(network).unwrap_or_default()).collect();
        self.connections.clashes.borrow_mut().clone_from(&found);
        found
    }
}
