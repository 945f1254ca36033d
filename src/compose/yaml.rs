//! YAML text to trees of values that know their place, within bounds of depth and size.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag as YamlTag};

use super::fast::{self, Stop};
use super::load::MAX_SERVICES;
use super::padding::Padding;
use super::report::Reports;
use super::scalar::{self, Scalar};
use crate::base::diagnostic::Diagnostic;
use crate::model::tree::{Map, Mark, Node, Tag, Value};

/// Deeper than any sane file, and shallow enough for recursive walks.
pub(super) const MAX_DEPTH: usize = 64;
/// Values of one file, copies made by aliases included.
const MAX_NODES: usize = 1_000_000;
/// Of these, copies made by aliases. Mappings of copies take much memory.
const MAX_COPIES: usize = 250_000;
/// Bytes that are read again because of their indentation, see [`Padding`].
const MAX_REPARSED: usize = 8 * 1024 * 1024;

/// Parses every document of `text`; of a file without content there are none. `None` when an error was reported.
pub(super) fn parse(text: &str, file: u16, reports: &mut Reports) -> Option<Vec<Node>> {
    let mut padding = Padding::default();
    match read_fast(text, file, &padding, reports) {
        Err(Stop::Unusual) => {}
        Err(Stop::Refused) => return None,
        Ok(documents) => return documents,
    }
    let mut padded: Option<String> = None;
    let mut budget = MAX_REPARSED;
    loop {
        let text_now = padded.as_deref().unwrap_or(text);
        let before = reports.diagnostics.len();
        let error = match attempt(text_now, file, &padding, reports) {
            Ok(documents) => return documents,
            Err(error) => error,
        };
        let line = error.marker().line();
        budget = budget.saturating_sub(text_now.len());
        if budget == 0 || !padding.mend(&error, text) {
            let column = padding.column(line, error.marker().col());
            let mark = mark_at(file, line, column, 0);
            let message = format!("this is not valid YAML: {}", error.info());
            match error.info() {
                info if info.contains("tabs disallowed") => {
                    reports.error_with_help("yaml-syntax", mark, message, "indent with blanks");
                }
                info if info.contains("did not find expected key") => {
                    let help = "is it indented as the keys beside it are?";
                    reports.error_with_help("yaml-syntax", mark, message, help);
                }
                _ => reports.error("yaml-syntax", mark, message),
            }
            return None;
        }
        // What was reported about a text that is read again will be reported again.
        reports.diagnostics.truncate(before);
        padded = Some(padding.apply(text));
    }
}

/// The one document of a file as most are written; `None` when an error was reported.
fn read_fast(text: &str, file: u16, padding: &Padding, reports: &mut Reports) -> Result<Option<Vec<Node>>, Stop> {
    let before = reports.diagnostics.len();
    let mut builder = Builder::new(file, padding);
    let read = fast::read(text, file, &mut |event, mark| builder.event(event, mark, reports));
    if read == Err(Stop::Unusual) {
        // It is read again.
        reports.diagnostics.truncate(before);
    }
    read.map(|()| (!builder.failed).then_some(builder.documents))
}

/// One pass over the text: documents (`None` when an error was reported), or what the scanner does not like.
fn attempt(
    text: &str,
    file: u16,
    padding: &Padding,
    reports: &mut Reports,
) -> Result<Option<Vec<Node>>, saphyr_parser::ScanError> {
    let mut builder = Builder::new(file, padding);
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event?;
        let mark = builder.mark(span);
        if builder.event(event, mark, reports).is_none() {
            return Ok(None);
        }
    }
    if let Some(empty) = builder.empty {
        let message = "a document of this file is empty: the top level of each must be a mapping";
        reports.error_with_help("wrong-type", empty, message, "remove the `---` that begins it");
        return Ok(None);
    }
    Ok((!builder.failed).then_some(builder.documents))
}

fn mark_at(file: u16, line: usize, column: usize, length: usize) -> Mark {
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    Mark { file, line: small(line), column: small(column).saturating_add(1), length }
}

struct Builder<'a> {
    file: u16,
    padding: &'a Padding,
    stack: Vec<Frame>,
    /// By the parser's anchor id, once the value is complete.
    anchors: Vec<Option<Anchor>>,
    nodes: usize,
    copies: usize,
    documents: Vec<Node>,
    /// A document without content. A file that has nothing at all has no document.
    empty: Option<Mark>,
    failed: bool,
    /// Keys repeat a lot, so each text is kept once.
    keys: HashSet<Arc<str>, foldhash::fast::RandomState>,
}

/// A value that aliases repeat.
struct Anchor {
    node: Node,
    size: usize,
    /// Most values with an anchor are never repeated.
    repeats: Option<Box<Repeats>>,
}

/// Where aliases repeat a value.
#[derive(Default)]
struct Repeats {
    paths: HashSet<String>,
    /// What those paths start with.
    parents: HashSet<String>,
}

impl Repeats {
    /// Notes that the value is repeated at `path`; false when it is so within or above that path already.
    fn note(&mut self, path: &str) -> bool {
        let parents = || path.match_indices('.').filter_map(|(end, _)| path.get(..end));
        if self.parents.contains(path) || parents().any(|parent| self.paths.contains(parent)) {
            return false;
        }
        self.parents.extend(parents().map(str::to_owned));
        self.paths.insert(path.to_owned());
        true
    }
}

/// A collection that is being read.
struct Frame {
    mark: Mark,
    anchor: usize,
    tag: Tag,
    body: Body,
}

enum Body {
    List(Vec<Node>),
    Map { map: Map, merges: Vec<Node>, merge_key: Option<Mark>, key: Option<Key> },
}

enum Key {
    Text(Arc<str>, Mark),
    Merge,
}

impl<'a> Builder<'a> {
    fn new(file: u16, padding: &'a Padding) -> Self {
        Self {
            file,
            padding,
            stack: Vec::new(),
            anchors: Vec::new(),
            nodes: 0,
            copies: 0,
            documents: Vec::new(),
            empty: None,
            failed: false,
            keys: HashSet::default(),
        }
    }

    /// Takes one event; `None` ends the parse.
    fn event(&mut self, event: Event<'_>, mark: Mark, reports: &mut Reports) -> Option<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain_merge = style == ScalarStyle::Plain && tag.is_none() && text == "<<";
                if plain_merge && self.expects_key() {
                    return self.merge_key(mark, reports);
                }
                let is_text = style != ScalarStyle::Plain || matches!(scalar::resolve(&text), Scalar::Text);
                if self.expects_key()
                    && is_text
                    && let Some(known) = self.keys.get(text.as_ref())
                    && anchor == 0
                    && tag.is_none()
                {
                    let key = Key::Text(Arc::clone(known), mark);
                    return self.known_key(key, mark, reports);
                }
                let mut node = scalar_node(&text, style, tag.as_deref(), mark);
                if tag.is_some() && node.tag != Tag::None && self.reads_project_name() {
                    // The reference looks for the name before it knows of tags.
                    node = Node::string(text.as_ref(), mark);
                }
                if tag.as_deref().is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "binary") {
                    node.value = Value::String(self.binary(&text, mark, reports).into());
                }
                self.complete(node, anchor, reports)
            }
            Event::Alias(id) => {
                let path = self.path();
                let Some(Some(anchor)) = self.anchors.get_mut(id) else {
                    reports.error("alias-cycle", mark, "this alias refers to a value that contains it: cycle detected");
                    return None;
                };
                // One path being the start of another one counts as a cycle, as in the reference.
                if let Some(path) = path
                    && !anchor.repeats.get_or_insert_default().note(&path)
                {
                    let message = format!("cycle detected: the value at `{path}` is repeated within itself");
                    reports.error("alias-cycle", mark, message);
                    return None;
                }
                let (node, size) = (anchor.node.clone(), anchor.size);
                self.copies += size;
                if self.copies > MAX_COPIES {
                    let message =
                        format!("this file has more than {MAX_COPIES} values that are copies made by aliases");
                    reports.error("too-large", mark, message);
                    return None;
                }
                self.count(size, mark, reports)?;
                self.attach(node, reports)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(mark, anchor, tag.as_deref(), Body::List(Vec::new()), reports)
            }
            Event::MappingStart(anchor, tag) => {
                let body = Body::Map { map: Map::default(), merges: Vec::new(), merge_key: None, key: None };
                self.open(mark, anchor, tag.as_deref(), body, reports)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Frame { mark, anchor, tag, body } = self.stack.pop()?;
                // Most collections are small, and what they grew by is as much again: large projects outgrow the cache.
                let value = match body {
                    Body::List(mut list) => {
                        list.shrink_to_fit();
                        Value::List(list)
                    }
                    Body::Map { mut map, merges, .. } => {
                        for merged in merges {
                            merge_into(&mut map, merged);
                        }
                        map.shrink_to_fit();
                        Value::from(map)
                    }
                };
                self.complete(Node { value, mark, tag }, anchor, reports)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Some(())
            }
        }
    }

    /// The text that a `!!binary` stands for.
    fn binary(&mut self, text: &str, mark: Mark, reports: &mut Reports) -> String {
        let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
        let text = STANDARD.decode(digits).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        text.unwrap_or_else(|| {
            self.failed = true;
            reports.error("invalid-value", mark, "this `!!binary` is not text in base64");
            String::new()
        })
    }

    fn mark(&self, span: Span) -> Mark {
        let length =
            if span.start.line() == span.end.line() { span.end.col().saturating_sub(span.start.col()) } else { 0 };
        let line = span.start.line();
        mark_at(self.file, line, self.padding.column(line, span.start.col()), length)
    }

    /// The way to the value that is read now; none below a merge key.
    fn path(&self) -> Option<String> {
        let mut path = String::new();
        for frame in &self.stack {
            if !path.is_empty() {
                path.push('.');
            }
            match &frame.body {
                Body::List(list) => path.push_str(&list.len().to_string()),
                Body::Map { key: Some(Key::Text(text, _)), .. } => path.push_str(text),
                Body::Map { .. } => return None,
            }
        }
        Some(path)
    }

    fn expects_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { body: Body::Map { key: None, .. }, .. }))
    }

    fn reads_project_name(&self) -> bool {
        matches!(&*self.stack, [Frame { body: Body::Map { key: Some(Key::Text(key, _)), .. }, .. }] if key.as_ref() == "name")
    }

    /// A key that was there before, so it needs no look at what kind of scalar it is.
    fn known_key(&mut self, text: Key, mark: Mark, reports: &mut Reports) -> Option<()> {
        self.count(1, mark, reports)?;
        if let Some(Frame { body: Body::Map { key, .. }, .. }) = self.stack.last_mut() {
            *key = Some(text);
        }
        Some(())
    }

    fn merge_key(&mut self, mark: Mark, reports: &mut Reports) -> Option<()> {
        if let Some(Frame { body: Body::Map { key, merge_key, .. }, .. }) = self.stack.last_mut() {
            if let Some(first) = merge_key.replace(mark) {
                duplicate("<<", mark, first, reports);
                self.failed = true;
            }
            *key = Some(Key::Merge);
        }
        Some(())
    }

    fn open(
        &mut self,
        mark: Mark,
        anchor: usize,
        tag: Option<&YamlTag>,
        body: Body,
        reports: &mut Reports,
    ) -> Option<()> {
        if self.stack.len() >= MAX_DEPTH {
            let message = format!("values are nested more than {MAX_DEPTH} levels deep here");
            reports.error("too-deep", mark, message);
            return None;
        }
        self.stack.push(Frame { mark, anchor, tag: merge_tag(tag), body });
        Some(())
    }

    fn complete(&mut self, mut node: Node, anchor: usize, reports: &mut Reports) -> Option<()> {
        self.count(1, node.mark, reports)?;
        if node.tag == Tag::Reset {
            node.value = Value::Null;
        }
        if anchor > 0 {
            if self.anchors.len() <= anchor {
                self.anchors.resize_with(anchor + 1, || None);
            }
            let size = node.size();
            self.count(size, node.mark, reports)?;
            if let Some(slot) = self.anchors.get_mut(anchor) {
                *slot = Some(Anchor { node: node.clone(), size, repeats: None });
            }
        }
        self.attach(node, reports)
    }

    fn count(&mut self, nodes: usize, mark: Mark, reports: &mut Reports) -> Option<()> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!("this file has more than {MAX_NODES} values");
            reports.error("too-large", mark, message);
            return None;
        }
        Some(())
    }

    /// Puts a finished value where it belongs.
    fn attach(&mut self, node: Node, reports: &mut Reports) -> Option<()> {
        let depth = self.stack.len();
        let Some(frame) = self.stack.last_mut() else {
            match node.is_null() && node.tag == Tag::None {
                true => self.empty = Some(node.mark),
                false => self.documents.push(node),
            }
            return Some(());
        };
        match &mut frame.body {
            Body::List(list) => {
                if node.tag != Tag::Reset {
                    list.push(node);
                }
            }
            Body::Map { key: key @ None, .. } => match node.value {
                Value::String(text) if node.tag != Tag::Date => {
                    self.keys.insert(Arc::clone(&text));
                    *key = Some(Key::Text(text, node.mark));
                }
                value => {
                    let shown = scalar::text(&value).unwrap_or_else(|| "a list or mapping".to_owned());
                    reports.error_with_help(
                        "non-string-key",
                        node.mark,
                        format!("non-string key: {shown}"),
                        "quote the key",
                    );
                    self.failed = true;
                    *key = Some(Key::Text(shown.into(), node.mark));
                }
            },
            Body::Map { map, merges, key, .. } => match key.take()? {
                Key::Merge => {
                    if !merge_sources(node, merges) {
                        reports.error("bad-merge", frame.mark, "`<<` needs a mapping or a list of mappings");
                        self.failed = true;
                    }
                }
                Key::Text(text, mark) => {
                    if map.len() > MAX_SERVICES && depth <= 2 {
                        let message =
                            format!("more than {MAX_SERVICES} services are refused, and so many other keys as well");
                        reports.error("too-large", mark, message);
                        return None;
                    }
                    if let Some((first, _)) = map.get(&text) {
                        duplicate(&text, mark, *first, reports);
                        self.failed = true;
                    } else {
                        map.insert(text, (mark, node));
                    }
                }
            },
        }
        Some(())
    }
}

fn duplicate(key: &str, mark: Mark, first: Mark, reports: &mut Reports) {
    let message = format!("mapping key `{key}` already defined at line {}", first.line);
    let mut diagnostic = Diagnostic::error("duplicate-key", reports.place(mark), message).help("remove one of them");
    if let Some(place) = reports.place(first) {
        diagnostic = diagnostic.related(place, "first defined here");
    }
    reports.push(diagnostic);
}

/// Adds the mappings that a `<<` names; false when it names something else.
fn merge_sources(node: Node, merges: &mut Vec<Node>) -> bool {
    match node.value {
        Value::Map(_) => merges.push(node),
        Value::List(list) if list.iter().all(|item| item.as_map().is_some()) => merges.extend(list),
        _ => return false,
    }
    true
}

/// Keys that are there win over merged ones. A `!reset` is not handed on by `<<`.
fn merge_into(map: &mut Map, merged: Node) {
    if let Value::Map(other) = merged.value {
        for (key, entry) in *other {
            if entry.1.tag != Tag::Reset {
                map.get_or_insert_with(key, || entry);
            }
        }
    }
}

fn merge_tag(tag: Option<&YamlTag>) -> Tag {
    match tag {
        Some(tag) if tag.handle == "!" && tag.suffix == "reset" => Tag::Reset,
        Some(tag) if tag.handle == "!" && tag.suffix == "override" => Tag::Override,
        _ => Tag::None,
    }
}

fn scalar_node(text: &str, style: ScalarStyle, tag: Option<&YamlTag>, mark: Mark) -> Node {
    let merge = merge_tag(tag);
    let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
    let literal =
        style != ScalarStyle::Plain || core == Some("str") || (tag.is_some() && core.is_none() && merge == Tag::None);
    let forced = matches!(core, Some("int" | "float" | "bool" | "null"));
    if literal && !forced {
        return Node { value: Value::String(text.into()), mark, tag: merge };
    }
    if text.is_empty() && merge == Tag::Override {
        return Node { value: Value::String("".into()), mark, tag: merge };
    }
    match scalar::resolve(text) {
        Scalar::Value(Value::Int(value)) if core == Some("float") => Node::new(Value::Float(value as f64), mark),
        Scalar::Value(value) => Node { value, mark, tag: merge },
        Scalar::Date => Node { value: Value::String(text.into()), mark, tag: Tag::Date },
        Scalar::Text => Node { value: Value::String(text.into()), mark, tag: merge },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Vec<serde_json::Value>, Vec<String>> {
        let mut reports = Reports::default();
        let documents = parse(text, 0, &mut reports);
        let messages = || reports.diagnostics.iter().map(|d| d.message.clone()).collect();
        documents.map(|nodes| nodes.iter().map(Node::to_json).collect()).ok_or_else(messages)
    }

    #[test]
    fn merge_keys_yield_to_explicit_ones() {
        let text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], z: 3}\n";
        let documents = load(text).unwrap();
        assert_eq!(documents[0]["c"], serde_json::json!({"z": 3, "x": 1, "y": 1}));
    }

    #[test]
    fn several_documents_and_empty_ones() {
        assert_eq!(load("# c\n---\na: 1\n---\nb: 2\n...\n").unwrap().len(), 2);
        assert_eq!((load("").unwrap().len(), load("# c\n").unwrap().len()), (0, 0));
        assert_eq!(load("---\n").unwrap_err().len(), 1);
        assert!(load("a: 1\n---\n---\nb: 2\n").unwrap_err()[0].contains("is empty"));
    }

    #[test]
    fn duplicate_keys_name_both_places() {
        assert_eq!(load("a: 1\na: 2\n").unwrap_err(), ["mapping key `a` already defined at line 1"]);
    }

    #[test]
    fn an_alias_bomb_and_deep_nesting_are_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..9 {
            let inner = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![inner; 10].join(","));
        }
        assert!(load(&bomb).unwrap_err()[0].contains("more than"));
        assert!(load(&"[".repeat(100)).unwrap_err()[0].contains("levels deep"));
        assert!(load("a: &a [*a]\n").unwrap_err()[0].contains("cycle"));
    }

    #[test]
    fn reset_leaves_a_tagged_null_and_drops_list_items() {
        let mut reports = Reports::default();
        let nodes = parse("a: !reset {x: 1}\nb: [1, !reset 2]\nc: !override [1]\n", 0, &mut reports).unwrap();
        assert_eq!(nodes[0].get("a").unwrap().tag, Tag::Reset);
        assert!(nodes[0].get("a").unwrap().is_null());
        assert_eq!(nodes[0].get("b").unwrap().as_list().unwrap().len(), 1);
        assert_eq!(nodes[0].get("c").unwrap().tag, Tag::Override);
    }

    #[test]
    fn a_tag_of_the_projects_name_is_none() {
        assert_eq!(load("name: !reset null\nx: {name: !reset a}\n").unwrap()[0]["name"], serde_json::json!("null"));
    }
}
