//! System errors in words.

/// The text of an error without the number that the standard library puts behind it: `No such file or directory`.
pub fn without_number(text: &str) -> String {
    let mut plain = text.to_owned();
    while let Some(start) = plain.find(" (os error ") {
        let Some(length) = plain.get(start..).and_then(|rest| rest.find(')')) else { break };
        plain.replace_range(start..=start + length, "");
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_errors_are_left_out() {
        let error = std::io::Error::from_raw_os_error(20);
        assert_eq!(without_number(&format!("x: {error}: y")), "x: Not a directory: y");
        assert_eq!(without_number("a (os error 5"), "a (os error 5");
    }
}
