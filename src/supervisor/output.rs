//! Containers' output: into the log files, and the last of it back out for messages.

use std::os::fd::OwnedFd;
use std::path::Path;

use tokio::sync::oneshot;

use crate::base::ids::ContainerId;
use crate::logs::{Forwarder, Limits, LogReader, Origin, Query, Source, journal_name};
use crate::runtime::RuntimeError;
use crate::spec::logging::{LogSpec, expand_tag};
use crate::state::ContainerConfig;
use crate::supervisor::failure::because;
use crate::supervisor::host::{Host, log_folder};
use crate::supervisor::link::Streams;

impl Host {
    /// Moves a container's output into its files from now on.
    pub(super) fn log_output(&self, config: &ContainerConfig, streams: Streams) -> Result<(), RuntimeError> {
        let (id, logging) = (&config.id, &config.service.container.logging);
        let folder = log_folder(&self.dir.container(id));
        let limits = limits(logging);
        let logged = std::fs::create_dir_all(&folder).and_then(|()| match streams {
            Streams::Pipes { stdout, stderr, .. } => self.pump.add(id.as_str(), &folder, stdout, stderr, limits),
            // The terminal of a one-off container is its client's.
            Streams::Terminal { .. } if self.is_one_off(id) => Ok(()),
            Streams::Terminal { master } => {
                let pipe = self.terminal_pipe(id)?;
                self.pump.add_terminal(id.as_str(), &folder, master, pipe, limits)
            }
        });
        logged
            .and_then(|()| self.forward_output(config, &folder))
            .map_err(|error| because(format!("cannot log the output of `{}`", config.name), &error))
    }

    /// Before anything is started: whether the log service that gets the output can be reached.
    pub(super) fn check_forwarding(&self, config: &ContainerConfig) -> Result<(), RuntimeError> {
        match &config.service.container.logging.forward {
            Some(forward) => Forwarder::check(&forward.to)
                .map_err(|error| because("the log service of `logging` cannot be reached", &error)),
            None => Ok(()),
        }
    }

    fn forward_output(&self, config: &ContainerConfig, folder: &Path) -> std::io::Result<()> {
        let container = &config.service.container;
        let Some(forward) = &container.logging.forward else { return Ok(()) };
        let id = config.id.as_str();
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let value = |field: &str| match field {
            "ID" => Some(config.id.short().to_owned()),
            "FullID" => Some(id.to_owned()),
            "Name" => Some(config.name.clone()),
            "ImageName" => Some(container.image.clone()),
            "ImageFullID" => Some(config.image_id.clone()),
            "ImageID" => config.image_id.trim_start_matches("sha256:").get(..12).map(str::to_owned),
            "DaemonName" => Some("rcompose".to_owned()),
            "Hostname" => Some(hostname.clone()),
            _ => None,
        };
        // The plan has seen that it can be expanded.
        let tag = expand_tag(&forward.tag, &value).unwrap_or_default();
        let labels = forward.labels.iter().filter_map(|name| Some((name, container.labels.get(name)?.clone())));
        let env = forward.env.iter().filter_map(|name| Some((name, container.environment.get(name)?.clone()?)));
        let fields = labels.chain(env).map(|(name, value)| (journal_name(name), value)).collect();
        let (name, image) = (config.name.clone(), container.image.clone());
        let origin = Origin { id: id.to_owned(), name, image, tag, hostname, fields };
        let (tell, told) = oneshot::channel();
        let done = move || {
            // Nobody need wait for it.
            let _ = tell.send(());
        };
        let forwarder = Forwarder::start(folder, origin, &forward.to, warn, done)?;
        self.forwarders.borrow_mut().insert(config.id.clone(), (forwarder, told));
        Ok(())
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
        let forwarder = self.forwarders.borrow_mut().remove(id);
        async move {
            // The pump ends with us only.
            let _ = told.await;
            if let Some((forwarder, sent)) = forwarder {
                forwarder.end();
                let _ = sent.await;
            }
        }
    }

    /// The last lines of a container's output.
    pub(super) fn tail(&self, id: &ContainerId, lines: usize) -> Vec<String> {
        let source =
            Source { name: String::new(), folder: log_folder(&self.dir.container(id)), running: false, from: [0; 2] };
        let query = Query { tail: Some(lines), ..Query::default() };
        let mut found = Vec::new();
        let read = LogReader::open(vec![source], query).and_then(|mut reader| {
            reader.read(&mut |line| {
                // Of a long one the beginning is enough.
                if line.begins {
                    found.push(String::from_utf8_lossy(line.text).into_owned());
                }
                Ok(())
            })
        });
        if let Err(error) = read {
            self.warn(&format!("cannot read the output of container {}: {error}", id.short()));
        }
        found
    }
}

/// How much of the output is kept. What only an attached `up` looks at is soon given up.
fn limits(logging: &LogSpec) -> Limits {
    match logging.keep {
        _ if logging.hidden => Limits { max_size: 1 << 20, step: 1 << 19 },
        // A single file is given up by halves: there is always something to read.
        Some(keep) if keep.files == 1 => Limits { max_size: keep.size, step: keep.size / 2 },
        Some(keep) => Limits { max_size: keep.size.saturating_mul(keep.files.into()), step: keep.size },
        None => Limits::default(),
    }
}

fn warn(message: &str) {
    crate::supervisor::failure::log(message);
}
