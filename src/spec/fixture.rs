//! A container for tests that look at few of its fields.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ContainerSpec, ContainerState, HealthTimes, Phase, RestartPolicy, ServiceSpec};
use crate::base::ids::ContainerId;

/// The first container of a service.
pub(crate) fn container(service: &str, phase: Phase) -> ContainerState {
    ContainerState {
        id: ContainerId::from_bytes([7; 32]),
        name: format!("p-{service}-1"),
        number: 1,
        service: ServiceSpec {
            name: service.to_owned(),
            scale: 1,
            container_name: None,
            config_hash: String::new(),
            fields: serde_json::Map::new(),
            depends_on: BTreeMap::new(),
            restart: RestartPolicy::No,
            health: None,
            health_times: HealthTimes::default(),
            stop_signal: None,
            stop_grace: Duration::ZERO,
            post_start: Vec::new(),
            pre_start: Vec::new(),
            pre_stop: Vec::new(),
            attach: true,
            builds: false,
            auto_remove: false,
            container: ContainerSpec::default(),
        },
        image_id: String::new(),
        created_at: 0,
        phase,
        restarts: 0,
        stopped_by_user: false,
        rejoins: false,
        addresses: BTreeMap::new(),
        ports: Vec::new(),
    }
}
