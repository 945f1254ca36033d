//! What a plain YAML scalar means, and how numbers turn into text: as Go's YAML library and `fmt` have it.

use crate::model::tree::Value;

/// An unquoted scalar, resolved.
#[derive(Debug)]
pub(super) enum Scalar {
    Value(Value),
    Date,
    Text,
}

/// Resolves a plain scalar. Octal may be written `010`, digits may be grouped with `_`; `yes` and `on` are text.
pub(super) fn resolve(text: &str) -> Scalar {
    let value = match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Value::Float(f64::NEG_INFINITY),
        _ => return number_or_text(text),
    };
    Scalar::Value(value)
}

fn number_or_text(text: &str) -> Scalar {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Scalar::Text;
    }
    if is_date(text) {
        return Scalar::Date;
    }
    let plain = text.replace('_', "");
    if let Some(value) = integer(&plain) {
        return Scalar::Value(Value::Int(value));
    }
    match plain.parse::<f64>() {
        Ok(value) if value.is_finite() && is_float(&plain) => Scalar::Value(Value::Float(value)),
        _ => Scalar::Text,
    }
}

/// A whole number with the prefixes of Go and YAML: `0x`, `0o`, `0b`, and a leading zero for octal.
pub(super) fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, lower.get(2..)?),
        [b'0', b'o', ..] => (8, lower.get(2..)?),
        [b'0', b'b', ..] => (2, lower.get(2..)?),
        [b'0', _, ..] => (8, lower.get(1..)?),
        _ => (10, lower.as_str()),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    mantissa_fits && exponent.is_none_or(digits)
}

/// `2024-1-2`, with an optional time after `T` or a blank.
fn is_date(text: &str) -> bool {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let parts: Vec<&str> = date.split('-').collect();
    let number = |text: &str, most: u32| text.len() <= 2 && text.parse::<u32>().is_ok_and(|n| (1..=most).contains(&n));
    let [year, month, day] = parts.as_slice() else { return false };
    let date_fits = year.len() == 4 && year.bytes().all(|b| b.is_ascii_digit()) && number(month, 12) && number(day, 31);
    date_fits
        && time.is_none_or(|time| {
            time.contains(':') && time.bytes().all(|b| b.is_ascii_digit() || b":.+-Zz ".contains(&b))
        })
}

/// A scalar as text the way Go's `fmt` prints it; `None` for lists and mappings.
pub(super) fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => String::new(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => float(*value),
        Value::String(text) => text.to_string(),
        Value::List(_) | Value::Map(_) => return None,
    })
}

/// Go's `%g` with the fewest digits: an exponent below 1e-4 and from 1e6 on.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_resolve_as_in_the_reference() {
        let shown = |text: &str| match resolve(text) {
            Scalar::Value(value) => format!("{value:?}"),
            Scalar::Date => "Date".to_owned(),
            Scalar::Text => "Text".to_owned(),
        };
        let cases = [
            ("010", "Int(8)"),
            ("0o17", "Int(15)"),
            ("0x1F", "Int(31)"),
            ("1_000", "Int(1000)"),
            ("08", "Float(8.0)"),
            ("1e3", "Float(1000.0)"),
            ("-5", "Int(-5)"),
            ("yes", "Text"),
            ("1.2.3", "Text"),
            ("22:22", "Text"),
            ("2024-01-01", "Date"),
            ("2024-01-01T10:00:00Z", "Date"),
            ("2024-13-01", "Text"),
            ("0x", "Text"),
            ("-", "Text"),
            ("1e", "Text"),
            ("99999999999999999999", "Float(1e20)"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn floats_print_as_go_prints_them() {
        for (value, expected) in [(1000.0, "1000"), (0.5, "0.5"), (1e6, "1e+06"), (1.5e-7, "1.5e-07")] {
            assert_eq!(float(value), expected);
        }
    }
}
