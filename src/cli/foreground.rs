//! A container that this process stays with until it ends: its output here, our input and signals there.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use crate::app::App;
use crate::app::attach::Target;
use crate::app::logs::{Ended, Reached, Selection};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::session;
use crate::cli::show;
use crate::logs::Line;

/// The exit status of a container that was removed before it could be asked, as the keeper has it for one that it cannot learn.
pub(super) const UNKNOWN: i32 = 255;

/// Stays with a container until it has ended; its exit status. What had been `reached` is not shown.
///
/// # Errors
/// When the connection fails.
pub fn attend(context: &Context, target: &Target, stdin: bool, reached: Reached) -> Result<i32, Failure> {
    let app = &context.app;
    if stdin {
        let running = app.attach_to(&target.project, &target.container).map_err(|error| context.failure(error))?;
        if let Some(input) = running.and_then(|mut running| running.descriptors.pop()) {
            // Ends with our input or with the program.
            std::thread::spawn(move || io::copy(&mut io::stdin().lock(), &mut File::from(input)));
        }
    }
    show_output(app, target, reached).map_err(|error| Failure::new(format!("cannot follow the output: {error}")))
}

/// Stays with a one-off container on our terminal until it has ended.
///
/// # Errors
/// When the connection fails.
pub fn attend_terminal(context: &Context, target: &Target) -> Result<i32, Failure> {
    let failure = |error| context.failure(error);
    let running = context.app.attach_to(&target.project, &target.container).map_err(failure)?;
    let Some(mut running) = running else {
        return context.app.status_of(&target.project, &target.container).map_err(failure);
    };
    session::pass_on(&mut running, true, true)?;
    running.wait().map_err(failure)
}

/// The container alone.
pub fn selection(target: &Target) -> Selection {
    Selection { container: Some(target.container.clone()), ..Selection::default() }
}

/// Prints what the container prints, on the same streams, and returns its exit status.
fn show_output(app: &App, target: &Target, reached: Reached) -> io::Result<i32> {
    let selection = selection(target);
    let (ended, end) = io::pipe()?;
    let mut end = Some(end);
    let mut code = UNKNOWN;
    let print = &mut |line: Line<'_>| {
        let mut out = show::stream(line.stream);
        out.write_all(line.text)?;
        if line.complete {
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    let over = &mut |over: Ended| {
        code = over.code.unwrap_or(UNKNOWN);
        end = None;
        Ok(())
    };
    app.follow_project(&target.project, &selection, reached, (ended.as_fd(), &|| Ok(false)), print, over)?;
    Ok(code)
}
