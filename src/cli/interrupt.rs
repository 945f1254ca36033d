//! What signals do while a command runs: end the change that is being made, or go to a container.

use std::sync::{Mutex, Once, PoisonError};

use nix::sys::signal::{SigSet, Signal};

use crate::app::App;
use crate::app::attach::Target;
use crate::cli::failure::{Failure, INTERRUPTED};

/// What we do not leave to the system.
const CAUGHT: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// What to do with a signal.
enum Handling {
    /// End as any program does.
    Die,
    /// The first one ends the change and keeps what is made by then, the second one ends us.
    Cancel(App),
    /// The change has been told to end, by this signal.
    Canceled(Signal),
    /// To the container's first process.
    Forward(App, Target),
}

static HANDLING: Mutex<Handling> = Mutex::new(Handling::Die);

/// A signal that was to end a change which was made all the same.
static LATE: Mutex<Option<Signal>> = Mutex::new(None);

/// From now on signals end the change that the project's supervisor makes. Before any other thread is started.
///
/// # Errors
/// When signals cannot be waited for.
pub fn cancels(app: &App) -> Result<(), Failure> {
    handle(Handling::Cancel(app.clone()))
}

/// From now on signals go to the container, also the one that came too late to keep it from being started. Before any other
/// thread is started.
///
/// # Errors
/// When signals cannot be waited for.
pub fn forwards(app: &App, target: &Target) -> Result<(), Failure> {
    handle(Handling::Forward(app.clone(), target.clone()))?;
    if let Some(signal) = LATE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // The container may have ended.
        drop(app.forward(&target.project, &target.container, signal));
    }
    Ok(())
}

/// Signals end us again. Whether one has ended the change.
pub fn over() -> bool {
    let mut handling = HANDLING.lock().unwrap_or_else(PoisonError::into_inner);
    match std::mem::replace(&mut *handling, Handling::Die) {
        Handling::Canceled(signal) => {
            *LATE.lock().unwrap_or_else(PoisonError::into_inner) = Some(signal);
            true
        }
        _ => false,
    }
}

fn handle(handling: Handling) -> Result<(), Failure> {
    static STARTED: Once = Once::new();
    let mut signals = SigSet::empty();
    CAUGHT.into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block().map_err(|error| Failure::new(format!("signals cannot be waited for: {error}")))?;
    *HANDLING.lock().unwrap_or_else(PoisonError::into_inner) = handling;
    STARTED.call_once(|| {
        std::thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                received(signal);
            }
        });
    });
    Ok(())
}

fn received(signal: Signal) {
    let mut handling = HANDLING.lock().unwrap_or_else(PoisonError::into_inner);
    let fatal = !matches!(signal, Signal::SIGUSR1 | Signal::SIGUSR2);
    match &*handling {
        // The container may have ended.
        Handling::Forward(app, target) => drop(app.forward(&target.project, &target.container, signal)),
        Handling::Cancel(app) if fatal => {
            let app = app.clone();
            *handling = Handling::Canceled(signal);
            std::thread::spawn(move || {
                if app.cancel().is_err() {
                    // With nobody to be told, nothing goes on.
                    std::process::exit(INTERRUPTED.into());
                }
            });
        }
        Handling::Die | Handling::Canceled(_) if fatal => std::process::exit(INTERRUPTED.into()),
        _ => {}
    }
}
