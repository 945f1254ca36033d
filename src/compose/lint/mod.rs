//! Warnings about what the format accepts and people regret.
//!
//! A check is a function over the finished tree, before profiles take services away; it can ask how a value was
//! written. [`CHECKS`] declares them all.

mod mounts;
mod services;
mod values;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::record::{Record, Written};
use super::report::Reports;
use super::validate::nearest;
use super::{LoadOptions, finished, resolve};
use crate::base::diagnostic::{Diagnostic, Place, Severity};
use crate::model::tree::{Mark, Node, Sources};

/// A warning that can be switched off by its code.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Stable, kebab-case.
    pub code: &'static str,
    /// What is found, in one line.
    pub explanation: &'static str,
    /// `None` for what the loader warns about in every command.
    run: Option<fn(&Scene<'_>, &mut Findings<'_>)>,
}

const fn check(code: &'static str, run: fn(&Scene<'_>, &mut Findings<'_>), explanation: &'static str) -> Check {
    Check { code, explanation, run: Some(run) }
}

const fn loader(code: &'static str, explanation: &'static str) -> Check {
    Check { code, explanation, run: None }
}

/// Every warning there is, by code.
pub const CHECKS: &[Check] = &[
    check("changed-value", values::changed, "An unquoted value that is not what it looks like: `010` is 8, `1.0` is 1"),
    check("decimal-mode", values::decimal_mode, "A file mode written in decimal: `444` is not `0444`"),
    loader("deprecated", "`external.name`, which `name` has replaced"),
    loader("dropped-size", "A size written as a number with a fraction or exponent, which is ignored"),
    check("floating-tag", services::floating_tag, "An image without a tag or with `latest`: it changes unasked"),
    loader("ignored-key", "A key of a GPU request or an `include` that the format does not know, which is ignored"),
    check("invalid-restart", services::restart, "A `restart` that is no restart policy, which is ignored"),
    check("masked-variable", services::masked_variable, "A bare name in `environment` that hides its `env_file` value"),
    check("no-healthcheck", services::no_healthcheck, "A wait for `service_healthy` on a service without health check"),
    loader("obsolete-version", "The top-level `version`, which is ignored"),
    loader("old-boolean", "A boolean of YAML 1.1, such as `yes`"),
    check("one-letter-volume", mounts::one_letter, "A volume name of one letter, which is read as a Windows drive"),
    check("published-everywhere", services::published_everywhere, "A port published on all addresses of the machine"),
    loader("several-files", "Several files that could be the project's"),
    check("sexagesimal", values::sexagesimal, "An unquoted `12:30`, which older YAML readers take for a number"),
    check("swallowed-dollar", values::swallowed_dollar, "A `$` that swallows part of a value, as in a password"),
    check("unknown-code", unknown_code, "A code under `x-rcompose` that does not exist"),
    check("unknown-volume-option", mounts::unknown_option, "An option of a short volume that is ignored"),
    loader("unset-variable", "A variable that is not set and has no default"),
];

/// What checks look at.
struct Scene<'a> {
    tree: &'a Node,
    record: &'a Record,
    environment: &'a BTreeMap<String, String>,
    working_dir: &'a Path,
}

impl<'a> Scene<'a> {
    fn services(&self) -> impl Iterator<Item = (&'a str, Mark, &'a Node)> {
        let services = self.tree.get("services").and_then(Node::as_map).into_iter().flatten();
        services.map(|(name, (mark, node))| (name.as_ref(), *mark, node))
    }

    /// The lists of services at a path below each: the service and an item.
    fn items(&self, path: &'static str) -> impl Iterator<Item = (&'a str, &'a Node)> {
        self.services().flat_map(move |(name, _, service)| {
            let items = service.at(path).and_then(Node::as_list).unwrap_or_default();
            items.iter().map(move |item| (name, item))
        })
    }

    fn written(&self, mark: Mark) -> Option<&'a Written> {
        self.record.written(mark)
    }
}

/// What checks found.
struct Findings<'a> {
    sources: &'a Sources,
    /// Services to report about; empty means all, and the project.
    asked: &'a [String],
    code: &'static str,
    found: Vec<Diagnostic>,
}

impl Findings<'_> {
    fn service(&mut self, service: &str, mark: Mark, message: String, help: impl Into<String>) {
        if self.asked.is_empty() || self.asked.iter().any(|asked| asked == service) {
            self.project(mark, message, help);
        }
    }

    fn project(&mut self, mark: Mark, message: String, help: impl Into<String>) {
        self.found.push(Diagnostic::warning(self.code, self.sources.place(mark), message).help(help));
    }
}

/// Loads the project that `options` name and checks it: its errors and warnings, by place. Findings of checks are
/// of `options.services` only, when there are some. Warnings whose codes are in `ignore`, or in the file under
/// `x-rcompose.lint.ignore`, are left out.
pub fn lint(options: &LoadOptions, ignore: &[String], process: &BTreeMap<String, String>) -> Vec<Diagnostic> {
    let mut reports = Reports::recording();
    let mut found = Vec::new();
    if let Some(merged) = finished(options, process, &mut reports) {
        found = findings(options, &merged.tree, &merged.location, &reports);
        found.retain(|finding| !ignored(&merged.tree).contains(&finding.code));
        resolve(options, merged, &mut reports);
    }
    let swallowed: HashSet<Place> =
        found.iter().filter(|finding| finding.code == "swallowed-dollar").filter_map(|f| f.place.clone()).collect();
    let again = |known: &Diagnostic| known.place.as_ref().is_some_and(|place| swallowed.contains(place));
    reports.diagnostics.retain(|known| known.code != "unset-variable" || !again(known));
    found.append(&mut reports.diagnostics);
    found.retain(|known| known.severity == Severity::Error || !ignore.iter().any(|code| code == known.code));
    found.sort_by(|a, b| (&a.place, a.code).cmp(&(&b.place, b.code)));
    found.dedup();
    found
}

fn findings(
    options: &LoadOptions,
    tree: &Node,
    location: &super::locate::Location,
    reports: &Reports,
) -> Vec<Diagnostic> {
    let Some(record) = &reports.record else { return Vec::new() };
    let scene = Scene { tree, record, environment: &location.environment, working_dir: &location.folder };
    let mut findings = Findings { sources: &reports.sources, asked: &options.services, code: "", found: Vec::new() };
    for check in CHECKS {
        findings.code = check.code;
        if let Some(run) = check.run {
            run(&scene, &mut findings);
        }
    }
    findings.found
}

/// The codes that the file switches off.
pub(super) fn ignored(tree: &Node) -> Vec<&str> {
    ignore_list(tree).iter().filter_map(Node::as_str).collect()
}

fn ignore_list(tree: &Node) -> &[Node] {
    let list = tree.get("x-rcompose").and_then(|ours| ours.get("lint")?.get("ignore"));
    list.and_then(Node::as_list).unwrap_or_default()
}

fn unknown_code(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    for item in ignore_list(scene.tree) {
        let code = item.as_str().unwrap_or_default();
        if !CHECKS.iter().any(|check| check.code == code) {
            let help = nearest(code, CHECKS.iter().map(|check| check.code)).map_or_else(
                || "`rcompose lint --help` lists the codes".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            findings.project(item.mark, format!("there is no warning `{code}`"), help);
        }
    }
}

#[cfg(test)]
mod tests;
