//! The supervisor as the keeper sees it: started, watched, started again when it dies.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Program;
use super::serve::{REAP_TIME, look};
use crate::sys::message;

/// A supervisor that lived shorter died quickly.
const QUICK: Duration = Duration::from_secs(1);
/// Waits double from the first to the second of these, after quick deaths in a row.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// Quick deaths in a row after which a project without processes is given up.
const HOPELESS: u32 = 5;

#[derive(Debug)]
pub(super) struct Supervision {
    program: Program,
    pub(super) watch: Watch,
    started: Instant,
    quick_deaths: u32,
    /// Its last exit status, if it ended and that is known.
    code: Option<i32>,
}

#[derive(Debug)]
pub(super) enum Watch {
    Child(i32),
    /// Not our child: it was there before us.
    Attached {
        pidfd: OwnedFd,
        since: Option<Instant>,
    },
    /// Reaped, and not dealt with yet.
    Ended,
    /// To be started at that time.
    Due(Instant),
}

impl Supervision {
    pub(super) fn new(program: Program) -> Self {
        let now = Instant::now();
        Self { program, watch: Watch::Due(now), started: now, quick_deaths: 0, code: None }
    }

    pub(super) fn attach(&mut self, pidfd: OwnedFd) {
        self.watch = Watch::Attached { pidfd, since: None };
    }

    /// Starts it and returns our end of the socket that is its standard input.
    pub(super) fn start(&mut self) -> io::Result<OwnedFd> {
        self.started = Instant::now();
        let (ours, theirs) = message::pair()?;
        let mut command = Command::new(&self.program.path);
        if let Some((name, arguments)) = self.program.argv.split_first() {
            command.arg0(name).args(arguments);
        }
        match command.stdin(Stdio::from(theirs)).current_dir("/").spawn() {
            Ok(child) => {
                self.watch = Watch::Child(child.id().cast_signed());
                Ok(ours)
            }
            Err(error) => {
                self.died();
                Err(error)
            }
        }
    }

    /// Whether this child, just reaped, was the supervisor.
    pub(super) fn reaped(&mut self, pid: i32, code: i32) -> bool {
        let was = matches!(self.watch, Watch::Child(child) if child == pid);
        if was {
            self.watch = Watch::Ended;
            self.code = Some(code);
        }
        was
    }

    /// Whether it has ended since last asked; it is then due to be started again. `happened`: its pidfd was polled ready.
    pub(super) fn ended(&mut self, now: Instant, happened: bool) -> bool {
        match &mut self.watch {
            Watch::Attached { pidfd, since } => match look(pidfd, since, now, happened) {
                Some(code) => self.code = code,
                None => return false,
            },
            Watch::Ended => {}
            Watch::Child(_) | Watch::Due(_) => return false,
        }
        self.died();
        true
    }

    fn died(&mut self) {
        let now = Instant::now();
        self.quick_deaths = if now < self.started + QUICK { self.quick_deaths + 1 } else { 0 };
        let [first, last] = BACK_OFF;
        let wait = match self.quick_deaths {
            0 | 1 => Duration::ZERO,
            deaths => first.saturating_mul(1 << (deaths - 2).min(16)).min(last),
        };
        self.watch = Watch::Due(now + wait);
    }

    pub(super) fn due(&self, now: Instant) -> bool {
        matches!(self.watch, Watch::Due(at) if at <= now)
    }

    /// When to look again although nothing happened.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.watch {
            Watch::Due(at) => Some(*at),
            Watch::Attached { since, .. } => since.map(|since| since + REAP_TIME),
            Watch::Child(_) | Watch::Ended => None,
        }
    }

    /// Whether it ended by its own decision.
    pub(super) fn is_done(&self) -> bool {
        self.code == Some(0)
    }

    pub(super) fn is_hopeless(&self) -> bool {
        self.quick_deaths >= HOPELESS
    }
}
