//! JSON as Go's encoder writes it: two blanks of indent, `<`, `>` and `&` escaped.

use std::fmt::Write;

use super::members::{Form, View, members};
use crate::model::tree::{Node, Value};

/// The tree as indented JSON.
pub(super) fn text(node: &Node, view: View) -> String {
    let mut text = String::new();
    write(node, view, Some(0), &mut text);
    text
}

/// The same without blanks and line breaks.
pub(super) fn compact(node: &Node, view: View) -> String {
    let mut text = String::new();
    write(node, view, None, &mut text);
    text
}

/// `depth` is `None` for all in one line.
fn write(node: &Node, view: View, depth: Option<usize>, out: &mut String) {
    let inner = depth.map(|depth| depth + 1);
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => {
            let _ = write!(out, "{value}");
        }
        Value::Float(value) => float(*value, out),
        Value::String(text) => string(text, out),
        Value::List(list) if list.is_empty() => {
            out.push_str(if matches!(view, View::NullLists) { "null" } else { "[]" });
        }
        Value::List(list) => {
            for (index, item) in list.iter().enumerate() {
                out.push(if index == 0 { '[' } else { ',' });
                new_line(inner, out);
                write(item, view.items(), inner, out);
            }
            new_line(depth, out);
            out.push(']');
        }
        Value::Map(map) => {
            let members = members(map, view, Form::Json);
            if members.is_empty() {
                out.push_str("{}");
                return;
            }
            for (index, member) in members.iter().enumerate() {
                out.push(if index == 0 { '{' } else { ',' });
                new_line(inner, out);
                string(&member.name, out);
                out.push_str(if depth.is_some() { ": " } else { ":" });
                write(&member.node, member.view, inner, out);
            }
            new_line(depth, out);
            out.push('}');
        }
    }
}

fn new_line(depth: Option<usize>, out: &mut String) {
    let Some(depth) = depth else { return };
    out.push('\n');
    for _ in 0..depth {
        out.push_str("  ");
    }
}

/// As JavaScript does: an exponent below 1e-6 and from 1e21 on.
fn float(value: f64, out: &mut String) {
    let size = value.abs();
    if !value.is_finite() {
        out.push_str("null");
    } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        out.push_str(&text.replace('e', if text.contains("e-") { "e" } else { "e+" }));
    } else {
        let _ = write!(out, "{value}");
    }
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            _ => out.push(char),
        }
    }
    out.push('"');
}
