//! Health of one container, decided from its probes.
//!
//! Until the first success it is probed at once and then after 50 ms, doubling up to the interval, a second at most.
//! Failures of this time count as if they had come at the declared schedule: none before the start period is over nor
//! before the first interval is, and then one per interval. After the first success every failure counts.

use std::time::Duration;

use tokio::time::Instant;

use crate::spec::Health;
use crate::spec::HealthSpec;

const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Watch {
    pub(super) spec: HealthSpec,
    pub(super) health: Health,
    started: Instant,
    succeeded: bool,
    failures: u32,
    /// No failure counts before.
    counts_from: Instant,
    delay: Duration,
}

impl Watch {
    pub(super) fn new(spec: HealthSpec, health: Health, now: Instant) -> Self {
        let counts_from = now + spec.start_period.max(spec.interval);
        Self {
            spec,
            health,
            started: now,
            succeeded: health == Health::Healthy,
            failures: 0,
            counts_from,
            delay: FIRST_DELAY,
        }
    }

    /// Takes in the outcome of a probe; returns the time to the next one.
    pub(super) fn probed(&mut self, ok: bool, now: Instant) -> Duration {
        if ok {
            self.succeeded = true;
            self.failures = 0;
            self.health = Health::Healthy;
            return self.spec.interval;
        }
        if self.succeeded || now >= self.counts_from {
            self.failures += 1;
            self.counts_from = now + self.spec.interval;
        }
        if self.failures >= self.spec.retries.max(1) {
            self.health = Health::Unhealthy;
        }
        if self.succeeded {
            return self.spec.interval;
        }
        let delay = self.delay.min(self.spec.interval).min(LONGEST_DELAY);
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
        delay.max(Duration::from_millis(1))
    }

    /// Time since the watch began.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now - self.started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> HealthSpec {
        HealthSpec {
            command: vec!["true".into()],
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            retries: 2,
            start_period: Duration::from_secs(15),
            start_interval: Duration::from_secs(5),
        }
    }

    #[test]
    fn early_failures_do_not_count_and_later_ones_count_once_per_interval() {
        let start = Instant::now();
        let mut watch = Watch::new(spec(), Health::Starting, start);
        for second in 0..25 {
            watch.probed(false, start + Duration::from_secs(second));
            assert_eq!(watch.health, Health::Starting, "after {second} s");
        }
        watch.probed(false, start + Duration::from_secs(25));
        assert_eq!(watch.health, Health::Unhealthy);
        assert_eq!(watch.probed(true, start + Duration::from_secs(26)), Duration::from_secs(10));
        assert_eq!(watch.health, Health::Healthy);
    }

    #[test]
    fn after_the_first_success_retries_failures_in_a_row_make_it_unhealthy() {
        let start = Instant::now();
        let mut watch = Watch::new(spec(), Health::Starting, start);
        watch.probed(true, start);
        watch.probed(false, start + Duration::from_secs(1));
        watch.probed(true, start + Duration::from_secs(2));
        watch.probed(false, start + Duration::from_secs(3));
        assert_eq!(watch.health, Health::Healthy);
        watch.probed(false, start + Duration::from_secs(4));
        assert_eq!(watch.health, Health::Unhealthy);
    }

    #[test]
    fn probes_come_soon_at_first() {
        let start = Instant::now();
        let mut watch = Watch::new(spec(), Health::Starting, start);
        let delays: Vec<_> = (0..6).map(|_| watch.probed(false, start).as_millis()).collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1000]);
    }
}
