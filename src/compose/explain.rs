//! Where a value comes from: the file that writes it, the variables in it, what it overrides.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::record::{self, Record};
use super::report::Reports;
use super::validate::nearest;
use super::{LoadOptions, finished, resolve, scalar, template};
use crate::base::diagnostic::{Diagnostic, Place};
use crate::model::tree::{Mark, Node, Sources, Value};

/// A value and its history.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Dotted, as in `services.web.ports.0.target`.
    pub path: String,
    pub value: serde_json::Value,
    /// From the place that gives the value back to the first one that was overridden.
    pub steps: Vec<Step>,
}

/// One thing that made a value what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `None` for what no file says.
    pub place: Option<Place>,
    pub text: String,
}

/// Explains every single value at or below `path`. Nothing when there is an error among the diagnostics.
pub fn explain(
    options: &LoadOptions,
    process: &BTreeMap<String, String>,
    path: &str,
) -> (Vec<Explanation>, Vec<Diagnostic>) {
    let mut reports = Reports::recording();
    let merged = finished(options, process, &mut reports);
    let resolved = merged.and_then(|merged| resolve(options, merged, &mut reports));
    let Some(resolved) = resolved.filter(|_| reports.errors() == 0) else { return (Vec::new(), reports.sorted()) };
    let Some(way) = way(&resolved.tree, path, &mut reports) else { return (Vec::new(), reports.sorted()) };
    let Some(record) = reports.record.take() else { return (Vec::new(), reports.sorted()) };
    let environment = &resolved.location.environment;
    let historian = Historian { record: &record, sources: &reports.sources, process, environment };
    let mut explanations = Vec::new();
    historian.values(&way, &mut explanations);
    // Warnings are of other commands; that a variable is not set is among the steps.
    (explanations, Vec::new())
}

/// A value on the way from the root.
#[derive(Clone)]
struct Stop<'a> {
    path: String,
    node: &'a Node,
    /// Whether it is an item of a list, which is known by the list's path.
    item: bool,
}

fn below<'a>(way: &[Stop<'a>], key: &str, node: &'a Node, item: bool) -> Vec<Stop<'a>> {
    let parent = way.last().map(|stop| stop.path.as_str()).unwrap_or_default();
    let path = if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") };
    let mut way = way.to_vec();
    way.push(Stop { path, node, item });
    way
}

/// The values from the root to `path`; `None` when there is no such value, which is reported.
fn way<'a>(tree: &'a Node, path: &str, reports: &mut Reports) -> Option<Vec<Stop<'a>>> {
    let mut way = vec![Stop { path: String::new(), node: tree, item: false }];
    let mut rest = path;
    while !rest.is_empty() {
        let here = way.last()?.node;
        // A key may hold dots itself: the longest one that fits wins.
        let ends = rest.match_indices('.').map(|(end, _)| end).chain([rest.len()]);
        let found = ends.rev().find_map(|end| {
            let key = rest.get(..end)?;
            let (node, item) = match &here.value {
                Value::Map(map) => (&map.get(key)?.1, false),
                Value::List(list) => (list.get(key.parse::<usize>().ok()?)?, true),
                _ => return None,
            };
            Some((key, node, item))
        });
        let Some((key, node, item)) = found else {
            unknown(here, rest, path, reports);
            return None;
        };
        way = below(&way, key, node, item);
        rest = rest.get(key.len() + 1..).unwrap_or_default();
    }
    Some(way)
}

fn unknown(here: &Node, rest: &str, path: &str, reports: &mut Reports) {
    let key = rest.split('.').next().unwrap_or(rest);
    let mut diagnostic = Diagnostic::error("unknown-path", None, format!("the project has no value at `{path}`"));
    if let Some(map) = here.as_map() {
        diagnostic = diagnostic.help(match nearest(key, map.keys().map(AsRef::as_ref)) {
            Some(near) => format!("instead of `{key}`, did you mean `{near}`?"),
            None => {
                let all: Vec<String> = map.keys().take(20).map(|key| format!("`{key}`")).collect();
                format!("instead of `{key}`, there is {}", all.join(", "))
            }
        });
    }
    reports.push(diagnostic);
}

struct Historian<'a> {
    record: &'a Record,
    sources: &'a Sources,
    /// The variables that the shell gives.
    process: &'a BTreeMap<String, String>,
    /// Those and the ones of `.env` files.
    environment: &'a BTreeMap<String, String>,
}

impl Historian<'_> {
    fn values(&self, way: &[Stop<'_>], explanations: &mut Vec<Explanation>) {
        let Some(stop) = way.last() else { return };
        match &stop.node.value {
            Value::Map(map) if !map.is_empty() => {
                for (key, (_, node)) in map.iter() {
                    self.values(&below(way, key, node, false), explanations);
                }
            }
            Value::List(list) if !list.is_empty() => {
                for (index, node) in list.iter().enumerate() {
                    self.values(&below(way, &index.to_string(), node, true), explanations);
                }
            }
            _ => {
                let (path, value) = (stop.path.clone(), stop.node.to_json());
                explanations.push(Explanation { path, value, steps: self.steps(way) });
            }
        }
    }

    fn step(&self, steps: &mut Vec<Step>, mark: Mark, text: impl Into<String>) {
        steps.push(Step { place: self.sources.place(mark), text: text.into() });
    }

    fn steps(&self, way: &[Stop<'_>]) -> Vec<Step> {
        let Some(stop) = way.last() else { return Vec::new() };
        let mut steps = Vec::new();
        let mark = stop.node.mark;
        if let Some((variable, file)) = self.service_file(&stop.path) {
            let text = format!("`{variable}` is set in this `env_file`");
            steps.push(Step { place: record::variable_place(file, variable), text });
            self.step(&mut steps, mark, "the file is named here");
            return steps;
        }
        if mark.line == 0 {
            let text = match stop.path.as_str() {
                "name" => "by `-p`, `COMPOSE_PROJECT_NAME`, `name:` of a file or else the name of the project's folder",
                _ => "a default: no file says it",
            };
            self.step(&mut steps, mark, text);
            return steps;
        }
        self.origin(&mut steps, stop, mark);
        self.repeated(&mut steps, way);
        self.led_by(&mut steps, &stop.path, mark);
        // The value itself, or what holds it, may have taken the place of another one.
        for (index, stop) in way.iter().enumerate().rev() {
            let list = index.checked_sub(1).and_then(|parent| way.get(parent));
            let path = list.filter(|_| stop.item).map_or(&stop.path, |list| &list.path);
            if self.overridden(&mut steps, path, stop.node.mark) {
                break;
            }
        }
        steps
    }

    /// The file of variables of a service that gives the value at `path`.
    fn service_file<'p>(&self, path: &'p str) -> Option<(&'p str, &PathBuf)> {
        let (service, variable) = path.strip_prefix("services.")?.split_once(".environment.")?;
        let file = self.record.service_files.get(&(service.to_owned(), variable.to_owned()))?;
        Some((variable, file))
    }

    fn origin(&self, steps: &mut Vec<Step>, stop: &Stop<'_>, mark: Mark) {
        let Some(written) = self.record.written(mark) else {
            return self.step(steps, mark, "written here");
        };
        let text = scalar::text(&written.value).unwrap_or_default();
        let value = scalar::text(&stop.node.value).unwrap_or_default();
        if text == value || text.is_empty() {
            self.step(steps, mark, "written here");
        } else {
            self.step(steps, mark, format!("written here as `{text}`"));
        }
        for variable in template::variables(&text) {
            self.variable(steps, &variable.name, Some(&variable.default));
        }
        let variable = stop.path.split_once(".environment.").map(|(_, variable)| variable);
        if let Some(variable) = variable.filter(|name| text.is_empty() || text == *name) {
            self.variable(steps, variable, None);
        }
    }

    fn variable(&self, steps: &mut Vec<Step>, name: &str, default: Option<&str>) {
        let mut place = None;
        let text = match (self.process.get(name), self.environment.get(name)) {
            (Some(value), _) => format!("variable `{name}` is `{value}` in the environment of this command"),
            (None, Some(value)) => {
                place = self.record.variable_files.iter().find_map(|file| record::variable_place(file, name));
                format!("variable `{name}` is set to `{value}`")
            }
            (None, None) => {
                place = self.record.variable_files.iter().find_map(|file| record::variable_place(file, name));
                match default {
                    _ if place.is_some() => format!("variable `{name}` is set for an included file"),
                    Some(default) if !default.is_empty() => {
                        format!("variable `{name}` is not set, so its default `{default}` is taken")
                    }
                    _ => format!("variable `{name}` is not set"),
                }
            }
        };
        steps.push(Step { place, text });
    }

    fn repeated(&self, steps: &mut Vec<Step>, way: &[Stop<'_>]) {
        let mut pairs = way.iter().zip(way.iter().skip(1)).rev();
        if let Some(by) = pairs.find_map(|(outer, inner)| self.record.repeated(inner.node.mark, outer.node.mark)) {
            self.step(steps, by, "repeated here by an alias or `<<`");
        }
    }

    /// The `extends` and `include` that led to a value.
    fn led_by(&self, steps: &mut Vec<Step>, path: &str, mark: Mark) {
        for (name, base) in self.bases(path, mark) {
            let text = format!("`{name}` has it from `{}`, which it extends", base.service);
            self.step(steps, base.mark, text);
        }
        if let Some(named) = self.record.named(mark) {
            self.step(steps, named, "that file is named here");
        }
    }

    /// The services that have the value at `mark` of each other, beginning with the one of `path`.
    fn bases(&self, path: &str, mark: Mark) -> Vec<(String, &record::Base)> {
        let mut bases: Vec<(String, &record::Base)> = Vec::new();
        let rest = path.strip_prefix("services.").unwrap_or_default();
        let ends = rest.match_indices('.').map(|(end, _)| end).chain([rest.len()]);
        let mut name = ends.filter_map(|end| rest.get(..end)).find(|name| self.record.base(name, mark).is_some());
        while let Some(service) = name
            && let Some(base) = self.record.base(service, mark)
            && !bases.iter().any(|(known, _)| known == service)
        {
            bases.push((service.to_owned(), base));
            name = Some(&base.service);
        }
        bases
    }

    /// What the value at `path` took the place of, back to the first; false when nothing is known.
    fn overridden(&self, steps: &mut Vec<Step>, path: &str, mark: Mark) -> bool {
        let (mut mark, mut any) = (mark, false);
        // Each step goes back to an earlier file or service, so the way ends; the bound is for the eye.
        for _ in 0..100 {
            let names = self.bases(path, mark);
            let paths = names.iter().filter_map(|(name, base)| {
                let rest = path.strip_prefix("services.")?.strip_prefix(name.as_str());
                // Names further back are those of bases, whose paths end alike.
                let first = names.first().map(|(first, _)| first.as_str())?;
                let rest = rest.or_else(|| path.strip_prefix("services.")?.strip_prefix(first))?;
                Some(format!("services.{}{rest}", base.service))
            });
            let before = std::iter::once(path.to_owned()).chain(paths).find_map(|path| self.record.before(&path, mark));
            let Some(before) = before else { break };
            let text = self.record.written(before).and_then(|written| scalar::text(&written.value));
            let text = text.filter(|text| !text.is_empty());
            let text = text.map_or_else(|| "overrides this".to_owned(), |text| format!("overrides `{text}`"));
            self.step(steps, before, text);
            self.led_by(steps, path, before);
            (mark, any) = (before, true);
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The steps of the values at `path`, one per line, files without their folder.
    fn explained(files: &[(&str, &str)], path: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let working_dir = folder.path().canonicalize().unwrap();
        let options = LoadOptions { working_dir, project_name: Some("test".into()), ..LoadOptions::default() };
        let process = BTreeMap::from([("SHELL_VAR".to_owned(), "from-shell".to_owned())]);
        let (explanations, diagnostics) = explain(&options, &process, path);
        if explanations.is_empty() {
            return Err(diagnostics.iter().map(|d| format!("{}; {:?}", d.message, d.help)).collect());
        }
        let mut text = String::new();
        for explanation in explanations {
            text += &format!("{} = {}\n", explanation.path, explanation.value);
            for Step { place, text: step } in explanation.steps {
                let name =
                    |place: &Place| format!("{}:{}", place.file.file_name().unwrap().to_string_lossy(), place.line);
                text += &format!("  {}: {step}\n", place.as_ref().map_or("-".to_owned(), name));
            }
        }
        Ok(text)
    }

    const BASE: (&str, &str) = (
        "compose.yaml",
        "services:\n  web:\n    image: a:1\n    environment:\n      DB: mysql\n      BARE:\n      PLAIN: x\n    ports: ['80:80']\n",
    );

    #[test]
    fn an_override_with_a_variable_names_all_three_places() {
        let change = (
            "compose.override.yaml",
            "services:\n  web:\n    environment:\n      - DB=${DB_KIND:-postgres}\n      - SHELL=$SHELL_VAR\n      - FILE=$FILE_VAR\n",
        );
        let files = [BASE, change, (".env", "# x\nexport FILE_VAR=file\n")];
        expect_test::expect![[r#"
            services.web.environment.DB = "postgres"
              compose.override.yaml:4: written here as `DB=${DB_KIND:-postgres}`
              -: variable `DB_KIND` is not set, so its default `postgres` is taken
              compose.yaml:5: overrides `mysql`
        "#]]
        .assert_eq(&explained(&files, "services.web.environment.DB").unwrap());
        expect_test::expect![[r#"
            services.web.environment.SHELL = "from-shell"
              compose.override.yaml:5: written here as `SHELL=$SHELL_VAR`
              -: variable `SHELL_VAR` is `from-shell` in the environment of this command
        "#]]
        .assert_eq(&explained(&files, "services.web.environment.SHELL").unwrap());
        expect_test::expect![[r#"
            services.web.environment.FILE = "file"
              compose.override.yaml:6: written here as `FILE=$FILE_VAR`
              .env:2: variable `FILE_VAR` is set to `file`
        "#]]
        .assert_eq(&explained(&files, "services.web.environment.FILE").unwrap());
    }

    #[test]
    fn defaults_short_forms_and_bare_names() {
        expect_test::expect![[r#"
            services.web.environment.BARE = null
              compose.yaml:6: written here
              -: variable `BARE` is not set
        "#]]
        .assert_eq(&explained(&[BASE], "services.web.environment.BARE").unwrap());
        expect_test::expect![[r#"
            services.web.ports.0.published = "80"
              compose.yaml:8: written here as `80:80`
        "#]]
        .assert_eq(&explained(&[BASE], "services.web.ports.0.published").unwrap());
        expect_test::expect![[r#"
            networks.default.name = "test_default"
              -: a default: no file says it
        "#]]
        .assert_eq(&explained(&[BASE], "networks.default.name").unwrap());
    }

    #[test]
    fn extends_and_env_files_are_named() {
        let main = (
            "compose.yaml",
            "services:\n  web:\n    extends: {file: base.yaml, service: app}\n    image: web:1\n    env_file: vars\n",
        );
        let base = ("base.yaml", "services:\n  app:\n    image: app:1\n    user: me\n");
        let files = [main, base, ("vars", "A=1\nA=2\n")];
        expect_test::expect![[r#"
            services.web.image = "web:1"
              compose.yaml:4: written here
              base.yaml:3: overrides `app:1`
              compose.yaml:3: `web` has it from `app`, which it extends
              compose.yaml:3: that file is named here
        "#]]
        .assert_eq(&explained(&files, "services.web.image").unwrap());
        expect_test::expect![[r#"
            services.web.user = "me"
              base.yaml:4: written here
              compose.yaml:3: `web` has it from `app`, which it extends
              compose.yaml:3: that file is named here
        "#]]
        .assert_eq(&explained(&files, "services.web.user").unwrap());
        expect_test::expect![[r#"
            services.web.environment.A = "2"
              vars:2: `A` is set in this `env_file`
              compose.yaml:5: the file is named here
        "#]]
        .assert_eq(&explained(&files, "services.web.environment.A").unwrap());
    }

    #[test]
    fn aliases_are_named_and_env_files_give_way() {
        let text = "x-a: &a\n  restart: always\nservices:\n  web:\n    <<: *a\n    image: x\n    env_file: vars\n    environment:\n      A: own\n";
        let files = [("compose.yaml", text), ("vars", "A=1\n")];
        expect_test::expect![[r#"
            services.web.restart = "always"
              compose.yaml:2: written here
              compose.yaml:5: repeated here by an alias or `<<`
        "#]]
        .assert_eq(&explained(&files, "services.web.restart").unwrap());
        expect_test::expect![[r#"
            services.web.environment.A = "own"
              compose.yaml:9: written here
        "#]]
        .assert_eq(&explained(&files, "services.web.environment.A").unwrap());
        // Where the mapping that repeats it has become one with that of a service that is extended.
        let text = "x-a: &a\n  DB: x\nservices:\n  base:\n    image: x\n    environment: {A: b}\n  web:\n    extends: base\n    environment:\n      <<: *a\n      A: w\n";
        expect_test::expect![[r#"
            services.web.environment.DB = "x"
              compose.yaml:2: written here
              compose.yaml:10: repeated here by an alias or `<<`
        "#]]
        .assert_eq(&explained(&[("compose.yaml", text)], "services.web.environment.DB").unwrap());
    }

    #[test]
    fn a_wrong_path_says_what_there_is() {
        let error = explained(&[BASE], "services.wbe.image").unwrap_err();
        assert_eq!(
            error,
            "the project has no value at `services.wbe.image`; Some(\"instead of `wbe`, did you mean `web`?\")"
        );
    }
}
