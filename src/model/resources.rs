//! Top-level resources: networks, volumes, configs, secrets, models.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::decode;

/// `networks.*`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Network {
    /// The engine's name for it: `PROJECT_KEY` unless the file says otherwise.
    pub name: String,
    pub driver: Option<String>,
    #[serde(deserialize_with = "decode::text_map")]
    pub driver_opts: BTreeMap<String, String>,
    pub ipam: Ipam,
    /// It must exist; it is neither made nor removed.
    pub external: bool,
    pub internal: bool,
    pub attachable: bool,
    pub enable_ipv4: Option<bool>,
    pub enable_ipv6: Option<bool>,
    #[serde(deserialize_with = "decode::text_map")]
    pub labels: BTreeMap<String, String>,
}

/// `ipam` of a network.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Ipam {
    pub driver: Option<String>,
    pub config: Vec<IpamPool>,
}

/// One of `ipam.config`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct IpamPool {
    /// CIDR.
    pub subnet: Option<String>,
    /// CIDR within the subnet.
    pub ip_range: Option<String>,
    pub gateway: Option<String>,
    /// Reserved addresses by host name.
    pub aux_addresses: BTreeMap<String, String>,
}

/// `volumes.*`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// The engine's name for it: `PROJECT_KEY` unless the file says otherwise.
    pub name: String,
    pub driver: Option<String>,
    #[serde(deserialize_with = "decode::text_map")]
    pub driver_opts: BTreeMap<String, String>,
    /// It must exist; it is neither made nor removed.
    pub external: bool,
    #[serde(deserialize_with = "decode::text_map")]
    pub labels: BTreeMap<String, String>,
}

/// `configs.*` and `secrets.*`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FileObject {
    pub name: String,
    /// Absolute path.
    pub file: Option<String>,
    /// Variable of the project's environment that holds the content.
    pub environment: Option<String>,
    pub content: Option<String>,
    pub external: bool,
    #[serde(deserialize_with = "decode::text_map")]
    pub labels: BTreeMap<String, String>,
    pub driver: Option<String>,
    #[serde(deserialize_with = "decode::text_map")]
    pub driver_opts: BTreeMap<String, String>,
    pub template_driver: Option<String>,
}

/// `models.*`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Model {
    pub name: Option<String>,
    pub model: String,
    pub context_size: Option<i64>,
    pub runtime_flags: Vec<String>,
}
