//! The JSON Schema for editors: it is the loader's table, and it judges as the loader does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rcompose::compose::{self, LoadOptions};
use regex::Regex;
use serde_json::Value;

/// The keywords that our schema uses, and an error for any other. A validator crate would do the same, but the
/// features that it switches on in shared dependencies build half of the tree a second time.
struct Validator {
    schema: Value,
}

impl Validator {
    fn new() -> Self {
        Self { schema: compose::json_schema() }
    }

    /// What is wrong with a document; `None` when the schema takes it.
    fn problem(&self, document: &Value) -> Option<String> {
        check(&self.schema, document, "").err()
    }
}

fn check(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let wrong = |what: String| Err(format!("`{path}`: {what}"));
    for (keyword, rule) in schema.as_object().unwrap() {
        match (keyword.as_str(), value) {
            ("$schema" | "title" | "description" | "examples" | "patternErrorMessage", _) => {}
            ("type", _) => {
                let types = rule.as_array().map_or(std::slice::from_ref(rule), Vec::as_slice);
                if !types.iter().any(|kind| is_of(value, kind.as_str().unwrap())) {
                    return wrong(format!("{value} is none of {types:?}"));
                }
            }
            ("pattern", Value::String(text)) => {
                if !Regex::new(rule.as_str().unwrap()).unwrap().is_match(text) {
                    return wrong(format!("`{text}` does not match {rule}"));
                }
            }
            ("minimum", Value::Number(number)) if number.as_f64() < rule.as_f64() => {
                return wrong(format!("{number} is less than {rule}"));
            }
            ("maximum", Value::Number(number)) if number.as_f64() > rule.as_f64() => {
                return wrong(format!("{number} is more than {rule}"));
            }
            ("items", Value::Array(items)) => {
                items.iter().enumerate().try_for_each(|(index, item)| check(rule, item, &format!("{path}.{index}")))?;
            }
            ("uniqueItems", Value::Array(items)) => {
                if (1..items.len()).any(|index| items[..index].contains(&items[index])) {
                    return wrong("items are there twice".to_owned());
                }
            }
            ("required", Value::Object(members)) => {
                let missing = rule.as_array().unwrap().iter().find(|key| !members.contains_key(key.as_str().unwrap()));
                if let Some(missing) = missing {
                    return wrong(format!("{missing} is missing"));
                }
            }
            ("properties", Value::Object(members)) => {
                for (key, value) in members {
                    rule.get(key).map_or(Ok(()), |rule| check(rule, value, &format!("{path}.{key}")))?;
                }
            }
            ("patternProperties", Value::Object(members)) => {
                for (pattern, rule) in rule.as_object().unwrap() {
                    let pattern = Regex::new(pattern).unwrap();
                    for (key, value) in members.iter().filter(|(key, _)| pattern.is_match(key)) {
                        check(rule, value, &format!("{path}.{key}"))?;
                    }
                }
            }
            ("additionalProperties", Value::Object(members)) => {
                assert_eq!(rule, false);
                if let Some(other) = members.keys().find(|key| !is_known(schema, key)) {
                    return wrong(format!("`{other}` is not known"));
                }
            }
            (
                "pattern"
                | "minimum"
                | "maximum"
                | "items"
                | "uniqueItems"
                | "required"
                | "properties"
                | "patternProperties"
                | "additionalProperties",
                _,
            ) => {}
            (keyword, _) => panic!("the keyword `{keyword}` is new"),
        }
    }
    Ok(())
}

fn is_known(schema: &Value, key: &str) -> bool {
    let patterns = schema["patternProperties"].as_object().into_iter().flatten();
    schema["properties"].get(key).is_some() || patterns.into_iter().any(|(p, _)| Regex::new(p).unwrap().is_match(key))
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("the type `{kind}` is new"),
    }
}

/// One document as plain values; `None` for what JSON cannot say, such as `!reset`, and for no document.
fn plain(text: &str) -> Option<Value> {
    let mut document: serde_yaml::Value = serde_yaml::from_str(text).ok()?;
    document.apply_merge().ok()?;
    let value = serde_json::to_value(document).ok()?;
    let text = value.to_string();
    let leftovers = ["\"!", "\"<<\":"];
    (!value.is_null() && !leftovers.iter().any(|sign| text.contains(sign))).then_some(value)
}

fn loads(text: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("compose.yaml"), text).unwrap();
    let options = LoadOptions {
        working_dir: folder.path().canonicalize().unwrap(),
        no_consistency: true,
        project_name: Some("test".to_owned()),
        ..LoadOptions::default()
    };
    compose::load_tree(&options, &BTreeMap::new()).tree.is_some()
}

/// `RCOMPOSE_UPDATE_SCHEMA=1 cargo test --test it -- schema` writes the file anew.
#[test]
fn the_committed_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/compose.json");
    let text = format!("{:#}\n", compose::json_schema());
    if std::env::var_os("RCOMPOSE_UPDATE_SCHEMA").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "schemas/compose.json is not what the table says: RCOMPOSE_UPDATE_SCHEMA=1 writes it");
}

#[test]
fn schema_and_loader_agree() {
    let validator = Validator::new();
    let taken = [
        "ports: ['80:80', 9000, {target: 80, published: '8080'}]",
        "environment: {A: 1, B: null, C: true}",
        "environment: [A=1, B]",
        "command: null",
        "depends_on: {a: {condition: service_healthy}}",
        "depends_on: {a: {condition: '${CONDITION:-service_started}'}}",
        "mem_limit: 1.5g",
        "init: 'yes'",
        "cpus: '0.5'",
        "healthcheck: {test: exit 0, interval: 1m30s, retries: 3}",
        "deploy: {resources: {limits: {cpus: 0.5, memory: 64M}}}",
        "x-own: {anything: [1]}",
        "gpus: all",
        "ulimits: {nofile: 10, core: {soft: 1, hard: 2}}",
        "networks: {default: null}",
        "build: {context: ., args: [A=1], no_cache: true}",
        "restart: whatever",
        "storage_opt: {size: 1}",
    ];
    let refused = [
        "imagee: x",
        "ports: {a: b}",
        "environment: [1]",
        "privileged: 1",
        "init: maybe",
        "cpu_percent: 200",
        "depends_on: {a: {condition: started}}",
        "depends_on: {a: {}}",
        "mem_limit: much",
        "healthcheck: {interval: 5}",
        "healthcheck: {interval: '5'}",
        "security_opt: [a, a]",
        "volumes: [{type: disk, target: /x}]",
        "ulimits: {nofile: many}",
        "deploy: {replicas: two}",
        "stop_grace_period: 10",
        "secrets: [{source: s, mode: '0999'}]",
        "scale: 1.5",
    ];
    let file = |attributes: &str| format!("services: {{web: {{image: x, {attributes}}}}}\n");
    let files = taken.iter().map(|text| (file(text), true)).chain(refused.iter().map(|text| (file(text), false)));
    let whole = [
        ("servicess: {}\n", false),
        ("services: []\n", false),
        ("services: {'a b': {image: x}}\n", false),
        ("services: {a: {image: x}}\nnetworks: {n: {driver_opts: {a: 1}}}\nx-a: 1\n", true),
        ("services: {a: {image: x}}\nmodels: {m: {}}\n", false),
        ("name: 5\nservices: {a: {image: x}}\n", false),
    ];
    for (text, expected) in files.chain(whole.map(|(text, expected)| (text.to_owned(), expected))) {
        assert_eq!(loads(&text), expected, "loader: {text}");
        let problem = validator.problem(&plain(&text).unwrap());
        assert_eq!(problem.is_none(), expected, "schema: {text}{}", problem.unwrap_or_default());
    }
}

/// Compose files below a folder.
fn compose_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_dir() {
            compose_files(&entry, found);
        } else if name.contains("compose") && (name.ends_with(".yaml") || name.ends_with(".yml")) {
            found.push(entry);
        }
    }
}

/// Cases that load and have a file that the schema refuses: `0700`, which this test's YAML reader takes for text.
const DIFFERENT: [&str; 1] = ["attr__volumes-tmpfs-mode-ints"];

/// With `RCOMPOSE_CONFORMANCE=FOLDER`: the schema takes every file of a case that must load.
#[test]
fn the_schema_takes_what_conformance_cases_load() {
    let Some(cases) = std::env::var_os("RCOMPOSE_CONFORMANCE") else {
        println!("skipped: RCOMPOSE_CONFORMANCE names no folder of cases");
        return;
    };
    let validator = Validator::new();
    let (mut taken, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()) {
        let must_fail = case.join("expected.err").exists();
        let mut files = Vec::new();
        compose_files(&case, &mut files);
        for file in files {
            let Some(document) = plain(&fs::read_to_string(&file).unwrap_or_default()) else { continue };
            match validator.problem(&document) {
                None => taken += 1,
                Some(_) if must_fail => refused += 1,
                Some(_) if DIFFERENT.iter().any(|name| file.to_string_lossy().contains(name)) => {}
                Some(problem) => wrong.push(format!("{}: {problem}", file.display())),
            }
        }
    }
    println!("{taken} files taken, {refused} refused of cases that must fail, {} refused that load", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
