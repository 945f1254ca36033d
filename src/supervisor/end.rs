//! What happens when a container's first process ends.

use crate::base::ids::ContainerId;
use crate::control;
use crate::engine::cgroup::Cgroup;
use crate::keeper::ExitRecord;
use crate::runtime::RuntimeEvent;
use crate::spec::Exit;
use crate::spec::Phase;
use crate::state::{ContainerConfig, ContainerRecord};
use crate::supervisor::failure::because;
use crate::supervisor::host::Host;

impl Host {
    /// Waits for the end of a container, and deals with all of it but the reconciler's part: with each one's apart, as hooks, another
    /// runtime or a log service may take their time with one of them.
    pub(super) async fn next_end(&self) -> Option<RuntimeEvent> {
        let (reported, under_way) = &mut *self.ends.lock().await;
        loop {
            tokio::select! {
                end = reported.recv() => {
                    let (id, record) = end?;
                    let host = self.clone();
                    under_way.spawn_local(async move { host.end_of(&id, record).await });
                }
                Some(dealt) = under_way.join_next() => match dealt {
                    Ok(Some(event)) => return Some(event),
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Ok(None) | Err(_) => {}
                }
            }
        }
    }

    async fn end_of(&self, id: &str, record: ExitRecord) -> Option<RuntimeEvent> {
        let Some(id) = ContainerId::parse(id) else {
            self.release_process(id);
            return None;
        };
        while self.starting.borrow().contains(&id) {
            self.started.notified().await;
        }
        let exit = self.ended(&id, record).await?;
        Some(RuntimeEvent::Exited { id, exit })
    }

    /// `None` when the container is not one of ours any more.
    pub(super) async fn ended(&self, id: &ContainerId, record: ExitRecord) -> Option<Exit> {
        // Orphans of the first process, where it had no pid namespace of its own, end with it.
        self.kill_group(id);
        self.disconnect(id);
        if let Ok(record) = self.load(id) {
            self.forget_other(&record.config).await;
            self.run_poststop_hooks(&record.config).await;
        }
        let drained = self.drain(id);
        drained.await;
        self.remove_group(id);
        if let Err(error) = self.link.release(id.as_str()) {
            self.warn(&format!("cannot release container {}: {error}", id.short()));
        }
        // Until now it counted as running: a supervisor with nothing that runs may end, and would leave the rest undone.
        self.live.borrow_mut().remove(id);
        let found = self.load(id).ok()?;
        self.detach_volumes(&found.config);
        let exit = match found.observe(|_| false).phase {
            Phase::Exited(exit) => exit,
            Phase::Created | Phase::Running { .. } => {
                Exit { code: record.code.unwrap_or(255), oom: record.oom, at: record.at }
            }
        };
        self.seen(exit.at);
        // Whoever follows the logs knows by this that they are complete.
        let mut state = found.state.clone();
        state.run = None;
        state.paused = false;
        state.exit = Some(exit);
        if let Err(error) = self.write_state(id, &state) {
            self.warn(&error.message);
        }
        if exit.oom {
            self.note("oom", &found.config, &[]);
        }
        let ran = found.state.run.map_or(0, |run| exit.at.saturating_sub(run.started_at) / 1_000_000_000);
        let attributes = [("exitCode", exit.code.to_string()), ("execDuration", ran.to_string())];
        self.note("die", &found.config, &attributes);
        if state.stopped_by_user {
            self.note("stop", &found.config, &[]);
        }
        self.tell(&control::Event::Exited {
            container: found.config.name.clone(),
            service: found.config.service.name.clone(),
            code: exit.code,
        });
        Some(exit)
    }

    /// Unmounts the volumes of an ended container that no other one runs with.
    pub(super) fn detach_volumes(&self, config: &ContainerConfig) {
        for name in config.volumes.values() {
            if let Err(error) = self.volumes.detach(name, || self.is_volume_live(name, &config.id)) {
                self.warn(&because("cannot unmount the volume", &error).message);
            }
        }
    }

    /// Whether a container other than `except`, of any project, runs (or starts) with the volume.
    fn is_volume_live(&self, name: &str, except: &ContainerId) -> bool {
        let runs = |record: &ContainerRecord| {
            let id = &record.config.id;
            self.starting.borrow().contains(id)
                || record.state.run.as_ref().is_some_and(|run| super::is_same_process(&self.boot_id, run))
        };
        let has = |record: &ContainerRecord| {
            record.config.id != *except && record.config.volumes.values().any(|volume| volume == name) && runs(record)
        };
        // What cannot be read may well run.
        let Ok(projects) = self.roots.projects() else { return true };
        projects.iter().any(|project| self.roots.project(project).load().map_or(true, |all| all.iter().any(has)))
    }

    pub(super) fn kill_group(&self, id: &ContainerId) {
        let group = Cgroup::open(&self.hierarchies, &self.cgroup_path(id));
        if let Err(error) = group.and_then(|group| group.kill()) {
            self.warn(&format!("cannot kill what is left in container {}: {error}", id.short()));
        }
    }

    pub(super) fn remove_group(&self, id: &ContainerId) {
        let group = Cgroup::open(&self.hierarchies, &self.cgroup_path(id));
        if let Err(error) = group.and_then(|group| group.remove()) {
            self.warn(&format!("cannot remove the control group of container {}: {error}", id.short()));
        }
    }
}
