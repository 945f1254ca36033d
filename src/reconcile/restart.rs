//! Restart policies, as pure decisions.

use std::time::Duration;

use crate::spec::Exit;
use crate::spec::RestartPolicy;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// Having run so long makes the next restart come soon again.
pub(super) const STEADY: Duration = Duration::from_secs(10);

/// Whether a container that ended by itself is started again, after `restarts` of the kind.
pub(super) fn wanted(policy: RestartPolicy, exit: Exit, restarts: u32) -> bool {
    match policy {
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure { max_retries } => exit.code != 0 && max_retries.is_none_or(|max| restarts < max),
    }
}

/// How long to wait before the restart that follows `streak` quick ones.
pub(super) fn delay(streak: u32) -> Duration {
    FIRST.saturating_mul(2_u32.saturating_pow(streak)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_a_minute() {
        assert_eq!(delay(0), Duration::from_millis(100));
        assert_eq!(delay(3), Duration::from_millis(800));
        assert_eq!(delay(40), LONGEST);
    }

    #[test]
    fn on_failure_gives_up_after_so_many() {
        let policy = RestartPolicy::OnFailure { max_retries: Some(2) };
        let exit = |code| Exit { code, oom: false, at: 0 };
        assert!(wanted(policy, exit(1), 1));
        assert!(!wanted(policy, exit(1), 2));
        assert!(!wanted(policy, exit(0), 0));
        assert!(wanted(RestartPolicy::Always, exit(0), 99));
        assert!(!wanted(RestartPolicy::No, exit(1), 0));
    }
}
