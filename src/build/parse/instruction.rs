//! Instructions, each with its arguments taken apart. Variables are still in them.

use super::error::ParseError;
use super::flags::{self, Flag};
use super::health::{self, Health};
use super::heredoc::{self, Heredoc};
use super::lines::{self, Line, Lines};
use super::mount::Mount;
use super::words::{json_list, words};

/// A Dockerfile taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub escape: char,
    /// `syntax` and `check`, by name.
    pub directives: Vec<(String, String)>,
    pub instructions: Vec<Instruction>,
    /// Lines that are empty within an instruction.
    pub empty_continuations: Vec<usize>,
}

/// One instruction and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Counted from 1.
    pub first: usize,
    pub last: usize,
    /// As it is written.
    pub name: String,
    /// The comment right above it.
    pub comments: Vec<String>,
    /// The name in upper case and the arguments as written, continuations joined.
    pub text: String,
    pub kind: Kind,
}

/// What an instruction does, with its words taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    From(From),
    Arg(Vec<Arg>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Run(Run),
    Copy(Copy),
    Cmd(Command),
    Entrypoint(Command),
    Shell(Vec<String>),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    Healthcheck(Health),
    Stopsignal(String),
    /// The instruction to run in images built on this one, with its here-documents.
    Onbuild(String),
    Maintainer(String),
}

/// `FROM [--platform=P] IMAGE [AS NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    pub image: String,
    pub platform: Option<String>,
    /// In lower case.
    pub name: Option<String>,
}

/// `ARG NAME[=DEFAULT]`, one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    pub name: String,
    pub default: Option<String>,
}

/// What is executed: a text for the shell, or words as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Shell(String),
    Exec(Vec<String>),
}

/// `RUN [--mount=…] [--network=…] [--security=…] COMMAND`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub command: Command,
    pub heredocs: Vec<Heredoc>,
    pub mounts: Vec<Mount>,
    /// `default`, `none` or `host`.
    pub network: Option<String>,
    /// `sandbox` or `insecure`.
    pub security: Option<String>,
}

/// `COPY` and `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub add: bool,
    pub sources: Vec<String>,
    /// Here-documents among the sources.
    pub documents: Vec<Heredoc>,
    pub destination: String,
    pub from: Option<String>,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    /// Of no effect, as in Docker's own builder: the outcome is the same but for the cache.
    pub link: bool,
    pub parents: bool,
    pub exclude: Vec<String>,
    pub checksum: Option<String>,
    pub keep_git_dir: bool,
    /// `--unpack` of ADD: `None` unpacks what is local.
    pub unpack: Option<bool>,
}

const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Takes a Dockerfile apart.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub fn parse(text: &str) -> Result<Parsed, ParseError> {
    let cut = lines::split(text)?;
    let mut instructions = Vec::with_capacity(cut.lines.len());
    for line in &cut.lines {
        instructions.push(instruction(line, cut.escape)?);
    }
    let mut from_seen = false;
    for one in &instructions {
        match one.kind {
            Kind::From(_) => from_seen = true,
            Kind::Arg(_) => {}
            _ if !from_seen => {
                let message = format!("`{}` comes before the first `FROM`", name_of(&one.text));
                return Err(ParseError::new(one.first, message).help("only `ARG` and comments may come before `FROM`"));
            }
            _ => {}
        }
    }
    if !from_seen {
        let message = if instructions.is_empty() { "the file is empty" } else { "there is no `FROM`" };
        return Err(ParseError::new(1, message).help("a build stage begins with `FROM IMAGE`"));
    }
    let Lines { escape, directives, empty_continuations, .. } = cut;
    Ok(Parsed { escape, directives, instructions, empty_continuations })
}

/// Takes an instruction of `ONBUILD` apart, which an image brought along.
///
/// # Errors
/// As [`parse`]; the line is that of the `FROM`.
pub fn parse_trigger(text: &str, line: usize) -> Result<Instruction, ParseError> {
    let at_line = |error: ParseError| ParseError { line, ..error };
    let cut = lines::split(text).map_err(at_line)?;
    let found = cut.lines.first().ok_or_else(|| ParseError::new(line, "an empty `ONBUILD` of the base image"))?;
    let mut found = instruction(found, cut.escape).map_err(at_line)?;
    (found.first, found.last) = (line, line);
    Ok(found)
}

fn name_of(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

fn instruction(line: &Line, escape: char) -> Result<Instruction, ParseError> {
    let text = line.text.trim();
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (written, name) = (name.to_owned(), name.to_ascii_uppercase());
    let (flags, rest) = flags::take(rest.trim());
    let parser = Parser { line, name: &name, escape, rest: rest.trim() };
    let kind = parser.kind(&flags)?;
    let arguments = text.get(name.len()..).unwrap_or_default().trim();
    let (comments, text) = (line.comments.clone(), format!("{name} {arguments}"));
    Ok(Instruction { first: line.first, last: line.last, name: written, comments, text, kind })
}

struct Parser<'a> {
    line: &'a Line,
    name: &'a str,
    escape: char,
    rest: &'a str,
}

impl Parser<'_> {
    fn kind(&self, flags: &[Flag]) -> Result<Kind, ParseError> {
        Ok(match self.name {
            "FROM" => self.from(flags)?,
            "RUN" => Kind::Run(self.run(flags)?),
            "COPY" | "ADD" => Kind::Copy(self.copy(flags)?),
            "HEALTHCHECK" => Kind::Healthcheck(health::parse(self.rest, flags).map_err(|message| self.error(message))?),
            name if !NAMES.contains(&name) => return Err(self.unknown()),
            _ => {
                self.only(flags, &[])?;
                self.plain()?
            }
        })
    }

    /// Instructions without flags.
    fn plain(&self) -> Result<Kind, ParseError> {
        if self.rest.is_empty() {
            return Err(self.error("it needs an argument"));
        }
        Ok(match self.name {
            "ARG" => Kind::Arg(self.arguments()?),
            "ENV" => Kind::Env(self.pairs()?),
            "LABEL" => Kind::Label(self.pairs()?),
            "CMD" => Kind::Cmd(self.command()?),
            "ENTRYPOINT" => Kind::Entrypoint(self.command()?),
            "SHELL" => match self.list()? {
                Some(shell) if !shell.is_empty() => Kind::Shell(shell),
                _ => return Err(self.error("it needs a list such as `[\"/bin/sh\", \"-c\"]`")),
            },
            "WORKDIR" => Kind::Workdir(self.rest.to_owned()),
            "USER" => Kind::User(self.rest.to_owned()),
            "STOPSIGNAL" => Kind::Stopsignal(self.rest.to_owned()),
            "MAINTAINER" => Kind::Maintainer(self.rest.to_owned()),
            "EXPOSE" => Kind::Expose(self.rest.split_whitespace().map(str::to_owned).collect()),
            "VOLUME" => {
                let volumes = self.list()?.unwrap_or_else(|| self.rest.split_whitespace().map(str::to_owned).collect());
                if volumes.is_empty() || volumes.iter().any(|volume| volume.trim().is_empty()) {
                    return Err(self.error("a volume needs a path"));
                }
                Kind::Volume(volumes)
            }
            _ => self.onbuild()?,
        })
    }

    fn error(&self, message: impl std::fmt::Display) -> ParseError {
        ParseError::new(self.line.first, format!("{}: {message}", self.name))
    }

    fn unknown(&self) -> ParseError {
        let error = ParseError::new(self.line.first, format!("unknown instruction `{}`", self.name));
        let near = NAMES.iter().map(|name| (strsim::damerau_levenshtein(self.name, name), *name)).min();
        match near {
            Some((distance, near)) if distance <= near.len() / 3 + 1 && distance < near.len() => {
                error.help(format!("did you mean `{near}`?"))
            }
            _ => error.help("a line that belongs to the one before needs a `\\` at the end of that"),
        }
    }

    /// Refuses flags that the instruction does not have, and those of one value that come twice.
    fn only(&self, flags: &[Flag], known: &[&str]) -> Result<(), ParseError> {
        const REPEATABLE: [&str; 2] = ["mount", "exclude"];
        for (index, (flag, _)) in flags.iter().enumerate() {
            if !known.contains(&flag.as_str()) {
                let error = self.error(format!("unknown flag `--{flag}`"));
                let near = known.iter().find(|name| strsim::damerau_levenshtein(flag, name) <= 2);
                return Err(match near {
                    Some(near) => error.help(format!("did you mean `--{near}`?")),
                    None => error,
                });
            }
            let before = flags.get(..index).unwrap_or_default();
            if !REPEATABLE.contains(&flag.as_str()) && before.iter().any(|(other, _)| other == flag) {
                return Err(self.error(format!("`--{flag}` is given twice")));
            }
        }
        Ok(())
    }

    fn text_flag(&self, flags: &[Flag], name: &str) -> Result<Option<String>, ParseError> {
        match flags.iter().find(|(flag, _)| flag == name) {
            None => Ok(None),
            Some((_, Some(value))) => Ok(Some(value.clone())),
            Some((_, None)) => Err(self.error(format!("`--{name}` needs a value, as in `--{name}=…`"))),
        }
    }

    fn switch(&self, flags: &[Flag], name: &str) -> Result<Option<bool>, ParseError> {
        match flags.iter().find(|(flag, _)| flag == name).map(|(_, value)| value.as_deref()) {
            None => Ok(None),
            Some(None) => Ok(Some(true)),
            Some(Some(value)) => match value.to_ascii_lowercase().as_str() {
                "true" => Ok(Some(true)),
                "false" => Ok(Some(false)),
                _ => Err(self.error(format!("`--{name}` is `true` or `false`"))),
            },
        }
    }

    fn list(&self) -> Result<Option<Vec<String>>, ParseError> {
        json_list(self.rest).map_err(|message| self.error(message))
    }

    fn command(&self) -> Result<Command, ParseError> {
        Ok(match self.list()? {
            Some(words) => Command::Exec(words),
            None => Command::Shell(self.rest.to_owned()),
        })
    }

    fn from(&self, flags: &[Flag]) -> Result<Kind, ParseError> {
        self.only(flags, &["platform"])?;
        let words: Vec<&str> = self.rest.split_whitespace().collect();
        let (image, name) = match words.as_slice() {
            [image] => (*image, None),
            [image, word, name] if word.eq_ignore_ascii_case("as") => (*image, Some(name.to_ascii_lowercase())),
            [] => return Err(self.error("it needs an image")),
            _ => return Err(self.error("it takes `IMAGE` or `IMAGE AS NAME`")),
        };
        if let Some(name) = &name {
            let mut characters = name.chars();
            let valid = characters.next().is_some_and(|c| c.is_ascii_lowercase())
                && characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
            if !valid {
                return Err(self.error(format!("`{name}` cannot be the name of a stage")));
            }
        }
        let platform = self.text_flag(flags, "platform")?;
        Ok(Kind::From(From { image: image.to_owned(), platform, name }))
    }

    fn arguments(&self) -> Result<Vec<Arg>, ParseError> {
        let arguments = words(self.rest, self.escape).into_iter().map(|word| {
            let (name, default) = match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            if name.is_empty() { Err(self.error("the name is missing")) } else { Ok(Arg { name, default }) }
        });
        arguments.collect()
    }

    fn pairs(&self) -> Result<Vec<(String, String)>, ParseError> {
        let words = words(self.rest, self.escape);
        if words.first().is_some_and(|first| !first.contains('=')) {
            // The old form: one name, and all the rest is its value.
            let Some((name, value)) = self.rest.split_once(char::is_whitespace) else {
                return Err(self.error(format!("`{}` has no value", self.rest)).help("write `NAME=VALUE`"));
            };
            return Ok(vec![(name.to_owned(), value.trim_start().to_owned())]);
        }
        let pairs = words.into_iter().map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(self.error(format!("`{word}` is not of the form `NAME=VALUE`"))),
        });
        pairs.collect()
    }

    fn run(&self, flags: &[Flag]) -> Result<Run, ParseError> {
        self.only(flags, &["mount", "network", "security"])?;
        let network = self.text_flag(flags, "network")?;
        if let Some(mode) = network.as_deref().filter(|mode| !matches!(*mode, "default" | "none" | "host")) {
            return Err(self.error(format!("`--network={mode}` is none of `default`, `none`, `host`")));
        }
        let security = self.text_flag(flags, "security")?;
        if let Some(mode) = security.as_deref().filter(|mode| !matches!(*mode, "sandbox" | "insecure")) {
            return Err(self.error(format!("`--security={mode}` is neither `sandbox` nor `insecure`")));
        }
        let mounts = flags.iter().filter(|(flag, _)| flag == "mount").map(|(_, value)| {
            let text = value.as_deref().ok_or_else(|| self.error("`--mount` needs a value, as in `--mount=…`"))?;
            Mount::parse(text).map_err(|message| self.error(format!("`--mount={text}`: {message}")))
        });
        let mounts = mounts.collect::<Result<_, _>>()?;
        if self.rest.is_empty() {
            return Err(self.error("it needs a command"));
        }
        let command = self.command()?;
        if matches!(&command, Command::Exec(words) if words.is_empty()) {
            return Err(self.error("it needs a command"));
        }
        let heredocs = self.line.heredocs.clone();
        Ok(Run { command, heredocs, mounts, network, security })
    }

    fn copy(&self, flags: &[Flag]) -> Result<Copy, ParseError> {
        let add = self.name == "ADD";
        let known: &[&str] = match add {
            true => &["chown", "chmod", "link", "exclude", "checksum", "keep-git-dir", "unpack"],
            false => &["from", "chown", "chmod", "link", "parents", "exclude"],
        };
        self.only(flags, known)?;
        let mut paths = match self.list()? {
            Some(paths) => paths,
            None => self.rest.split_whitespace().map(str::to_owned).collect(),
        };
        let destination = match paths.pop() {
            Some(destination) if !paths.is_empty() => destination,
            _ => return Err(self.error("it needs at least one source and a destination")),
        };
        let mut documents = self.line.heredocs.iter();
        let mut sources = Vec::new();
        let mut found = Vec::new();
        for path in paths {
            match heredoc::of_word(&path).and_then(|announced| documents.find(|one| one.name == announced.name)) {
                Some(document) => found.push(document.clone()),
                None => sources.push(path),
            }
        }
        let from = self.text_flag(flags, "from")?;
        if from.is_some() && !found.is_empty() {
            return Err(self.error("here-documents cannot be copied with `--from`"));
        }
        let exclude = flags.iter().filter(|(flag, _)| flag == "exclude");
        let exclude = exclude.map(|(_, value)| value.clone().ok_or_else(|| self.error("`--exclude` needs a value")));
        Ok(Copy {
            add,
            sources,
            documents: found,
            destination,
            from,
            chown: self.text_flag(flags, "chown")?,
            chmod: self.text_flag(flags, "chmod")?,
            link: self.switch(flags, "link")?.unwrap_or(false),
            parents: self.switch(flags, "parents")?.unwrap_or(false),
            exclude: exclude.collect::<Result<_, _>>()?,
            checksum: self.text_flag(flags, "checksum")?,
            keep_git_dir: self.switch(flags, "keep-git-dir")?.unwrap_or(false),
            unpack: self.switch(flags, "unpack")?,
        })
    }

    fn onbuild(&self) -> Result<Kind, ParseError> {
        let name = name_of(self.rest).to_ascii_uppercase();
        if matches!(name.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
            return Err(self.error(format!("`{name}` cannot be put off")));
        }
        let mut text = self.rest.to_owned();
        for document in &self.line.heredocs {
            text = format!("{text}\n{}{}", document.content, document.name);
        }
        parse_trigger(&text, self.line.first)?;
        Ok(Kind::Onbuild(text))
    }
}

#[cfg(test)]
mod tests;
