//! The image configuration: the JSON document whose digest is the image's id.
//!
//! `oci-spec` has a type for it, but without the fields that Docker adds (`Healthcheck`, `Shell`, `OnBuild`).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cached::CachedStep;
use super::digest::Digest;
use super::manifest::Platform;

/// The whole document, as far as this program reads it; the store keeps the text itself.
/// <https://github.com/opencontainers/image-spec/blob/main/config.md>
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDocument {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ImageConfig,
    pub rootfs: RootFs,
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// What a build that finds the image elsewhere need not do again (`cache_to: [type=inline]`).
    #[serde(
        rename = "rcompose.cache.v0",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub build_cache: Vec<CachedStep>,
}

impl ImageDocument {
    pub fn platform(&self) -> Platform {
        let (architecture, os) = (self.architecture.clone(), self.os.clone());
        Platform { architecture, os, variant: self.variant.clone() }
    }
}

/// The layers, as digests of their uncompressed tar archives, lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type", default = "layers")]
    pub kind: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

fn layers() -> String {
    "layers".to_owned()
}

/// What made a layer, or changed only the configuration (OCI image specification, config.md).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// What a container of this image does when the service does not say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `user[:group]`, names or numbers, to be looked up in the image's own files; empty is root.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Such as `80/tcp`.
    #[serde(with = "set_as_object", skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    /// `NAME=value`, in order.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths that get an anonymous volume.
    #[serde(with = "set_as_object", skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What the shell form of instructions runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Of meaning on Windows only; Docker's builder sets it with a command.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
}

/// Docker's health check; times in nanoseconds, 0 is "not given".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// Empty (inherit), `["NONE"]`, `["CMD", arg…]` or `["CMD-SHELL", text]`.
    #[serde(deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Docker's encoder writes `null` for empty lists and maps.
fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(input: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// Docker writes a set as an object with empty objects as values.
mod set_as_object {
    use super::{BTreeMap, BTreeSet, Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Nothing {}

    pub(super) fn serialize<S: Serializer>(set: &BTreeSet<String>, output: S) -> Result<S::Ok, S::Error> {
        output.collect_map(set.iter().map(|key| (key, Nothing {})))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<BTreeSet<String>, D::Error> {
        let map = Option::<BTreeMap<String, Option<Nothing>>>::deserialize(input)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_nulls_and_own_fields_are_read() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"User":"","ExposedPorts":{"80/tcp":{}},"Env":null,
            "Cmd":["a"],"Entrypoint":null,"Volumes":null,"Labels":null,"OnBuild":null,"WorkingDir":"/w","ArgsEscaped":true,
            "Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":1000000000,"Retries":3},"StopSignal":"SIGQUIT"},
            "rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let document: ImageDocument = serde_json::from_str(text).unwrap();
        assert_eq!(document.config.exposed_ports, BTreeSet::from(["80/tcp".to_owned()]));
        assert_eq!(document.config.entrypoint, None);
        assert_eq!(document.config.healthcheck.as_ref().unwrap().interval, 1_000_000_000);
        assert_eq!(document.config.stop_signal.as_deref(), Some("SIGQUIT"));
        let again: ImageDocument = serde_json::from_str(&serde_json::to_string(&document).unwrap()).unwrap();
        assert_eq!(again, document);
    }
}
