//! The terminal of this process: its size, and raw mode that is always undone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// What Ctrl-C types.
pub const INTERRUPT: char = '\x03';

/// What to restore, for the panic hook too.
static SAVED: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// Rows and columns of a terminal; `None` when it is none.
pub fn size(terminal: BorrowedFd<'_>) -> Option<(u16, u16)> {
    tcgetwinsize(terminal).ok().map(|size| (size.ws_row, size.ws_col)).filter(|size| *size != (0, 0))
}

/// Sets rows and columns of a pseudo-terminal.
///
/// # Errors
/// When it is none.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    Ok(tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
}

/// Raw mode of a terminal. Dropping it, and a panic, restore the mode before; so does [`restore`], to be called
/// before leaving the process in any other way.
pub struct RawMode(());

impl RawMode {
    /// # Errors
    /// When the descriptor is no terminal.
    pub fn enter(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        Self::change(terminal, Termios::make_raw)
    }

    /// Only for what is typed: what is written to the terminal is shown as before.
    ///
    /// # Errors
    /// When the descriptor is no terminal.
    pub fn for_input(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        Self::change(terminal, |modes| {
            let output = modes.output_modes;
            modes.make_raw();
            modes.output_modes = output;
        })
    }

    /// Keys one by one and unseen; Ctrl-C and output work as before. `None` when the terminal is none of ours: no
    /// terminal, or that of another job of the shell.
    pub fn keys(terminal: BorrowedFd<'_>) -> Option<Self> {
        if rustix::termios::tcgetpgrp(terminal).ok()? != rustix::process::getpgrp() {
            return None;
        }
        Self::change(terminal, |modes| modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO)).ok()
    }

    /// Lines that are not shown while they are typed. Ctrl-C ends the line, as its last character ([`INTERRUPT`]): a signal
    /// would end the process with the terminal as it is.
    ///
    /// # Errors
    /// When the descriptor is no terminal.
    pub fn silent(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        Self::change(terminal, |termios| {
            termios.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
            termios.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT as u8;
        })
    }

    fn change(terminal: BorrowedFd<'_>, change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        change(&mut raw);
        let copy = terminal.try_clone_to_owned()?;
        if let Ok(mut saved) = SAVED.lock() {
            if saved.is_none() {
                let hook = std::panic::take_hook();
                std::panic::set_hook(Box::new(move |info| {
                    restore();
                    hook(info);
                }));
            }
            *saved = Some((copy, before));
        }
        tcsetattr(terminal, OptionalActions::Flush, &raw)?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back as it was before [`RawMode::enter`].
pub fn restore() {
    // A poisoned lock still holds what is to be restored.
    let mut saved = SAVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((terminal, before)) = saved.take() {
        // The terminal may be gone by now, and then nothing is to be restored.
        let _ = tcsetattr(terminal.as_fd(), OptionalActions::Drain, &before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_mode_is_undone_on_drop() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let echo = || tcgetattr(&pty.slave).unwrap().local_modes.contains(LocalModes::ECHO);
        assert!(echo());
        let raw = RawMode::enter(pty.slave.as_fd()).unwrap();
        assert!(!echo());
        drop(raw);
        assert!(echo());
    }

    #[test]
    fn a_secret_is_not_echoed_and_can_be_broken_off() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let silent = RawMode::silent(pty.slave.as_fd()).unwrap();
        let mut master = std::fs::File::from(pty.master.try_clone().unwrap());
        io::Write::write_all(&mut master, b"secret\x03").unwrap();
        let mut line = [0; 16];
        let read = rustix::io::read(&pty.slave, &mut line).unwrap();
        assert_eq!(&line[..read], b"secret\x03");
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        assert!(rustix::io::read(&master, &mut line).is_err(), "nothing was echoed");
        drop(silent);
    }

    #[test]
    fn sizes_are_set_and_read() {
        let pty = nix::pty::openpty(None, None).unwrap();
        assert_eq!(size(pty.slave.as_fd()), None);
        set_size(pty.master.as_fd(), 30, 100).unwrap();
        assert_eq!(size(pty.slave.as_fd()), Some((30, 100)));
        assert_eq!(size(io::pipe().unwrap().0.as_fd()), None);
    }
}
