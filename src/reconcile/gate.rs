//! Whether what a dependent waits for has come, may still come, or cannot come any more.

use super::live::Live;
use crate::spec::Condition;
use crate::spec::Health;
use crate::spec::Phase;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Met,
    Pending,
    /// With the container at fault and what is wrong with it.
    Failed {
        container: String,
        message: String,
    },
}

/// Judges the condition over all containers of the dependency; a missing one is `None`.
pub(super) fn judge(condition: Condition, containers: &[(&str, Option<&Live>)]) -> Verdict {
    let mut met = 0;
    for (name, live) in containers {
        match one(condition, name, *live) {
            Verdict::Met if condition == Condition::ServiceCompletedSuccessfully => return Verdict::Met,
            Verdict::Met => met += 1,
            Verdict::Pending => {}
            failed @ Verdict::Failed { .. } => return failed,
        }
    }
    if met == containers.len() { Verdict::Met } else { Verdict::Pending }
}

fn one(condition: Condition, name: &str, live: Option<&Live>) -> Verdict {
    let fail =
        |what: String| Verdict::Failed { container: name.to_owned(), message: format!("container {name} {what}") };
    let Some(live) = live else { return fail("does not exist".to_owned()) };
    match (&live.state.phase, condition) {
        (Phase::Exited(exit), Condition::ServiceCompletedSuccessfully) if exit.code == 0 => Verdict::Met,
        (Phase::Exited(_), _) if live.state.comes_back() => Verdict::Pending,
        (Phase::Exited(exit), Condition::ServiceCompletedSuccessfully) => {
            fail(format!("didn't complete successfully: exit {}", exit.code))
        }
        (Phase::Exited(exit), _) => fail(format!("exited ({})", exit.code)),
        (Phase::Created, _) => fail("was not started".to_owned()),
        (Phase::Running { .. }, Condition::ServiceStarted) => Verdict::Met,
        (Phase::Running { health, .. }, Condition::ServiceHealthy) => match health {
            Some(Health::Healthy) => Verdict::Met,
            Some(Health::Starting) => Verdict::Pending,
            Some(Health::Unhealthy) => fail("is unhealthy".to_owned()),
            None => fail("has no healthcheck configured".to_owned()),
        },
        (Phase::Running { .. }, Condition::ServiceCompletedSuccessfully) => Verdict::Pending,
    }
}
