//! What the reconciler knows of each container.

use std::collections::VecDeque;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::health::Watch;
use crate::runtime::Probe;
use crate::spec::ContainerState;
use crate::spec::Exit;
use crate::spec::Health;
use crate::spec::Phase;

/// Probes kept for error messages.
const PROBES: usize = 3;

#[derive(Debug)]
pub(super) struct Live {
    pub(super) state: ContainerState,
    /// Counts starts and ends, so that late answers about an earlier run are known as such.
    pub(super) run: u64,
    pub(super) watch: Option<Watch>,
    pub(super) probe: Option<AbortHandle>,
    pub(super) probes: VecDeque<Probe>,
    /// Quick restarts in a row.
    pub(super) streak: u32,
    /// Since when it runs, as we learned of it: what the start took is no part of that.
    pub(super) since: Instant,
    pub(super) restart: Option<AbortHandle>,
    /// A restart by policy is under way.
    pub(super) restarting: bool,
    /// The run that was ended to join namespaces anew.
    pub(super) parting: Option<u64>,
    /// It is over, and about to be removed for that.
    pub(super) leaving: bool,
    last_exit: Option<Exit>,
    /// True while it does not run.
    pub(super) ended: watch::Sender<bool>,
}

impl Live {
    pub(super) fn new(state: ContainerState) -> Self {
        let ended = !matches!(state.phase, Phase::Running { .. });
        Self {
            streak: state.restarts,
            state,
            run: 0,
            watch: None,
            probe: None,
            probes: VecDeque::new(),
            since: Instant::now(),
            restart: None,
            restarting: false,
            parting: None,
            leaving: false,
            last_exit: None,
            ended: watch::Sender::new(ended),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state.phase, Phase::Running { .. })
    }

    pub(super) fn is_paused(&self) -> bool {
        matches!(self.state.phase, Phase::Running { paused: true, .. })
    }

    pub(super) fn health(&self) -> Option<Health> {
        match self.state.phase {
            Phase::Running { health, .. } => health,
            _ => None,
        }
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        match self.state.phase {
            Phase::Exited(exit) => Some(exit),
            _ => None,
        }
    }

    /// Takes over what the machine says. The news of an exit may have come before the answer that it was started.
    pub(super) fn update(&mut self, state: ContainerState) {
        let started = |state: &ContainerState| match state.phase {
            Phase::Running { started_at, .. } => Some(started_at),
            _ => None,
        };
        if started(&state).is_some_and(|at| started(&self.state) != Some(at)) {
            self.since = Instant::now();
        }
        self.state = state;
        if let (Phase::Running { started_at, .. }, Some(exit)) = (&self.state.phase, self.last_exit)
            && exit.at >= *started_at
        {
            self.state.phase = Phase::Exited(exit);
        }
        self.ended.send_replace(!self.is_running());
    }

    /// Takes in that it ended; false when that is old news.
    pub(super) fn exited(&mut self, exit: Exit) -> bool {
        self.last_exit = Some(exit);
        match self.state.phase {
            Phase::Running { started_at, .. } if exit.at >= started_at => {}
            _ => return false,
        }
        self.state.phase = Phase::Exited(exit);
        self.stop_watching();
        self.ended.send_replace(true);
        true
    }

    pub(super) fn set_health(&mut self, new: Health) {
        if let Phase::Running { health, .. } = &mut self.state.phase {
            *health = Some(new);
        }
    }

    pub(super) fn stop_watching(&mut self) {
        self.run += 1;
        self.watch = None;
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
    }

    pub(super) fn cancel_restart(&mut self) {
        if let Some(timer) = self.restart.take() {
            timer.abort();
        }
    }

    pub(super) fn remember(&mut self, probe: Probe) {
        self.probes.truncate(PROBES - 1);
        self.probes.push_front(probe);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop_watching();
        self.cancel_restart();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::spec::fixture;

    fn container(phase: Phase) -> ContainerState {
        fixture::container("a", phase)
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_start_took_is_no_part_of_its_run() {
        let running =
            |started_at| Phase::Running { pid: 1, started_at, health: None, paused: false, joined: Vec::new() };
        let mut live = Live::new(container(Phase::Created));
        for start in [1, 2] {
            tokio::time::advance(Duration::from_secs(5)).await;
            live.update(container(running(start)));
            assert_eq!(live.since.elapsed(), Duration::ZERO);
            tokio::time::advance(Duration::from_secs(1)).await;
            // Heard once more, it is no other run.
            live.update(container(running(start)));
            assert_eq!(live.since.elapsed(), Duration::from_secs(1));
        }
    }
}
