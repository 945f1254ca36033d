//! What verbs tell while they work, on the screen.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::app::AppError;
use crate::app::change::News;
use crate::app::logs::Ended;
use crate::app::options::LogOutput;
use crate::base::diagnostic::{Diagnostic, Severity};
use crate::base::reason::without_number;
use crate::cli::failure::{Failure, GENERAL};
use crate::control::{Failed, Reply};
use crate::logs::Stream;
use crate::ui::Ansi;
use crate::ui::diagnostics;
use crate::ui::log_lines::LogStyle;
use crate::ui::progress::{Progress, ProgressEvent, ProgressMode, ProgressState};
use crate::ui::terminal;
use crate::ui::{visible, visible_name};

/// How often a live display moves.
const FRAME: Duration = Duration::from_millis(100);

/// Does `work`, showing its progress on standard error. On a terminal the display moves while nothing happens.
pub fn with_progress<T: Send>(mode: ProgressMode, title: &'static str, work: impl FnOnce(News<'_>) -> T + Send) -> T {
    if !matches!(mode, ProgressMode::Terminal { .. }) {
        let mut progress = Progress::new(mode, title, (0, 0), io::stderr());
        return work(&mut |reply| note(&mut progress, reply));
    }
    let mut progress = Progress::new(mode, title, screen(), io::stderr());
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let working = scope.spawn(move || {
            work(&mut |reply| {
                // The display below ends with this thread.
                let _ = tell.send(reply);
            })
        });
        loop {
            match told.recv_timeout(FRAME) {
                Ok(reply) => note(&mut progress, reply),
                // What cannot be shown is no reason to stop working.
                Err(RecvTimeoutError::Timeout) => drop(progress.tick(Instant::now())),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        match working.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Shows one piece of news.
pub fn note<W: Write>(progress: &mut Progress<W>, reply: Reply) {
    match reply {
        Reply::Progress { id, status, text } => {
            let state = state_of(&status);
            // A terminal that is gone shows nothing, and the work goes on.
            let _ = progress.event(ProgressEvent { id, status, text, state }, Instant::now());
        }
        Reply::Warning(text) => warn(&text),
        _ => {}
    }
}

fn state_of(status: &str) -> ProgressState {
    match status {
        "Error" => ProgressState::Error,
        "Warning" | "Canceled" => ProgressState::Warning,
        word if word.ends_with("ing") && word != "Running" => ProgressState::Working,
        "Recreate" | "Pulling fs layer" => ProgressState::Working,
        _ => ProgressState::Done,
    }
}

/// Says something on standard error.
#[expect(clippy::print_stderr, reason = "one of the places where people are told things")]
pub fn warn(text: &str) {
    eprintln!("warning: {}", visible(text));
}

/// Shows what the loader noticed.
#[expect(clippy::print_stderr, reason = "one of the places where people are told things")]
pub fn diagnostics(found: &[Diagnostic], ansi: Ansi) {
    let colour = ansi.enabled(io::stderr().is_terminal());
    eprint!("{}", diagnostics::render(found, colour));
}

/// An error of a verb as the failure of the command.
pub fn failure(error: AppError, ansi: Ansi) -> Failure {
    match error {
        AppError::Input(found) | AppError::Images(found) => {
            diagnostics(&found, ansi);
            debug_assert!(found.iter().any(|one| one.severity == Severity::Error), "a refusal without a reason");
            Failure::reported(GENERAL)
        }
        AppError::Failed(failures) => {
            let mut failures = failures.into_iter();
            let Some(first) = failures.next_back() else { return Failure::new("the change could not be made") };
            for mut other in failures {
                // Said once, at the end.
                other.help.take_if(|help| first.help.as_ref() == Some(help));
                failed(&other).report(ansi);
            }
            failed(&first)
        }
        AppError::Nothing(what) => Failure::nothing(what),
        AppError::Build { error: ref built, .. } => {
            let failure = Failure::new(error.to_string());
            match &built.help {
                Some(help) => failure.help(help.clone()),
                None => failure,
            }
        }
        AppError::Program { failed: one, status } => failed(&one).code(status),
        AppError::Registry(error) => {
            let failure = Failure::from_error(&error);
            match error.help() {
                Some(help) => failure.help(help),
                None => failure,
            }
        }
        AppError::Session(error) => {
            let failure = Failure::from_error(&error);
            match error.help() {
                Some(help) => failure.help(help),
                None => failure,
            }
        }
        other => Failure::from_error(&other),
    }
}

fn failed(one: &Failed) -> Failure {
    let failure = Failure::new(one.message.clone());
    match &one.help {
        Some(help) => failure.help(help.clone()),
        None => failure,
    }
}

/// Columns and rows of the terminal.
pub fn screen() -> (usize, usize) {
    let size = terminal::size(std::os::fd::AsFd::as_fd(&io::stderr()));
    size.map_or((80, 24), |(rows, columns)| (usize::from(columns), usize::from(rows)))
}

/// Prints lines on standard output.
///
/// # Errors
/// When that is closed.
pub fn lines(lines: impl IntoIterator<Item = String>) -> Result<ExitCode, Failure> {
    text(&lines.into_iter().map(|line| line + "\n").collect::<String>())
}

/// Standard output takes no more.
pub fn unwritten(error: &io::Error) -> Failure {
    Failure::new(format!("cannot write to standard output: {}", without_number(&error.to_string())))
}

/// Prints text on standard output: a person sees what does something to a terminal written out, a program gets it as it is. That
/// nobody reads it to its end is no failure.
///
/// # Errors
/// When that is closed.
pub fn text(text: &str) -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    let text = if out.is_terminal() { visible(text) } else { text.into() };
    match out.write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritten(&error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Prints a line on standard output, as [`text`]; false when nobody reads it any more.
pub fn line(line: &str) -> bool {
    let mut out = io::stdout().lock();
    let line = if out.is_terminal() { visible_name(line) } else { line.into() };
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

/// The line that ends a container's output.
pub fn end(ended: &Ended) -> String {
    let restarting = if ended.restarting { " (restarting)" } else { "" };
    let name = visible_name(&ended.name);
    match ended.code {
        Some(code) => format!("{name} exited with code {code}{restarting}"),
        None => format!("{name} was removed"),
    }
}

/// Says something on standard error that is no warning.
#[expect(clippy::print_stderr, reason = "one of the places where people are told things")]
pub fn say(text: &str) {
    eprintln!("{}", visible(text));
}

/// Asks a question; anything but yes is no, and so is no answer.
///
/// # Errors
/// When standard input cannot be read.
pub fn confirmed(question: &str) -> Result<bool, Failure> {
    Ok(matches!(answer(question)?.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Asks a question that an empty line answers with yes; no answer at all is no.
///
/// # Errors
/// When standard input cannot be read.
pub fn agreed(question: &str) -> Result<bool, Failure> {
    Ok(matches!(answer(question)?.to_lowercase().as_str(), "\n" | "y\n" | "yes\n" | "y" | "yes"))
}

#[expect(clippy::print_stderr, reason = "one of the places where people are told things")]
fn answer(question: &str) -> Result<String, Failure> {
    eprint!("{}", visible(question));
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.map_err(|error| Failure::new(format!("cannot read standard input: {error}")))?;
    Ok(answer)
}

/// How log lines look on standard output.
pub fn log_style(output: LogOutput, ansi: Ansi) -> LogStyle {
    let colour = ansi.enabled(io::stdout().is_terminal()) && !output.no_color;
    LogStyle { colour, prefix: !output.no_prefix, timestamps: output.timestamps }
}

/// Where we print what a container has printed.
pub fn stream(of: Stream) -> Box<dyn Write> {
    match of {
        Stream::Stdout => Box::new(io::stdout().lock()),
        Stream::Stderr => Box::new(io::stderr().lock()),
    }
}

/// Nanoseconds since the epoch.
pub fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// What the provider of a service tells.
#[expect(clippy::print_stderr, reason = "progress belongs there")]
pub fn provider(reply: Reply) {
    if let Reply::Progress { id, status, .. } = reply {
        eprintln!(" {}  {}", visible_name(&id), visible_name(&status));
    }
}
