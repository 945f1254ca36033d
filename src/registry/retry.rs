//! Which failures pass by themselves, and how long to wait for that. No clock, no socket.

use std::time::Duration;

/// How often a request is made that fails in a way that may pass.
pub(super) const ATTEMPTS: u32 = 5;
/// The longest that we wait on a registry's word; a longer time is told to the person.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// How one attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The registry's answer, and how long it asks us to wait.
    Status { code: u16, retry_after: Option<Duration> },
    /// No answer, or not the whole of it.
    Connection,
}

/// How long to wait before attempt `number` + 1 (the first is 1); `None`: give up.
pub(super) fn pause(attempt: Attempt, number: u32) -> Option<Duration> {
    if number >= ATTEMPTS {
        return None;
    }
    let backoff = FIRST_PAUSE * 3_u32.saturating_pow(number.saturating_sub(1));
    match attempt {
        Attempt::Connection => Some(backoff),
        Attempt::Status { code: 408 | 429 | 500 | 502 | 503 | 504, retry_after } => match retry_after {
            Some(wanted) if wanted > PATIENCE => None,
            Some(wanted) => Some(wanted.max(FIRST_PAUSE)),
            None => Some(backoff),
        },
        Attempt::Status { .. } => None,
    }
}

/// The time of a `Retry-After` header: seconds, or a date (RFC 9110 section 10.2.3). `now` in seconds since the epoch.
pub(super) fn retry_after(header: &str, now: u64) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(header).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(date.as_secs().saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_tried_again_a_few_times() {
        let pauses: Vec<_> = (1..=ATTEMPTS).map(|number| pause(Attempt::Connection, number)).collect();
        let milliseconds = |count| Some(Duration::from_millis(count));
        assert_eq!(pauses, [milliseconds(200), milliseconds(600), milliseconds(1800), milliseconds(5400), None]);
        let status = |code, seconds: Option<u64>| {
            pause(Attempt::Status { code, retry_after: seconds.map(Duration::from_secs) }, 1)
        };
        assert_eq!(status(503, None), milliseconds(200));
        assert_eq!(status(429, Some(7)), milliseconds(7000));
        assert_eq!(status(429, Some(0)), milliseconds(200));
        assert_eq!(status(429, Some(3600)), None, "a person is told instead");
        assert_eq!(status(404, None), None);
        assert_eq!(status(401, Some(1)), None);
    }

    #[test]
    fn both_forms_of_the_header_are_read() {
        assert_eq!(retry_after(" 120 ", 0), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 10), Some(Duration::from_secs(50)));
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:00:01 GMT", 10), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", 0), None);
    }
}
