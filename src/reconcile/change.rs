//! The change that is being made: which of its steps may begin, and how it ends.

use std::collections::BTreeSet;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Failure, Update, Wait};
use crate::plan::Change;
use crate::plan::ChangeKind;
use crate::plan::Op;
use crate::plan::Plan;
use crate::plan::Step;
use crate::spec::Condition;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepState {
    Pending,
    Running,
    Done,
    Failed,
    Cancelled,
}

impl StepState {
    fn ended(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Observing and checking; nothing has been changed.
    Preparing,
    Steps,
    /// All steps are done; `--wait` goes on.
    Waiting,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) change: Change,
    pub(super) wait: Option<Wait>,
    progress: mpsc::UnboundedSender<Update>,
    done: oneshot::Sender<Result<(), Vec<Failure>>>,
    pub(super) stage: Stage,
    pub(super) plan: Plan,
    states: Vec<StepState>,
    /// Gates whose failure is being explained.
    pub(super) explaining: Vec<usize>,
    pub(super) failures: Vec<Failure>,
    /// The command that takes over, and why nothing more begins.
    pub(super) interrupted: Option<&'static str>,
    pub(super) timer: Option<AbortHandle>,
    /// Containers that `--wait` has nothing more to wait for, as has been said.
    pub(super) met: BTreeSet<String>,
    /// A timer runs for containers that `--wait` still looks at.
    pub(super) settling: bool,
    pub(super) began: Instant,
}

/// What can happen next.
pub(super) enum Next {
    Begin(usize),
    Cancel(usize),
}

impl Running {
    pub(super) fn new(command: super::Command) -> Self {
        let super::Command { change, wait, progress, done } = command;
        Self {
            change,
            wait,
            progress,
            done,
            stage: Stage::Preparing,
            plan: Plan::default(),
            states: Vec::new(),
            explaining: Vec::new(),
            failures: Vec::new(),
            interrupted: None,
            timer: None,
            met: BTreeSet::new(),
            settling: false,
            began: Instant::now(),
        }
    }

    pub(super) fn accept(&mut self, plan: Plan) {
        self.states = vec![StepState::Pending; plan.steps.len()];
        for warning in &plan.warnings {
            self.warn(warning.clone());
        }
        for name in &plan.unchanged {
            self.say(format!("Container {name}"), "Running", String::new());
        }
        self.plan = plan;
        self.stage = Stage::Steps;
    }

    pub(super) fn step(&self, id: usize) -> Option<&Step> {
        self.plan.steps.get(id)
    }

    fn state(&self, id: usize) -> StepState {
        self.states.get(id).copied().unwrap_or(StepState::Cancelled)
    }

    pub(super) fn set(&mut self, id: usize, state: StepState) {
        if let Some(slot) = self.states.get_mut(id) {
            *slot = state;
        }
    }

    /// A step that is not made after all; of starts and waits a person is told, who waits for them, once for each container.
    pub(super) fn cancel(&mut self, id: usize) {
        let told = |step: &Step| matches!(step.op, Op::Start { .. } | Op::Wait { .. });
        let name = self.step(id).filter(|step| told(step)).map(|step| step.op.words().0);
        if let Some(name) = name {
            let known =
                |step: &Step| self.state(step.id) == StepState::Cancelled && told(step) && step.op.words().0 == name;
            if !self.plan.steps.iter().any(known) {
                self.say(name, "Canceled", String::new());
            }
        }
        self.set(id, StepState::Cancelled);
    }

    /// The first pending step that may begin or never will.
    pub(super) fn next(&self) -> Option<Next> {
        self.plan.steps.iter().filter(|step| self.state(step.id) == StepState::Pending).find_map(|step| {
            let lost = |need: &usize| matches!(self.state(*need), StepState::Failed | StepState::Cancelled);
            if self.interrupted.is_some() || step.needs.iter().any(lost) {
                return Some(Next::Cancel(step.id));
            }
            let ready = step.needs.iter().all(|need| self.state(*need) == StepState::Done)
                && step.after.iter().all(|step| self.state(*step).ended());
            ready.then_some(Next::Begin(step.id))
        })
    }

    /// Gates that are open to be judged.
    pub(super) fn gates(&self) -> Vec<usize> {
        let running = self.plan.steps.iter().filter(|step| self.state(step.id) == StepState::Running);
        let gates = running.filter(|step| matches!(step.op, Op::Wait { .. }) && !self.explaining.contains(&step.id));
        gates.map(|step| step.id).collect()
    }

    pub(super) fn all_ended(&self) -> bool {
        self.states.iter().all(|state| state.ended())
    }

    /// A step of this container is still to come or under way, so policies leave it alone.
    pub(super) fn holds(&self, container: &str) -> bool {
        if self.stage == Stage::Preparing {
            return true;
        }
        self.plan.steps.iter().filter(|step| !self.state(step.id).ended()).any(|step| match &step.op {
            Op::Start { name }
            | Op::Stop { name, .. }
            | Op::Restart { name, .. }
            | Op::Kill { name, .. }
            | Op::Remove { name, .. }
            | Op::Discard { name } => name == container,
            _ => false,
        })
    }

    /// Containers that `--wait` is about.
    pub(super) fn awaited(&self) -> Vec<&str> {
        let started = self.plan.steps.iter().filter_map(|step| match &step.op {
            Op::Start { name } => Some(name.as_str()),
            _ => None,
        });
        let passes = |name: &&str| {
            self.plan.steps.iter().any(|step| matches!(&step.op, Op::Discard { name: going } if going == name))
        };
        started.filter(|name| !passes(name)).chain(self.plan.unchanged.iter().map(String::as_str)).collect()
    }

    /// Whether something waits for this service to complete: then `--wait` takes a good end for an answer.
    pub(super) fn may_complete(&self, service: &str) -> bool {
        let ChangeKind::Up { project, .. } = &self.change.kind else { return false };
        project
            .services
            .values()
            .filter_map(|other| other.depends_on.get(service))
            .any(|how| how.condition == Condition::ServiceCompletedSuccessfully)
    }

    pub(super) fn say(&self, id: String, status: &'static str, text: String) {
        // Nobody has to listen.
        let _ = self.progress.send(Update::Progress { id, status, text });
    }

    pub(super) fn warn(&self, text: String) {
        let _ = self.progress.send(Update::Warning(text));
    }

    pub(super) fn finish(mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        if let Some(by) = self.interrupted {
            let message = format!("`{}` was interrupted by `{by}`", self.change.kind.verb());
            self.failures.push(Failure { message, help: None });
        }
        let result = if self.failures.is_empty() { Ok(()) } else { Err(self.failures) };
        let _ = self.done.send(result);
    }

    /// How the dependents of a gate lead to it: `web -> api -> db`, the longest way.
    pub(super) fn chain(&self, gate: usize, service: &str) -> String {
        let mut names = vec![service.to_owned()];
        let project = match &self.change.kind {
            ChangeKind::Up { project, .. } | ChangeKind::Run { project, .. } => Some(project),
            _ => None,
        };
        let mut at = service.to_owned();
        while let Some(project) = project {
            let dependent = project
                .services
                .values()
                .find(|other| other.depends_on.contains_key(&at) && !names.contains(&other.name));
            let Some(dependent) = dependent else { break };
            names.push(dependent.name.clone());
            at = dependent.name.clone();
        }
        if names.len() == 1 {
            let waiting = self.plan.steps.iter().filter(|step| step.needs.contains(&gate));
            names.extend(
                waiting
                    .filter_map(|step| match &step.op {
                        Op::Start { name } => Some(name.clone()),
                        _ => None,
                    })
                    .take(1),
            );
        }
        names.reverse();
        names.join(" -> ")
    }
}
