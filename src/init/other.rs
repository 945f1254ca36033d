//! The last step of a container that another OCI runtime makes: `create` and `start`, and which process came of it.
//!
//! This process then ends. The container's is nobody's child any more, and the kernel gives it to the keeper, which has asked
//! for such (`PR_SET_CHILD_SUBREAPER`): from there on it is like one that the keeper has forked.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use rustix::fs::Mode;
use rustix::termios::{Winsize, tcsetwinsize};

use super::fault::{At, Fault, fault};
use super::run::{ABOUT_TO_EXECUTE, MOVED, Streams};
use crate::sys::message::{self, Wait};
use crate::sys::process;

/// Names below the bundle.
const STATE: &str = "state";
const LOG: &str = "log";
const PID: &str = "pid";
const CONSOLE: &str = "console";
/// How much of what a runtime logs is looked at.
const MAX_LOG: u64 = 8192;

/// The runtime's command line up to its own command: where it keeps its state, and where it complains.
pub fn other_runtime(program: &Path, arguments: &[String], bundle: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).arg("--root").arg(bundle.join(STATE));
    command.arg("--log").arg(bundle.join(LOG)).args(["--log-format", "json"]);
    command
}

/// What the step names.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) program: &'a Path,
    pub(super) arguments: &'a [String],
    pub(super) bundle: &'a Path,
    pub(super) id: &'a str,
}

/// Ends this process, or says why there is no container.
pub(super) fn run(wanted: Wanted<'_>, streams: Streams<'_>, status: BorrowedFd<'_>) -> Result<(), Fault> {
    process::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // What is named below it are short names: that of a socket has 107 bytes.
    std::env::set_current_dir(wanted.bundle).at("the bundle")?;
    let mut create = vec!["create", "--bundle", ".", "--pid-file", PID];
    let console = match streams {
        Streams::Terminal { .. } => {
            create.extend(["--console-socket", CONSOLE]);
            Some(UnixListener::bind(CONSOLE).at("the socket for the terminal")?)
        }
        Streams::Pipes { .. } => None,
    };
    call(wanted, &create)?;
    let made = report(status).and_then(|()| console.map_or(Ok(()), |console| terminal(&console, streams)));
    if let Err(error) = made.and_then(|()| call(wanted, &["start"])) {
        // The first error is the one to tell.
        let _ = call(wanted, &["delete", "--force"]);
        return Err(error);
    }
    rustix::io::write(status, &[ABOUT_TO_EXECUTE]).at("reporting")?;
    process::exit_now(0)
}

fn call(Wanted { program, arguments, bundle, id }: Wanted<'_>, command: &[&str]) -> Result<(), Fault> {
    let name = program.file_name().unwrap_or_default().display();
    let verb = command.first().copied().unwrap_or_default();
    let ended = other_runtime(program, arguments, bundle).args(command).arg(id).status();
    let ended = ended.at(format!("cannot execute the runtime `{}`", program.display()))?;
    if ended.success() {
        return Ok(());
    }
    let why = complaint(Path::new(LOG)).unwrap_or_else(|| format!("it ended with {ended}; its output is in the log"));
    fault(libc::ECANCELED, format!("`{name} {verb}` failed: {why}"))
}

/// The last error in the runtime's log.
fn complaint(log: &Path) -> Option<String> {
    let mut file = fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_LOG))).ok()?;
    let mut text = Vec::new();
    file.take(MAX_LOG).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut errors = text.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let bad = matches!(line.get("level")?.as_str()?, "error" | "fatal");
        bad.then(|| line.get("msg").and_then(|text| text.as_str()).map(str::to_owned))?
    });
    errors.next_back()
}

/// Tells which process the container has.
fn report(status: BorrowedFd<'_>) -> Result<(), Fault> {
    let pid = fs::read_to_string(PID).and_then(|text| text.trim().parse::<i32>().map_err(io::Error::other));
    let pid = pid.at("the runtime's pid file")?.to_ne_bytes();
    let mut message = vec![MOVED];
    message.extend(pid);
    rustix::io::write(status, &message).map(drop).at("reporting")
}

/// The master of the container's terminal goes on to the keeper.
fn terminal(console: &UnixListener, streams: Streams<'_>) -> Result<(), Fault> {
    let Streams::Terminal { socket, rows, columns, .. } = streams else { return Ok(()) };
    let what = "the terminal from the runtime";
    // It has been sent before `create` ended.
    console.set_nonblocking(true).at(what)?;
    let (connection, _) = console.accept().at(what)?;
    let received = message::receive(&connection, Wait::No).at(what)?;
    let Some((_, masters)) = received else { return fault(libc::ENOTTY, what) };
    let [master] = masters.as_slice() else { return fault(libc::ENOTTY, what) };
    tcsetwinsize(master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).at("window size")?;
    message::send(socket, b"m", &[master.as_fd()], Wait::Yes).at("handing over the terminal")
}
