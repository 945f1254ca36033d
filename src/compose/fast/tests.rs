use proptest::prelude::*;
use saphyr_parser::Parser;

use super::*;

/// With line and column. How long a thing is the scanner does not tell well: a comment behind a quoted text counts, too.
type Events = Vec<(String, (u32, u32))>;

/// Nobody asks where a collection ends.
fn shown(event: &Event<'_>, place: (u32, u32)) -> (String, (u32, u32)) {
    let ends = matches!(event, Event::MappingEnd | Event::SequenceEnd);
    (format!("{event:?}"), if ends { (0, 0) } else { place })
}

/// `None`: left to the scanner.
fn by_reader(text: &str) -> Option<Events> {
    let mut events = Vec::new();
    let read = read(text, 0, &mut |event, mark| {
        events.push(shown(&event, (mark.line, mark.column)));
        Some(())
    });
    read.ok().map(|()| events)
}

/// `None`: not YAML.
fn by_scanner(text: &str) -> Option<Events> {
    let mut events = Vec::new();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.ok()?;
        let place = (span.start.line() as u32, span.start.col() as u32 + 1);
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
            event => events.push(shown(&event, place)),
        }
    }
    Some(events)
}

/// Whether the reader took the text.
#[track_caller]
fn check(text: &str) -> bool {
    let Some(ours) = by_reader(text) else { return false };
    let theirs = by_scanner(text);
    let shown = |events: &Option<Events>| events.as_ref().map(|all| format!("{all:#?}"));
    assert_eq!(shown(&Some(ours)), shown(&theirs), "{text:?}");
    true
}

#[test]
fn what_most_files_have_is_read_as_the_scanner_reads_it() {
    for text in [
        "a: 1\n",
        "a:\n  b: [x, 'y', \"z\\n\"]\n  c: {d: e, f: [1, 2]} # comment\nlist:\n- one\n- two: 2\n  three: 3\n-  - x\n   - y\n",
        "x-a: &a\n  k: v\nb: *a\nc:\n  <<: *a\n  d: &b [1]\n  e: &c text\n",
        "é: 'it''s'\nb: \"\\\"q\\\"\"\n\n# end",
        "a:\nb:\n  -  c\n",
        "a: [\n  b,\n  c\n ]\n",
        "a:\n    b: x#y\n    c: http://host:80/x?y=z\n",
    ] {
        assert!(check(text), "left to the scanner: {text:?}");
    }
}

const WORDS: &[&str] = &[
    "a",
    "b",
    "key",
    "1",
    "~",
    "x y",
    "'q'",
    "'it''s'",
    "\"d\"",
    "\"\\n\"",
    "é",
    "&a x",
    "*a",
    "&b",
    "[a, b]",
    "{a: b}",
    "[]",
    "{}",
    "[",
    "]",
    "{",
    "}",
    "|",
    ">",
    "!reset",
    "<<",
    "# c",
    "a:b",
    "a#b",
    "x: y",
    "- z",
    "-",
    "?",
    "%",
    "---",
    "...",
    "@",
    "`",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{a0}",
    "a,b",
    ",",
    ":",
    "a:",
    "[a,",
    "{a",
    "&a [x]",
    "&c {y: z}",
    "'",
    "\"",
    "a  ",
    "-a",
    ":a",
    "''",
];

fn line() -> impl Strategy<Value = String> {
    let word = || proptest::sample::select(WORDS);
    (0..5_usize, 0..3_usize, word(), any::<bool>(), word(), 0..9_u8).prop_map(
        |(indent, dashes, key, keyed, value, last)| {
            let colon = if keyed { ": " } else { "" };
            let end = if last == 0 { " # c" } else { "" };
            let value = if last == 1 { "" } else { value };
            format!("{}{}{key}{colon}{value}{end}\n", " ".repeat(indent), "- ".repeat(dashes))
        },
    )
}

/// Mappings and lists as people write them.
fn tree() -> impl Strategy<Value = String> {
    let key = || proptest::sample::select(&["a", "b", "c", "'d e'", "é", "x-y"][..]);
    let scalar = || {
        proptest::sample::select(&["1", "x y", "'q'", "\"d\\\\\"", "", "[a, 'b c']", "{a: 1, b: [2]}", "a:b", "é"][..])
    };
    let leaf = (key(), scalar()).prop_map(|(key, value)| format!("{key}: {value}\n"));
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let deeper = |text: &str, by: &str| text.lines().map(|line| format!("{by}{line}\n")).collect::<String>();
        prop_oneof![
            (key(), proptest::collection::vec(inner.clone(), 1..4))
                .prop_map(move |(key, items)| format!("{key}:\n{}", deeper(&items.concat(), "  "))),
            (key(), proptest::collection::vec(inner, 1..4), any::<bool>()).prop_map(move |(key, items, flush)| {
                let by = if flush { "" } else { "  " };
                let item = |text: &String| format!("{by}- {}", deeper(text, &format!("{by}  ")).trim_start());
                format!("{key}:\n{}", items.iter().map(item).collect::<String>())
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lines_of_all_kinds(lines in proptest::collection::vec(line(), 1..8)) {
        check(&lines.concat());
    }

    #[test]
    fn soup(words in proptest::collection::vec(proptest::sample::select(
        &["a", ": ", "- ", "\n", "\n  ", "\n    ", " ", "#", "'", "\"", "[", "]", "{", "}", ", ", ":", "*a", "&a ", "!", "é", "\\"][..],
    ), 1..24)) {
        check(&words.concat());
    }

    #[test]
    fn trees(items in proptest::collection::vec(tree(), 1..4)) {
        prop_assert!(check(&items.concat()), "left to the scanner: {:?}", items.concat());
    }
}
