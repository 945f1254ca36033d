//! `up` in the foreground: progress first, then everybody's output until all have ended or somebody interrupts.

use std::cell::Cell;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use crate::app::AppError;
use crate::app::change::Up;
use crate::app::logs::{Ended, Reached, Selection};
use crate::app::options::UpOptions;
use crate::base::reason::without_number;
use crate::cli::context::Context;
use crate::cli::failure::{Failure, INTERRUPTED};
use crate::cli::foreground::UNKNOWN;
use crate::cli::show;
use crate::cli::watch;
use crate::control::Reply;
use crate::ui::log_lines::LogPrinter;
use crate::ui::progress::Progress;
use crate::ui::terminal::RawMode;

/// How often a live display moves.
const FRAME: Duration = Duration::from_millis(100);

enum Event {
    News(Reply),
    Made(Result<(), AppError>),
    /// A container has ended, and its last line is out.
    Ended(Ended),
    /// The following has ended.
    Over(Result<(), Failure>),
    Interrupted,
    /// A key of the menu.
    Key(u8),
    /// The project has been stopped, or killed.
    Stopped {
        killed: bool,
        result: Result<(), AppError>,
    },
}

/// What is attached to, and how; shared by the threads.
struct Attachment {
    context: Context,
    up: Up,
    options: UpOptions,
    selection: Selection,
    /// What was there before.
    reached: Reached,
    /// The change has been made, and nobody stops the project since.
    steady: AtomicBool,
}

/// Runs an attached `up` to its end. The threads end with the program, which has nothing else to do.
///
/// # Errors
/// Whatever keeps the project from being started.
pub fn run(up: Up, options: UpOptions, context: Context) -> Result<ExitCode, Failure> {
    let signals = block_signals()?;
    let selection = selection(&up, &options);
    let reached = context.app.reached(&up.project.name, &selection).map_err(unreadable)?;
    let mode = context.progress;
    let keys = options.menu.then(|| RawMode::keys(io::stdin().as_fd())).flatten();
    let watching = options.watch;
    let attachment = Arc::new(Attachment { context, up, options, selection, reached, steady: AtomicBool::new(false) });
    let (stopped, stop) = io::pipe().map_err(|error| Failure::new(format!("no descriptor is left: {error}")))?;
    let (tell, told) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    // Nobody hears what is sent once the main thread is done; that is as it should be.
    let interrupts = tell.clone();
    let by_keys = keys.is_some();
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            match signal {
                // Back in the foreground, after the shell had the terminal.
                Signal::SIGCONT if by_keys => std::mem::forget(RawMode::keys(io::stdin().as_fd())),
                Signal::SIGCONT => {}
                _ if interrupts.send(Event::Interrupted).is_err() => return,
                _ => {}
            }
        }
    });
    if keys.is_some() {
        let pressed = tell.clone();
        std::thread::spawn(move || {
            let mut key = [0];
            while io::stdin().read_exact(&mut key).is_ok() && pressed.send(Event::Key(key[0])).is_ok() {}
        });
    }
    let (making, news) = (Arc::clone(&attachment), tell.clone());
    std::thread::spawn(move || {
        let made = making.context.app.up(&making.up, &mut |reply| drop(news.send(Event::News(reply))));
        drop(news.send(Event::Made(made)));
    });
    let (following, lines) = (Arc::clone(&attachment), tell.clone());
    std::thread::spawn(move || {
        if gone.recv().is_ok() {
            let followed = follow(&following, &stopped, &lines);
            drop(lines.send(Event::Over(followed)));
        }
    });
    let progress = Progress::new(mode, "Running", show::screen(), io::stderr());
    let screen = Screen {
        attachment,
        progress,
        tell,
        go: Some(go),
        stop: Some(stop),
        made: false,
        over: false,
        unsettled: false,
        interrupts: 0,
        failure: None,
        code: None,
        watching,
        keys: keys.is_some(),
    };
    screen.watch(&told)
}

/// The thread that decides.
struct Screen {
    attachment: Arc<Attachment>,
    progress: Progress<io::Stderr>,
    tell: Sender<Event>,
    /// Taken to begin following.
    go: Option<Sender<()>>,
    /// Dropped to end following.
    stop: Option<PipeWriter>,
    made: bool,
    /// The following has ended.
    over: bool,
    /// All have ended while a change is under way: to be looked at again.
    unsettled: bool,
    interrupts: u32,
    /// Why the change was not made; told after the output.
    failure: Option<Failure>,
    /// The status to end with, when it is not the ordinary one.
    code: Option<u8>,
    /// `--watch`, and not begun yet.
    watching: bool,
    keys: bool,
}

impl Screen {
    fn watch(mut self, told: &Receiver<Event>) -> Result<ExitCode, Failure> {
        loop {
            match told.recv_timeout(FRAME) {
                Ok(Event::News(reply)) => self.news(reply),
                Ok(Event::Made(Ok(()))) => {
                    self.made = true;
                    self.attachment.steady.store(self.interrupts == 0, Ordering::Relaxed);
                    self.attach();
                    if self.keys {
                        show::say("Keys: d detach, w watch");
                    }
                    if std::mem::take(&mut self.watching) {
                        self.begin_watching();
                    }
                    self.finish_when_over()?;
                }
                Ok(Event::Made(Err(error))) => {
                    if self.interrupts == 0 {
                        let failure = self.attachment.context.failure(error);
                        if self.go.is_some() {
                            return Err(failure);
                        }
                        // First what the containers have said by now, which may be why.
                        self.failure = Some(failure);
                        self.stop = None;
                    }
                }
                Ok(Event::Ended(ended)) => {
                    self.ended(&ended);
                    self.finish_when_over()?;
                }
                Ok(Event::Over(followed)) => {
                    followed?;
                    self.over = true;
                    if self.interrupts > 0 && self.stop.is_some() {
                        // Whoever stops the project says when that is done.
                        continue;
                    }
                    return match self.failure {
                        Some(failure) => Err(failure),
                        None => Ok(ExitCode::from(self.code.unwrap_or(0))),
                    };
                }
                Ok(Event::Interrupted) => self.interrupted(),
                // The change goes on without us, too.
                Ok(Event::Key(b'd')) => return Ok(ExitCode::SUCCESS),
                Ok(Event::Key(b'w')) if self.made => self.begin_watching(),
                Ok(Event::Key(_)) => {}
                // A stop gives way to the kill that was asked for after it.
                Ok(Event::Stopped { killed: false, .. }) if self.interrupts > 1 => {}
                Ok(Event::Stopped { result: Err(error), .. }) => return Err(self.attachment.context.failure(error)),
                Ok(Event::Stopped { result: Ok(()), .. }) => {
                    if self.go.is_some() || self.over {
                        return Ok(ExitCode::from(self.code.unwrap_or(0)));
                    }
                    self.stop = None;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.go.is_some() {
                        // A terminal that is gone is no reason to stop.
                        let _ = self.progress.tick(Instant::now());
                    }
                    if self.unsettled {
                        self.finish_when_over()?;
                    }
                }
                Err(_) => {}
            }
        }
    }

    fn news(&mut self, reply: Reply) {
        let word = if let Reply::Progress { status, .. } = &reply { status.as_str() } else { "" };
        let (starts, runs) = (matches!(word, "Starting" | "Started"), matches!(word, "Started" | "Running"));
        // That a container has started is seen by its output, between which such lines would stand.
        if !starts {
            show::note(&mut self.progress, reply);
        }
        if runs {
            self.attach();
        }
    }

    /// Begins to show output, when anything is to be shown.
    fn attach(&mut self) {
        let Some(go) = self.go.take() else { return };
        // A display that is redrawn and lines that scroll do not go together; one that is gone needs no end.
        let _ = self.progress.scroll(Instant::now());
        let names = self.attachment.names();
        if !names.is_empty() {
            show::line(&format!("Attaching to {}", names.join(", ")));
        }
        let _ = go.send(());
    }

    fn ended(&mut self, ended: &Ended) {
        let options = &self.attachment.options;
        let code = ended.code.unwrap_or(UNKNOWN);
        let wanted = options.exit_code_from.as_ref();
        if wanted == Some(&ended.service) && self.code.is_none() {
            self.code = Some(u8::try_from(code).unwrap_or(1));
        }
        let aborts = options.abort_on_exit || (options.abort_on_failure && code != 0);
        if aborts && self.interrupts == 0 {
            if wanted.is_none() {
                self.code.get_or_insert(u8::try_from(code).unwrap_or(1));
            }
            show::say("Aborting on container exit...");
            self.interrupts = 1;
            self.end_project(false);
        }
    }

    /// Ends the following once nothing runs any more.
    fn finish_when_over(&mut self) -> Result<(), Failure> {
        let Attachment { context, up, selection, .. } = &*self.attachment;
        let (app, project) = (&context.app, &up.project.name);
        let looked = app.is_over(project, selection).and_then(|over| Ok((over, over && app.is_changing(project)?)));
        let (over, changing) = looked.map_err(unreadable)?;
        // What somebody makes anew, `watch` for one, has ended and is about to run again.
        self.unsettled = changing;
        // While somebody stops the project, that says when it is over.
        if self.made && over && !changing && self.interrupts == 0 {
            self.stop = None;
        }
        Ok(())
    }

    /// The first interrupt stops, the second kills.
    fn interrupted(&mut self) {
        self.interrupts += 1;
        self.code = Some(INTERRUPTED);
        match self.interrupts {
            1 => {
                show::say("Gracefully Stopping... press Ctrl+C again to force");
                if self.go.is_some() {
                    let mode = self.attachment.context.progress;
                    self.progress = Progress::new(mode, "Stopping", show::screen(), io::stderr());
                }
                self.end_project(false);
            }
            2 => self.end_project(true),
            _ => {}
        }
    }

    /// For as long as we are here. A second time it says itself that it is being done already.
    fn begin_watching(&self) {
        let attachment = Arc::clone(&self.attachment);
        std::thread::spawn(move || {
            let Attachment { context, options, .. } = &*attachment;
            if let Err(failure) = watch::watch(context, &options.services, false) {
                failure.report(context.ansi);
            }
        });
    }

    fn end_project(&self, kill: bool) {
        self.attachment.steady.store(false, Ordering::Relaxed);
        let (attachment, tell) = (Arc::clone(&self.attachment), self.tell.clone());
        std::thread::spawn(move || {
            let (app, project) = (&attachment.context.app, &attachment.up.project.name);
            let news = &mut |reply| drop(tell.send(Event::News(reply)));
            let result = if kill { app.kill_project(project, news) } else { app.stop_project(project, news) };
            drop(tell.send(Event::Stopped { killed: kill, result }));
        });
    }
}

impl Attachment {
    /// The containers to be shown, as in front of their lines.
    fn names(&self) -> Vec<String> {
        let services = self.up.project.services.values().filter(|service| {
            (self.selection.services.is_empty() || self.selection.services.contains(&service.name))
                && !self.selection.without.contains(&service.name)
        });
        let named = services.flat_map(|service| {
            let numbered = (1..=service.scale).map(|number| format!("{}-{number}", service.name));
            numbered.map(|name| service.container_name.clone().unwrap_or(name)).collect::<Vec<_>>()
        });
        named.collect()
    }
}

fn unreadable(error: io::Error) -> Failure {
    Failure::new(format!("cannot read the project's state: {error}"))
}

/// Prints lines until told to stop.
fn follow(attachment: &Attachment, stopped: &PipeReader, tell: &Sender<Event>) -> Result<(), Failure> {
    let Attachment { context, up, options, selection, reached, steady } = attachment;
    let (app, project) = (&context.app, &up.project.name);
    let over =
        || Ok(steady.load(Ordering::Relaxed) && app.is_over(project, selection)? && !app.is_changing(project)?);
    let names = attachment.names();
    let style = show::log_style(options.output, context.ansi);
    let printer = std::cell::RefCell::new(LogPrinter::new(style, names.iter().map(String::as_str)));
    // As in `logs`.
    let unwritten = Cell::new(None);
    let stop = |error: io::Error| {
        let kind = error.kind();
        unwritten.set(Some(error));
        io::Error::from(kind)
    };
    let followed = context.app.follow_project(
        &up.project.name,
        selection,
        reached.clone(),
        (stopped.as_fd(), &over),
        &mut |line| {
            let mut out = show::stream(line.stream);
            printer.borrow_mut().print(&line, &mut out).and_then(|()| out.flush()).map_err(stop)
        },
        &mut |ended| {
            writeln!(io::stdout().lock(), "{}", show::end(&ended)).map_err(stop)?;
            drop(tell.send(Event::Ended(ended)));
            Ok(())
        },
    );
    match unwritten.take() {
        // Whoever reads has seen enough; the containers go on.
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Some(error) => Err(show::unwritten(&error)),
        None => followed
            .map_err(|error| Failure::new(format!("cannot follow the output: {}", without_number(&error.to_string())))),
    }
}

/// Which services' output is shown.
fn selection(up: &Up, options: &UpOptions) -> Selection {
    let services: &[String] = match (options.attach.is_empty(), options.attach_dependencies) {
        (false, _) => &options.attach,
        (true, true) => &[],
        (true, false) => &options.services,
    };
    let silent =
        up.project.services.values().filter(|service| !service.attach && !options.attach.contains(&service.name));
    let without = options.no_attach.iter().cloned().chain(silent.map(|service| service.name.clone()));
    Selection { services: services.iter().cloned().collect(), without: without.collect(), ..Selection::default() }
}

/// Has SIGINT and SIGTERM wait to be asked for. Before any thread is started.
fn block_signals() -> Result<SigSet, Failure> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGCONT);
    signals.thread_block().map_err(|error| Failure::new(format!("signals cannot be waited for: {error}")))?;
    Ok(signals)
}
