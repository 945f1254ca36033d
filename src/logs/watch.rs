//! Following logs as they grow: inotify, no polling.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::reader::{Line, LogReader, Source};
use crate::sys::process;

/// What to follow besides what a reader reads already.
pub struct Follow<'a> {
    /// The folders in which containers appear and change, as they are now: `rescan` runs when something is made,
    /// replaced or removed in one of them, or in a log folder.
    pub folders: &'a dyn Fn() -> io::Result<Vec<PathBuf>>,
    /// The containers as they are now.
    pub rescan: &'a mut dyn FnMut() -> io::Result<Scan>,
    /// Runs whenever everything that there was has been handed out.
    pub settled: &'a mut dyn FnMut() -> io::Result<()>,
    /// Becomes readable (or hangs up) when following shall end.
    pub stop: BorrowedFd<'a>,
}

/// The containers at one moment.
pub struct Scan {
    pub sources: Vec<Source>,
    /// Nothing more is to be expected: the following ends once their output has been handed out.
    pub over: bool,
}

/// Hands out lines until told to stop.
///
/// # Errors
/// When inotify or a log fails, or what `rescan` or `emit` return.
pub fn follow(
    reader: &mut LogReader,
    mut how: Follow<'_>,
    emit: &mut dyn FnMut(Line<'_>) -> io::Result<()>,
) -> io::Result<()> {
    // The kernel takes some 20 ms to close an inotify instance: none is made when everything has ended already, and another
    // process closes it last.
    let Scan { sources, over } = (how.rescan)()?;
    reader.update(sources)?;
    reader.read(emit)?;
    (how.settled)()?;
    if over {
        return Ok(());
    }
    if is_readable(how.stop)? {
        return finish(reader, &mut how, emit);
    }
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let mut watched = HashSet::new();
    let mut rescan = true;
    loop {
        for folder in (how.folders)()? {
            watch(&inotify, &folder, &mut watched)?;
        }
        let mut over = false;
        if rescan {
            // Watches come first, so that nothing happens between looking and watching.
            let scan = (how.rescan)()?;
            reader.update(scan.sources)?;
            for folder in reader.folders() {
                watch(&inotify, folder, &mut watched)?;
            }
            over = scan.over;
        }
        reader.read(emit)?;
        (how.settled)()?;
        if over || !wait(&inotify, how.stop)? {
            if !over {
                finish(reader, &mut how, emit)?;
            }
            process::close_aside();
            return Ok(());
        }
        rescan = changed(&inotify)?;
    }
}

/// Hands out what came until we were told to stop: who told us knows of ends that nobody has told us yet.
fn finish(
    reader: &mut LogReader,
    how: &mut Follow<'_>,
    emit: &mut dyn FnMut(Line<'_>) -> io::Result<()>,
) -> io::Result<()> {
    reader.update((how.rescan)()?.sources)?;
    reader.read(emit)?;
    (how.settled)()
}

fn watch(inotify: &Inotify, folder: &Path, watched: &mut HashSet<PathBuf>) -> io::Result<()> {
    if watched.contains(folder) {
        return Ok(());
    }
    let events = AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ONLYDIR;
    match inotify.add_watch(folder, events) {
        Ok(_) => {
            watched.insert(folder.to_owned());
            Ok(())
        }
        // It may not be there yet; what makes it happens in a folder that is watched.
        Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits for a change (true) or for the end (false).
fn wait(inotify: &Inotify, stop: BorrowedFd<'_>) -> io::Result<bool> {
    let mut ready = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN), PollFd::new(stop, PollFlags::POLLIN)];
    loop {
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let [_, stop] = ready;
    Ok(!stop.any().unwrap_or(true))
}

fn is_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut polled = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO)?;
    let [polled] = polled;
    Ok(polled.any().unwrap_or(true))
}

/// Reads the events; true: something besides the growing of log files has happened.
fn changed(inotify: &Inotify) -> io::Result<bool> {
    let mut other = false;
    loop {
        match inotify.read_events() {
            Ok(events) => {
                other |= events.iter().any(|event| {
                    let growth = event.mask.intersects(AddWatchFlags::IN_MODIFY);
                    let name = event.name.as_deref().and_then(OsStr::to_str).unwrap_or_default();
                    !growth || event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) || !is_log(name)
                });
            }
            Err(Errno::EAGAIN) => return Ok(other),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_log(name: &str) -> bool {
    super::Stream::BOTH.iter().any(|stream| name == stream.data_file() || name == stream.index_file())
}
