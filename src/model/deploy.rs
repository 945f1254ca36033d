//! How many replicas, with what resources, and how they are replaced.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::decode;

/// `services.*.deploy`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Deploy {
    /// `replicated`, `global`, `replicated-job`, `global-job`, or any other word.
    pub mode: Option<String>,
    pub replicas: Option<u32>,
    pub endpoint_mode: Option<String>,
    #[serde(deserialize_with = "decode::text_map")]
    pub labels: BTreeMap<String, String>,
    pub update_config: Option<UpdateConfig>,
    pub rollback_config: Option<UpdateConfig>,
    pub resources: Resources,
    pub restart_policy: Option<RestartPolicy>,
    pub placement: Placement,
}

/// `deploy.update_config` and `deploy.rollback_config`: for swarms, kept for `config`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct UpdateConfig {
    pub parallelism: Option<u64>,
    #[serde(deserialize_with = "decode::duration")]
    pub delay: Option<Duration>,
    pub failure_action: Option<String>,
    #[serde(deserialize_with = "decode::duration")]
    pub monitor: Option<Duration>,
    #[serde(deserialize_with = "decode::number")]
    pub max_failure_ratio: Option<f64>,
    pub order: Option<String>,
}

/// `deploy.resources`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub limits: Option<Limits>,
    pub reservations: Option<Reservations>,
}

/// `deploy.resources.limits`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Limits {
    #[serde(deserialize_with = "decode::number")]
    pub cpus: Option<f64>,
    /// Bytes.
    #[serde(deserialize_with = "decode::bytes")]
    pub memory: Option<i64>,
    pub pids: Option<i64>,
}

/// `deploy.resources.reservations`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Reservations {
    #[serde(deserialize_with = "decode::number")]
    pub cpus: Option<f64>,
    /// Bytes.
    #[serde(deserialize_with = "decode::bytes")]
    pub memory: Option<i64>,
    pub devices: Vec<DeviceRequest>,
    pub generic_resources: Vec<GenericResource>,
}

/// A request for devices by capability: `gpus` and `deploy.resources.reservations.devices`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    pub capabilities: Vec<String>,
    pub driver: Option<String>,
    pub count: Option<DeviceCount>,
    pub device_ids: Vec<String>,
    #[serde(deserialize_with = "decode::text_map")]
    pub options: BTreeMap<String, String>,
}

/// How many devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceCount {
    All,
    Exactly(i64),
}

impl<'de> Deserialize<'de> for DeviceCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) if text == "all" => Ok(Self::All),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(-1) => Ok(Self::All),
                Some(count) => Ok(Self::Exactly(count)),
                None => Err(D::Error::custom("a whole number or `all` is needed here")),
            },
            _ => Err(D::Error::custom("a whole number or `all` is needed here")),
        }
    }
}

/// One of `generic_resources`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GenericResource {
    pub discrete_resource_spec: Option<DiscreteResource>,
}

/// `discrete_resource_spec`: so many of a kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DiscreteResource {
    pub kind: String,
    pub value: i64,
}

/// `deploy.restart_policy`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RestartPolicy {
    pub condition: Option<RestartCondition>,
    #[serde(deserialize_with = "decode::duration")]
    pub delay: Option<Duration>,
    pub max_attempts: Option<u64>,
    #[serde(deserialize_with = "decode::duration")]
    pub window: Option<Duration>,
}

/// When the engine restarts a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestartCondition {
    None,
    OnFailure,
    Any,
    /// Not a word of the format; the reference reports it only when the container is made.
    Unknown(String),
}

impl<'de> Deserialize<'de> for RestartCondition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "none" => Self::None,
            "on-failure" => Self::OnFailure,
            "any" => Self::Any,
            _ => Self::Unknown(text),
        })
    }
}

/// `deploy.placement`: for swarms, kept for `config`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Placement {
    pub constraints: Vec<String>,
    pub preferences: Vec<PlacementPreference>,
    pub max_replicas_per_node: Option<u64>,
}

/// One of `deploy.placement.preferences`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PlacementPreference {
    pub spread: Option<String>,
}
