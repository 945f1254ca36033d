//! The command line. By hand over a small lexer and not with the compose commands' parser: that one costs more than a
//! container's start.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::base::units::{Nanoseconds, parse_duration};
use crate::oci::error::OciError;

pub(super) const HELP: &str = "\
Usage: rcompose oci [OPTIONS] COMMAND

Runs OCI bundles, for podman, docker, containerd and by hand. A link to the program named `rcompose-oci` needs no `oci`.

Commands:
  create ID      Make a container from the bundle in --bundle
  start ID       Run the program of a created container
  run ID         create and start, wait for the end, delete
  state ID       Print the state as JSON
  kill ID [SIG]  Send a signal (TERM) to the container's first process
  delete ID      Remove what is left of a stopped container
  exec ID CMD... Run a further process in a container
  list           List containers
  ps ID          List the processes of a container
  pause ID       Stop all processes of a container for a while
  resume ID      Undo pause
  update ID      Change limits
  events ID      Print what a container uses, again and again, and that memory ran out
  spec           Write a config.json to start from
  features       Print what the runtime can do as JSON

Options:
  --root DIR           Where containers are recorded (/run/rcompose/oci)
  --log FILE           Write errors there as well
  --log-format FORMAT  text or json
  --systemd-cgroup     Have systemd make the control group
  --version, --help

create, run:     -b/--bundle DIR, -f/--config FILE (config.json), --pid-file FILE, --pidfd-socket SOCKET,
                 --console-socket SOCKET, --preserve-fds N, --no-new-keyring
run:            -d/--detach, --keep
kill:           -a/--all
delete:         -f/--force
exec:           -p/--process FILE, -d/--detach, -t/--tty, -u/--user UID[:GID], -g/--additional-gids GID, --cwd DIR,
                -e/--env NAME=VALUE, -c/--cap NAME, --no-new-privs, --pid-file FILE, --pidfd-socket SOCKET,
                --console-socket SOCKET, --preserve-fds N, --ignore-paused, --cgroup [CONTROLLER,...:]SUBGROUP
list, ps:       -f/--format table|json; list: -q/--quiet
update:         -r/--resources FILE (- for standard input), --memory, --memory-reservation, --memory-swap, --cpu-period,
                --cpu-quota, --cpu-burst, --cpu-idle, --cpu-share, --cpu-rt-period, --cpu-rt-runtime, --cpuset-cpus,
                --cpuset-mems, --pids-limit, --blkio-weight
events:         --stats (print once), --interval TIME (5s)
spec:           -b/--bundle DIR, --rootless
";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Options before the command.
#[derive(Debug, Default)]
pub(super) struct Global {
    pub(super) root: Option<PathBuf>,
    pub(super) log: Option<PathBuf>,
    pub(super) log_format: LogFormat,
    pub(super) systemd_cgroup: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    #[default]
    Table,
    Json,
}

/// What `create`, `run` and `exec` have in common: what the caller hands over and gets back.
#[derive(Debug, Default)]
pub(super) struct Io {
    pub(super) console_socket: Option<PathBuf>,
    pub(super) pid_file: Option<PathBuf>,
    /// Gets a descriptor of the process.
    pub(super) pidfd_socket: Option<PathBuf>,
    /// How many descriptors from 3 on the program gets.
    pub(super) preserve_fds: u32,
}

#[derive(Debug, Default)]
pub(super) struct CreateOptions {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    /// Another file than the bundle's `config.json`.
    pub(super) config: Option<PathBuf>,
    pub(super) io: Io,
    /// The caller's session keyring stays the container's.
    pub(super) no_new_keyring: bool,
    /// `run` only.
    pub(super) detach: bool,
    pub(super) keep: bool,
}

#[derive(Debug, Default)]
pub(super) struct ExecOptions {
    pub(super) id: String,
    pub(super) io: Io,
    pub(super) detach: bool,
    /// A `process` of the specification; the rest changes the container's own.
    pub(super) process: Option<PathBuf>,
    pub(super) command: Vec<String>,
    pub(super) tty: bool,
    pub(super) cwd: Option<PathBuf>,
    pub(super) environment: Vec<String>,
    pub(super) user: Option<String>,
    pub(super) additional_gids: Vec<u32>,
    pub(super) capabilities: Vec<String>,
    pub(super) no_new_privileges: bool,
    pub(super) ignore_paused: bool,
    pub(super) groups: Vec<SubGroup>,
}

/// A group below the container's own: for these v1 controllers, or for all when none is named.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SubGroup {
    pub(super) controllers: Vec<String>,
    pub(super) path: String,
}

/// Limits to change: a file with `linux.resources`, and single ones over it.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) file: Option<PathBuf>,
    /// Option without dashes, and value.
    pub(super) single: Vec<(String, String)>,
}

#[derive(Debug)]
pub(super) enum Command {
    Help,
    Version,
    Features,
    Spec { bundle: PathBuf, rootless: bool },
    Create(CreateOptions),
    Run(CreateOptions),
    Start { id: String },
    State { id: String },
    List { format: Format, quiet: bool },
    Ps { id: String, format: Format },
    Kill { id: String, signal: String, all: bool },
    Delete { id: String, force: bool },
    Pause { id: String },
    Resume { id: String },
    Update { id: String, changes: Changes },
    Events { id: String, interval: Duration, once: bool },
    Exec(ExecOptions),
}

impl From<lexopt::Error> for OciError {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

/// `global` is filled in also when the rest is wrong: it says where to tell.
pub(super) fn parse(arguments: Vec<OsString>, global: &mut Global) -> Result<Command, OciError> {
    let mut parser = Parser::from_args(arguments);
    let name = loop {
        match parser.next()? {
            None | Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Command::Help),
            Some(Arg::Short('v') | Arg::Long("version")) => return Ok(Command::Version),
            Some(Arg::Long("root")) => global.root = Some(path(&mut parser)?),
            Some(Arg::Long("log")) => global.log = Some(path(&mut parser)?),
            Some(Arg::Long("log-format")) => global.log_format = log_format(&mut parser)?,
            // What is logged are errors: there is nothing to say less or more of.
            Some(Arg::Long("debug")) => {}
            Some(Arg::Long("log-level" | "rootless")) => drop(parser.value()?),
            Some(Arg::Long("systemd-cgroup")) => global.systemd_cgroup = true,
            Some(Arg::Long("cgroup-manager")) => match text(&mut parser)?.as_str() {
                "cgroupfs" => global.systemd_cgroup = false,
                "systemd" => global.systemd_cgroup = true,
                other => return Err(OciError::Unsupported(format!("--cgroup-manager={other}"))),
            },
            Some(Arg::Value(name)) => break name,
            Some(other) => return Err(other.unexpected().into()),
        }
    };
    command(&name, &mut parser)
}

fn command(name: &OsStr, parser: &mut Parser) -> Result<Command, OciError> {
    Ok(match name.to_str().unwrap_or_default() {
        "create" => Command::Create(create(parser, false)?),
        "run" => Command::Run(create(parser, true)?),
        "start" => Command::Start { id: only_id(parser)? },
        "state" => Command::State { id: only_id(parser)? },
        "pause" => Command::Pause { id: only_id(parser)? },
        "resume" => Command::Resume { id: only_id(parser)? },
        "kill" => kill(parser)?,
        "delete" => delete(parser)?,
        "exec" => Command::Exec(exec(parser)?),
        "list" | "ps" => listing(name == "ps", parser)?,
        "update" => update(parser)?,
        "spec" => spec(parser)?,
        "features" => nothing_more(parser, Command::Features)?,
        "help" => Command::Help,
        "events" => events(parser)?,
        "checkpoint" | "restore" => return Err(OciError::Unsupported(name.display().to_string())),
        _ => return Err(OciError::Usage(format!("`{}` is not a command", name.display()))),
    })
}

fn create(parser: &mut Parser, run: bool) -> Result<CreateOptions, OciError> {
    let mut options = CreateOptions { bundle: ".".into(), ..CreateOptions::default() };
    let mut id = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('b') | Arg::Long("bundle") => options.bundle = path(parser)?,
            Arg::Short('f') | Arg::Long("config") => options.config = Some(path(parser)?),
            Arg::Long("console-socket") => options.io.console_socket = Some(path(parser)?),
            Arg::Long("pid-file") => options.io.pid_file = Some(path(parser)?),
            Arg::Long("pidfd-socket") => options.io.pidfd_socket = Some(path(parser)?),
            Arg::Long("preserve-fds") => options.io.preserve_fds = parser.value()?.parse()?,
            Arg::Long("no-new-keyring") => options.no_new_keyring = true,
            // Without pivot_root(2) the host's root stays reachable.
            Arg::Long("no-pivot") => return Err(OciError::Unsupported("--no-pivot".to_owned())),
            Arg::Short('d') | Arg::Long("detach") if run => options.detach = true,
            Arg::Long("keep") if run => options.keep = true,
            // We never become one.
            Arg::Long("no-subreaper") if run => {}
            Arg::Value(value) if id.is_none() => id = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    options.id = id.ok_or_else(missing_id)?;
    Ok(options)
}

fn exec(parser: &mut Parser) -> Result<ExecOptions, OciError> {
    let mut options = ExecOptions::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('p') | Arg::Long("process") => options.process = Some(path(parser)?),
            Arg::Short('d') | Arg::Long("detach") => options.detach = true,
            Arg::Short('t') | Arg::Long("tty") => options.tty = true,
            Arg::Long("cwd") => options.cwd = Some(path(parser)?),
            Arg::Short('e') | Arg::Long("env") => options.environment.push(text(parser)?),
            Arg::Short('u') | Arg::Long("user") => options.user = Some(text(parser)?),
            Arg::Short('g') | Arg::Long("additional-gids") => options.additional_gids.push(parser.value()?.parse()?),
            Arg::Short('c') | Arg::Long("cap") => options.capabilities.push(text(parser)?),
            Arg::Long("no-new-privs") => options.no_new_privileges = true,
            Arg::Long("ignore-paused") => options.ignore_paused = true,
            Arg::Long("cgroup") => options.groups.push(sub_group(&text(parser)?)),
            Arg::Long("pid-file") => options.io.pid_file = Some(path(parser)?),
            Arg::Long("pidfd-socket") => options.io.pidfd_socket = Some(path(parser)?),
            Arg::Long("console-socket") => options.io.console_socket = Some(path(parser)?),
            Arg::Long("preserve-fds") => options.io.preserve_fds = parser.value()?.parse()?,
            Arg::Value(value) => {
                options.id = value.string()?;
                // All that follows is the command's.
                options.command = parser.raw_args()?.map(|value| value.string()).collect::<Result<_, _>>()?;
                return Ok(options);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Err(missing_id())
}

/// As runc takes it: `cpu,cpuacct:PATH`, or only a path.
fn sub_group(text: &str) -> SubGroup {
    let (controllers, path) = text
        .split_once(':')
        .map_or((Vec::new(), text), |(names, path)| (names.split(',').map(str::to_owned).collect(), path));
    SubGroup { controllers, path: path.trim_matches('/').to_owned() }
}

fn kill(parser: &mut Parser) -> Result<Command, OciError> {
    let (mut id, mut signal, mut all) = (None, None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('a') | Arg::Long("all") => all = true,
            Arg::Value(value) if id.is_none() => id = Some(value.string()?),
            Arg::Value(value) if signal.is_none() => signal = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Kill { id: id.ok_or_else(missing_id)?, signal: signal.unwrap_or_else(|| "TERM".to_owned()), all })
}

fn events(parser: &mut Parser) -> Result<Command, OciError> {
    let (mut id, mut interval, mut once) = (None, Duration::from_secs(5), false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("stats") => once = true,
            Arg::Long("interval") => {
                let given = text(parser)?;
                interval = parse_duration(&given)
                    .map(Nanoseconds::to_duration)
                    .filter(|interval| !interval.is_zero())
                    .ok_or_else(|| OciError::Usage(format!("`{given}` is not an interval such as `5s`")))?;
            }
            Arg::Value(value) if id.is_none() => id = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Events { id: id.ok_or_else(missing_id)?, interval, once })
}

fn delete(parser: &mut Parser) -> Result<Command, OciError> {
    let (mut id, mut force) = (None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('f') | Arg::Long("force") => force = true,
            Arg::Value(value) if id.is_none() => id = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Delete { id: id.ok_or_else(missing_id)?, force })
}

fn listing(processes: bool, parser: &mut Parser) -> Result<Command, OciError> {
    let (mut id, mut format, mut quiet) = (None, Format::Table, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('f') | Arg::Long("format") => {
                format = match text(parser)?.as_str() {
                    "table" => Format::Table,
                    "json" => Format::Json,
                    other => return Err(OciError::Usage(format!("`{other}` is not a format: table or json"))),
                }
            }
            Arg::Short('q') | Arg::Long("quiet") if !processes => quiet = true,
            Arg::Value(value) if processes && id.is_none() => id = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    if processes {
        return Ok(Command::Ps { id: id.ok_or_else(missing_id)?, format });
    }
    Ok(Command::List { format, quiet })
}

fn update(parser: &mut Parser) -> Result<Command, OciError> {
    const SINGLE: [&str; 14] = [
        "memory",
        "memory-reservation",
        "memory-swap",
        "cpu-period",
        "cpu-quota",
        "cpu-burst",
        "cpu-idle",
        "cpu-share",
        "cpu-rt-period",
        "cpu-rt-runtime",
        "cpuset-cpus",
        "cpuset-mems",
        "pids-limit",
        "blkio-weight",
    ];
    let (mut id, mut changes) = (None, Changes::default());
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('r') | Arg::Long("resources") => changes.file = Some(path(parser)?),
            Arg::Long(name) if SINGLE.contains(&name) => {
                let name = name.to_owned();
                changes.single.push((name, text(parser)?));
            }
            Arg::Value(value) if id.is_none() => id = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Update { id: id.ok_or_else(missing_id)?, changes })
}

fn spec(parser: &mut Parser) -> Result<Command, OciError> {
    let (mut bundle, mut rootless) = (PathBuf::from("."), false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('b') | Arg::Long("bundle") => bundle = path(parser)?,
            Arg::Long("rootless") => rootless = true,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Spec { bundle, rootless })
}

fn only_id(parser: &mut Parser) -> Result<String, OciError> {
    let Some(Arg::Value(id)) = parser.next()? else { return Err(missing_id()) };
    nothing_more(parser, id.string()?)
}

fn nothing_more<T>(parser: &mut Parser, parsed: T) -> Result<T, OciError> {
    match parser.next()? {
        None => Ok(parsed),
        Some(other) => Err(other.unexpected().into()),
    }
}

fn log_format(parser: &mut Parser) -> Result<LogFormat, OciError> {
    match text(parser)?.as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(OciError::Usage(format!("`{other}` is not a log format: text or json"))),
    }
}

fn path(parser: &mut Parser) -> Result<PathBuf, OciError> {
    Ok(parser.value()?.into())
}

fn text(parser: &mut Parser) -> Result<String, OciError> {
    Ok(parser.value()?.string()?)
}

fn missing_id() -> OciError {
    OciError::Usage("the container's id is missing".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(Global, Command), OciError> {
        let mut global = Global::default();
        parse(line.split(' ').map(OsString::from).collect(), &mut global).map(|command| (global, command))
    }

    #[test]
    fn what_containerd_passes_is_understood() {
        let (global, command) = parsed(
            "--root /r --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /p --console-socket /c --preserve-fds 2 id1",
        )
        .unwrap();
        assert_eq!((global.log_format, global.systemd_cgroup), (LogFormat::Json, true));
        let Command::Create(options) = command else { panic!("{command:?}") };
        assert_eq!((options.id.as_str(), options.io.preserve_fds), ("id1", 2));
    }

    #[test]
    fn the_command_of_exec_keeps_its_options() {
        let (_, command) = parsed("exec -t --user 1:2 box ls -l --all").unwrap();
        let Command::Exec(options) = command else { panic!("{command:?}") };
        assert_eq!(options.command, ["ls", "-l", "--all"]);
    }

    #[test]
    fn groups_below_the_containers_own() {
        let (_, command) = parsed("exec --cgroup cpu,cpuacct:/a/b --cgroup c box true").unwrap();
        let Command::Exec(options) = command else { panic!("{command:?}") };
        let group = |controllers: &[&str], path: &str| SubGroup {
            controllers: controllers.iter().map(ToString::to_string).collect(),
            path: path.to_owned(),
        };
        assert_eq!(options.groups, [group(&["cpu", "cpuacct"], "a/b"), group(&[], "c")]);
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (line, words) in [
            ("create --no-pivot x", "--no-pivot"),
            ("checkpoint x", "checkpoint"),
            ("create", "id is missing"),
            ("start a b", "\"b\""),
            ("frobnicate", "frobnicate"),
        ] {
            let error = parsed(line).unwrap_err().to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
