//! Sizes and durations as the Compose Specification writes them, and as Docker Compose prints them.

use std::fmt::Write;
use std::time::Duration;

const NANOSECOND: i128 = 1;
const MICROSECOND: i128 = 1_000;
const MILLISECOND: i128 = 1_000_000;
const SECOND: i128 = 1_000_000_000;
const MINUTE: i128 = 60 * SECOND;
const HOUR: i128 = 60 * MINUTE;
const DAY: i128 = 24 * HOUR;
const WEEK: i128 = 7 * DAY;

/// A signed span of time in nanoseconds; the format allows negative ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanoseconds(pub i64);

impl Nanoseconds {
    /// The span as a `Duration`; a negative one is no time at all.
    pub fn to_duration(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

/// Parses `1m30s`, `1.5h`, `2d`: one or more numbers with a unit of ns, us, ms, s, m, h, d or w.
/// `None` for anything else, a plain number included (but for `0`).
pub fn parse_duration(text: &str) -> Option<Nanoseconds> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Nanoseconds(0));
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        total = total.checked_add(scaled(number, unit_of_time(unit)?)?)?;
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok().map(Nanoseconds)
}

fn unit_of_time(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => NANOSECOND,
        "us" | "µs" | "μs" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        "w" => WEEK,
        _ => return None,
    })
}

/// `number` (digits with at most one point) times `unit`, rounded down.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let mut value = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()?.checked_mul(unit)? };
    let mut scale = unit;
    for digit in fraction.bytes() {
        // Below one part in 10^24 nothing is left of any unit.
        let weight = i128::from(digit.wrapping_sub(b'0'));
        value = value.checked_add(scale.checked_mul(weight)? / 10)?;
        scale /= 10;
    }
    Some(value)
}

/// Prints as Go does: `1h0m0s`, `1m30s`, `1.5s`, `200ms`, `0s`.
pub fn format_duration(span: Nanoseconds) -> String {
    let nanos = i128::from(span.0).abs();
    let sign = if span.0 < 0 { "-" } else { "" };
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < SECOND {
        let (unit, name) = match nanos {
            n if n < MICROSECOND => (NANOSECOND, "ns"),
            n if n < MILLISECOND => (MICROSECOND, "µs"),
            _ => (MILLISECOND, "ms"),
        };
        return format!("{sign}{}{name}", decimal(nanos, unit));
    }
    let mut text = String::from(sign);
    if nanos >= HOUR {
        let _ = write!(text, "{}h", nanos / HOUR);
    }
    if nanos >= MINUTE {
        let _ = write!(text, "{}m", nanos % HOUR / MINUTE);
    }
    let _ = write!(text, "{}s", decimal(nanos % MINUTE, SECOND));
    text
}

fn decimal(value: i128, unit: i128) -> String {
    let (whole, mut rest) = (value / unit, value % unit);
    let mut text = whole.to_string();
    if rest > 0 {
        text.push('.');
        let mut scale = unit;
        while rest > 0 {
            scale /= 10;
            let _ = write!(text, "{}", rest / scale);
            rest %= scale;
        }
    }
    text
}

/// Parses `64m`, `1.5 GiB`, `512`, `1e3`, `-1`: a number with an optional unit, 1024-based whatever its spelling.
pub fn parse_bytes(text: &str) -> Option<i64> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.rfind(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' '))? + 1;
    let (number, unit) = text.split_at(end);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let power = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let unit = 1_i128 << (10 * power);
    let value = if number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        scaled(number, unit)?
    } else {
        scientific(number, unit)?
    };
    let value = i64::try_from(value).ok()?;
    Some(if negative { -value } else { value })
}

/// A number with an exponent or with `_` between its digits, times `unit`.
fn scientific(number: &str, unit: i128) -> Option<i128> {
    let digit = |b: Option<&u8>| b.is_some_and(u8::is_ascii_digit);
    let bytes = number.as_bytes();
    let between = |index: usize| index > 0 && digit(bytes.get(index - 1)) && digit(bytes.get(index + 1));
    let starts = digit(bytes.first()) || bytes.first() == Some(&b'.');
    if !starts || number.match_indices('_').any(|(index, _)| !between(index)) {
        return None;
    }
    let value = number.replace('_', "").parse::<f64>().ok().filter(|value| value.is_finite())?;
    Some((value * unit as f64) as i128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_go_prints_them() {
        let cases = [
            ("90s", "1m30s"),
            ("1h", "1h0m0s"),
            ("1.5s", "1.5s"),
            ("200ms", "200ms"),
            ("1d", "24h0m0s"),
            ("1w2d", "216h0m0s"),
            ("0", "0s"),
            ("1500us", "1.5ms"),
            ("-3s", "-3s"),
            ("1m0.5s", "1m0.5s"),
        ];
        for (text, printed) in cases {
            assert_eq!(parse_duration(text).map(format_duration).as_deref(), Some(printed), "{text}");
        }
        for wrong in ["", "10", "1 s", "s", "1.2.3s", "1y", "-", "5 minutes", "99999999999999h"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        let cases = [
            ("64m", 67_108_864),
            ("1.5g", 1_610_612_736),
            ("1 KiB", 1024),
            ("512", 512),
            ("-1", -1),
            ("2TB", 2 << 40),
            ("0.5k", 512),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for wrong in ["", "m", "1x", "1  k", "ten"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
    }
}
