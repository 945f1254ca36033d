//! Agents for builds that name files with keys: `ssh-agent` and `ssh-add`, for as long as the build takes.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::app::pull::chain;
use crate::build::BuildError;
use crate::sys::path;

/// An agent that has keys of files.
#[derive(Debug)]
pub(super) struct Agent(Child);

impl Agent {
    /// Starts one that listens on `socket`, a path that is not there.
    pub(super) fn start(socket: &Path, keys: &[PathBuf]) -> Result<Self, BuildError> {
        let missing = |program: &'static str| {
            move |error: std::io::Error| {
                BuildError::new(format!("`{program}` is needed for key files, and cannot be run: {}", chain(&error)))
                    .help("install OpenSSH's client, or hand in the socket of an agent")
            }
        };
        // It ends with the program that it starts, and that with its input: whatever becomes of us.
        let mut command = Command::new(path::program("ssh-agent").map_err(missing("ssh-agent"))?);
        command.arg("-a").arg(socket).arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut agent = Self(command.spawn().map_err(missing("ssh-agent"))?);
        // What comes back has gone through it, so it listens.
        let said = (|| {
            agent.0.stdin.as_mut()?.write_all(b"\n").ok()?;
            let mut line = String::new();
            BufReader::new(agent.0.stdout.as_mut()?).read_line(&mut line).ok().filter(|read| *read > 0)
        })();
        if said.is_none() {
            return Err(BuildError::new(format!("`ssh-agent` does not start at `{}`", socket.display())));
        }
        for key in keys {
            let shown = key.display();
            let reading = |error| BuildError::because(format!("cannot read the key `{shown}`"), &error);
            // From its standard input it takes a key whatever the file's mode is, as Docker does.
            let file = File::open(key).map_err(reading)?;
            let mut command = Command::new(path::program("ssh-add").map_err(missing("ssh-add"))?);
            command.args(["-q", "-"]).stdin(file).env("SSH_AUTH_SOCK", socket).env("SSH_ASKPASS_REQUIRE", "never");
            let output = command.output().map_err(missing("ssh-add"))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                let said: String = said.trim().chars().filter(|c| !c.is_control()).take(200).collect();
                return Err(BuildError::new(format!("ssh-add does not take the key `{shown}`: {said}"))
                    .help("a key with a passphrase has to be added to an agent: `ssh-add FILE`"));
            }
        }
        Ok(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // There is nobody to be told.
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_has_the_keys_and_ends_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        let mut generate = Command::new("ssh-keygen");
        generate.args(["-q", "-t", "ed25519", "-C", "of the test", "-N", "", "-f"]).arg(&key);
        if !generate.status().is_ok_and(|status| status.success()) {
            println!("skipped: no OpenSSH");
            return;
        }
        let socket = folder.path().join("agent");
        let agent = Agent::start(&socket, std::slice::from_ref(&key)).unwrap();
        let list = || Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", &socket).output().unwrap();
        assert!(String::from_utf8_lossy(&list().stdout).contains("of the test"));
        std::fs::write(&key, "no key").unwrap();
        let other = folder.path().join("other");
        let error = Agent::start(&other, &[key]).unwrap_err();
        assert!(error.message.contains("does not take the key"), "{}", error.message);
        drop(agent);
        assert!(!list().status.success());
    }
}
