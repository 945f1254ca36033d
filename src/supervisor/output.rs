//! Containers' output: into the log files, and the last of it back out for messages.

use std::os::fd::OwnedFd;

use tokio::sync::oneshot;

use crate::base::ids::ContainerId;
use crate::logs::{Limits, LogReader, Query, Source};
use crate::runtime::RuntimeError;
use crate::supervisor::failure::because;
use crate::supervisor::host::{Host, log_folder};
use crate::supervisor::link::Streams;

impl Host {
    /// Moves a container's output into its files from now on.
    pub(super) fn log_output(&self, name: &str, id: &ContainerId, streams: Streams) -> Result<(), RuntimeError> {
        let folder = log_folder(&self.dir.container(id));
        let logged = std::fs::create_dir_all(&folder).and_then(|()| match streams {
            Streams::Pipes { stdout, stderr, .. } => {
                self.pump.add(id.as_str(), &folder, stdout, stderr, Limits::default())
            }
            // The terminal of a one-off container is its client's.
            Streams::Terminal { .. } if self.is_one_off(id) => Ok(()),
            Streams::Terminal { master } => {
                let pipe = self.terminal_pipe(id)?;
                self.pump.add_terminal(id.as_str(), &folder, master, pipe, Limits::default())
            }
        });
        logged.map_err(|error| because(format!("cannot log the output of `{name}`"), &error))
    }

    fn is_one_off(&self, id: &ContainerId) -> bool {
        self.load(id).is_ok_and(|record| record.config.number == 0)
    }

    /// The pipe between a terminal and its log file, which the keeper holds too so that no byte is lost with us.
    fn terminal_pipe(&self, id: &ContainerId) -> std::io::Result<(OwnedFd, OwnedFd)> {
        let (read, write) = crate::logs::LogPump::terminal_pipe()?;
        let copies = vec![read.try_clone()?, write.try_clone()?];
        self.link.hold(&format!("terminal:{id}"), copies)?;
        Ok((read, write))
    }

    /// Copies of a running container's streams for a client: its terminal, or its input where it keeps that open. The
    /// output of pipes is in the log files.
    pub(super) fn streams_of(&self, name: &str) -> Result<(ContainerId, Vec<OwnedFd>), RuntimeError> {
        let id = self.running_by_name(name)?;
        let what = "cannot attach to the container";
        let input = self.link.held(&format!("stdin:{id}")).map_err(|error| because(what, &error))?;
        if !input.is_empty() {
            return Ok((id, input));
        }
        let mut streams = self.link.held(&format!("stdio:{id}")).map_err(|error| because(what, &error))?;
        // A pidfd and a terminal's master, or a pidfd and two pipes.
        let terminal = if streams.len() == 2 { streams.pop().into_iter().collect() } else { Vec::new() };
        Ok((id, terminal))
    }

    /// Waits until everything that an ended container has printed is in its files.
    pub(super) fn drain(&self, id: &ContainerId) -> impl Future<Output = ()> + use<> {
        let (tell, told) = oneshot::channel();
        self.pump.flush(id.as_str(), move || {
            let _ = tell.send(());
        });
        async move {
            // The pump ends with us only.
            let _ = told.await;
        }
    }

    /// The last lines of a container's output.
    pub(super) fn tail(&self, id: &ContainerId, lines: usize) -> Vec<String> {
        let source = Source { name: String::new(), folder: log_folder(&self.dir.container(id)), running: false };
        let query = Query { tail: Some(lines), ..Query::default() };
        let mut found = Vec::new();
        let read = LogReader::open(vec![source], query).and_then(|mut reader| {
            reader.read(&mut |line| {
                found.push(String::from_utf8_lossy(line.text).into_owned());
                Ok(())
            })
        });
        if let Err(error) = read {
            self.warn(&format!("cannot read the output of container {}: {error}", id.short()));
        }
        found
    }
}
