//! `--format` of lists: a table, JSON lines, or a template in the small part of Go's language that people use.
//!
//! A template is text with actions in `{{ }}`: fields (`.Name`, `.Labels.x`, `.` for the whole row), words in quotes,
//! functions (`json`, `upper`, `lower`, `title`, `len`, `truncate`, `join`, `println`) with arguments or behind a `|`.
//! `table ` in front of it prints aligned columns under a head, between which stand tabs (`\t`).

use serde_json::Value;

use crate::ui::tables;

/// How rows are printed.
#[derive(Clone, Debug, PartialEq)]
pub enum RowFormat {
    /// The command's own table.
    Table,
    /// One object a line.
    Json,
    Template {
        parts: Vec<Part>,
        table: bool,
    },
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Text(String),
    /// A pipeline: what each call returns is the last argument of the next one.
    Action(Vec<Call>),
}

/// A value, or a function with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    function: Option<&'static str>,
    arguments: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq)]
enum Term {
    /// Path of keys from the row; empty is the row itself.
    Field(Vec<String>),
    Value(Value),
}

const FUNCTIONS: [&str; 8] = ["json", "upper", "lower", "title", "len", "truncate", "join", "println"];

impl RowFormat {
    /// # Errors
    /// For a template that makes no sense, or says more than is known here.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "table" | "" | "pretty" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => match text.strip_prefix("table ") {
                Some(template) => Ok(Self::Template { parts: parse(template.trim())?, table: true }),
                None => Ok(Self::Template { parts: parse(text)?, table: false }),
            },
        }
    }

    /// The rows as text; `id` is what a table calls their `.ID`. The command prints its own table itself.
    ///
    /// # Errors
    /// When a template names a field that rows do not have.
    pub fn render(&self, rows: &[Value], id: &str) -> Result<String, String> {
        let Self::Template { parts, table } = self else {
            return Ok(rows.iter().map(|row| format!("{row}\n")).collect());
        };
        let lines: Vec<String> = rows.iter().map(|row| line(parts, row)).collect::<Result<_, _>>()?;
        if !*table {
            return Ok(lines.iter().map(|line| format!("{line}\n")).collect());
        }
        let head = head(parts, id);
        let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
        let rows: Vec<Vec<String>> = lines.iter().map(cells).collect();
        let head: Vec<&str> = head.split('\t').collect();
        Ok(tables::table(&head, &rows, 10))
    }
}

fn parse(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}").ok_or_else(|| format!("`{text}`: `{{{{` without `}}}}`"))?;
        parts.push(Part::Text(unescape(before)));
        let action = action.trim_start_matches("- ").trim_end_matches(" -");
        parts.push(Part::Action(pipeline(action)?));
        rest = after;
    }
    parts.push(Part::Text(unescape(rest)));
    Ok(parts)
}

/// What shells do not turn into tabs and new lines themselves.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn pipeline(action: &str) -> Result<Vec<Call>, String> {
    let mut calls = vec![Call { function: None, arguments: Vec::new() }];
    for (index, word) in words(action)?.into_iter().enumerate() {
        let first = calls.last().is_none_or(|call| call.function.is_none() && call.arguments.is_empty());
        let Some(call) = calls.last_mut() else { continue };
        if word == "|" {
            if first {
                return Err(format!("`{{{{{action}}}}}`: there is nothing before `|`"));
            }
            calls.push(Call { function: None, arguments: Vec::new() });
        } else if let Some(path) = word.strip_prefix('.') {
            let keys = path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
            call.arguments.push(Term::Field(keys));
        } else if let Some(quoted) = word.strip_prefix('"') {
            call.arguments.push(Term::Value(unescape(quoted).into()));
        } else if let Ok(number) = word.parse::<i64>() {
            call.arguments.push(Term::Value(number.into()));
        } else if let (true, Some(function)) = (first, FUNCTIONS.iter().find(|name| **name == word)) {
            call.function = Some(function);
        } else {
            let known = FUNCTIONS.join(", ");
            let what = if index == 0 { "is no field and no function here" } else { "cannot stand here" };
            return Err(format!("`{{{{{action}}}}}`: `{word}` {what}; fields begin with a dot, functions are {known}"));
        }
    }
    if calls.iter().any(|call| call.function.is_none() && call.arguments.len() != 1) {
        return Err(format!("`{{{{{action}}}}}` is not one value"));
    }
    Ok(calls)
}

/// Words of an action; one in quotes keeps the first of them as its mark.
fn words(action: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = action.trim_start();
    while !rest.is_empty() {
        let quote = rest.chars().next().filter(|first| matches!(first, '"' | '`'));
        if let Some(quote) = quote {
            let inner = rest.get(1..).unwrap_or_default();
            let (text, after) =
                inner.split_once(quote).ok_or_else(|| format!("`{{{{{action}}}}}`: a quote without an end"))?;
            words.push(format!("\"{text}"));
            rest = after.trim_start();
        } else if let Some(after) = rest.strip_prefix('|') {
            words.push("|".to_owned());
            rest = after.trim_start();
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || c == '|').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            words.push(word.to_owned());
            rest = after.trim_start();
        }
    }
    Ok(words)
}

fn line(parts: &[Part], row: &Value) -> Result<String, String> {
    let mut line = String::new();
    for part in parts {
        match part {
            Part::Text(text) => line.push_str(text),
            Part::Action(calls) => line.push_str(&text(&evaluate(calls, row)?)),
        }
    }
    Ok(line)
}

fn evaluate(calls: &[Call], row: &Value) -> Result<Value, String> {
    let mut piped = None;
    for call in calls {
        let mut arguments = Vec::new();
        for term in &call.arguments {
            arguments.push(match term {
                Term::Value(value) => value.clone(),
                Term::Field(path) => field(path, row)?,
            });
        }
        arguments.extend(piped.take());
        piped = Some(apply(call.function, &arguments)?);
    }
    Ok(piped.unwrap_or_default())
}

fn field(path: &[String], row: &Value) -> Result<Value, String> {
    let mut at = row;
    for key in path {
        at = at.get(key).ok_or_else(|| {
            let known = at.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>().join(", "));
            format!("there is no field `.{}`; fields are {}", path.join("."), known.unwrap_or_default())
        })?;
    }
    Ok(at.clone())
}

fn apply(function: Option<&str>, arguments: &[Value]) -> Result<Value, String> {
    let wrong = |name: &str| Err(format!("`{name}` does not take these arguments"));
    Ok(match (function, arguments) {
        (None, [value]) => value.clone(),
        (Some("json"), [value]) => value.to_string().into(),
        (Some("upper"), [value]) => text(value).to_uppercase().into(),
        (Some("lower"), [value]) => text(value).to_lowercase().into(),
        (Some("title"), [value]) => {
            let value = text(value);
            let mut letters = value.chars();
            letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect()).into()
        }
        (Some("len"), [Value::Array(list)]) => list.len().into(),
        (Some("len"), [value]) => text(value).len().into(),
        (Some("truncate"), [value, Value::Number(length)]) => {
            let length = length.as_u64().and_then(|length| usize::try_from(length).ok()).unwrap_or(usize::MAX);
            text(value).chars().take(length).collect::<String>().into()
        }
        (Some("join"), [Value::Array(list), Value::String(separator)]) => {
            list.iter().map(text).collect::<Vec<_>>().join(separator).into()
        }
        (Some("println"), values) => (values.iter().map(text).collect::<Vec<_>>().join(" ") + "\n").into(),
        (Some(name), _) => return wrong(name),
        (None, _) => return wrong("a value"),
    })
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The head of a table: the field of each action in docker's words.
fn head(parts: &[Part], id: &str) -> String {
    let title = |calls: &[Call]| {
        let fields = calls.iter().flat_map(|call| &call.arguments);
        let mut field = fields.filter_map(|term| match term {
            Term::Field(path) => path.last(),
            Term::Value(_) => None,
        });
        field.next_back().map(|name| heading(name, id)).unwrap_or_default()
    };
    let word = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Action(calls) => title(calls),
    };
    parts.iter().map(word).collect()
}

fn heading(field: &str, id: &str) -> String {
    match field {
        "ID" => id.to_owned(),
        "CreatedAt" => "CREATED AT".to_owned(),
        "CreatedBy" => "CREATED BY".to_owned(),
        "RunningFor" | "CreatedSince" => "CREATED".to_owned(),
        "ExitCode" => "EXIT CODE".to_owned(),
        "LocalVolumes" => "LOCAL VOLUMES".to_owned(),
        "CPUPerc" => "CPU %".to_owned(),
        "MemPerc" => "MEM %".to_owned(),
        "MemUsage" => "MEM USAGE / LIMIT".to_owned(),
        "NetIO" => "NET I/O".to_owned(),
        "BlockIO" => "BLOCK I/O".to_owned(),
        other => other.to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> Result<String, String> {
        let rows = [
            json!({"Name": "x-web-1", "State": "running", "Publishers": [{"URL": "::"}]}),
            json!({
            "Name": "x-a-1", "State": "exited", "Publishers": []}),
        ];
        RowFormat::parse(template)?.render(&rows, "CONTAINER ID")
    }

    #[test]
    fn fields_functions_and_pipelines() {
        assert_eq!(render("{{.Name}} is {{ .State | upper }}").unwrap(), "x-web-1 is RUNNING\nx-a-1 is EXITED\n");
        assert_eq!(render("{{json .Publishers}}").unwrap(), "[{\"URL\":\"::\"}]\n[]\n");
        assert_eq!(render("{{len .Publishers}}{{title .State}}").unwrap(), "1Running\n0Exited\n");
        assert_eq!(render("{{truncate .Name 3}}{{\"|\"}}").unwrap(), "x-w|\nx-a|\n");
    }

    #[test]
    fn a_table_has_a_head_and_columns() {
        let expected = "NAME      STATE\nx-web-1   running\nx-a-1     exited\n";
        assert_eq!(render("table {{.Name}}\\t{{.State}}").unwrap(), expected);
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert!(render("{{.Nope}}").unwrap_err().contains("Nope"));
        assert!(render("{{if .Name}}x{{end}}").unwrap_err().contains("`if`"));
        for wrong in ["{{.Name", "{{}}", "{{| json}}", "{{.A .B}}", "{{\"x}}"] {
            assert!(RowFormat::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_template_panics(text in "[{}.a-zA-Z |\"`\\\\]{0,30}|\\PC{0,20}") {
            if let Ok(format) = RowFormat::parse(&text) {
                let _ = format.render(&[json!({"a": 1})], "ID");
            }
        }
    }
}
