//! Attributes of a service, seen from inside the container or in the kernel's files.

use crate::support::{Project, eventually};

mod apparmor;
mod inside;
mod life;
mod logging;
mod provider;
mod resources;
mod runtime;
mod selinux;
mod volumes;

/// A service that runs a shell script; a `$` in it is the shell's, not Compose's.
fn shell(script: &str) -> String {
    format!(
        "image: rcompose/host, stop_signal: SIGKILL, command: [sh, -c, {}]",
        serde_json::to_string(&script.replace('$', "$$")).unwrap()
    )
}

/// What the only container of a project has printed, once its log is complete: its end has been noted, which comes last.
#[track_caller]
fn printed(project: &Project) -> String {
    let containers = project.root().join("data/projects").join(&project.name).join("containers");
    eventually("the end of the container", || {
        let folder = std::fs::read_dir(&containers).ok()?.next()?.ok()?.path();
        let state: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("state.json")).ok()?).ok()?;
        (state["run"].is_null() && !state["exit"].is_null()).then_some(())
    });
    project.run(&["logs", "--no-log-prefix"]).ok().out
}
