//! The program as an OCI runtime: what podman, docker and containerd call to run a bundle.
//!
//! Each call is one short-lived, single-threaded process that forks the container itself; there is no keeper. What must be
//! known between calls is a directory per container below `--root` (see [`state`]). The engine does the rest: it lowers the
//! bundle's `config.json` to the same steps as a service's container.
//!
//! Sources: the OCI runtime specification 1.2 (`runtime.md`, `config.md`, `config-linux.md`), and for options that it leaves
//! open what runc(8) and crun(1) take.

mod arguments;
mod bundle;
mod console;
mod create;
mod delete;
mod error;
mod events;
mod exec;
mod features;
mod group;
mod kill;
mod launch;
mod list;
mod namespaces;
mod seal;
mod start;
mod state;
mod systemd;
mod template;
mod wait;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use crate::oci::arguments::{Command, Global, LogFormat};
use crate::oci::error::OciError;
use crate::ui::visible;

/// The subcommand that leads here, and the name of a link to the program that does, too.
pub const NAME: &str = "oci";
/// Name under which the program is an OCI runtime without a subcommand, for engines that take only a path.
pub const LINK_NAME: &str = "rcompose-oci";

/// The status of an `exec` that did not run its program.
const EXEC_FAILED: u8 = 255;

/// What the command printed, and the status to exit with.
type Outcome = Result<u8, OciError>;

/// Runs one command: `arguments` are those after the program's name (and after [`NAME`]).
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let mut global = Global::default();
    let command = match arguments::parse(arguments, &mut global) {
        Ok(command) => command,
        Err(error) => return failed(&global, &error, ExitCode::FAILURE),
    };
    // With 1 it would look like the program's own failure; runc has the same.
    let otherwise = if matches!(command, Command::Exec(_)) { ExitCode::from(EXEC_FAILED) } else { ExitCode::FAILURE };
    let held = match &command {
        Command::Create(options) | Command::Run(options) => Some(create::preserved(options)),
        Command::Exec(options) => Some(options.io.preserve_fds),
        _ => None,
    };
    // Before anything of ours is open, and until the end.
    let _places = match held.map_or(Ok(Vec::new()), launch::hold_places) {
        Ok(places) => places,
        Err(error) => return failed(&global, &error, otherwise),
    };
    if held.is_some()
        && let Err(error) = seal::seal()
    {
        let error = OciError::io("execute from a read-only mount", "/proc/self/exe")(error);
        return failed(&global, &error, otherwise);
    }
    match run(&global, command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => failed(&global, &error, otherwise),
    }
}

fn run(global: &Global, command: Command) -> Outcome {
    match command {
        Command::Help => print(arguments::HELP),
        Command::Version => print(&features::version()),
        Command::Features => print(&features::json()?),
        Command::Spec { bundle, rootless } => template::write(&bundle, rootless).map(|()| 0),
        Command::Create(options) => create::create(global, &options).map(|()| 0),
        Command::Run(options) => create::run(global, &options),
        Command::Start { id } => start::start(global, &id).map(|()| 0),
        Command::State { id } => print(&list::state(global, &id)?),
        Command::List { format, quiet } => print(&list::list(global, format, quiet)?),
        Command::Ps { id, format } => print(&list::processes(global, &id, format)?),
        Command::Kill { id, signal, all } => kill::kill(global, &id, &signal, all).map(|()| 0),
        Command::Delete { id, force } => delete::delete(global, &id, force).map(|()| 0),
        Command::Pause { id } => group::pause(global, &id).map(|()| 0),
        Command::Resume { id } => group::resume(global, &id).map(|()| 0),
        Command::Update { id, changes } => group::update(global, &id, &changes).map(|()| 0),
        Command::Events { id, interval, once } => events::events(global, &id, interval, once).map(|()| 0),
        Command::Exec(options) => exec::exec(global, &options),
    }
}

fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(OciError::io("write to", "standard output"))?;
    Ok(0)
}

/// Says what went wrong on standard error, and in the log that the caller reads.
fn failed(global: &Global, error: &OciError, code: ExitCode) -> ExitCode {
    log(global, "error", &error.with_causes());
    code
}

fn log(global: &Global, level: &str, text: &str) {
    // Where standard error is closed there is still the log.
    let _ = writeln!(std::io::stderr(), "rcompose oci: {}", visible(text));
    if let Some(path) = &global.log {
        let time = jiff::Timestamp::now();
        let line = match global.log_format {
            LogFormat::Json => serde_json::json!({ "level": level, "msg": text, "time": time.to_string() }).to_string(),
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={text:?}"),
        };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        // The caller has the text on standard error as well.
        let _ = file.and_then(|mut file| writeln!(file, "{line}"));
    }
}
