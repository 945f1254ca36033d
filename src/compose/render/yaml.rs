//! YAML as Go's library writes it: two blanks of indent, lists indented, quotes only where they are needed.

use std::fmt::Write;

use super::super::scalar::{self, Scalar};
use super::members::{Form, Member, View, members};
use crate::model::tree::{Node, Tag, Value};

/// The tree as block YAML.
pub(super) fn text(node: &Node, view: View) -> String {
    let mut text = String::new();
    if !block(node, view, 0, &mut text) {
        inline(node, 0, &mut text);
        text.push('\n');
    }
    text
}

/// Writes a mapping or list that has something in it; false for anything else.
fn block(node: &Node, view: View, depth: usize, out: &mut String) -> bool {
    match &node.value {
        Value::Map(map) if !map.is_empty() => {
            let members = members(map, view, Form::Yaml);
            mapping(&members, depth, out);
            !members.is_empty()
        }
        Value::List(list) if !list.is_empty() => {
            sequence(list, view.items(), depth, out);
            true
        }
        _ => false,
    }
}

fn indent(depth: usize, out: &mut String) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

fn mapping(members: &[Member<'_>], depth: usize, out: &mut String) {
    for (index, Member { name, node, view }) in members.iter().enumerate() {
        // The first key of a mapping within a list stands on the line of the dash.
        if index > 0 || out.is_empty() || out.ends_with('\n') {
            indent(depth, out);
        }
        key_text(name, out);
        out.push(':');
        let end = out.len();
        out.push('\n');
        if !block(node, *view, depth + 1, out) {
            out.truncate(end);
            out.push(' ');
            inline(node, depth + 1, out);
            out.push('\n');
        }
    }
}

fn sequence(list: &[Node], view: View, depth: usize, out: &mut String) {
    for (index, item) in list.iter().enumerate() {
        if index > 0 || out.is_empty() || out.ends_with('\n') {
            indent(depth, out);
        }
        out.push_str("- ");
        if !block(item, view, depth + 1, out) {
            inline(item, depth + 1, out);
            out.push('\n');
        }
    }
}

fn inline(node: &Node, depth: usize, out: &mut String) {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => {
            let _ = write!(out, "{value}");
        }
        Value::Float(value) if value.is_nan() => out.push_str(".nan"),
        Value::Float(value) if value.is_infinite() => out.push_str(if *value > 0.0 { ".inf" } else { "-.inf" }),
        Value::Float(value) => out.push_str(&scalar::float(*value)),
        Value::String(text) if node.tag == Tag::Date => out.push_str(text),
        Value::String(text) => string(text, depth, out),
        Value::List(_) => out.push_str("[]"),
        Value::Map(_) => out.push_str("{}"),
    }
}

fn key_text(key: &str, out: &mut String) {
    if key.contains('\n') { double_quoted(key, out) } else { string(key, 0, out) }
}

/// What the characters of a text allow.
struct Analysis {
    plain: bool,
    single_quoted: bool,
    block: bool,
}

fn string(text: &str, depth: usize, out: &mut String) {
    let analysis = analyse(text);
    if text.contains('\n') {
        if analysis.block { literal(text, depth, out) } else { double_quoted(text, out) }
    } else if !reads_as_text(text) {
        double_quoted(text, out);
    } else if analysis.plain {
        out.push_str(text);
    } else if analysis.single_quoted {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    } else {
        double_quoted(text, out);
    }
}

/// Whether the unquoted text would be read as text again, by old readers as well.
fn reads_as_text(text: &str) -> bool {
    const OLD_BOOLEANS: [&str; 16] =
        ["y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off", "OFF"];
    matches!(scalar::resolve(text), Scalar::Text) && !OLD_BOOLEANS.contains(&text) && !is_base_60(text)
}

/// `[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?`
fn is_base_60(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit() || b == b'_') {
        return false;
    }
    let mut parts = whole.split(':');
    let first = parts.next().unwrap_or_default();
    let first_fits =
        first.starts_with(|c: char| c.is_ascii_digit()) && first.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let mut rest = parts.peekable();
    let two_digits = |part: &str| match part.as_bytes() {
        [digit] => digit.is_ascii_digit(),
        [tens, digit] => (b'0'..=b'5').contains(tens) && digit.is_ascii_digit(),
        _ => false,
    };
    first_fits && rest.peek().is_some() && rest.all(two_digits)
}

fn is_break(char: char) -> bool {
    matches!(char, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What YAML prints as it is; anything beyond the basic plane is escaped.
fn is_printable(char: char) -> bool {
    matches!(char, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && char != '\u{feff}'
}

fn analyse(text: &str) -> Analysis {
    let mut indicators = text.starts_with("---") || text.starts_with("...");
    let (mut breaks, mut special, mut tab) = (false, false, false);
    let (mut space_break, mut break_space) = (false, false);
    let mut previous: Option<char> = None;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let blank_after = chars.peek().is_none_or(|next| matches!(next, ' ' | '\t') || is_break(*next));
        indicators |= match (previous, char) {
            (None, '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`') => {
                true
            }
            (None, '?' | ':' | '-') | (Some(_), ':') => blank_after,
            (Some(before), '#') => matches!(before, ' ' | '\t') || is_break(before),
            _ => false,
        };
        tab |= char == '\t';
        special |= char != '\t' && !is_printable(char) && !is_break(char);
        special |= matches!(char, '\r' | '\u{85}' | '\u{2028}' | '\u{2029}') && !is_printable(char);
        if let Some(before) = previous {
            space_break |= before == ' ' && is_break(char);
            break_space |= is_break(before) && char == ' ';
        }
        breaks |= is_break(char);
        previous = Some(char);
    }
    let edge = |char: Option<char>| char.is_some_and(|char| char == ' ' || is_break(char));
    let blank_edges = edge(text.chars().next()) || edge(previous);
    let unprintable = space_break || tab || special;
    Analysis {
        plain: !text.is_empty() && !indicators && !blank_edges && !breaks && !unprintable && !break_space,
        single_quoted: !unprintable && !break_space,
        block: previous != Some(' ') && !space_break && !special,
    }
}

fn literal(text: &str, depth: usize, out: &mut String) {
    out.push('|');
    if text.starts_with(' ') || text.starts_with(is_break) {
        out.push('2');
    }
    if !text.ends_with('\n') {
        out.push('-');
    } else if text == "\n" || text.ends_with("\n\n") {
        out.push('+');
    }
    let body = text.strip_suffix('\n').unwrap_or(text);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(depth, out);
            out.push_str(line);
        }
    }
}

fn double_quoted(text: &str, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        let escape = match char {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\0' => "\\0",
            '\u{7}' => "\\a",
            '\u{8}' => "\\b",
            '\t' => "\\t",
            '\n' => "\\n",
            '\u{b}' => "\\v",
            '\u{c}' => "\\f",
            '\r' => "\\r",
            '\u{1b}' => "\\e",
            '\u{85}' => "\\N",
            '\u{2028}' => "\\L",
            '\u{2029}' => "\\P",
            char if is_printable(char) => {
                out.push(char);
                continue;
            }
            char => {
                let code = u32::from(char);
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02X}"),
                    0x100..=0xffff => write!(out, "\\u{code:04X}"),
                    _ => write!(out, "\\U{code:08X}"),
                };
                continue;
            }
        };
        out.push_str(escape);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use crate::model::tree::{Mark, Node};

    use super::*;

    #[test]
    fn quotes_only_where_they_are_needed() {
        let cases = [
            ("a'b", "a'b"),
            ("true", "\"true\""),
            ("", "\"\""),
            ("a: b", "'a: b'"),
            ("- a", "'- a'"),
            ("?a", "?a"),
            ("a\tb", "\"a\\tb\""),
            ("\u{1}", "\"\\x01\""),
            ("12:30:45", "\"12:30:45\""),
            ("it's: x", "'it''s: x'"),
            ("x\u{1F600}", "\"x\\U0001F600\""),
            (" a", "' a'"),
            ("=", "="),
            ("<<", "<<"),
            ("a\nb", "|-\n  a\n  b"),
            ("a\n\n", "|+\n  a\n"),
            ("a \nb", "\"a \\nb\""),
        ];
        for (text, expected) in cases {
            let mut out = String::new();
            inline(&Node::string(text, Mark::default()), 1, &mut out);
            assert_eq!(out, expected, "{text:?}");
        }
    }
}
