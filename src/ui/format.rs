//! `--format` of lists: a table, JSON lines, or a template in the part of Go's language that people use.
//!
//! A template is text with actions in `{{ }}`: fields (`.Name`, `.Labels.x`, `.` for the whole row, `$` for it inside of
//! `range` and `with`), words in quotes, functions with arguments or behind a `|`, all this in parentheses, and `if`, `range` and
//! `with` until their `end`, with `else`. `table ` in front of it prints aligned columns under a head, between which stand
//! tabs (`\t`).

use std::iter::Peekable;

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
    Block {
        kind: Kind,
        of: Vec<Call>,
        then: Vec<Part>,
        otherwise: Vec<Part>,
    },
}

/// What a block does with its pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    If,
    Range,
    With,
}

/// A value, or a function with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    function: Option<&'static str>,
    arguments: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq)]
enum Term {
    /// Path of keys; empty is the value itself.
    Field {
        of_row: bool,
        path: Vec<String>,
    },
    Value(Value),
    Pipeline(Vec<Call>),
}

/// `.Label "x"` is a label's value.
const LABEL: &str = ".Label";

const FUNCTIONS: [&str; 15] = [
    "json", "upper", "lower", "title", "len", "truncate", "join", "split", "println", "eq", "ne", "and", "or", "not",
    "index",
];

/// How deep blocks and parentheses may go.
const MAX_DEPTH: usize = 50;

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
        let lines: Vec<String> = rows.iter().map(|row| line(parts, row, row)).collect::<Result<_, _>>()?;
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
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}").ok_or_else(|| format!("`{text}`: `{{{{` without `}}}}`"))?;
        let before = if trim { before.trim_start() } else { before };
        let (before, action) = match action.strip_prefix("- ") {
            Some(action) => (before.trim_end(), action),
            None => (before, action),
        };
        let (action, after_trim) = action.strip_suffix(" -").map_or((action, false), |action| (action, true));
        pieces.push(Piece::Text(before));
        pieces.push(Piece::Action(action.trim()));
        trim = after_trim;
        rest = after;
    }
    pieces.push(Piece::Text(if trim { rest.trim_start() } else { rest }));
    match parts(&mut pieces.into_iter(), 0)? {
        (parts, Stop::Over) => Ok(parts),
        (_, Stop::End) => Err(format!("`{text}`: `end` without a beginning")),
        (_, Stop::Else(_)) => Err(format!("`{text}`: `else` without `if`")),
    }
}

enum Piece<'a> {
    Text(&'a str),
    Action(&'a str),
}

/// What ends a list of parts.
enum Stop<'a> {
    Over,
    End,
    /// With what stands behind it.
    Else(&'a str),
}

fn parts<'a>(pieces: &mut std::vec::IntoIter<Piece<'a>>, depth: usize) -> Result<(Vec<Part>, Stop<'a>), String> {
    let mut parts = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) => {
                parts.push(Part::Text(unescape(text)));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
        let kind = match word {
            "end" => return Ok((parts, Stop::End)),
            "else" => return Ok((parts, Stop::Else(rest.trim()))),
            "if" => Kind::If,
            "range" => Kind::Range,
            "with" => Kind::With,
            _ => {
                parts.push(Part::Action(pipeline(action)?));
                continue;
            }
        };
        parts.push(block(kind, rest, pieces, depth + 1)?);
    }
    Ok((parts, Stop::Over))
}

fn block(kind: Kind, of: &str, pieces: &mut std::vec::IntoIter<Piece<'_>>, depth: usize) -> Result<Part, String> {
    if depth > MAX_DEPTH {
        return Err("blocks are too deep".to_owned());
    }
    let no_end = || format!("`{{{{… {of}}}}}` has no `{{{{end}}}}`");
    let call = pipeline(of)?;
    let (then, stop) = parts(pieces, depth)?;
    let otherwise = match stop {
        Stop::Over => return Err(no_end()),
        Stop::End => Vec::new(),
        Stop::Else("") => match parts(pieces, depth)? {
            (otherwise, Stop::End) => otherwise,
            _ => return Err(no_end()),
        },
        Stop::Else(more) => {
            let more = more.strip_prefix("if ").ok_or_else(|| format!("`else {more}`: only `if` can stand there"))?;
            vec![block(Kind::If, more, pieces, depth + 1)?]
        }
    };
    Ok(Part::Block { kind, of: call, then, otherwise })
}

/// What shells do not turn into tabs and new lines themselves.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn pipeline(action: &str) -> Result<Vec<Call>, String> {
    let mut rest = words(action)?.into_iter().peekable();
    let calls = calls(&mut rest, action, 0)?;
    match rest.next() {
        None => Ok(calls),
        Some(_) => Err(format!("`{{{{{action}}}}}`: `)` without `(`")),
    }
}

/// Until the end, or a parenthesis that closes.
fn calls(words: &mut Peekable<std::vec::IntoIter<String>>, action: &str, depth: usize) -> Result<Vec<Call>, String> {
    if depth > MAX_DEPTH {
        return Err(format!("`{{{{{action}}}}}`: parentheses are too deep"));
    }
    let mut calls = vec![Call { function: None, arguments: Vec::new() }];
    while let Some(word) = words.next_if(|word| word != ")") {
        let first = calls.last().is_none_or(|call| call.function.is_none() && call.arguments.is_empty());
        let Some(call) = calls.last_mut() else { continue };
        if word == "|" {
            if first {
                return Err(format!("`{{{{{action}}}}}`: there is nothing before `|`"));
            }
            calls.push(Call { function: None, arguments: Vec::new() });
        } else if word == "(" {
            call.arguments.push(Term::Pipeline(self::calls(words, action, depth + 1)?));
            words.next().ok_or_else(|| format!("`{{{{{action}}}}}`: `(` without `)`"))?;
        } else if word == LABEL && first {
            call.function = Some(LABEL);
        } else if let Some(path) = word.strip_prefix("$.").or_else(|| word.strip_prefix('.')) {
            let path = path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
            call.arguments.push(Term::Field { of_row: word.starts_with('$'), path });
        } else if word == "$" {
            call.arguments.push(Term::Field { of_row: true, path: Vec::new() });
        } else if let Some(quoted) = word.strip_prefix('"') {
            call.arguments.push(Term::Value(unescape(quoted).into()));
        } else if let Ok(number) = word.parse::<i64>() {
            call.arguments.push(Term::Value(number.into()));
        } else if let Ok(truth) = word.parse::<bool>() {
            call.arguments.push(Term::Value(truth.into()));
        } else if let (true, Some(function)) = (first, FUNCTIONS.iter().find(|name| **name == word)) {
            call.function = Some(function);
        } else {
            let known = FUNCTIONS.join(", ");
            return Err(format!(
                "`{{{{{action}}}}}`: `{word}` is no field and no function here; fields begin with a dot, functions are {known}"
            ));
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
        } else if rest.starts_with(['|', '(', ')']) {
            let (mark, after) = rest.split_at(1);
            words.push(mark.to_owned());
            rest = after.trim_start();
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || "|()".contains(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            words.push(word.to_owned());
            rest = after.trim_start();
        }
    }
    Ok(words)
}

/// `at` is what `.` means.
fn line(parts: &[Part], at: &Value, row: &Value) -> Result<String, String> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(plain) => text.push_str(plain),
            Part::Action(calls) => text.push_str(&self::text(&evaluate(calls, at, row)?)),
            Part::Block { kind, of, then, otherwise } => {
                let value = evaluate(of, at, row)?;
                match (kind, is_true(&value), &value) {
                    (_, false, _) => text.push_str(&line(otherwise, at, row)?),
                    (Kind::If, ..) => text.push_str(&line(then, at, row)?),
                    (Kind::With, _, value) => text.push_str(&line(then, value, row)?),
                    (Kind::Range, _, Value::Array(items)) => {
                        for item in items {
                            text.push_str(&line(then, item, row)?);
                        }
                    }
                    (Kind::Range, _, Value::Object(items)) => {
                        for item in items.values() {
                            text.push_str(&line(then, item, row)?);
                        }
                    }
                    (Kind::Range, _, other) => return Err(format!("`range` cannot go over {other}")),
                }
            }
        }
    }
    Ok(text)
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
    }
}

fn evaluate(calls: &[Call], at: &Value, row: &Value) -> Result<Value, String> {
    let mut piped = None;
    for call in calls {
        let mut arguments = Vec::new();
        for term in &call.arguments {
            arguments.push(match term {
                Term::Value(value) => value.clone(),
                Term::Field { of_row, path } => field(path, if *of_row { row } else { at })?,
                Term::Pipeline(calls) => evaluate(calls, at, row)?,
            });
        }
        arguments.extend(piped.take());
        piped = Some(if call.function == Some(LABEL) {
            label(row, &arguments)?
        } else {
            apply(call.function, &arguments)?
        });
    }
    Ok(piped.unwrap_or_default())
}

/// A label of a row that has them as one text.
fn label(row: &Value, arguments: &[Value]) -> Result<Value, String> {
    let [Value::String(name)] = arguments else { return Err("`.Label` takes a label's name".to_owned()) };
    let labels = field(&["Labels".to_owned()], row)?;
    let labels = text(&labels);
    let mut values = labels.split(',').filter_map(|label| label.split_once('='));
    Ok(values.find(|(key, _)| key == name).map(|(_, value)| value).unwrap_or_default().into())
}

fn field(path: &[String], of: &Value) -> Result<Value, String> {
    let mut at = of;
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
        (Some("split"), [value, Value::String(separator)]) => {
            text(value).split(separator.as_str()).map(Value::from).collect::<Vec<_>>().into()
        }
        (Some("eq"), [one, others @ ..]) if !others.is_empty() => others.contains(one).into(),
        (Some("ne"), [one, other]) => (one != other).into(),
        (Some("not"), [value]) => (!is_true(value)).into(),
        (Some("and"), [.., last]) => arguments.iter().find(|value| !is_true(value)).unwrap_or(last).clone(),
        (Some("or"), [.., last]) => arguments.iter().find(|value| is_true(value)).unwrap_or(last).clone(),
        (Some("index"), [list, keys @ ..]) => keys.iter().fold(list.clone(), |of, key| {
            let found = match key {
                Value::String(key) => of.get(key),
                key => key.as_u64().and_then(|at| of.get(usize::try_from(at).ok()?)),
            };
            found.cloned().unwrap_or_default()
        }),
        (Some("println"), values) => (values.iter().map(text).collect::<Vec<_>>().join(" ") + "\n").into(),
        (Some(name), _) => return wrong(name),
        (None, _) => return wrong("a value"),
    })
}

/// As Go prints it. What Docker calls by a capital letter is a structure there, all else is a map.
fn text(value: &Value) -> String {
    let is_structure =
        |items: &serde_json::Map<String, Value>| items.keys().all(|key| key.starts_with(char::is_uppercase));
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(" ")),
        Value::Object(items) if is_structure(items) => {
            format!("{{{}}}", items.values().map(text).collect::<Vec<_>>().join(" "))
        }
        Value::Object(items) => {
            let pairs = items.iter().map(|(key, value)| format!("{key}:{}", text(value)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

/// The head of a table: the field of each action in docker's words.
fn head(parts: &[Part], id: &str) -> String {
    let title = |calls: &[Call]| {
        let terms = || calls.iter().flat_map(|call| &call.arguments);
        if let (true, Some(Term::Value(label))) =
            (calls.iter().any(|call| call.function == Some(LABEL)), terms().next())
        {
            let label = text(label);
            return label.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " ");
        }
        let mut field = terms().filter_map(|term| match term {
            Term::Field { path, .. } => path.last(),
            Term::Value(_) | Term::Pipeline(_) => None,
        });
        field.next_back().map(|name| heading(name, id)).unwrap_or_default()
    };
    let word = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Action(calls) => title(calls),
        Part::Block { then, .. } => head(then, id),
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
    fn blocks_and_what_they_are_about() {
        let each = "{{range .Publishers}}{{$.Name}} at {{.URL}} {{else}}none{{end}}";
        assert_eq!(render(each).unwrap(), "x-web-1 at :: \nnone\n");
        let choice = "{{if eq .State \"running\" }}up{{else if and .Name (not .Publishers)}}gone{{else}}?{{end}}";
        assert_eq!(render(choice).unwrap(), "up\ngone\n");
        let first = "{{with index .Publishers 0}}{{ .URL -}} {{end}}";
        assert_eq!(render(first).unwrap(), "::\n\n");
        assert_eq!(render("{{range .Name}}{{end}}").unwrap_err(), "`range` cannot go over \"x-web-1\"");
        assert_eq!(render("{{ne .State \"exited\"}} {{index (split .Name \"-\") 1}}").unwrap(), "true web\nfalse a\n");
    }

    #[test]
    fn values_are_printed_as_go_prints_them() {
        let row = json!({"Publishers": [{"URL": "::", "TargetPort": 80}], "Ports": {"80/tcp": {}}, "Labels": "a=1,b.c-d=x=y"});
        let render = |template: &str| RowFormat::parse(template).unwrap().render(std::slice::from_ref(&row), "ID");
        assert_eq!(render("{{.Publishers}} {{.Ports}}").unwrap(), "[{:: 80}] map[80/tcp:{}]\n");
        assert_eq!(render("table {{.Label \"b.c-d\"}}").unwrap(), "c d\nx=y\n");
        assert_eq!(render("{{.Label \"c\"}}").unwrap(), "\n");
        assert!(render("{{.Label}}").is_err());
    }

    #[test]
    fn a_table_has_a_head_and_columns() {
        let expected = "NAME      STATE\nx-web-1   running\nx-a-1     exited\n";
        assert_eq!(render("table {{.Name}}\\t{{.State}}").unwrap(), expected);
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert!(render("{{.Nope}}").unwrap_err().contains("Nope"));
        assert!(render("{{template .Name}}").unwrap_err().contains("`template`"));
        let open = [
            "{{if .Name}}x",
            "{{end}}",
            "{{else}}",
            "{{if .Name}}{{else}}",
            "{{range}}{{end}}",
            "{{(.Name}}",
            "{{.Name)}}",
        ];
        for wrong in open.into_iter().chain(["{{.Name", "{{}}", "{{| json}}", "{{.A .B}}", "{{\"x}}"]) {
            assert!(RowFormat::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_template_panics(text in "[{}.a-zA-Z |()$\"`\\\\]{0,30}|(\\{\\{(if|range|else|end|with) ?[.$a(]?\\}\\}){0,8}|\\PC{0,20}") {
            if let Ok(format) = RowFormat::parse(&text) {
                let _ = format.render(&[json!({"a": 1})], "ID");
            }
        }
    }
}
