//! `config`: what a project amounts to.

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::app::digests::{self, Digests};
use crate::app::explain;
use crate::base::diagnostic::Diagnostic;
use crate::base::disk::{self, Durability};
use crate::compose::render;
use crate::compose::{self, LoadOptions, LoadedTree};
use crate::model::tree::{Map, Mark, Node, Value};

/// What to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Print {
    Project,
    Services,
    Volumes,
    Networks,
    Models,
    Profiles,
    Images,
    /// Hashes of the services of these names; `*` is all.
    Hash(String),
    Environment,
    Variables,
    /// Where the values at or below this path come from.
    Explain(String),
}

/// How `config` is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Yaml,
    Json,
}

/// `config`, as it was asked for.
#[derive(Clone, Debug)]
pub struct ConfigOptions {
    pub load: LoadOptions,
    pub print: Print,
    /// `None`: YAML, and a table for variables.
    pub format: Option<Format>,
    pub quiet: bool,
    pub digests: Digests,
    pub output: Option<PathBuf>,
}

/// What there is to say.
#[derive(Clone, Debug, Default)]
pub struct ConfigOutput {
    /// For standard output; `None` when the project is wrong.
    pub text: Option<String>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Loads the project and renders it, to `options.output` when there is one.
pub fn run(options: &ConfigOptions, environment: &BTreeMap<String, String>) -> ConfigOutput {
    let mut output = content(options, environment);
    let Some(text) = &mut output.text else { return output };
    if options.quiet {
        text.clear();
    }
    if let Some(path) = options.output.as_ref().filter(|_| options.print == Print::Project && !options.quiet) {
        let path = options.load.working_dir.join(path);
        if let Err(error) = disk::replace(&path, text.as_bytes(), Durability::Kill) {
            let message = format!("cannot write `{}`: {error}", path.display());
            output.diagnostics.push(Diagnostic::error("cannot-write", None, message));
            output.text = None;
        } else {
            text.clear();
        }
    }
    output
}

fn content(options: &ConfigOptions, environment: &BTreeMap<String, String>) -> ConfigOutput {
    if let Print::Explain(path) = &options.print {
        return explained(options, environment, path);
    }
    let uninterpolated = options.load.no_interpolate && matches!(options.print, Print::Project | Print::Services);
    if uninterpolated || options.print == Print::Variables {
        return unresolved(options, environment);
    }
    let mut load = LoadOptions { no_interpolate: false, ..options.load.clone() };
    if !matches!(options.print, Print::Project | Print::Images | Print::Services) {
        // The other lists are of the whole project, as in the reference.
        load.services.clear();
    }
    // The command ends after this: freeing a large tree value by value would take a tenth of its time.
    let mut loaded = ManuallyDrop::new(compose::load_tree(&load, environment));
    let mut diagnostics = std::mem::take(&mut loaded.diagnostics);
    if !pin(options, environment, &mut loaded, &mut diagnostics) {
        return ConfigOutput { text: None, diagnostics };
    }
    let Some(tree) = &loaded.tree else { return ConfigOutput { text: None, diagnostics } };
    let text = match &options.print {
        Print::Project if options.quiet => String::new(),
        Print::Project if options.format == Some(Format::Json) => render::escape_dollars(render::json(tree)),
        Print::Project => render::escape_dollars(render::yaml(tree)),
        Print::Services => lines(members(tree, "services").map(|(name, _)| name)),
        Print::Volumes => lines(members(tree, "volumes").map(|(name, _)| name)),
        Print::Networks => lines(members(tree, "networks").map(|(name, _)| name)),
        Print::Models => lines(members(tree, "models").filter_map(|(_, model)| model.get("model")?.as_str())),
        Print::Profiles => lines(all_profiles(tree, &loaded.disabled_services)),
        Print::Images => images(tree, if options.load.compatibility { '_' } else { '-' }),
        Print::Hash(names) => match hashes(tree, names) {
            Ok(text) => text,
            Err(diagnostic) => {
                diagnostics.push(diagnostic);
                return ConfigOutput { text: None, diagnostics };
            }
        },
        Print::Environment => lines(loaded.environment.iter().map(|(name, value)| format!("{name}={value}"))),
        Print::Variables | Print::Explain(_) => String::new(),
    };
    ConfigOutput { text: Some(text), diagnostics }
}

/// Replaces images by their digests where that is asked for; false when an error was reported.
fn pin(
    options: &ConfigOptions,
    environment: &BTreeMap<String, String>,
    loaded: &mut LoadedTree,
    diagnostics: &mut Vec<Diagnostic>,
) -> bool {
    let Some(tree) = loaded.tree.as_mut().filter(|_| options.print == Print::Project) else { return true };
    if options.digests == Digests::No {
        return true;
    }
    if let Err(failures) = digests::resolve(tree, &loaded.sources, environment) {
        diagnostics.extend(failures);
        return false;
    }
    if options.digests == Digests::Lock {
        digests::only_images(tree);
        if options.format == Some(Format::Json)
            && !options.load.no_interpolate
            && let Some(map) = tree.as_map_mut()
        {
            // The reference prints the empty name of the project that it makes for this.
            map.insert("name".into(), (Mark::default(), node(Value::String("".into()))));
        }
    }
    true
}

fn explained(options: &ConfigOptions, environment: &BTreeMap<String, String>, path: &str) -> ConfigOutput {
    let (explanations, diagnostics) = compose::explain::explain(&options.load, environment, path);
    let text = match options.format {
        Some(Format::Json) => explain::json(&explanations),
        _ => explain::text(&explanations),
    };
    ConfigOutput { text: Some(text).filter(|_| !explanations.is_empty()), diagnostics }
}

fn members<'a>(tree: &'a Node, kind: &str) -> impl Iterator<Item = (&'a str, &'a Node)> {
    let map = tree.get(kind).and_then(Node::as_map);
    map.into_iter().flatten().map(|(name, (_, node))| (name.as_ref(), node))
}

fn lines<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("{}\n", item.as_ref())).collect()
}

/// What is printed of a project whose variables are not replaced.
fn unresolved(options: &ConfigOptions, environment: &BTreeMap<String, String>) -> ConfigOutput {
    let mut loaded = compose::load_uninterpolated(&options.load, environment);
    let mut diagnostics = std::mem::take(&mut loaded.diagnostics);
    if !pin(options, environment, &mut loaded, &mut diagnostics) {
        return ConfigOutput { text: None, diagnostics };
    }
    let text = loaded.tree.map(|tree| match (&options.print, options.format) {
        (Print::Services, _) => {
            lines(tree.get("services").and_then(Node::as_map).into_iter().flat_map(|map| map.keys()))
        }
        (Print::Variables, format) => variables(&compose::variables(&tree), format),
        (_, Some(Format::Json)) => render::json_text(&tree),
        _ => render::plain_yaml(&tree),
    });
    ConfigOutput { text, diagnostics }
}

fn all_profiles(tree: &Node, disabled: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let active = members(tree, "services").filter_map(|(_, service)| service.get("profiles")?.as_list());
    let active = active.flatten().filter_map(Node::as_str).map(str::to_owned);
    let mut profiles: Vec<String> = active.chain(disabled.values().flatten().cloned()).collect();
    profiles.sort();
    profiles.dedup();
    profiles
}

fn images(tree: &Node, separator: char) -> String {
    let project = tree.get("name").and_then(Node::as_str).unwrap_or_default();
    let image = |(name, service): (&str, &Node)| match service.get("image").and_then(Node::as_str) {
        Some(image) => image.to_owned(),
        None => format!("{project}{separator}{name}"),
    };
    lines(members(tree, "services").map(image))
}

/// `SERVICE HASH` for each: the hash of what makes a new container necessary, as the reference has it.
fn hashes(tree: &Node, names: &str) -> Result<String, Diagnostic> {
    let named: Vec<&str> = if names == "*" { Vec::new() } else { names.split(',').collect() };
    if let Some(unknown) = named.iter().find(|name| !members(tree, "services").any(|(known, _)| known == **name)) {
        return Err(Diagnostic::error("unknown-service", None, format!("no such service: `{unknown}`")));
    }
    let mut text = String::new();
    for (name, service) in render::hashed_services(tree) {
        if named.is_empty() || named.contains(&name.as_str()) {
            let digest = Sha256::digest(service);
            let hexadecimal: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!("{name} {hexadecimal}\n");
        }
    }
    Ok(text)
}

fn variables(variables: &[compose::Variable], format: Option<Format>) -> String {
    let Some(format) = format else { return table(variables) };
    let text = |value: &str| Value::String(value.into());
    let object = |members: Vec<(&str, Value)>| {
        let entries = members.into_iter().map(|(key, value)| (key.into(), (Mark::default(), node(value))));
        node(Value::from(entries.collect::<Map>()))
    };
    let entries = variables.iter().map(|variable| {
        let (name, default, required, presence) = match format {
            Format::Json => ("Name", "DefaultValue", "Required", "PresenceValue"),
            Format::Yaml => ("name", "defaultvalue", "required", "presencevalue"),
        };
        let members = vec![
            (name, text(&variable.name)),
            (default, text(&variable.default)),
            (presence, text(&variable.alternate)),
            (required, Value::Bool(variable.required)),
        ];
        (variable.name.as_str().into(), (Mark::default(), object(members)))
    });
    let tree = node(Value::from(entries.collect::<Map>()));
    match format {
        Format::Json => wider(&render::json_text(&tree)),
        Format::Yaml => wider(&render::yaml_text(&tree)),
    }
}

/// Twice the indentation: the reference uses four blanks for this list.
fn wider(text: &str) -> String {
    let line = |line: &str| {
        let blanks = line.len() - line.trim_start_matches(' ').len();
        format!("{}{line}\n", " ".repeat(blanks))
    };
    text.lines().map(line).collect()
}

fn node(value: Value) -> Node {
    Node::new(value, Mark::default())
}

fn table(variables: &[compose::Variable]) -> String {
    let header = ["NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"].map(str::to_owned);
    let row = |variable: &compose::Variable| {
        [variable.name.clone(), variable.required.to_string(), variable.default.clone(), variable.alternate.clone()]
    };
    let rows: Vec<[String; 4]> = std::iter::once(header).chain(variables.iter().map(row)).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(17) + 3
    };
    let widths: Vec<usize> = (0..4).map(width).collect();
    let line = |row: &[String; 4]| {
        let cells = row.iter().zip(&widths).enumerate();
        let text: String = cells
            .map(|(index, (cell, width))| if index == 3 { cell.clone() } else { format!("{cell:<width$}") })
            .collect();
        text + "\n"
    };
    rows.iter().map(line).collect()
}
