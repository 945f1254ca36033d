//! Restart policies, as pure decisions.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// Having run so long makes the next restart come soon again.
pub(super) const STEADY: Duration = Duration::from_secs(10);

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
}
