//! The loop: events in, decisions, tasks out.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::rc::Rc;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::change::{Running, Stage};
use super::health::Watch;
use super::live::Live;
use super::step::{self, Outcome};
use super::{Command, Failure, Handle, Update, restart};
use crate::base::ids::ContainerId;
use crate::plan;
use crate::plan::ChangeKind;
use crate::plan::Op;
use crate::runtime::NewContainer;
use crate::runtime::Probe;
use crate::runtime::Runtime;
use crate::runtime::RuntimeError;
use crate::runtime::RuntimeEvent;
use crate::spec::ContainerState;
use crate::spec::Exit;
use crate::spec::Health;
use crate::spec::Observed;
use crate::spec::Phase;

/// How long a container stays that is removed when it has ended.
const LEAVE_AFTER: std::time::Duration = std::time::Duration::from_secs(2);

/// Everything that can happen.
pub(super) enum Event {
    Machine(Option<RuntimeEvent>),
    Observed(Result<Observed, RuntimeError>),
    Checked(Result<(), Vec<RuntimeError>>),
    Step {
        step: usize,
        result: Result<Outcome, RuntimeError>,
    },
    /// A gate cannot open any more, and this is why.
    Explained {
        step: usize,
        failure: Failure,
    },
    /// `--wait` cannot succeed any more.
    WaitFailed(Failure),
    Probed {
        id: ContainerId,
        run: u64,
        result: Result<Probe, RuntimeError>,
    },
    RestartDue {
        id: ContainerId,
    },
    Restarted {
        id: ContainerId,
        result: Result<Box<ContainerState>, RuntimeError>,
    },
    /// A container has ended that is to join the namespaces of another one anew.
    Parted {
        id: ContainerId,
        result: Result<(), RuntimeError>,
    },
    /// A container that was over has been removed.
    Gone {
        id: ContainerId,
        result: Result<(), RuntimeError>,
    },
    WaitOver,
    /// Containers that were looked at for a while have had that while.
    Settled,
    /// A container is no longer marked as stopped by command.
    Unmarked {
        id: ContainerId,
        result: Result<(), RuntimeError>,
    },
    /// Something was noted on disk, or could not be.
    Noted(Result<(), RuntimeError>),
}

/// Keeps the containers of one project as they were asked to be.
pub struct Reconciler<R> {
    pub(super) runtime: Rc<R>,
    commands: mpsc::UnboundedReceiver<Command>,
    idle: watch::Sender<bool>,
    pub(super) tasks: JoinSet<Event>,
    pub(super) lives: BTreeMap<ContainerId, Live>,
    pub(super) running: Option<Running>,
    queue: VecDeque<Command>,
    adopted: bool,
    /// Commands can still come.
    open: bool,
}

impl<R: Runtime> Reconciler<R> {
    /// A loop that has not begun, and what changes are given to it with.
    pub fn new(runtime: Rc<R>) -> (Self, Handle) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (idle, idle_seen) = watch::channel(false);
        let reconciler = Self {
            runtime,
            commands: receiver,
            idle,
            tasks: JoinSet::new(),
            lives: BTreeMap::new(),
            running: None,
            queue: VecDeque::new(),
            adopted: false,
            open: true,
        };
        (reconciler, Handle { commands, idle: idle_seen })
    }

    /// Runs until the machine is gone or, once nobody can send commands any more, there is nothing left to do.
    ///
    /// # Errors
    /// When what exists cannot be learnt at the beginning.
    pub async fn run(mut self) -> Result<(), RuntimeError> {
        let observed = self.runtime.observe(Vec::new()).await?;
        self.adopt(observed);
        self.adopted = true;
        self.listen();
        loop {
            self.advance();
            let idle = self.is_idle();
            self.idle.send_if_modified(|seen| std::mem::replace(seen, idle) != idle);
            if idle && !self.open {
                return Ok(());
            }
            tokio::select! {
                biased;
                command = self.commands.recv(), if self.open => match command {
                    Some(command) => self.command(command),
                    None => self.open = false,
                },
                Some(joined) = self.tasks.join_next() => match joined {
                    Ok(Event::Machine(None)) => return Ok(()),
                    Ok(event) => self.event(event),
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    // A timer or probe that is not wanted any more.
                    Err(_) => {}
                },
            }
        }
    }

    /// Nothing runs, nothing is pending, no restart is due.
    fn is_idle(&self) -> bool {
        let quiet = |live: &Live| !live.is_running() && live.restart.is_none() && !live.restarting && !live.leaving;
        self.adopted && self.running.is_none() && self.queue.is_empty() && self.lives.values().all(quiet)
    }

    fn listen(&mut self) {
        let runtime = Rc::clone(&self.runtime);
        self.spawn(async move { Event::Machine(runtime.next_event().await) });
    }

    pub(super) fn spawn(&mut self, task: impl Future<Output = Event> + 'static) -> AbortHandle {
        self.tasks.spawn_local(task)
    }

    fn command(&mut self, command: Command) {
        let verb = command.change.kind.verb();
        if let ChangeKind::Kill { services, signal } = &command.change.kind
            && self.running.is_some()
        {
            self.kill_now(&services.clone(), &signal.clone());
        }
        let Some(running) = &mut self.running else {
            self.begin(command);
            return;
        };
        let preempts = matches!(
            command.change.kind,
            ChangeKind::Stop { .. }
                | ChangeKind::Down { .. }
                | ChangeKind::Kill { .. }
                | ChangeKind::Remove { .. }
                | ChangeKind::Cancel
        );
        // The same once more, from another terminal: when its turn comes, there is nothing left to do.
        let again = running.change.kind == command.change.kind
            && !matches!(command.change.kind, ChangeKind::Up { .. } | ChangeKind::Run { .. });
        if again {
            let text = format!("waiting for the `{verb}` of the same project that is under way");
            // The one who asked may have gone.
            let _ = command.progress.send(Update::Waits(text));
            self.queue.push_back(command);
            return;
        }
        if preempts {
            running.interrupted.get_or_insert(verb);
            self.queue.push_back(command);
            return;
        }
        let message =
            format!("`{verb}` refused: `{}` of the same project is still running", running.change.kind.verb());
        let age = format!(
            "it began {} s ago; wait for it, or end it with `stop` or `down`",
            running.began.elapsed().as_secs()
        );
        let _ = command.done.send(Err(vec![Failure { message, help: Some(age) }]));
    }

    /// The second Ctrl-C: containers that are being stopped do not get the rest of their grace period.
    fn kill_now(&mut self, services: &[String], signal: &str) {
        let meant = |live: &&mut Live| {
            live.is_running() && (services.is_empty() || services.contains(&live.state.service.name))
        };
        let mut kills = Vec::new();
        for live in self.lives.values_mut().filter(meant) {
            let stops = stops(&live.state, signal);
            live.state.stopped_by_user |= stops;
            kills.push((live.state.id.clone(), stops, live.ended.subscribe()));
        }
        for (id, stops, ended) in kills {
            let (runtime, signal) = (Rc::clone(&self.runtime), signal.to_owned());
            self.spawn(async move { Event::Noted(step::kill(&*runtime, id, signal, stops, ended).await) });
        }
    }

    fn begin(&mut self, command: Command) {
        self.running = Some(Running::new(command));
        for live in self.lives.values_mut() {
            live.cancel_restart();
        }
        self.observe_when_quiet();
    }

    /// A plan is made from what is there, so restarts under way end first.
    fn observe_when_quiet(&mut self) {
        let Some(running) = &self.running else { return };
        if running.stage != Stage::Preparing || self.lives.values().any(|live| live.restarting) {
            return;
        }
        let (runtime, images) = (Rc::clone(&self.runtime), running.change.kind.images());
        self.spawn(async move { Event::Observed(runtime.observe(images).await) });
    }

    pub(super) fn next_change(&mut self) {
        if self.running.is_none()
            && let Some(command) = self.queue.pop_front()
        {
            self.begin(command);
            if let (Some(running), Some(next)) = (&mut self.running, self.queue.front())
                && running.change.kind != next.change.kind
            {
                running.interrupted = Some(next.change.kind.verb());
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Machine(None) => {}
            Event::Machine(Some(RuntimeEvent::Exited { id, exit })) => {
                self.exited(&id, exit);
                self.listen();
            }
            Event::Observed(result) => self.observed(result),
            Event::Checked(result) => self.checked(result),
            Event::Step { step, result } => self.step_ended(step, result),
            Event::Explained { step, failure } => self.gate_failed(step, failure),
            Event::WaitFailed(failure) => {
                // Unless the wait has ended otherwise and this is about a change of before.
                if self.running.as_ref().is_some_and(|running| running.stage == Stage::Waiting) {
                    self.finish_with(vec![failure]);
                }
            }
            Event::Probed { id, run, result } => self.probed(&id, run, result),
            Event::RestartDue { id } => self.restart_due(id),
            Event::Restarted { id, result } => self.restarted(&id, result.map(|state| *state)),
            Event::Parted { id, result } => {
                if let Some(live) = self.lives.get_mut(&id) {
                    live.restarting = false;
                }
                self.event(Event::Noted(result));
                self.observe_when_quiet();
            }
            Event::Gone { id, result } => {
                // One that is still there is found again by the next change.
                self.lives.remove(&id);
                if let (Err(error), Some(running)) = (result, &self.running) {
                    running.warn(error.message);
                }
            }
            Event::WaitOver => self.wait_over(),
            Event::Settled => {
                if let Some(running) = &mut self.running {
                    running.settling = false;
                }
            }
            Event::Unmarked { id, result: Ok(()) } => {
                if let Some(live) = self.lives.get_mut(&id) {
                    live.state.stopped_by_user = false;
                }
            }
            Event::Noted(Err(error)) | Event::Unmarked { result: Err(error), .. } => {
                if let Some(running) = &self.running {
                    running.warn(error.message);
                }
            }
            Event::Noted(Ok(())) => {}
        }
    }

    fn observed(&mut self, result: Result<Observed, RuntimeError>) {
        let observed = match result {
            Ok(observed) => observed,
            Err(error) => return self.finish_with(vec![error.into()]),
        };
        self.adopt(observed.clone());
        let observed =
            Observed { containers: self.lives.values().map(|live| live.state.clone()).collect(), ..observed };
        let Some(running) = &mut self.running else { return };
        let plan = match plan::plan(&running.change, &observed) {
            Ok(plan) => plan,
            Err(error) => {
                let failure = Failure { message: error.to_string(), help: None };
                return self.finish_with(vec![failure]);
            }
        };
        let new: Vec<NewContainer> = plan.steps.iter().filter_map(|step| new_container(&step.op)).collect();
        let going = plan.steps.iter().filter_map(|step| match &step.op {
            Op::Remove { id, .. } => Some(id.clone()),
            _ => None,
        });
        let going: Vec<ContainerId> = going.collect();
        running.plan = plan;
        let runtime = Rc::clone(&self.runtime);
        if new.is_empty() {
            self.checked(Ok(()));
        } else {
            self.spawn(async move { Event::Checked(runtime.preflight(&new, &going).await) });
        }
    }

    fn checked(&mut self, result: Result<(), Vec<RuntimeError>>) {
        match result {
            Ok(()) => {
                if let Some(running) = &mut self.running {
                    let plan = std::mem::take(&mut running.plan);
                    running.accept(plan);
                }
                self.keep_unchanged();
            }
            Err(errors) => self.finish_with(errors.into_iter().map(Failure::from).collect()),
        }
    }

    /// A stop that was cut short may have left its mark on a container that is to go on.
    fn keep_unchanged(&mut self) {
        let Some(running) = &self.running else { return };
        let kept = |live: &&Live| running.plan.unchanged.contains(&live.state.name) && live.is_running();
        let marked: Vec<ContainerId> = self
            .lives
            .values()
            .filter(kept)
            .filter(|live| live.state.stopped_by_user)
            .map(|live| live.state.id.clone())
            .collect();
        for id in marked {
            let runtime = Rc::clone(&self.runtime);
            self.spawn(async move {
                let result = runtime.mark_stopped(id.clone(), false).await;
                Event::Unmarked { id, result }
            });
        }
    }

    pub(super) fn finish_with(&mut self, failures: Vec<Failure>) {
        if let Some(mut running) = self.running.take() {
            running.failures.extend(failures);
            running.finish();
        }
    }

    /// Makes the table of containers what the machine says.
    fn adopt(&mut self, observed: Observed) {
        let there: Vec<ContainerId> = observed.containers.iter().map(|state| state.id.clone()).collect();
        self.lives.retain(|id, _| there.contains(id));
        for state in observed.containers {
            self.learn(state);
        }
    }

    /// Takes in the state of a container, and watches its health while it runs.
    pub(super) fn learn(&mut self, state: ContainerState) {
        let id = state.id.clone();
        if let Some(live) = self.lives.get_mut(&id) {
            live.update(state);
        } else {
            self.lives.insert(id.clone(), Live::new(state));
        }
        let Some(live) = self.lives.get_mut(&id) else { return };
        if !live.is_running() || live.is_paused() {
            live.stop_watching();
        } else if let (Some(spec), true) = (&live.state.service.health, live.watch.is_none()) {
            let health = live.health().unwrap_or(Health::Starting);
            live.run += 1;
            live.watch = Some(Watch::new(spec.clone(), health, Instant::now()));
            live.set_health(health);
            self.probe(&id, std::time::Duration::ZERO);
        }
    }

    fn probe(&mut self, id: &ContainerId, delay: std::time::Duration) {
        let Some(live) = self.lives.get(id) else { return };
        let Some(watch) = &live.watch else { return };
        let (runtime, id, run, spec) = (Rc::clone(&self.runtime), id.clone(), live.run, watch.spec.clone());
        let probe = self.tasks.spawn_local({
            let id = id.clone();
            async move {
                if !delay.is_zero() {
                    sleep(delay).await;
                }
                let result = runtime.probe(id.clone(), spec).await;
                Event::Probed { id, run, result }
            }
        });
        if let Some(live) = self.lives.get_mut(&id) {
            live.probe = Some(probe);
        }
    }

    fn probed(&mut self, id: &ContainerId, run: u64, result: Result<Probe, RuntimeError>) {
        let Some(live) = self.lives.get_mut(id).filter(|live| live.run == run) else { return };
        let now = Instant::now();
        let Some(watch) = &mut live.watch else { return };
        let probe =
            result.unwrap_or_else(|error| Probe { code: Some(-1), output: error.message, took: watch.age(now) });
        let before = watch.health;
        let delay = watch.probed(probe.code == Some(0), now);
        let health = watch.health;
        live.remember(probe);
        live.set_health(health);
        if health != before {
            let (runtime, id) = (Rc::clone(&self.runtime), id.clone());
            self.spawn(async move { Event::Noted(runtime.record_health(id, health).await) });
        }
        self.probe(id, delay);
    }

    fn exited(&mut self, id: &ContainerId, exit: Exit) {
        let Some(live) = self.lives.get_mut(id) else { return };
        if live.exited(exit) && live.since.elapsed() >= restart::STEADY {
            live.streak = 0;
        }
    }

    /// Ends containers that are in namespaces which another one has left when its policy restarted it.
    pub(super) fn part(&mut self) {
        let states: Vec<_> = self.lives.values().map(|live| &live.state).collect();
        let left = plan::left_behind(&states).into_iter();
        let left: Vec<_> = left.map(|(state, service)| (state.id.clone(), service.to_owned())).collect();
        for (id, service) in left {
            let Some(live) = self.lives.get_mut(&id) else { continue };
            let held = self.running.as_ref().is_some_and(|running| running.holds(&live.state.name));
            if held || live.restarting || live.parting == Some(live.run) {
                continue;
            }
            live.restarting = true;
            live.parting = Some(live.run);
            live.state.rejoins = true;
            let (signal, grace) = (live.state.service.stop_signal.clone(), live.state.service.stop_grace);
            let (runtime, ended) = (Rc::clone(&self.runtime), live.ended.subscribe());
            self.spawn(async move {
                let signal = signal.unwrap_or_else(|| "SIGTERM".to_owned());
                let result = step::part(&*runtime, id.clone(), service, signal, grace, ended).await;
                Event::Parted { id, result }
            });
        }
    }

    /// Arms a timer for each container that its policy wants back.
    pub(super) fn schedule_restarts(&mut self) {
        let mut due = Vec::new();
        let states: Vec<_> = self.lives.values().map(|live| &live.state).collect();
        for live in self.lives.values() {
            let state = &live.state;
            let held = self.running.as_ref().is_some_and(|running| running.holds(&state.name));
            let free = live.restart.is_none() && !live.restarting;
            if state.comes_back() && !held && free && plan::can_join(state, &states) {
                // One that ended while nobody looked has waited already.
                let longest =
                    if live.run == 0 { std::time::Duration::from_millis(500) } else { restart::delay(u32::MAX) };
                due.push((state.id.clone(), restart::delay(live.streak).min(longest)));
            }
        }
        for (id, delay) in due {
            let timer = self.tasks.spawn_local({
                let id = id.clone();
                async move {
                    sleep(delay).await;
                    Event::RestartDue { id }
                }
            });
            if let Some(live) = self.lives.get_mut(&id) {
                live.restart = Some(timer);
            }
        }
    }

    /// Removes containers of `run -d --rm` that have ended. Whoever asked for one has a moment to learn its id.
    pub(super) fn remove_what_is_over(&mut self) {
        let over = |live: &&mut Live| live.state.service.auto_remove && live.exit().is_some() && !live.leaving;
        let mut leaving = Vec::new();
        for live in self.lives.values_mut().filter(over) {
            live.leaving = true;
            leaving.push(live.state.id.clone());
        }
        for id in leaving {
            let runtime = Rc::clone(&self.runtime);
            self.spawn(async move {
                sleep(LEAVE_AFTER).await;
                let result = runtime.remove_container(id.clone(), true).await;
                Event::Gone { id, result }
            });
        }
    }

    fn restart_due(&mut self, id: ContainerId) {
        let joinable = self.lives.get(&id).is_some_and(|live| {
            plan::can_join(&live.state, &self.lives.values().map(|live| &live.state).collect::<Vec<_>>())
        });
        let Some(live) = self.lives.get_mut(&id) else { return };
        live.restart = None;
        let held = self.running.as_ref().is_some_and(|running| running.holds(&live.state.name));
        if held || live.state.stopped_by_user || live.exit().is_none() || !joinable {
            return;
        }
        live.restarting = true;
        live.streak = live.streak.saturating_add(1);
        // Following another one is no failure of its own.
        let restarts =
            if live.state.rejoins { live.state.restarts.max(1) } else { live.state.restarts.saturating_add(1) };
        live.state.restarts = restarts;
        let runtime = Rc::clone(&self.runtime);
        self.spawn(async move {
            let result = runtime.start_container(id.clone(), restarts).await;
            Event::Restarted { id, result: result.map(Box::new) }
        });
    }

    fn restarted(&mut self, id: &ContainerId, result: Result<ContainerState, RuntimeError>) {
        if let Some(live) = self.lives.get_mut(id) {
            live.restarting = false;
            live.run += 1;
        }
        match result {
            Ok(state) => self.learn(state),
            Err(error) => {
                if let Some(running) = &self.running {
                    running.warn(error.message);
                }
            }
        }
        self.observe_when_quiet();
    }
}

/// Whether policies are to leave a container alone that was sent this signal.
pub(super) fn stops(state: &ContainerState, signal: &str) -> bool {
    let own = state.service.stop_signal.as_deref().unwrap_or("SIGTERM");
    step::is_sigkill(signal) || signal.trim_start_matches("SIG") == own.trim_start_matches("SIG")
}

pub(super) fn new_container(op: &Op) -> Option<NewContainer> {
    let Op::Create { name, number, service, replaces, .. } = op else { return None };
    Some(NewContainer { name: name.clone(), number: *number, service: (**service).clone(), replaces: replaces.clone() })
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        Self { message: error.message, help: error.help }
    }
}

/// What a container looks like in a message about it.
pub(super) fn describe(live: &Live) -> Vec<String> {
    let mut lines = Vec::new();
    if let Phase::Exited(exit) = live.state.phase {
        let oom = if exit.oom { ", out of memory" } else { "" };
        lines.push(format!("exit status {}{oom}", exit.code));
    }
    for probe in live.probes.iter().rev() {
        let end = probe.code.map_or_else(|| "timed out".to_owned(), |code| format!("exit status {code}"));
        lines.push(format!("health probe ({end}, {} ms): {}", probe.took.as_millis(), probe.output.trim_end()));
    }
    lines
}
