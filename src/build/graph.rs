//! Stages and what they need of each other. Pure.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::args;
use super::parse::{Instruction, Kind, ParseError, Parsed, parse_trigger};

/// What the caller decides.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// `--build-arg` and `build.args`.
    pub args: BTreeMap<String, String>,
    /// Name or number of the stage wanted; the last one when `None`.
    pub target: Option<String>,
    /// Names of additional contexts: they come before stages and images of the same name.
    pub contexts: BTreeSet<String>,
    /// `linux/amd64`.
    pub platform: String,
}

/// The stages that the target needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// All stages of the file, in order; those not in `needed` are not built.
    pub stages: Vec<Stage>,
    pub needed: BTreeSet<usize>,
    pub target: usize,
    /// `ARG`s before the first `FROM`, with their values.
    pub globals: IndexMap<String, String>,
}

/// What one `FROM` begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    pub name: Option<String>,
    pub base: Origin,
    /// Where its `FROM` stands.
    pub line: usize,
    /// Without the `FROM`.
    pub instructions: Vec<Instruction>,
}

/// What a `FROM` or `--from` means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    Scratch,
    Stage(usize),
    /// An additional context.
    Context(String),
    Image(String),
}

/// Sorts the instructions into stages.
///
/// # Errors
/// An unknown target, a platform that is not ours, a base that variables leave empty.
pub fn graph(parsed: Parsed, inputs: &Inputs) -> Result<Graph, ParseError> {
    let mut globals = platform_args(&inputs.platform);
    let mut stages: Vec<Stage> = Vec::new();
    for instruction in parsed.instructions {
        let line = instruction.first;
        match (&instruction.kind, stages.last_mut()) {
            (Kind::From(from), _) => {
                let expand = |text: &str| {
                    args::word(text, parsed.escape, &globals).map_err(|message| ParseError::new(line, message))
                };
                let image = expand(&from.image)?;
                if image.is_empty() {
                    let message = format!("FROM: `{}` is empty here", from.image);
                    return Err(ParseError::new(line, message).help("give the `ARG` before it a default"));
                }
                if let Some(platform) = &from.platform {
                    check_platform(&expand(platform)?, &inputs.platform, line)?;
                }
                let base = match resolve(&image, &stages, inputs, false) {
                    Origin::Image(_) | Origin::Stage(_) if image == "scratch" => Origin::Scratch,
                    origin => origin,
                };
                stages.push(Stage { name: from.name.clone(), base, line, instructions: Vec::new() });
            }
            (_, Some(stage)) => stage.instructions.push(instruction),
            (Kind::Arg(found), None) => {
                for arg in found {
                    let default = arg.default.as_deref().map(|text| args::word(text, parsed.escape, &globals));
                    let default = default.transpose().map_err(|message| ParseError::new(line, message))?;
                    if let Some(value) = inputs.args.get(&arg.name).cloned().or(default) {
                        globals.insert(arg.name.clone(), value);
                    }
                }
            }
            // The parser lets nothing else come first.
            (_, None) => {}
        }
    }
    let target = find_target(&stages, inputs.target.as_deref())?;
    let mut graph = Graph { stages, needed: BTreeSet::new(), target, globals };
    let mut open = vec![target];
    while let Some(stage) = open.pop() {
        if graph.needed.insert(stage) {
            open.extend(graph.needs(stage, inputs));
        }
    }
    Ok(graph)
}

impl Graph {
    /// Stages that a stage begins from or copies from.
    fn needs(&self, number: usize, inputs: &Inputs) -> Vec<usize> {
        let Some(stage) = self.stages.get(number) else { return Vec::new() };
        let mut found = Vec::new();
        let mut add = |origin: Origin| {
            if let Origin::Stage(stage) = origin {
                found.push(stage);
            }
        };
        add(stage.base.clone());
        let triggers = match &stage.base {
            Origin::Stage(base) => self.triggers(*base),
            _ => Vec::new(),
        };
        for instruction in triggers.iter().chain(&stage.instructions) {
            match &instruction.kind {
                Kind::Copy(copy) => copy.from.iter().for_each(|from| add(self.origin(from, number, inputs))),
                Kind::Run(run) => {
                    let from = run.mounts.iter().filter_map(|mount| mount.from());
                    from.for_each(|from| add(self.origin(from, number, inputs)));
                }
                _ => {}
            }
        }
        found
    }

    /// What the `ONBUILD` of a stage do in those that begin from it. Those of images are not known before they are there.
    fn triggers(&self, number: usize) -> Vec<Instruction> {
        let instructions = self.stages.get(number).into_iter().flat_map(|stage| &stage.instructions);
        let trigger = |instruction: &Instruction| match &instruction.kind {
            // One that is wrong is told where it is run.
            Kind::Onbuild(text) => parse_trigger(text, instruction.first).ok(),
            _ => None,
        };
        instructions.filter_map(trigger).collect()
    }

    /// What `--from=NAME` means in the stage `number`.
    pub fn origin(&self, name: &str, number: usize, inputs: &Inputs) -> Origin {
        resolve(name, self.stages.get(..number).unwrap_or_default(), inputs, true)
    }
}

/// Contexts come first, then earlier stages by name, then (for `--from`) by number, then images.
fn resolve(name: &str, earlier: &[Stage], inputs: &Inputs, by_number: bool) -> Origin {
    if let Some(context) = inputs.contexts.iter().find(|context| context.eq_ignore_ascii_case(name)) {
        return Origin::Context(context.clone());
    }
    let named = earlier.iter().rposition(|stage| stage.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name)));
    let number = name.parse::<usize>().ok().filter(|number| by_number && *number < earlier.len());
    named.or(number).map_or_else(|| Origin::Image(name.to_owned()), Origin::Stage)
}

fn find_target(stages: &[Stage], target: Option<&str>) -> Result<usize, ParseError> {
    let Some(target) = target.filter(|target| !target.is_empty()) else { return Ok(stages.len().saturating_sub(1)) };
    let named = stages.iter().rposition(|stage| stage.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(target)));
    let number = target.parse::<usize>().ok().filter(|number| *number < stages.len());
    named.or(number).ok_or_else(|| {
        let names: Vec<_> = stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
        let error = ParseError::new(1, format!("there is no stage `{target}`"));
        if names.is_empty() {
            error.help("no stage has a name")
        } else {
            error.help(format!("stages are {}", names.join(", ")))
        }
    })
}

fn check_platform(wanted: &str, ours: &str, line: usize) -> Result<(), ParseError> {
    if super::same_platform(wanted, ours) {
        return Ok(());
    }
    let message = format!("platform `{wanted}` cannot be built on this machine");
    Err(ParseError::new(line, message).help(format!("this machine is `{ours}`")))
}

/// The arguments that are there without being declared, before the first `FROM`.
fn platform_args(platform: &str) -> IndexMap<String, String> {
    let (os, architecture) = platform.split_once('/').unwrap_or(("linux", platform));
    let mut found = IndexMap::new();
    for side in ["BUILD", "TARGET"] {
        found.insert(format!("{side}PLATFORM"), platform.to_owned());
        found.insert(format!("{side}OS"), os.to_owned());
        found.insert(format!("{side}ARCH"), architecture.to_owned());
        found.insert(format!("{side}VARIANT"), String::new());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::parse::parse;

    fn graph_of(text: &str, inputs: &Inputs) -> Result<Graph, ParseError> {
        graph(parse(text).unwrap(), inputs)
    }

    fn inputs() -> Inputs {
        Inputs { platform: "linux/amd64".to_owned(), ..Inputs::default() }
    }

    const FILE: &str = "ARG V=1\nFROM a:$V AS one\nRUN x\nFROM scratch AS two\nCOPY --from=one x y\n\
        FROM two\nRUN --mount=from=0,target=/m x\nFROM b AS unused\nFROM --platform=$BUILDPLATFORM two AS last";

    #[test]
    fn only_what_the_target_needs_is_built() {
        let found = graph_of(FILE, &inputs()).unwrap();
        assert_eq!((found.target, found.needed.iter().copied().collect::<Vec<_>>()), (4, vec![0, 1, 4]));
        assert_eq!(found.stages[0].base, Origin::Image("a:1".to_owned()));
        assert_eq!(found.stages[1].base, Origin::Scratch);
        assert_eq!(found.stages[2].base, Origin::Stage(1));
        let other = Inputs { target: Some("2".to_owned()), ..inputs() };
        assert_eq!(graph_of(FILE, &other).unwrap().needed.len(), 3);
    }

    #[test]
    fn arguments_and_contexts_change_the_base() {
        let mut with = inputs();
        with.args.insert("V".to_owned(), "2".to_owned());
        with.contexts.insert("b".to_owned());
        let found = graph_of(FILE, &with).unwrap();
        assert_eq!(found.stages[0].base, Origin::Image("a:2".to_owned()));
        assert_eq!(found.stages[3].base, Origin::Context("b".to_owned()));
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        let target = Inputs { target: Some("gone".to_owned()), ..inputs() };
        assert!(graph_of(FILE, &target).unwrap_err().help.unwrap().contains("one, two"));
        assert_eq!(graph_of("FROM a\nFROM --platform=linux/arm64 b", &inputs()).unwrap_err().line, 2);
        assert!(graph_of("ARG A\nFROM $A", &inputs()).unwrap_err().message.contains("empty"));
    }
}
