//! `RUN`: a container on the stage's root, whose writable layer becomes the step's layer.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use oci_spec::runtime::Spec;
use rustix::event::{PollFd, PollFlags, poll};

use super::error::BuildError;
use super::launcher::Running;
use super::mounts::Mounted;
use super::parse::{Command, Run};
use super::request::{Event, Network, Shell};
use super::stage::{StageBuilder, Told};
use super::state::PROXIES;
use crate::engine;
use crate::engine::cgroup::Cgroup;
use crate::engine::lower::{Extras, Root};
use crate::engine::spec::{EtcFiles, ImageConfig, Request};
use crate::image::Draft;
use crate::init::{Launch, LaunchFailure, NamespaceKind, Overlay, Step};
use crate::network;
use crate::spec::ContainerSpec;
use crate::spec::container::NetworkMode;
use crate::sys::userns;

/// What the builds of Docker call their containers.
const HOSTNAME: &str = "buildkitsandbox";
/// How many of the last lines a failure repeats.
const LAST_LINES: usize = 20;
/// A line of output longer than this is told in pieces, in bytes.
const MAX_LINE: usize = 64 * 1024;

impl StageBuilder<'_> {
    pub(super) fn run(&mut self, run: &Run, title: &str) -> Result<(), BuildError> {
        let (argv, script) = self.command(run);
        let network = match run.network.as_deref() {
            Some("none") => Network::None,
            Some("host") => Network::Host,
            _ => self.builder.request.network,
        };
        let privileged = run.security.as_deref() == Some("insecure");
        if privileged && !self.builder.request.allowed.contains("security.insecure") {
            let error = BuildError::new("RUN: `--security=insecure` is not allowed");
            return Err(error.help("set `privileged: true`, or add `security.insecure` to `entitlements`, in `build`"));
        }
        let mounts = self.resolve_mounts(run)?;
        let mut env = self.state.run_env();
        // They are there for the program under both names, and leave no trace in the image or its key.
        let args = &self.builder.request.args;
        let proxies = PROXIES.iter().flat_map(|name| {
            let lower = name.to_lowercase();
            let value = args.get(*name).or_else(|| args.get(&lower)).map(String::as_str);
            [(*name).to_owned(), lower].into_iter().zip(value.into_iter().cycle())
        });
        let declared = |name: &str| env.iter().any(|line| line.split('=').next() == Some(name));
        let proxies: Vec<String> =
            proxies.filter(|(name, _)| !declared(name)).map(|(n, v)| format!("{n}={v}")).collect();
        let config = &self.state.document.config;
        let settings = format!("{:?}", (&argv, &env, &config.user, &config.working_dir, network, privileged, &script));
        let sources = self.hash_mounts(&mounts)?;
        let key = self.state.key.then("run", &[settings.as_bytes(), &sources]);
        env.extend(proxies);
        let said = format!("RUN {}{} # buildkit", self.state.args_prefix(), argv.join(" "));
        let step = self.layer(&key, title, |stage, told| {
            let draft = stage.builder.workshop.draft()?;
            let mounted = stage.mount(&mounts, script.as_ref())?;
            let network = stage.network(network)?;
            let connecting =
                |error: &dyn std::error::Error| BuildError::because("cannot make the step's network", error);
            let connection = match network {
                Network::Default => Some(stage.builder.site.network.connect()?),
                Network::Host | Network::None => None,
            };
            let netns = match (&connection, network) {
                (Some(connection), _) => {
                    Some(connection.sandbox.netns.try_clone().map_err(|error| connecting(&error))?)
                }
                (None, Network::None) => {
                    Some(network::sandbox::create_none().map_err(|error| connecting(&error))?.netns)
                }
                (None, _) => None,
            };
            let job = Job { argv: &argv, env, network, netns: netns.map(Rc::new), privileged, terminal: false };
            let ran = stage.execute(&job, &draft, &mounted, told);
            let cleaned = mounted.take_stubs(&draft, &stage.state.paths());
            ran?;
            cleaned.map_err(|error| BuildError::because("cannot tidy the root file system", &error))?;
            stage.finish(draft)
        })?;
        self.state.push(step, key, said);
        Ok(())
    }

    /// What the step is connected to here: an ordinary user's build can make no bridge, so it has the host's network.
    fn network(&self, wanted: Network) -> Result<Network, BuildError> {
        let owns = || userns::owns("net").map_err(|error| BuildError::because("cannot look at the network", &error));
        if wanted != Network::Default || owns()? {
            return Ok(wanted);
        }
        self.builder.site.shared_network.get_or_init(|| {
            let text = "steps have this machine's network, as an ordinary user's build has none of its own";
            (self.builder.outside.tell)(Event::Warning(text.to_owned()));
        });
        Ok(Network::Host)
    }

    /// What is executed; and a script that must be there as a file.
    fn command(&self, run: &Run) -> (Vec<String>, Option<(String, String)>) {
        let text = match &run.command {
            Command::Exec(words) => return (words.clone(), None),
            Command::Shell(text) => text,
        };
        let Some(first) = run.heredocs.first() else { return (self.state.in_shell(text), None) };
        let alone = super::parse::is_heredoc(text);
        if !alone {
            // The shell reads the documents itself.
            let documents = run.heredocs.iter().map(|one| format!("\n{}{}", one.content, one.name));
            return (self.state.in_shell(&format!("{text}{}", documents.collect::<String>())), None);
        }
        let content = first.text();
        if content.starts_with("#!") {
            let path = format!("{}/{}", super::mounts::SCRIPTS, first.name);
            return (self.state.in_shell(&path), Some((first.name.clone(), content)));
        }
        (self.state.in_shell(&content), None)
    }

    fn execute(&self, job: &Job<'_>, draft: &Draft, mounted: &Mounted, told: &Told) -> Result<(), BuildError> {
        let ended = self.in_group(job, mounted, told, |spec, cgroup| {
            let running = self.launch(spec, job, draft, mounted, cgroup)?;
            let tell = self.builder.outside.tell;
            let last = output(&running, |text| tell(Event::Line { step: told.step, text }))
                .map_err(|error| BuildError::because("cannot read the output", &error))?;
            let status = running.wait().map_err(|error| BuildError::because("cannot wait for the step", &error))?;
            Ok(Ended { status, last })
        })?;
        if ended.status == 0 {
            return Ok(());
        }
        let command = job.argv.join(" ");
        let message = match ended.status {
            status if status > 128 && status < 193 => {
                format!("process `{command}` was killed by signal {} (exit status {status})", status - 128)
            }
            status => format!("process `{command}` did not complete successfully: exit status {status}"),
        };
        let help = match self.builder.outside.shell {
            None => "look inside with `--shell-on-error`: a shell in the root file system as the command left it",
            Some(shell) => {
                self.look_inside(job, draft, mounted, told, shell)?;
                "the shell was in the root file system as the command left it"
            }
        };
        Err(BuildError { output: ended.last, ..BuildError::new(message).help(help) })
    }

    /// A shell for a person, where the program has failed.
    fn look_inside(
        &self,
        job: &Job<'_>,
        draft: &Draft,
        mounted: &Mounted,
        told: &Told,
        shell: &Shell<'_>,
    ) -> Result<(), BuildError> {
        let argv = ["/bin/sh".to_owned()];
        let job = Job { argv: &argv, terminal: true, ..job.clone() };
        self.in_group(&job, mounted, told, |spec, cgroup| {
            let mut running = self.launch(spec, &job, draft, mounted, cgroup)?;
            if let Some(master) = running.output.pop() {
                shell(master, running.ended());
            }
            // Gone with its terminal, whatever status it ended with.
            drop(running);
            Ok(())
        })
    }

    /// Does `work` with a control group; whatever is left in that ends with it.
    fn in_group<T>(
        &self,
        job: &Job<'_>,
        mounted: &Mounted,
        told: &Told,
        work: impl FnOnce(&Spec, &Cgroup) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        let group = format!("{}/{}", self.builder.site.launchers.group(), told.step);
        let spec = self.specification(job, mounted, &group)?;
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
        let (cgroup, _left_out) = Cgroup::create(self.builder.site.hierarchies()?, &group, &resources)
            .map_err(|error| BuildError::because("cannot make the control group", &error))?;
        let done = work(&spec, &cgroup);
        let ended = cgroup.kill().and_then(|()| cgroup.remove());
        let done = done?;
        ended.map_err(|error| BuildError::because("cannot remove the control group", &error))?;
        Ok(done)
    }

    fn specification(&self, job: &Job<'_>, mounted: &Mounted, group: &str) -> Result<Spec, BuildError> {
        let request = self.builder.request;
        let config = &self.state.document.config;
        let folder = self.builder.workshop.folder()?;
        let write = |name: &str, text: &str| -> Result<Option<PathBuf>, BuildError> {
            let path = folder.join(name);
            let written = fs::write(&path, text);
            written.map_err(|error| BuildError::because(format!("cannot write `{}`", path.display()), &error))?;
            Ok(Some(path))
        };
        let resolv = super::network::resolv_conf(job.network == Network::Default);
        let etc = EtcFiles {
            hosts: write("hosts", &hosts(&request.extra_hosts))?,
            hostname: None,
            resolv_conf: write("resolv.conf", &resolv)?,
        };
        let container = ContainerSpec {
            entrypoint: Some(Vec::new()),
            command: Some(job.argv.to_vec()),
            privileged: job.privileged,
            tty: job.terminal,
            network: match job.network {
                Network::Host => NetworkMode::Host,
                Network::Default | Network::None => NetworkMode::None,
            },
            shm_size: request.shm_size,
            ulimits: request.ulimits.clone(),
            mounts: mounted.mounts.clone(),
            ..ContainerSpec::default()
        };
        let users = self.users()?;
        let apparmor = engine::apparmor::load_default()
            .map_err(|error| BuildError::because("cannot load the AppArmor profile of containers", &error))?;
        let built = engine::spec::build(&Request {
            container: &container,
            image: &ImageConfig {
                environment: job.env.iter().chain(&mounted.env).cloned().collect(),
                user: Some(config.user.clone()).filter(|user| !user.is_empty()),
                working_dir: Some(config.working_dir.clone()).filter(|folder| !folder.is_empty()),
                ..ImageConfig::default()
            },
            users: &users,
            hostname: HOSTNAME,
            etc: &etc,
            volumes: &mounted.binds,
            images: &[],
            joined: &[],
            project_dir: Path::new("/"),
            apparmor,
            cgroup_path: group,
            unified_cgroups: self.builder.site.hierarchies()?.is_unified(),
        });
        let mut spec = built.map_err(|error| BuildError::because("the step cannot be set up", &error))?;
        if let Some(process) = spec.process_mut() {
            // Unlike a container's, a step's environment does not name the host.
            let own = job.env.iter().any(|line| line.starts_with("HOSTNAME="));
            let env = process.env().clone().unwrap_or_default();
            process.set_env(Some(env.into_iter().filter(|line| own || !line.starts_with("HOSTNAME=")).collect()));
        }
        Ok(spec)
    }

    fn launch(
        &self,
        spec: &Spec,
        job: &Job<'_>,
        draft: &Draft,
        mounted: &Mounted,
        cgroup: &Cgroup,
    ) -> Result<Running, BuildError> {
        let setting_up = |error: &dyn std::error::Error| BuildError::because("the step cannot be set up", error);
        let mut lower = self.state.paths();
        if lower.is_empty() {
            lower.push(self.builder.workshop.folder()?);
        }
        let overlay = Overlay { lower, upper: draft.upper(), work: draft.work(), volatile: true };
        let root = Root::Overlay { at: draft.mount_point(), overlay, trees: mounted.trees.clone() };
        let joined = job.netns.as_ref().map(|netns| netns.try_clone()).transpose();
        let joined = joined.map_err(|error| setting_up(&error))?.map(|netns| (NamespaceKind::Net, netns));
        let extras = Extras {
            root,
            joined: joined.into_iter().collect(),
            cgroup: cgroup.entry().map_err(|error| setting_up(&error))?,
            cgroup_v1: (!self.builder.site.hierarchies()?.is_unified()).then(|| cgroup.v1_directories()),
            shared_memory: None,
            stdin: false,
            terminal: None,
            init: false,
            lifecycle: None,
        };
        let lowered = engine::lower::lower(spec, extras).map_err(|error| setting_up(&error))?;
        let started = self.builder.site.launchers.start(&lowered.launch, &lowered.descriptors);
        started
            .map_err(|error| BuildError::because("cannot start the step", &error))?
            .map_err(|failure| explain(&failure, &lowered.launch, job))
    }
}

/// What is executed, and how.
#[derive(Clone)]
struct Job<'a> {
    argv: &'a [String],
    env: Vec<String>,
    network: Network,
    /// The network namespace, unless it is the host's.
    netns: Option<Rc<OwnedFd>>,
    privileged: bool,
    terminal: bool,
}

struct Ended {
    status: i32,
    last: Vec<String>,
}

fn hosts(extra: &[(String, String)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        text.push_str(&format!("{}\t{name}\n", address.trim_matches(['[', ']'])));
    }
    text
}

/// Tells both streams line by line until they close; returns the last lines.
fn output(running: &Running, mut tell: impl FnMut(String)) -> std::io::Result<Vec<String>> {
    let began = Instant::now();
    let mut last: std::collections::VecDeque<String> = std::collections::VecDeque::new();
    let mut streams = Vec::new();
    for descriptor in &running.output {
        streams.push((fs::File::from(descriptor.try_clone()?), Vec::new(), true));
    }
    let mut buffer = vec![0; 16 * 1024];
    let mut line = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).trim_end_matches('\r').to_owned();
        tell(format!("{:.3} {text}", began.elapsed().as_secs_f64()));
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(text);
    };
    while streams.iter().any(|(_, _, open)| *open) {
        let ready: Vec<bool> = {
            let interest = |open: bool| if open { PollFlags::IN } else { PollFlags::empty() };
            let mut polled: Vec<PollFd<'_>> =
                streams.iter().map(|(file, _, open)| PollFd::new(file, interest(*open))).collect();
            match poll(&mut polled, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            polled.iter().map(|one| !one.revents().is_empty()).collect()
        };
        for ((file, pending, open), ready) in streams.iter_mut().zip(ready) {
            if !ready || !*open {
                continue;
            }
            let read = file.read(&mut buffer)?;
            *open = read > 0;
            pending.extend_from_slice(buffer.get(..read).unwrap_or_default());
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let rest = pending.split_off(end + 1);
                line(pending.get(..end).unwrap_or_default());
                *pending = rest;
            }
            if pending.len() > MAX_LINE || (!*open && !pending.is_empty()) {
                line(pending);
                pending.clear();
            }
        }
    }
    Ok(last.into())
}

/// A container that did not start, in a person's words.
fn explain(failure: &LaunchFailure, launch: &Launch, job: &Job<'_>) -> BuildError {
    let LaunchFailure { step, errno, detail } = failure;
    let cause = std::io::Error::from_raw_os_error(*errno);
    let program = job.argv.first().map_or("", String::as_str);
    match step.and_then(|step| launch.steps.get(step)) {
        Some(Step::Exec { .. }) if *errno == libc::ENOENT => {
            let error = BuildError::new(format!("there is no `{program}` in the stage ({detail})"));
            error.help("the shell form needs `/bin/sh` in the image; use the list form, or another base")
        }
        Some(Step::Exec { .. }) => BuildError::because(format!("cannot execute `{program}` ({detail})"), &cause),
        Some(step) => {
            let name = format!("{step:?}");
            let name = name.split([' ', '(']).next().unwrap_or_default();
            BuildError::because(format!("the step cannot be set up ({name}: {detail})"), &cause)
        }
        None => BuildError::because(format!("cannot make the step's process ({detail})"), &cause),
    }
}
