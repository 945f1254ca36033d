//! A person (or a pipe) connected to a process inside a container.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::app::exec::Running;
use crate::cli::failure::Failure;
use crate::ui::relay::{Local, Remote, block_window_changes, relay};
use crate::ui::terminal::RawMode;

/// Passes input and output on until the process has closed its side. With a terminal ours is raw meanwhile.
///
/// # Errors
/// When our streams or terminal fail.
pub fn pass_on(running: &mut Running, terminal: bool, stdin: bool) -> Result<(), Failure> {
    let descriptors = std::mem::take(&mut running.descriptors);
    let remote = remote(descriptors, terminal).ok_or_else(|| Failure::new("the program's streams are missing"))?;
    connect(remote, terminal, stdin, running.connection())
}

/// Connects our terminal to that of a program, until `ended` becomes readable.
///
/// # Errors
/// When our terminal fails.
pub fn on_terminal(master: OwnedFd, ended: BorrowedFd<'_>) -> Result<(), Failure> {
    connect(Remote::Terminal { master }, true, true, ended)
}

fn connect(remote: Remote, terminal: bool, stdin: bool, ended: BorrowedFd<'_>) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(format!("the connection to the program failed: {error}"));
    let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
    let _raw = match terminal {
        true => {
            block_window_changes().map_err(failed)?;
            Some(RawMode::enter(input.as_fd()).map_err(failed)?)
        }
        false => None,
    };
    let local = Local { stdin: stdin.then(|| input.as_fd()), stdout: output.as_fd(), stderr: errors.as_fd() };
    relay(remote, local, Some(ended)).map_err(failed)
}

/// stdin (when asked for), stdout, stderr; or the terminal's master.
fn remote(mut descriptors: Vec<OwnedFd>, terminal: bool) -> Option<Remote> {
    if terminal {
        return descriptors.pop().map(|master| Remote::Terminal { master });
    }
    let stderr = descriptors.pop()?;
    let stdout = descriptors.pop()?;
    Some(Remote::Pipes { stdin: descriptors.pop(), stdout, stderr })
}
