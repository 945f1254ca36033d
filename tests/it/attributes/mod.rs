//! Attributes of a service, seen from inside the container or in the kernel's files.

mod inside;
mod life;
mod logging;
mod resources;
mod volumes;

/// A service that runs a shell script; a `$` in it is the shell's, not Compose's.
fn shell(script: &str) -> String {
    format!(
        "image: rcompose/host, stop_signal: SIGKILL, command: [sh, -c, {}]",
        serde_json::to_string(&script.replace('$', "$$")).unwrap()
    )
}
