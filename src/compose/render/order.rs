//! The order that Go's YAML library gives the keys of a mapping.

use std::cmp::Ordering;

/// Numbers within keys count as numbers, so that `s2` comes before `s10`; letters come after everything else, but
/// before it right behind a digit.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.char_indices(), b.char_indices());
    let mut after_digit = false;
    loop {
        match (left.next(), right.next()) {
            (Some((_, x)), Some((_, y))) if x == y => after_digit = x.is_ascii_digit(),
            (Some((at_x, x)), Some((at_y, y))) => {
                let (rest_a, rest_b) = (a.get(at_x..).unwrap_or_default(), b.get(at_y..).unwrap_or_default());
                // A zero within a number is a digit of it; at its start it counts for nothing.
                let within = after_digit && a.get(..at_x).is_some_and(ends_in_number);
                return differing(x, y, after_digit, within, rest_a, rest_b);
            }
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
        }
    }
}

/// Compares what is left of two keys from the first characters that differ.
fn differing(x: char, y: char, after_digit: bool, within: bool, rest_a: &str, rest_b: &str) -> Ordering {
    let letters_first = |x_first: bool| if x_first { Ordering::Less } else { Ordering::Greater };
    match (x.is_alphabetic(), y.is_alphabetic()) {
        (true, true) => x.cmp(&y),
        (true, false) => letters_first(after_digit),
        (false, true) => letters_first(!after_digit),
        (false, false) => {
            let (a, b) = (digits(rest_a), digits(rest_b));
            let (worth_a, worth_b) =
                if within { (a, b) } else { (a.trim_start_matches('0'), b.trim_start_matches('0')) };
            let by_value = worth_a.len().cmp(&worth_b.len()).then_with(|| worth_a.cmp(worth_b));
            by_value.then_with(|| a.len().cmp(&b.len())).then_with(|| x.cmp(&y))
        }
    }
}

fn digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// Whether the digits at the end of `text` have one that is not zero.
fn ends_in_number(text: &str) -> bool {
    text.bytes().rev().take_while(u8::is_ascii_digit).any(|digit| digit != b'0')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_count_as_numbers() {
        let sorted = [
            ["s2", "s10"],
            ["a1b", "a10"],
            ["1_", "12"],
            ["1a", "1_"],
            ["_x", "1"],
            ["1", "a"],
            ["A", "a"],
            ["x-1", "x1"],
            ["1", "01"],
            ["01", "2"],
            ["101", "1001"],
            ["a", "aa"],
            ["B", "a"],
            ["net-10", "net_2"],
        ];
        for [first, second] in sorted {
            assert_eq!(natural(first, second), Ordering::Less, "{first} {second}");
            assert_eq!(natural(second, first), Ordering::Greater, "{first} {second}");
        }
    }

    proptest! {
        // What sorting demands of an order.
        #[test]
        fn the_order_is_total(keys in prop::array::uniform3("[019a_Aé-]{0,5}")) {
            let [a, b, c] = &keys;
            prop_assert_eq!(natural(a, b), natural(b, a).reverse());
            prop_assert_eq!(natural(a, b) == Ordering::Equal, a == b);
            if natural(a, b) != Ordering::Greater && natural(b, c) != Ordering::Greater {
                prop_assert_ne!(natural(a, c), Ordering::Greater);
            }
        }
    }
}
