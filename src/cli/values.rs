//! Values of flags, parsed.

use std::time::Duration;

use crate::app::options::ListFormat;
use crate::app::options::{Compression, PullPolicy};
use crate::ui::format::RowFormat;

/// `SERVICE=NUM` of `--scale`.
///
/// # Errors
/// When it is not of that form.
pub fn scale(text: &str) -> Result<(String, u32), String> {
    let parts = text.split_once('=').filter(|(service, _)| !service.is_empty());
    let parsed = parts.and_then(|(service, number)| Some((service.to_owned(), number.parse().ok()?)));
    parsed.ok_or_else(|| format!("`{text}` is not of the form SERVICE=NUM"))
}

/// `--pull`, `--policy`.
///
/// # Errors
/// For anything but a pull policy.
pub fn pull_policy(text: &str) -> Result<PullPolicy, String> {
    let known = matches!(text, "always" | "missing" | "never" | "build" | "if_not_present");
    let policy = PullPolicy::parse(text).filter(|_| known);
    policy.ok_or_else(|| format!("`{text}` is none of `always`, `missing`, `never` and `build`"))
}

/// `--compression`.
///
/// # Errors
/// For anything but `none`, `gzip` and `zstd`.
pub fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        _ => Err(format!("`{text}` is none of `none`, `gzip` and `zstd`")),
    }
}

/// `--tail`: a number or `all`. `None` is all.
///
/// # Errors
/// When it is neither.
pub fn tail(text: &str) -> Result<Option<usize>, String> {
    match text {
        // Negative numbers mean everything, as for docker.
        "all" | "-1" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| format!("`{text}` is neither a number nor `all`")),
    }
}

/// A number of seconds.
///
/// # Errors
/// When it is not a number from 0.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| format!("`{text}` is not a whole number of seconds"))?;
    Ok(Duration::from_secs(seconds))
}

/// A transport protocol.
///
/// # Errors
/// When it is none that ports are published for.
pub fn protocol(text: &str) -> Result<String, String> {
    match text.to_lowercase() {
        known if matches!(known.as_str(), "tcp" | "udp" | "sctp") => Ok(known),
        _ => Err(format!("`{text}` is not `tcp`, `udp` or `sctp`")),
    }
}

/// How rows of a list are printed.
///
/// # Errors
/// For a template that makes no sense.
pub fn row_format(text: &str) -> Result<RowFormat, String> {
    RowFormat::parse(text)
}

/// `table` or `json`.
///
/// # Errors
/// For anything else.
pub fn list_format(text: &str) -> Result<ListFormat, String> {
    match text {
        "table" | "" => Ok(ListFormat::Table),
        "json" => Ok(ListFormat::Json),
        _ => Err(format!("`{text}` is neither `table` nor `json`")),
    }
}

/// A moment of `--since` and `--until`: RFC 3339 (also without zone, which is then local), seconds since the epoch
/// (with a fraction), or how long ago, such as `42m` or `1h30m`. Nanoseconds since the epoch.
///
/// # Errors
/// When it is none of them.
pub fn moment(text: &str) -> Result<i64, String> {
    moment_at(text, jiff::Timestamp::now()).ok_or_else(|| {
        format!("`{text}` is neither a time (2026-01-31T12:00:00Z, seconds since 1970) nor a duration (42m)")
    })
}

fn moment_at(text: &str, now: jiff::Timestamp) -> Option<i64> {
    if let Some(ago) = go_duration(text) {
        return i64::try_from(now.as_nanosecond().checked_sub(ago)?).ok();
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if let (Ok(seconds), true) = (whole.parse::<i64>(), fraction.bytes().all(|byte| byte.is_ascii_digit())) {
        let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
        return seconds.checked_mul(1_000_000_000)?.checked_add(digits.parse().ok()?);
    }
    let zoned = text.parse::<jiff::Timestamp>().ok();
    let local = || {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        Some(civil.to_zoned_datetime(jiff::tz::TimeZone::system()).ok()?.timestamp())
    };
    i64::try_from(zoned.or_else(local)?.as_nanosecond()).ok()
}

/// A duration as Go writes it (`1h30m`, `1.5s`), in nanoseconds.
fn go_duration(text: &str) -> Option<i128> {
    let mut rest = text;
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit: f64 = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        #[expect(clippy::cast_possible_truncation, reason = "a float becomes the nearest integer there is")]
        let part = (number.parse::<f64>().ok()? * unit) as i128;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_durations() {
        let now = jiff::Timestamp::from_second(1_000_000).unwrap();
        assert_eq!(moment_at("42m", now), Some((1_000_000 - 42 * 60) * 1_000_000_000));
        assert_eq!(moment_at("1h30m1.5s", now), Some((1_000_000 - 5402) * 1_000_000_000 + 500_000_000));
        assert_eq!(moment_at("2023-11-14T22:13:20Z", now), Some(1_700_000_000_000_000_000));
        assert_eq!(moment_at("1700000000.000000005", now), Some(1_700_000_000_000_000_005));
        assert_eq!(moment_at("bogus", now), None);
        assert_eq!(moment_at("", now), None);
        assert_eq!(moment_at("5x", now), None);
        assert!(moment_at("2023-11-14", now).is_some());
    }

    #[test]
    fn scales_need_a_service_and_a_number() {
        assert_eq!(scale("web=3"), Ok(("web".to_owned(), 3)));
        for wrong in ["web", "=3", "web=", "web=-1", "web=x"] {
            assert!(scale(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tails_are_numbers_or_all() {
        assert_eq!(tail("all"), Ok(None));
        assert_eq!(tail("0"), Ok(Some(0)));
        assert!(tail("x").is_err());
    }
}
