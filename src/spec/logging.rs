//! Where a container's output goes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Output is always kept in local files, so that nothing is lost and `logs` works with every driver but `none`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// `None`: as much as the log store keeps by itself.
    pub keep: Option<Keep>,
    /// `logs` does not show it (driver `none`).
    pub hidden: bool,
    /// Sent on, line by line.
    pub forward: Option<Forward>,
}

/// `max-size` and `max-file`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Bytes of one file.
    pub size: u64,
    pub files: u32,
}

/// A log service that gets every line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    pub to: Destination,
    /// Docker's template of a tag, such as `{{.Name}}/{{.ID}}`.
    pub tag: String,
    /// Names of labels that go along (journald).
    pub labels: Vec<String>,
    /// Names of environment variables that go along (journald).
    pub env: Vec<String>,
}

/// Where log lines are sent besides the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    Journald,
    Syslog {
        address: SyslogAddress,
        /// 0 to 23.
        facility: u8,
        format: SyslogFormat,
    },
}

/// How a syslog server is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogAddress {
    /// The host's own.
    Local,
    /// A stream socket.
    Unix(PathBuf),
    /// A datagram socket.
    Unixgram(PathBuf),
    /// `HOST:PORT`.
    Udp(String),
    /// `HOST:PORT`.
    Tcp(String),
}

/// Shape of a syslog message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogFormat {
    /// As RFC 3164, without the host's name on a Unix socket, with an RFC 3339 time on others.
    Plain,
    Rfc3164,
    Rfc5424,
    /// With microseconds.
    Rfc5424Micro,
}

/// A tag with its `{{.Field}}`s filled in by `field`.
///
/// # Errors
/// What cannot be filled in.
pub fn expand_tag(template: &str, field: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut tag = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        tag.push_str(before);
        let (inside, behind) = after.split_once("}}").ok_or_else(|| format!("{{{{{after}"))?;
        let name = inside.trim().strip_prefix('.').unwrap_or_default();
        let known = ["ID", "FullID", "Name", "ImageName", "ImageID", "ImageFullID", "DaemonName", "Hostname"];
        let value = known.contains(&name).then(|| field(name)).flatten();
        tag.push_str(&value.ok_or_else(|| format!("{{{{{inside}}}}}"))?);
        rest = behind;
    }
    tag.push_str(rest);
    Ok(tag)
}
