//! Signals by name, as people write them.

use std::str::FromStr;

use nix::sys::signal::Signal;

/// The number of `TERM`, `SIGTERM`, `15`, `RTMIN+3` (signal(7)); `None` for anything else.
pub fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let from = |rest: &str, base: i32| -> Option<i32> {
        let offset = if rest.is_empty() { 0 } else { rest.parse::<i32>().ok()? };
        let number = base + offset;
        (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number)
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return from(rest, libc::SIGRTMIN());
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return from(rest, libc::SIGRTMAX());
    }
    Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(number("SIGKILL"), Some(9));
        assert_eq!(number("term"), Some(15));
        assert_eq!(number("15"), Some(15));
        assert_eq!(number("RTMIN+3"), Some(libc::SIGRTMIN() + 3));
        assert_eq!(number("SIGRTMAX-1"), Some(libc::SIGRTMAX() - 1));
        for wrong in ["", "SIG", "0", "999", "NOPE", "RTMIN+99", "-1"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}
