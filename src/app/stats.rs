//! `stats` and `top`: what containers use, from the kernel.

use std::fs;
use std::time::{Duration, Instant};

use crate::app::{App, AppError};
use crate::engine::cgroup::{Cgroup, Hierarchies, Usage};
use crate::engine::processes::Process;
use crate::spec::{ContainerState, Phase};
use crate::ui::stats::{Sample, TopRow};

/// A look at a container: when, its counters, and its network's (received, sent).
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    usage: Usage,
    network: (u64, u64),
}

/// Looks at the containers of a project again and again.
pub struct Meter<'a> {
    app: &'a App,
    project: String,
    services: Vec<String>,
    all: bool,
    hierarchies: Hierarchies,
    /// Bytes of memory that the machine has.
    total: u64,
    last: Vec<(ContainerState, Option<Look>)>,
}

impl App {
    /// `stats`: call [`Meter::sample`] as often as wanted.
    ///
    /// # Errors
    /// Wrong services, unreadable state.
    pub fn meter(&self, services: Vec<String>, all: bool) -> Result<Meter<'_>, AppError> {
        let project = self.locate_with(&services)?;
        let hierarchies = hierarchies()?;
        let memory = fs::read_to_string("/proc/meminfo").map_err(AppError::io("read /proc/meminfo"))?;
        let total =
            memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
        let total = total.unwrap_or(0u64) * 1024;
        let mut meter = Meter { app: self, project, services, all, hierarchies, total, last: Vec::new() };
        meter.last = meter.look()?;
        Ok(meter)
    }

    /// `top`: the processes of each container that runs, by service, number and pid.
    ///
    /// # Errors
    /// Wrong services, unreadable state.
    pub fn top(&self, services: &[String]) -> Result<Vec<TopRow>, AppError> {
        let project = self.locate_with(services)?;
        let hierarchies = hierarchies()?;
        let mut containers = self.observe(&project, &[])?.containers;
        containers.retain(|one| services.is_empty() || services.contains(&one.service.name));
        containers.sort_by_key(|one| (one.service.name.clone(), one.number));
        let mut rows = Vec::new();
        for container in containers {
            let Phase::Running { pid, .. } = container.phase else { continue };
            let mut pids = self.group(&hierarchies, &project, &container, pid)?.processes().map_err(group_error)?;
            pids.sort_unstable();
            rows.extend(pids.into_iter().filter_map(Process::read).map(|process| TopRow {
                service: container.service.name.clone(),
                number: container.number,
                user: user_name(process.uid),
                pid: process.pid,
                parent: process.parent,
                terminal: process.terminal,
                cpu: process.cpu,
                age: process.age,
                command: process.command,
            }));
        }
        Ok(rows)
    }

    fn group(
        &self,
        hierarchies: &Hierarchies,
        project: &str,
        container: &ContainerState,
        pid: i32,
    ) -> Result<Cgroup, AppError> {
        let parent = container.service.container.resources.cgroup_parent.as_deref();
        let path = self.roots.cgroup_path(project, parent, &container.id);
        Cgroup::around(hierarchies, &path, pid).map_err(group_error)
    }
}

impl Meter<'_> {
    /// What is used now, the processor since the last time.
    ///
    /// # Errors
    /// Unreadable state.
    pub fn sample(&mut self) -> Result<Vec<Sample>, AppError> {
        let before = std::mem::take(&mut self.last);
        self.last = self.look()?;
        let sample = |(container, now): &(ContainerState, Option<Look>)| {
            let before = before.iter().find(|(other, _)| other.id == container.id).and_then(|(_, look)| *look);
            let mut sample = Sample { id: container.id.clone(), name: container.name.clone(), ..Sample::default() };
            if let Some(now) = now {
                let share = before.map_or(0.0, |before| share(&before, now));
                let limit = now.usage.memory_limit.unwrap_or(self.total).min(self.total);
                sample.cpu = share;
                (sample.memory, sample.limit) = (now.usage.memory, limit);
                (sample.received, sample.sent) = now.network;
                (sample.read, sample.written, sample.pids) = (now.usage.read, now.usage.written, now.usage.pids);
            }
            sample
        };
        Ok(self.last.iter().map(sample).collect())
    }

    fn look(&self) -> Result<Vec<(ContainerState, Option<Look>)>, AppError> {
        let mut containers = self.app.observe(&self.project, &[])?.containers;
        containers.retain(|one| self.services.is_empty() || self.services.contains(&one.service.name));
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        let mut looks = Vec::new();
        for container in containers {
            let look = match container.phase {
                Phase::Running { pid, .. } => {
                    let group = self.app.group(&self.hierarchies, &self.project, &container, pid)?;
                    let usage = group.usage().map_err(group_error)?;
                    Some(Look { at: Instant::now(), usage, network: network_of(pid) })
                }
                _ if self.all => None,
                _ => continue,
            };
            looks.push((container, look));
        }
        Ok(looks)
    }
}

/// Processors in use between two looks: 1 is one of them all the time.
fn share(before: &Look, now: &Look) -> f64 {
    let used = now.usage.cpu.saturating_sub(before.usage.cpu);
    let passed = now.at.saturating_duration_since(before.at).max(Duration::from_millis(1));
    used.as_secs_f64() / passed.as_secs_f64()
}

/// Bytes received and sent in a process's network namespace, loopback left out.
fn network_of(pid: i32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let links = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    links.fold((0, 0), |(received, sent), (_, counters)| {
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let at = |index: usize| counters.get(index).copied().unwrap_or(0);
        (received + at(0), sent + at(8))
    })
}

fn user_name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let known = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    known.unwrap_or_else(|| uid.to_string())
}

fn hierarchies() -> Result<Hierarchies, AppError> {
    Hierarchies::detect().map_err(group_error)
}

fn group_error(error: crate::engine::cgroup::CgroupError) -> AppError {
    AppError::Usage(error.to_string())
}
