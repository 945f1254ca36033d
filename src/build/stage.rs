//! Building one stage: its instructions one after the other.

use std::os::fd::OwnedFd;

use super::args;
use super::builder::Builder;
use super::cache::{Key, Step};
use super::chmod::Chmod;
use super::error::BuildError;
use super::graph::Origin;
use super::parse::{Arg, Instruction, Kind, parse_trigger};
use super::request::Event;
use super::state::State;
use super::tree;
use crate::engine::users::UserDatabase;
use crate::engine::view;
use crate::image::MadeLayer;

/// A stage that is being built.
pub(super) struct StageBuilder<'a> {
    pub(super) builder: &'a Builder<'a>,
    pub(super) number: usize,
    pub(super) state: State,
    /// The cache is not looked at.
    fresh: bool,
    /// Steps that make layers, the base among them.
    steps: usize,
    step: usize,
}

/// A title of a step, and the number it is told under.
pub(super) struct Told {
    pub(super) step: u32,
}

impl<'a> StageBuilder<'a> {
    /// Builds the stage `number` to its end.
    pub(super) fn build(builder: &'a Builder<'a>, number: usize) -> Result<State, BuildError> {
        let Some(stage) = builder.graph.stages.get(number) else { return Err(BuildError::new("no such stage")) };
        let mut state = match &stage.base {
            Origin::Scratch => State::scratch(&builder.request.platform),
            Origin::Stage(base) => builder.stage(*base)?.next_stage(),
            Origin::Image(name) => {
                builder.image(name).map_err(|error| error.at(&builder.source, stage.line, stage.line))?
            }
            Origin::Context(name) => builder.context_as_base(name)?,
        };
        let mut instructions = Vec::new();
        for text in std::mem::take(&mut state.config().on_build) {
            let trigger = parse_trigger(&text, stage.line);
            instructions.push(trigger.map_err(|error| BuildError::of_parse(error, &builder.source))?);
        }
        instructions.extend(stage.instructions.iter().cloned());
        let steps = instructions.iter().filter(|one| makes_layer(&one.kind)).count();
        let based = usize::from(stage.base != Origin::Scratch);
        let named = |name: &String| stage.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name));
        let fresh = builder.request.no_cache || builder.request.no_cache_stages.iter().any(named);
        let mut stage = Self { builder, number, state, fresh, steps: steps + based, step: based };
        if based > 0 {
            stage.tell_base();
        }
        for instruction in &instructions {
            if builder.has_failed() {
                return Err(BuildError::cancelled());
            }
            let done = stage.instruction(instruction);
            done.map_err(|error| error.at(&builder.source, instruction.first, instruction.last))?;
        }
        Ok(stage.state)
    }

    fn tell_base(&self) {
        let Some(stage) = self.builder.graph.stages.get(self.number) else { return };
        let title = match &stage.base {
            Origin::Image(name) | Origin::Context(name) => format!("FROM {name}"),
            // A stage is no step of its own.
            Origin::Stage(_) | Origin::Scratch => return,
        };
        let step = self.builder.begin(self.title(&title, 1));
        (self.builder.outside.tell)(Event::Done { step });
    }

    /// `[web stage-1 2/4] RUN …`
    fn title(&self, text: &str, number: usize) -> String {
        let stages = &self.builder.graph.stages;
        let name = match stages.get(self.number).and_then(|stage| stage.name.clone()) {
            Some(name) => format!("{name} "),
            None if stages.len() > 1 => format!("stage-{} ", self.number),
            None => String::new(),
        };
        let build = &self.builder.request.name;
        let build = if build.is_empty() { String::new() } else { format!("{build} ") };
        let (digits, first) = (self.steps.to_string().len(), text.lines().next().unwrap_or_default());
        format!("[{build}{name}{number:>digits$}/{}] {first}", self.steps)
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<(), BuildError> {
        match &instruction.kind {
            Kind::Arg(found) => self.arguments(found),
            Kind::Workdir(path) => self.workdir(path),
            Kind::Run(run) => self.run(run, &instruction.text),
            Kind::Copy(copy) => self.copy(copy, &instruction.text),
            kind => self.state.configure(kind, self.builder.escape).map(drop).map_err(BuildError::new),
        }
    }

    fn arguments(&mut self, found: &[Arg]) -> Result<(), BuildError> {
        let mut said = Vec::new();
        for Arg { name, default } in found {
            let default = default.as_deref().map(|text| self.expand(text)).transpose()?;
            let given = self.builder.request.args.get(name).cloned();
            let value = given.or(default).or_else(|| self.builder.graph.globals.get(name).cloned());
            said.push(value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")));
            self.state.declare(name, value);
        }
        self.state.note(format!("ARG {}", said.join(" ")));
        Ok(())
    }

    pub(super) fn expand(&self, text: &str) -> Result<String, BuildError> {
        args::word(text, self.builder.escape, &self.state.env).map_err(BuildError::new)
    }

    fn workdir(&mut self, path: &str) -> Result<(), BuildError> {
        let path = self.expand(path)?;
        let path = format!("/{}", tree::clean(&self.state.absolute(&path)).join("/"));
        let user = self.state.document.config.user.clone();
        let key = self.state.key.then("workdir", &[path.as_bytes(), user.as_bytes()]);
        let said = format!("WORKDIR {path}");
        let step = self.layer(&key, &said, |stage, _| {
            let draft = stage.builder.workshop.draft()?;
            let owner = match user.as_str() {
                "" => (0, 0),
                user => stage.owner(Some(user))?.unwrap_or((0, 0)),
            };
            let root = stage.writable(&draft)?;
            super::copy::make_directory(&root, &path, owner)
                .map_err(|error| BuildError::because(format!("cannot make `{path}`"), &error))?;
            drop(root);
            stage.finish(draft)
        })?;
        self.state.push(step, key, said);
        self.state.config().working_dir = path;
        Ok(())
    }

    /// Makes a layer, or takes it from the cache, and tells so.
    pub(super) fn layer(
        &mut self,
        key: &Key,
        title: &str,
        make: impl FnOnce(&Self, &Told) -> Result<MadeLayer, BuildError>,
    ) -> Result<Step, BuildError> {
        self.step += 1;
        let step = self.builder.begin(self.title(title, self.step));
        let bring = || self.builder.imports.bring(key, step);
        let places: Vec<String> = self.builder.request.cache_from.iter().map(ToString::to_string).collect();
        let made = self.builder.cache.step(key, self.fresh, &places, bring, || {
            let layer = make(self, &Told { step })?;
            Ok((layer, self.builder.now()))
        });
        if let Ok(made) = &made {
            self.builder.note_step(key, made);
        }
        let tell = self.builder.outside.tell;
        match &made {
            Ok(made) if made.cached => tell(Event::Cached { step }),
            Ok(_) => tell(Event::Done { step }),
            Err(error) if error.cancelled => {}
            Err(error) => tell(Event::Failed { step, message: error.message.clone() }),
        }
        made
    }

    /// The root as it is now, and as `draft` changes it.
    pub(super) fn writable(&self, draft: &crate::image::Draft) -> Result<OwnedFd, BuildError> {
        let mut lower = self.state.paths();
        if lower.is_empty() {
            lower.push(self.builder.workshop.folder()?);
        }
        view::open_writable(&lower, &draft.upper(), &draft.work())
            .map_err(|error| BuildError::because("cannot open the root file system", &error))
    }

    pub(super) fn finish(&self, draft: crate::image::Draft) -> Result<MadeLayer, BuildError> {
        Ok(self.builder.workshop.finish(draft, self.builder.request.source_date_epoch)?)
    }

    /// The image's user databases.
    pub(super) fn users(&self) -> Result<UserDatabase, BuildError> {
        let paths = self.state.paths();
        if paths.is_empty() {
            return Ok(UserDatabase::default());
        }
        let view =
            view::open(&paths).map_err(|error| BuildError::because("cannot open the root file system", &error))?;
        Ok(UserDatabase::read(&view))
    }

    /// `--chown=USER:GROUP`: names are looked up in the image.
    pub(super) fn owner(&self, text: Option<&str>) -> Result<Option<(u32, u32)>, BuildError> {
        let Some(text) = text else { return Ok(None) };
        let text = self.expand(text)?;
        let numbers: Option<Vec<u32>> = text.split(':').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some([uid]) => return Ok(Some((*uid, *uid))),
            Some([uid, gid]) => return Ok(Some((*uid, *gid))),
            _ => {}
        }
        let user = self.users()?.resolve(Some(&text), &[]);
        let user = user.map_err(|error| BuildError::new(error.to_string().replacen("user:", "--chown=", 1)))?;
        Ok(Some((user.uid, user.gid)))
    }

    pub(super) fn chmod(&self, text: Option<&str>) -> Result<Option<Chmod>, BuildError> {
        let Some(text) = text else { return Ok(None) };
        let text = self.expand(text)?;
        Chmod::parse(&text).map(Some).map_err(|message| BuildError::new(format!("--chmod: {message}")))
    }
}

fn makes_layer(kind: &Kind) -> bool {
    matches!(kind, Kind::Run(_) | Kind::Copy(_) | Kind::Workdir(_))
}
