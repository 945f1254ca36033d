//! BuildKit's checks of a Dockerfile: what builds, and is most often not what was meant. Pure.
//! <https://docs.docker.com/reference/build-checks/>

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::args;
use super::graph::{Graph, Inputs, Origin};
use super::ignore::Ignore;
use super::parse::{Command, Copy, From, Instruction, Kind, Parsed};
use crate::image::Reference;

/// Words of names that say "secret"; see [`is_secret`].
const SECRETS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// Checks that are made only where a file asks for them.
const EXPERIMENTAL: [&str; 2] = ["CopyIgnoredFile", "InvalidDefinitionDescription"];

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) rule: &'static str,
    pub(super) line: usize,
    pub(super) message: String,
}

/// `# check=skip=RULE,…;error=true;experimental=RULE,…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    skip: Vec<String>,
    experimental: Vec<String>,
    /// Whatever is found fails the build.
    pub(super) error: bool,
}

impl Options {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let rules = || value.split(',').map(|rule| rule.trim().to_ascii_lowercase()).collect();
            match name.trim() {
                "skip" => options.skip = rules(),
                "experimental" => options.experimental = rules(),
                "error" => match value.trim().to_ascii_lowercase().as_str() {
                    "true" | "1" | "t" => options.error = true,
                    "false" | "0" | "f" => options.error = false,
                    other => return Err(format!("`error={other}`: it is `true` or `false`")),
                },
                other => return Err(format!("`{other}` is none of `skip`, `error`, `experimental`")),
            }
        }
        Ok(options)
    }

    /// Whether a rule is checked.
    pub(super) fn wants(&self, rule: &str) -> bool {
        let named = |rules: &[String]| rules.iter().any(|one| one == "all" || one.eq_ignore_ascii_case(rule));
        !named(&self.skip) && (!EXPERIMENTAL.contains(&rule) || named(&self.experimental))
    }
}

/// All that is checked against.
pub(super) struct Subject<'a> {
    pub(super) parsed: &'a Parsed,
    pub(super) graph: &'a Graph,
    pub(super) inputs: &'a Inputs,
    pub(super) ignore: &'a Ignore,
    /// The environment of an image; `None`: it is not known here, and so is not what its variables are.
    pub(super) environment: &'a dyn Fn(&str) -> Option<Vec<String>>,
}

/// Makes the checks that are wanted; what they find comes by lines.
pub(super) fn lint(subject: &Subject<'_>, options: &Options) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    for line in &subject.parsed.empty_continuations {
        found.add("NoEmptyContinuation", *line, "Empty continuation line");
    }
    casing(&subject.parsed.instructions, &mut found);
    bases(subject, &mut found);
    stages(subject, &mut found);
    found.0.retain(|one| options.wants(one.rule));
    found.0.sort_by_key(|one| one.line);
    found.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, rule: &'static str, line: usize, message: impl Into<String>) {
        self.0.push(Finding { rule, line, message: message.into() });
    }
}

fn is_upper(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_lowercase())
}

fn is_lower(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn casing(instructions: &[Instruction], found: &mut Findings) {
    let lower = instructions.iter().filter(|one| is_lower(&one.name)).count();
    let upper = instructions.iter().filter(|one| is_upper(&one.name)).count();
    let (majority, fits): (_, fn(&str) -> bool) =
        if lower > upper { ("lowercase", is_lower) } else { ("uppercase", is_upper) };
    for one in instructions.iter().filter(|one| !fits(&one.name)) {
        let message = format!("Command '{}' should match the case of the command majority ({majority})", one.name);
        found.add("ConsistentInstructionCasing", one.first, message);
    }
}

/// What the `FROM`s and the arguments before them say.
fn bases(subject: &Subject<'_>, found: &mut Findings) {
    let escape = subject.parsed.escape;
    // As the file alone has them, and as the build has them.
    let mut defaults = subject.graph.globals.clone();
    let mut declared = subject.graph.globals.clone();
    defaults.retain(|name, _| name.starts_with("BUILD") || name.starts_with("TARGET"));
    let mut names: Vec<&str> = Vec::new();
    for one in &subject.parsed.instructions {
        let Kind::From(from) = &one.kind else {
            if let (Kind::Arg(list), true) = (&one.kind, names.is_empty()) {
                for arg in list {
                    let default = arg.default.as_deref().and_then(|text| args::word(text, escape, &defaults).ok());
                    defaults.insert(arg.name.clone(), default.unwrap_or_default());
                    declared.entry(arg.name.clone()).or_default();
                    describe("ARG", &arg.name, one, found);
                }
            }
            continue;
        };
        base(from, one, (&defaults, &declared), escape, found);
        match &from.name {
            Some(name) if names.contains(&name.as_str()) => {
                let message = format!("Duplicate stage name \"{name}\", stage names should be unique");
                found.add("DuplicateStageName", one.first, message);
                names.push(name);
            }
            name => names.push(name.as_deref().unwrap_or_default()),
        }
    }
}

type Scope = IndexMap<String, String>;

fn base(from: &From, one: &Instruction, (defaults, declared): (&Scope, &Scope), escape: char, found: &mut Findings) {
    let line = one.first;
    let words: Vec<&str> = one.text.split_whitespace().collect();
    if let (Some(name), [.., keyword, written]) = (&from.name, words.as_slice()) {
        if written != name {
            found.add("StageNameCasing", line, format!("Stage name '{written}' should be lowercase"));
        }
        if is_upper(keyword) != is_upper(&one.name) || is_lower(keyword) != is_lower(&one.name) {
            let message = format!("'{keyword}' and '{}' keywords' casing do not match", one.name);
            found.add("FromAsCasing", line, message);
        }
        if matches!(name.as_str(), "scratch" | "context") {
            let message = format!("Stage name should not use the same name as reserved stage \"{name}\"");
            found.add("ReservedStageName", line, message);
        }
        describe("FROM", name, one, found);
    }
    if let Some(platform) = &from.platform {
        let name = from.name.as_deref().unwrap_or_default();
        if matches!(platform.as_str(), "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
            let message = format!(
                "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
            );
            found.add("RedundantTargetPlatform", line, message);
        } else if !platform.contains('$') && !platform.split('/').any(|part| name.contains(part)) {
            let message = format!("FROM --platform flag should not use constant value \"{platform}\"");
            found.add("FromPlatformFlagConstDisallowed", line, message);
        }
    }
    let texts = std::iter::once(from.image.as_str()).chain(from.platform.as_deref());
    for name in texts.flat_map(|text| args::undefined(text, escape, declared)) {
        let message = format!("FROM argument '{name}' is not declared{}", near(&name, declared));
        found.add("UndefinedArgInFrom", line, message);
    }
    let image = args::word(&from.image, escape, defaults).unwrap_or_default();
    if from.image.contains('$') && Reference::parse(&image).is_none() {
        let message = format!("Default value for ARG {} results in empty or invalid base image name", from.image);
        found.add("InvalidDefaultArgInFrom", line, message);
    }
}

/// A comment right above a definition describes it by its name, or it is none for `--call outline`.
fn describe(kind: &str, name: &str, one: &Instruction, found: &mut Findings) {
    let describes = |line: &String| line.split_whitespace().next() == Some(name);
    if !one.comments.is_empty() && !one.comments.iter().any(describes) {
        let message = format!("Comment for {kind} should follow the format: `# {name} <description>`");
        found.add("InvalidDefinitionDescription", one.first, message);
    }
}

/// What an instruction of a stage finds set.
#[derive(Clone, Default)]
struct State {
    scope: Scope,
    /// The scope has all there is.
    known: bool,
    workdir: bool,
    shell: bool,
}

fn stages(subject: &Subject<'_>, found: &mut Findings) {
    let mut states: Vec<State> = Vec::new();
    for (number, stage) in subject.graph.stages.iter().enumerate() {
        let mut state = match &stage.base {
            Origin::Stage(base) => states.get(*base).cloned().unwrap_or_default(),
            Origin::Scratch => State { known: true, ..State::default() },
            Origin::Image(name) | Origin::Context(name) => {
                let environment = (subject.environment)(name);
                let known = environment.is_some();
                let pairs = environment.into_iter().flatten();
                let pairs = pairs.filter_map(|line| line.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())));
                State { scope: pairs.collect(), known, ..State::default() }
            }
        };
        state.scope.entry("PATH".to_owned()).or_default();
        let mut unneeded = Findings(Vec::new());
        let found = if subject.graph.needed.contains(&number) { &mut *found } else { &mut unneeded };
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for one in &stage.instructions {
            let only_one = match &one.kind {
                Kind::Cmd(_) => Some("CMD"),
                Kind::Entrypoint(_) => Some("ENTRYPOINT"),
                Kind::Healthcheck(_) => Some("HEALTHCHECK"),
                _ => None,
            };
            if let Some(before) = only_one.and_then(|name| last.insert(name, one.first)) {
                let message = format!(
                    "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                    only_one.unwrap_or_default()
                );
                found.add("MultipleInstructionsDisallowed", before, message);
            }
            instruction(subject, one, &mut state, found);
        }
        states.push(state);
    }
}

fn instruction(subject: &Subject<'_>, one: &Instruction, state: &mut State, found: &mut Findings) {
    let (line, escape) = (one.first, subject.parsed.escape);
    let check = |texts: &mut dyn Iterator<Item = &str>, state: &State, found: &mut Findings| {
        for name in texts.flat_map(|text| args::undefined(text, escape, &state.scope)) {
            if state.known {
                let near = near(&name, &state.scope);
                found.add("UndefinedVar", line, format!("Usage of undefined variable '${name}'{near}"));
            }
        }
    };
    let expand = |text: &str, state: &State| args::word(text, escape, &state.scope).unwrap_or_default();
    match &one.kind {
        Kind::Arg(list) => {
            for arg in list {
                check(&mut arg.default.as_deref().into_iter(), state, found);
                secret("ARG", &arg.name, line, found);
                let default = arg.default.as_deref().map(|text| expand(text, state));
                let value = subject.inputs.args.get(&arg.name).cloned().or(default);
                let value = value.or_else(|| subject.graph.globals.get(&arg.name).cloned());
                state.scope.insert(arg.name.clone(), value.unwrap_or_default());
            }
        }
        Kind::Env(pairs) | Kind::Label(pairs) => {
            let is_env = matches!(one.kind, Kind::Env(_));
            let name = if is_env { "ENV" } else { "LABEL" };
            if !one.text.split_whitespace().nth(1).is_some_and(|word| word.contains('=')) {
                let message =
                    format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
                found.add("LegacyKeyValueFormat", line, message);
            }
            check(&mut pairs.iter().flat_map(|(name, value)| [name.as_str(), value]), state, found);
            if is_env {
                let values: Vec<_> = pairs.iter().map(|(name, value)| (name.clone(), expand(value, state))).collect();
                values.iter().for_each(|(name, _)| secret("ENV", name, line, found));
                state.scope.extend(values);
            }
        }
        Kind::Workdir(path) => {
            check(&mut std::iter::once(path.as_str()), state, found);
            let path = expand(path, state);
            if !path.starts_with('/') && !state.workdir {
                let message =
                    format!("Relative workdir \"{path}\" can have unexpected results if the base image changes");
                found.add("WorkdirRelativePath", line, message);
            }
            state.workdir = true;
        }
        Kind::User(text) | Kind::Stopsignal(text) => check(&mut std::iter::once(text.as_str()), state, found),
        Kind::Volume(words) => check(&mut words.iter().map(String::as_str), state, found),
        Kind::Expose(words) => {
            check(&mut words.iter().map(String::as_str), state, found);
            words.iter().map(|word| expand(word, state)).for_each(|word| expose(&word, line, found));
        }
        Kind::Copy(copy) => {
            let texts = copy.sources.iter().chain([&copy.destination]).chain(&copy.chown).chain(&copy.chmod);
            check(&mut texts.map(String::as_str), state, found);
            copied(copy, &|text| expand(text, state), subject.ignore, line, found);
        }
        Kind::Cmd(Command::Shell(_)) | Kind::Entrypoint(Command::Shell(_)) if !state.shell => {
            let name = one.name.to_ascii_uppercase();
            let message =
                format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals");
            found.add("JSONArgsRecommended", line, message);
        }
        Kind::Shell(_) => state.shell = true,
        Kind::Maintainer(_) => {
            found.add("MaintainerDeprecated", line, "Maintainer instruction is deprecated in favor of using label");
        }
        _ => {}
    }
}

fn expose(word: &str, line: usize, found: &mut Findings) {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, ""));
    if !is_lower(protocol) {
        let message = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
        found.add("ExposeProtoCasing", line, message);
    }
    if ports.contains(':') {
        let message =
            format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'");
        found.add("ExposeInvalidFormat", line, message);
    }
}

fn copied(copy: &Copy, expand: &dyn Fn(&str) -> String, ignore: &Ignore, line: usize, found: &mut Findings) {
    if copy.from.is_some() {
        return;
    }
    for source in &copy.sources {
        let source = expand(source);
        if !super::remote::is_remote(&source) && ignore.excludes(&super::tree::clean(&source).join("/")) {
            let verb = if copy.add { "Add" } else { "Copy" };
            let message = format!("Attempting to {verb} file \"{source}\" that is excluded by .dockerignore");
            found.add("CopyIgnoredFile", line, message);
        }
    }
}

fn secret(kind: &str, name: &str, line: usize, found: &mut Findings) {
    if is_secret(name) {
        let message = format!("Do not use ARG or ENV instructions for sensitive data ({kind} \"{name}\")");
        found.add("SecretsUsedInArgOrEnv", line, message);
    }
}

/// Whether one of the words of a name says so, and none says that it is public.
fn is_secret(name: &str) -> bool {
    let words: Vec<String> = name.split('_').map(str::to_ascii_lowercase).collect();
    words.iter().any(|word| SECRETS.contains(&word.as_str())) && !words.iter().any(|word| word == "public")
}

fn near(name: &str, scope: &Scope) -> String {
    let distance = |other: &&String| strsim::levenshtein(name, other);
    let near = scope.keys().filter(|other| distance(other) < 3).min_by_key(distance);
    near.map_or_else(String::new, |near| format!(" (did you mean ${near}?)"))
}

#[cfg(test)]
mod tests {
    use super::super::graph::graph;
    use super::super::parse::parse;
    use super::*;

    fn lint_of(text: &str) -> Vec<String> {
        let parsed = parse(text).unwrap();
        let inputs = Inputs { platform: "linux/amd64".to_owned(), ..Inputs::default() };
        let graph = graph(parsed.clone(), &inputs).unwrap();
        let ignore = Ignore::parse("ignored\n*.log\ndir\n!kept\n");
        let environment = |name: &str| (name == "busybox").then(|| vec!["LANG=C".to_owned()]);
        let subject =
            Subject { parsed: &parsed, graph: &graph, inputs: &inputs, ignore: &ignore, environment: &environment };
        let check = parsed.directives.iter().find(|(name, _)| name == "check").map_or("", |(_, value)| value);
        let found = lint(&subject, &Options::parse(check).unwrap());
        found.into_iter().map(|one| format!("{} {}: {}", one.line, one.rule, one.message)).collect()
    }

    /// As `docker build --check` (BuildKit of Docker 28) has found them, but for the place of the empty line.
    #[test]
    fn the_rules_find_what_dockers_find() {
        let text = include_str!("../../tests/it/build/lint/Dockerfile");
        let expected = include_str!("../../tests/it/build/lint/expected");
        let mut found = lint_of(text);
        found.sort();
        assert_eq!(found.join("\n"), expected.trim_end());
    }

    #[test]
    fn checks_can_be_left_out_and_some_must_be_asked_for() {
        let rules = |check: &str| {
            let found = lint_of(&format!("{check}\nFROM busybox AS Base\nCOPY ignored /x\nCMD x\n"));
            found
                .iter()
                .map(|line| line.split(' ').nth(1).unwrap().trim_end_matches(':').to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(rules(""), ["StageNameCasing", "JSONArgsRecommended"]);
        assert_eq!(rules("# check=skip=stagenamecasing, JSONArgsRecommended;error=true"), [""; 0]);
        assert_eq!(rules("# check=skip=all"), [""; 0]);
        assert_eq!(rules("# check=experimental=all;skip=StageNameCasing"), ["CopyIgnoredFile", "JSONArgsRecommended"]);
        assert!(Options::parse("error=true").unwrap().error);
        for bad in ["error=maybe", "foo=bar", "bad"] {
            assert!(Options::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_of_an_image_that_is_not_here_are_not_told_to_be_undefined() {
        assert_eq!(lint_of("FROM elsewhere\nUSER $WHO\n"), [""; 0]);
        assert_eq!(lint_of("FROM busybox\nUSER $LANG\n"), [""; 0]);
        let found = lint_of("FROM busybox\nUSER ${LNG}${X:-y}${Y+z}\n");
        assert_eq!(found, ["2 UndefinedVar: Usage of undefined variable '$LNG' (did you mean $LANG?)"]);
    }
}
