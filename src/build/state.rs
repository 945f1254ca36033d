//! The state of a stage between two instructions, and what instructions about the configuration make of it. Pure.

use indexmap::IndexMap;

use super::args;
use super::cache::{Key, Step};
use super::parse::{Command, Health, Kind};
use crate::image::{Healthcheck, History, ImageConfig, ImageDocument, MadeLayer};

const COMMENT: &str = "buildkit.dockerfile.v0";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Build arguments that are there without being declared, in capitals and not, and leave no trace unless they are declared.
pub(super) const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

#[derive(Clone, Debug)]
pub(super) struct State {
    /// Lowest first.
    pub layers: Vec<MadeLayer>,
    pub key: Key,
    pub document: ImageDocument,
    /// Declared with `ARG`, in order; `None`: without a value.
    pub args: IndexMap<String, Option<String>>,
    /// Environment of `RUN` and of variables: the image's, and arguments, the last one said counts.
    pub env: IndexMap<String, String>,
    /// `CMD` was in this stage: an entry point does not take it away.
    command_set: bool,
}

impl State {
    pub(super) fn scratch(platform: &str) -> Self {
        let (os, architecture) = platform.split_once('/').unwrap_or(("linux", platform));
        let document = ImageDocument {
            created: None,
            author: None,
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            variant: None,
            config: ImageConfig::default(),
            rootfs: Default::default(),
            history: Vec::new(),
            build_cache: Vec::new(),
        };
        let mut state = Self::new(Vec::new(), Key::of(&[b"scratch"]), document);
        state.config().working_dir = "/".to_owned();
        state
    }

    pub(super) fn new(layers: Vec<MadeLayer>, key: Key, document: ImageDocument) -> Self {
        let env = document.config.env.iter().map(|line| {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            (name.to_owned(), value.to_owned())
        });
        let env = env.collect();
        let mut state = Self { layers, key, document, args: IndexMap::new(), env, command_set: false };
        if !state.env.contains_key("PATH") {
            state.set_env("PATH", DEFAULT_PATH.to_owned());
        }
        state
    }

    /// What the next stage begins with that is built on this one: arguments and all.
    pub(super) fn next_stage(&self) -> Self {
        Self { command_set: false, ..self.clone() }
    }

    pub(super) fn config(&mut self) -> &mut ImageConfig {
        &mut self.document.config
    }

    /// Directories for overlayfs, topmost first. A layer counts where it was put last.
    pub(super) fn paths(&self) -> Vec<std::path::PathBuf> {
        let mut paths: Vec<std::path::PathBuf> = Vec::new();
        for layer in self.layers.iter().rev() {
            if !paths.contains(&layer.path) {
                paths.push(layer.path.clone());
            }
        }
        paths
    }

    /// Notes an instruction that made no layer.
    pub(super) fn note(&mut self, created_by: String) {
        let created = self.document.created.clone();
        let comment = Some(COMMENT.to_owned());
        self.document.history.push(History { created, created_by: Some(created_by), comment, empty_layer: true });
    }

    /// Puts a layer on top.
    pub(super) fn push(&mut self, step: Step, key: Key, created_by: String) {
        self.key = key.after(&step);
        let Step { layer, created, .. } = step;
        self.layers.push(layer);
        self.document.created = Some(created.clone());
        let comment = Some(COMMENT.to_owned());
        let entry = History { created: Some(created), created_by: Some(created_by), comment, empty_layer: false };
        self.document.history.push(entry);
    }

    pub(super) fn set_env(&mut self, name: &str, value: String) {
        let line = format!("{name}={value}");
        let lines = &mut self.document.config.env;
        match lines.iter_mut().find(|there| there.split('=').next() == Some(name)) {
            Some(there) => *there = line,
            None => lines.push(line),
        }
        self.env.insert(name.to_owned(), value);
    }

    /// Words that run `text` in the shell.
    pub(super) fn in_shell(&self, text: &str) -> Vec<String> {
        let shell = self.document.config.shell.clone();
        let mut words = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        words.push(text.to_owned());
        words
    }

    fn words(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Shell(text) => self.in_shell(text),
            Command::Exec(words) => words.clone(),
        }
    }

    /// Where relative paths begin.
    pub(super) fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            return path.to_owned();
        }
        let working = self.document.config.working_dir.trim_end_matches('/');
        format!("{}/{path}", if working.is_empty() { "" } else { working })
    }

    /// Declares an argument.
    pub(super) fn declare(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = &value {
            self.env.insert(name.to_owned(), value.clone());
        }
        self.args.insert(name.to_owned(), value);
    }

    /// Does an instruction that changes the configuration only; `false` for any other.
    ///
    /// # Errors
    /// What is wrong with its arguments.
    pub(super) fn configure(&mut self, kind: &Kind, escape: char) -> Result<bool, String> {
        let scope = self.env.clone();
        let expand = |text: &str| args::word(text, escape, &scope);
        match kind {
            Kind::Env(pairs) => {
                let mut said = Vec::new();
                for (name, value) in pairs {
                    let (name, value) = (expand(name)?, expand(value)?);
                    said.push(format!("{name}={value}"));
                    self.set_env(&name, value);
                }
                self.note(format!("ENV {}", said.join(" ")));
            }
            Kind::Label(pairs) => {
                let mut said = Vec::new();
                for (name, value) in pairs {
                    let (name, value) = (expand(name)?, expand(value)?);
                    said.push(format!("{name}={value}"));
                    self.config().labels.insert(name, value);
                }
                self.note(format!("LABEL {}", said.join(" ")));
            }
            Kind::Cmd(command) => {
                let words = self.words(command);
                self.note(format!("CMD {}", quoted(&words)));
                self.config().cmd = Some(words);
                self.config().args_escaped = true;
                self.command_set = true;
            }
            Kind::Entrypoint(command) => {
                let words = self.words(command);
                self.note(format!("ENTRYPOINT {}", quoted(&words)));
                self.config().entrypoint = Some(words);
                // The command of the base image was for its own entry point.
                if !self.command_set {
                    self.config().cmd = None;
                }
            }
            Kind::Shell(words) => {
                self.note(format!("SHELL [{}]", words.join(" ")));
                self.config().shell = Some(words.clone());
            }
            Kind::User(user) => {
                let user = expand(user)?;
                self.note(format!("USER {user}"));
                self.config().user = user;
            }
            Kind::Stopsignal(signal) => {
                let signal = expand(signal)?;
                if crate::sys::signals::number(&signal).is_none() {
                    return Err(format!("STOPSIGNAL: `{signal}` is not a signal"));
                }
                self.note(format!("STOPSIGNAL {signal}"));
                self.config().stop_signal = Some(signal);
            }
            Kind::Expose(words) => self.expose(words, escape, &scope)?,
            Kind::Volume(words) => {
                let mut volumes = Vec::new();
                for word in words {
                    let volume = expand(word)?;
                    if volume.trim().is_empty() {
                        return Err(format!("VOLUME: `{word}` is empty here"));
                    }
                    volumes.push(volume);
                }
                self.note(format!("VOLUME [{}]", volumes.join(" ")));
                self.config().volumes.extend(volumes);
            }
            Kind::Healthcheck(health) => self.health(health),
            Kind::Onbuild(text) => self.config().on_build.push(text.clone()),
            Kind::Maintainer(author) => {
                self.note(format!("MAINTAINER {author}"));
                self.document.author = Some(author.clone());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn expose(&mut self, words: &[String], escape: char, scope: &IndexMap<String, String>) -> Result<(), String> {
        let mut ports = Vec::new();
        for word in words {
            for word in args::words(word, escape, scope)? {
                ports.extend(super::ports::ports(&word)?);
            }
        }
        ports.sort();
        self.note(format!("EXPOSE [{}]", ports.join(" ")));
        self.config().exposed_ports.extend(ports);
        Ok(())
    }

    fn health(&mut self, health: &Health) {
        let test = match &health.command {
            None => vec!["NONE".to_owned()],
            Some(Command::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
            Some(Command::Exec(words)) => [vec!["CMD".to_owned()], words.clone()].concat(),
        };
        let time = |nanoseconds: i64| go_duration(nanoseconds);
        self.note(format!(
            "HEALTHCHECK &{{{} \"{}\" \"{}\" \"{}\" \"{}\" '\\x{:02x}'}}",
            quoted(&test),
            time(health.interval),
            time(health.timeout),
            time(health.start_period),
            time(health.start_interval),
            health.retries
        ));
        self.config().healthcheck = Some(Healthcheck {
            test,
            interval: health.interval,
            timeout: health.timeout,
            start_period: health.start_period,
            start_interval: health.start_interval,
            retries: health.retries,
        });
    }

    /// Environment of `RUN`, `NAME=VALUE`.
    pub(super) fn run_env(&self) -> Vec<String> {
        self.env.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// How the history names the arguments that a `RUN` could see: `|1 V=1 `.
    pub(super) fn args_prefix(&self) -> String {
        let said: Vec<String> =
            self.args.keys().filter_map(|name| self.env.get(name).map(|value| format!("{name}={value}"))).collect();
        if said.is_empty() { String::new() } else { format!("|{} {} ", said.len(), said.join(" ")) }
    }
}

/// `["a" "b"]`, as Go's `%q` prints a list.
fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

/// A duration as Go prints it: `1m30s`, `500ms`.
fn go_duration(nanoseconds: i64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let rest = nanoseconds % 1_000_000_000;
    let fraction = |value: i64, digits: usize| {
        let text = format!("{value:0digits$}");
        let text = text.trim_end_matches('0');
        if text.is_empty() { String::new() } else { format!(".{text}") }
    };
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    if seconds == 0 {
        let (unit, per, digits) = if rest >= 1_000_000 { ("ms", 1_000_000, 6) } else { ("µs", 1_000, 3) };
        return format!("{}{}{unit}", rest / per, fraction(rest % per, digits));
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let seconds = format!("{}{}s", seconds % 60, fraction(rest, 9));
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        let cases = [
            (0, "0s"),
            (5_000_000_000, "5s"),
            (90_500_000_000, "1m30.5s"),
            (1_500_000, "1.5ms"),
            (3_600_000_000_000, "1h0m0s"),
        ];
        for (nanoseconds, expected) in cases {
            assert_eq!(go_duration(nanoseconds), expected);
        }
    }
}
