//! Moving a change on: steps begin, gates open or fail, `--wait` ends.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use super::Failure;
use super::change::{Next, Running, Stage, StepState};
use super::gate::{Verdict, judge};
use super::live::Live;
use super::run::{Event, Reconciler, describe, new_container, stops};
use super::step::{Outcome, Work, execute};
use crate::base::ids::ContainerId;
use crate::plan::Op;
use crate::runtime::Runtime;
use crate::runtime::RuntimeError;
use crate::spec::Condition;

/// Log lines shown of a container that holds others up.
const LOG_LINES: usize = 20;
/// How long `--wait` looks at a container that has no health check.
const SETTLED: Duration = Duration::from_millis(500);

impl<R: Runtime> Reconciler<R> {
    /// Does everything that can be done now.
    pub(super) fn advance(&mut self) {
        loop {
            self.begin_steps();
            let moved = self.judge_gates();
            let ended = self.end_steps();
            if !moved && !ended {
                break;
            }
        }
        self.judge_wait();
        self.next_change();
        self.part();
        self.schedule_restarts();
        self.remove_what_is_over();
    }

    fn begin_steps(&mut self) {
        while let Some(running) = self.running.as_mut().filter(|running| running.stage == Stage::Steps) {
            match running.next() {
                Some(Next::Cancel(step)) => running.cancel(step),
                Some(Next::Begin(step)) => self.begin_step(step),
                None => break,
            }
        }
    }

    fn begin_step(&mut self, id: usize) {
        let Some(running) = &mut self.running else { return };
        running.set(id, StepState::Running);
        let Some(op) = running.step(id).map(|step| step.op.clone()) else { return };
        let (name, begins, _) = op.words();
        running.say(name, begins, String::new());
        match self.work(&op) {
            Some(Ok(work)) => {
                let runtime = Rc::clone(&self.runtime);
                self.spawn(async move { Event::Step { step: id, result: execute(runtime, work).await } });
            }
            Some(Err(error)) => self.step_ended(id, Err(error)),
            None => {
                if !matches!(op, Op::Wait { .. }) {
                    self.step_ended(id, Ok(Outcome::Nothing));
                }
            }
        }
    }

    /// What a step means now. `None`: nothing to do for the machine.
    fn work(&mut self, op: &Op) -> Option<Result<Work, RuntimeError>> {
        Some(Ok(match op {
            Op::CreateNetwork { key, spec } => Work::CreateNetwork { key: key.clone(), spec: spec.clone() },
            Op::RemoveNetwork { key, .. } => Work::RemoveNetwork { key: key.clone() },
            Op::CreateVolume { key, spec } => Work::CreateVolume { key: key.clone(), spec: spec.clone() },
            Op::RemoveVolume { name } => Work::RemoveVolume { name: name.clone() },
            Op::Create { .. } => Work::Create(Box::new(new_container(op)?)),
            Op::Start { name } => {
                let Some(live) = self.lives.values_mut().find(|live| live.state.name == *name) else {
                    return Some(Err(RuntimeError { message: "it does not exist any more".to_owned(), help: None }));
                };
                if live.is_running() {
                    return None;
                }
                live.run += 1;
                live.streak = 0;
                Work::Start { id: live.state.id.clone() }
            }
            Op::Stop { id, signal, grace, .. } => {
                let live = self.lives.get_mut(id)?;
                live.state.stopped_by_user = true;
                let (id, signal, grace, ended) = (id.clone(), signal.clone(), *grace, live.ended.subscribe());
                // Nothing can be run in a container that is frozen, or waits for its restart.
                let idle = live.is_paused() || !live.is_running();
                let hooks = if idle { Vec::new() } else { live.state.service.pre_stop.clone() };
                Work::Stop { id, hooks, signal, grace, ended }
            }
            Op::Restart { id, signal, grace, .. } => {
                let live = self.lives.get_mut(id)?;
                live.state.stopped_by_user = true;
                live.streak = 0;
                let (id, signal, grace, ended) = (id.clone(), signal.clone(), *grace, live.ended.subscribe());
                let hooks = if live.is_paused() { Vec::new() } else { live.state.service.pre_stop.clone() };
                Work::Restart { id, hooks, signal, grace, ended }
            }
            Op::Kill { id, signal, .. } => {
                let live = self.lives.get_mut(id)?;
                let stops = stops(&live.state, signal);
                live.state.stopped_by_user |= stops;
                Work::Kill { id: id.clone(), signal: signal.clone(), stops, ended: live.ended.subscribe() }
            }
            Op::Pause { id, pause, .. } => Work::Pause { id: id.clone(), pause: *pause },
            Op::Remove { id, volumes, .. } => Work::Remove { id: id.clone(), volumes: *volumes },
            Op::Discard { name } => Work::Remove { id: find(&self.lives, name)?.state.id.clone(), volumes: true },
            Op::Wait { .. } => return None,
        }))
    }

    pub(super) fn step_ended(&mut self, id: usize, result: Result<Outcome, RuntimeError>) {
        let result = match result {
            Ok(Outcome::Spoilt(state, error)) => {
                self.learn(*state);
                Err(error)
            }
            other => other,
        };
        match &result {
            Ok(Outcome::Made(state)) => self.learn((**state).clone()),
            Ok(Outcome::Removed(id)) => {
                self.lives.remove(id);
            }
            Ok(Outcome::Nothing | Outcome::Spoilt(..)) | Err(_) => {}
        }
        let Some(running) = &mut self.running else { return };
        let Some(step) = running.step(id) else { return };
        let (name, _, done) = step.op.words();
        let text = step.text.clone();
        match result {
            Ok(_) => {
                running.set(id, StepState::Done);
                running.say(name, done, String::new());
            }
            Err(error) => {
                running.set(id, StepState::Failed);
                running.say(name, "Error", error.message.clone());
                let message = format!("cannot {text}: {}", error.message);
                running.failures.push(Failure { message, help: error.help });
            }
        }
    }

    /// True when a gate opened, or ended otherwise.
    fn judge_gates(&mut self) -> bool {
        let Some(running) = &mut self.running else { return false };
        let mut moved = false;
        let mut failed = Vec::new();
        for id in running.gates() {
            if running.interrupted.is_some() {
                running.cancel(id);
                moved = true;
                continue;
            }
            let Some(Op::Wait { service, condition, containers, .. }) = running.step(id).map(|step| step.op.clone())
            else {
                continue;
            };
            let lives: Vec<_> = containers.iter().map(|name| (name.as_str(), find(&self.lives, name))).collect();
            match judge(condition, &lives) {
                Verdict::Pending => {}
                Verdict::Met => {
                    running.set(id, StepState::Done);
                    for name in &containers {
                        let word = words_of_gate(condition);
                        running.say(format!("Container {name}"), word, String::new());
                    }
                    moved = true;
                }
                Verdict::Failed { container, message } => {
                    running.explaining.push(id);
                    let chain = running.chain(id, &service);
                    failed.push((id, container, format!("dependency failed to start: {message}"), chain));
                }
            }
        }
        for (step, container, message, chain) in failed {
            self.explain(&container, message, Some(chain), move |failure| Event::Explained { step, failure });
        }
        moved
    }

    /// Collects the evidence about a container, then reports.
    fn explain(
        &mut self,
        container: &str,
        message: String,
        chain: Option<String>,
        event: impl FnOnce(Failure) -> Event + 'static,
    ) {
        let live = find(&self.lives, container);
        let mut lines = live.map(describe).unwrap_or_default();
        lines.extend(chain.map(|chain| format!("needed by: {chain}")));
        let id = live.map(|live| live.state.id.clone());
        let runtime = Rc::clone(&self.runtime);
        self.spawn(async move {
            if let Some(id) = id {
                let output = runtime.last_output(id, LOG_LINES).await;
                if !output.is_empty() {
                    lines.push("last output:".to_owned());
                    lines.extend(output.into_iter().map(|line| format!("  {line}")));
                }
            }
            event(Failure { message, help: (!lines.is_empty()).then(|| lines.join("\n")) })
        });
    }

    pub(super) fn gate_failed(&mut self, id: usize, failure: Failure) {
        let Some(running) = &mut self.running else { return };
        let Some(step) = running.step(id) else { return };
        let (name, _, _) = step.op.words();
        if matches!(step.op, Op::Wait { required: false, .. }) {
            running.warn(format!("optional {}", failure.message));
            running.set(id, StepState::Done);
        } else {
            running.say(name, "Error", failure.message.clone());
            running.set(id, StepState::Failed);
            running.failures.push(failure);
        }
    }

    /// After the last step: the end, or `--wait`. True when something changed.
    fn end_steps(&mut self) -> bool {
        let Some(running) = self.running.as_mut().filter(|r| r.stage == Stage::Steps && r.all_ended()) else {
            return false;
        };
        match running.wait {
            Some(wait) if running.failures.is_empty() && running.interrupted.is_none() => {
                running.stage = Stage::Waiting;
                for name in running.awaited() {
                    running.say(format!("Container {name}"), "Waiting", String::new());
                }
                if let Some(timeout) = wait.timeout {
                    let timer = self.tasks.spawn_local(async move {
                        sleep(timeout).await;
                        Event::WaitOver
                    });
                    running.timer = Some(timer);
                }
            }
            _ => self.finish_with(Vec::new()),
        }
        true
    }

    fn judge_wait(&mut self) {
        let waiting = |running: &&mut Running| running.stage == Stage::Waiting && running.explaining.is_empty();
        let Some(running) = self.running.as_mut().filter(waiting) else { return };
        if running.interrupted.is_some() {
            return self.finish_with(Vec::new());
        }
        let mut pending = false;
        let mut failed = None;
        let mut unsettled = Duration::ZERO;
        let mut met = Vec::new();
        for name in running.awaited() {
            let live = find(&self.lives, name);
            let completed = live.is_some_and(|live| {
                running.may_complete(&live.state.service.name) && live.exit().is_some_and(|exit| exit.code == 0)
            });
            let condition = match live.and_then(Live::health) {
                Some(_) => Condition::ServiceHealthy,
                None => Condition::ServiceStarted,
            };
            match judge(condition, &[(name, live)]) {
                _ if completed => met.push(name.to_owned()),
                // Without a health check, one that dies at once has never been up.
                Verdict::Met if condition == Condition::ServiceStarted => {
                    let age = live.filter(|_| !running.plan.unchanged.iter().any(|same| same == name));
                    let left = age.map(|live| SETTLED.saturating_sub(live.since.elapsed())).unwrap_or_default();
                    unsettled = unsettled.max(left);
                    if left.is_zero() {
                        met.push(name.to_owned());
                    }
                }
                Verdict::Met => met.push(name.to_owned()),
                Verdict::Pending => pending = true,
                Verdict::Failed { container, message } => failed = Some((container, message)),
            }
        }
        for name in met {
            if running.met.insert(name.clone()) {
                running.say(format!("Container {name}"), "Healthy", String::new());
            }
        }
        if let Some((container, message)) = failed {
            running.explaining.push(usize::MAX);
            self.explain(&container, message, None, Event::WaitFailed);
        } else if !unsettled.is_zero() {
            if !std::mem::replace(&mut running.settling, true) {
                self.tasks.spawn_local(async move {
                    sleep(unsettled).await;
                    Event::Settled
                });
            }
        } else if !pending {
            self.finish_with(Vec::new());
        }
    }

    pub(super) fn wait_over(&mut self) {
        let Some(running) = self.running.as_ref().filter(|running| running.stage == Stage::Waiting) else { return };
        let late = running.awaited().into_iter().filter(|name| {
            find(&self.lives, name)
                .is_none_or(|live| judge(Condition::ServiceHealthy, &[(name, Some(live))]) == Verdict::Pending)
        });
        let late: Vec<&str> = late.collect();
        let message = format!("application not healthy in time: still waiting for {}", late.join(", "));
        self.finish_with(vec![Failure { message, help: None }]);
    }
}

fn words_of_gate(condition: Condition) -> &'static str {
    if condition == Condition::ServiceCompletedSuccessfully { "Exited" } else { "Healthy" }
}

fn find<'a>(lives: &'a std::collections::BTreeMap<ContainerId, Live>, name: &str) -> Option<&'a Live> {
    lives.values().find(|live| live.state.name == name)
}
