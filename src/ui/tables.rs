//! `ps`, `ls`, `images` and `image ls` in the layouts of docker compose 2.40.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::spec::observed::Published;
use crate::spec::{ContainerState, Health, Phase};
use crate::ui::{human, visible_name};

/// Nanoseconds in a second.
const SECOND: i64 = 1_000_000_000;

/// Columns three spaces apart, each as wide as its widest cell and at least `least`.
pub(super) fn table(head: &[&str], rows: &[Vec<String>], least: usize) -> String {
    // Names of processes and the like are not ours.
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| visible_name(cell)).collect()).collect();
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let head: Vec<Cow<'_, str>> = head.iter().map(|cell| Cow::Borrowed(*cell)).collect();
    for row in std::iter::once(&head).chain(&rows) {
        let last = row.len().saturating_sub(1);
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            text.push_str(cell);
            if column < last {
                let width = (width + 3).max(least);
                text.push_str(&" ".repeat(width - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}

/// What `ps` says besides the container's own state.
#[derive(Clone, Debug, PartialEq)]
pub struct PsRow<'a> {
    pub container: &'a ContainerState,
    pub project: &'a str,
    /// The command as it runs, entrypoint included.
    pub command: &'a [String],
    pub networks: &'a [String],
    /// Names of volumes, and paths of this machine.
    pub mounts: &'a [String],
    /// How many of these are volumes.
    pub volumes: usize,
    /// It has ended and is about to be started again.
    pub restarting: bool,
}

/// The `ps` table. `now`: nanoseconds since the epoch.
pub fn ps(rows: &[PsRow<'_>], no_trunc: bool, now: i64) -> String {
    let cells = |row: &PsRow<'_>| {
        let container = row.container;
        vec![
            container.name.clone(),
            container.service.container.image.clone(),
            command(row.command, no_trunc),
            container.service.name.clone(),
            ago(container.created_at, now),
            row.status(now),
            ports(&container.ports),
        ]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    table(&["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"], &rows, 10)
}

/// What `ps --format json` and templates show of each container.
pub fn ps_objects(rows: &[PsRow<'_>], no_trunc: bool, now: i64) -> Vec<Value> {
    rows.iter().map(|row| ps_object(row, no_trunc, now)).collect()
}

fn ps_object(row: &PsRow<'_>, no_trunc: bool, now: i64) -> Value {
    let container = row.container;
    let spec = &container.service.container;
    let exit_code = match &container.phase {
        Phase::Exited(exit) => exit.code,
        _ => 0,
    };
    let health = match &container.phase {
        Phase::Running { health: Some(health), .. } => health_word(*health),
        _ => "",
    };
    let labels: Vec<_> = spec.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mounts: Vec<_> = row.mounts.iter().map(|name| if no_trunc { name.clone() } else { cut(name, 15) }).collect();
    let publishers: Vec<_> = container
        .ports
        .iter()
        .map(|port| {
            json!({"URL": port.host_ip, "TargetPort": port.container, "PublishedPort": port.host,
                "Protocol": port.protocol})
        })
        .collect();
    let id = if no_trunc { container.id.as_str() } else { container.id.short() };
    json!({
        "Command": command(row.command, no_trunc),
        "CreatedAt": created_at(container.created_at),
        "ExitCode": exit_code,
        "Health": health,
        "ID": id,
        "Image": spec.image,
        "Labels": labels.join(","),
        "LocalVolumes": row.volumes.to_string(),
        "Mounts": mounts.join(","),
        "Name": container.name,
        "Names": container.name,
        "Networks": row.networks.join(","),
        "Ports": ports(&container.ports),
        "Project": row.project,
        "Publishers": publishers,
        "RunningFor": ago(container.created_at, now),
        "Service": container.service.name,
        "Size": "0B",
        "State": state(&container.phase, row.restarting),
        "Status": row.status(now),
    })
}

fn created_at(nanoseconds: i64) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default();
    at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

/// The quoted command, cut at 20 characters unless `no_trunc`.
fn command(words: &[String], no_trunc: bool) -> String {
    // Docker puts arguments with spaces in quotes.
    let quote = |(index, word): (usize, &String)| match index > 0 && word.contains(' ') {
        true => format!("'{word}'"),
        false => word.clone(),
    };
    let quoted: Vec<_> = words.iter().enumerate().map(quote).collect();
    let joined = quoted.join(" ");
    in_quotes(&if no_trunc { joined } else { cut(&joined, 20) })
}

/// At most `most` characters, the last of which tells that there were more.
fn cut(text: &str, most: usize) -> String {
    match text.chars().count() <= most {
        true => text.to_owned(),
        false => text.chars().take(most - 1).chain(['…']).collect(),
    }
}

/// In quotes, as Go writes text: quotes in it, `\` and control characters are escaped.
fn in_quotes(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// `5 seconds ago`.
fn ago(then: i64, now: i64) -> String {
    format!("{} ago", human::duration(now.saturating_sub(then) / SECOND))
}

const fn health_word(health: Health) -> &'static str {
    match health {
        Health::Starting => "starting",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    }
}

impl PsRow<'_> {
    fn status(&self, now: i64) -> String {
        match self.container.phase {
            Phase::Exited(exit) if self.restarting => format!("Restarting ({}) {}", exit.code, ago(exit.at, now)),
            ref phase => status(phase, now),
        }
    }
}

/// docker's word for where a container is: `created`, `running` or `exited`; what `ps --status` compares with.
pub const fn state(phase: &Phase, restarting: bool) -> &'static str {
    match phase {
        Phase::Exited(_) if restarting => "restarting",
        Phase::Created => "created",
        Phase::Running { paused: true, .. } => "paused",
        Phase::Running { .. } => "running",
        Phase::Exited(_) => "exited",
    }
}

/// `Up 5 seconds (healthy)`, `Exited (0) 3 seconds ago`, `Created`.
pub fn status(phase: &Phase, now: i64) -> String {
    match phase {
        Phase::Created => "Created".to_owned(),
        Phase::Running { started_at, health, paused, .. } => {
            let up = format!("Up {}", human::duration(now.saturating_sub(*started_at) / SECOND));
            match health {
                _ if *paused => format!("{up} (Paused)"),
                None => up,
                Some(Health::Starting) => format!("{up} (health: starting)"),
                Some(health) => format!("{up} ({})", health_word(*health)),
            }
        }
        Phase::Exited(exit) => format!("Exited ({}) {}", exit.code, ago(exit.at, now)),
    }
}

/// Ports as the `PORTS` column shows them: neighbours that map one to one are merged.
pub fn ports(ports: &[Published]) -> String {
    let mut sorted: Vec<&Published> = ports.iter().collect();
    sorted.sort_by_key(|port| (port.host_ip.is_ipv6(), port.host_ip, port.protocol, port.container, port.host));
    // Runs of (first, length); docker merges only where host and container port are the same.
    let mut runs: Vec<(&Published, u16)> = Vec::new();
    for port in sorted {
        if let Some((first, length)) = runs.last_mut() {
            let continues = first.host_ip == port.host_ip
                && first.protocol == port.protocol
                && first.host == first.container
                && port.host == port.container
                && first.container.checked_add(*length) == Some(port.container);
            if continues {
                *length += 1;
                continue;
            }
        }
        runs.push((port, 1));
    }
    // Those with equal ports stand before the others, as docker prints them.
    runs.sort_by_key(|(port, _)| {
        (port.host != port.container, port.container, port.host_ip.is_ipv6(), port.host_ip, port.host, port.protocol)
    });
    let show = |(first, length): &(&Published, u16)| {
        let range = |port: u16| match length {
            1 => port.to_string(),
            _ => format!("{port}-{}", port.saturating_add(length - 1)),
        };
        let ip = match first.host_ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        format!("{ip}:{}->{}/{}", range(first.host), range(first.container), first.protocol)
    };
    runs.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// One project in `ls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LsRow {
    pub name: String,
    /// How many containers are in which state (`running`, `exited`, `created`).
    pub states: BTreeMap<String, usize>,
    pub config_files: Vec<String>,
}

impl LsRow {
    fn status(&self) -> String {
        self.states.iter().map(|(state, count)| format!("{state}({count})")).collect::<Vec<_>>().join(", ")
    }
}

/// The `ls` table.
pub fn ls(rows: &[LsRow]) -> String {
    let cells = |row: &LsRow| vec![row.name.clone(), row.status(), row.config_files.join(",")];
    let rows: Vec<_> = rows.iter().map(cells).collect();
    table(&["NAME", "STATUS", "CONFIG FILES"], &rows, 20)
}

/// `ls --format json`: one array.
pub fn ls_json(rows: &[LsRow]) -> String {
    let object =
        |row: &LsRow| json!({"Name": row.name, "Status": row.status(), "ConfigFiles": row.config_files.join(",")});
    format!("{}\n", Value::Array(rows.iter().map(object).collect()))
}

/// An image in `images` (with its container) or `image ls` (without).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow {
    pub container: String,
    pub repository: String,
    pub tag: String,
    /// `linux/amd64`.
    pub platform: String,
    /// `sha256:…`.
    pub id: String,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since the epoch; `None`: the image does not say.
    pub created: Option<i64>,
    /// Of its manifest at the registry; `None`: nobody knows it.
    pub digest: Option<String>,
}

impl ImageRow {
    fn short_id(&self) -> String {
        self.shown_id(false)
    }

    /// Its id, with `no_trunc` the whole of it.
    pub fn shown_id(&self, no_trunc: bool) -> String {
        shown_id(&self.id, no_trunc)
    }

    fn created_ago(&self, now: i64) -> String {
        self.created.map_or_else(|| "N/A".to_owned(), |created| ago(created, now))
    }
}

fn shown_id(id: &str, no_trunc: bool) -> String {
    if no_trunc { id.to_owned() } else { id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect() }
}

/// The `images` table: the images of a project's containers.
pub fn images(rows: &[ImageRow], now: i64) -> String {
    let cells = |row: &ImageRow| {
        vec![
            row.container.clone(),
            row.repository.clone(),
            row.tag.clone(),
            row.platform.clone(),
            row.short_id(),
            human::size(row.size),
            row.created_ago(now),
        ]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    table(&["CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED"], &rows, 20)
}

/// `images --format json`: one array.
pub fn images_json(rows: &[ImageRow]) -> String {
    let object = |row: &ImageRow| {
        let created = row.created.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), human::timestamp);
        json!({"ID": row.id, "ContainerName": row.container, "Repository": row.repository, "Tag": row.tag,
            "Platform": row.platform, "Size": row.size, "LastTagTime": created})
    };
    format!("{}\n", Value::Array(rows.iter().map(object).collect()))
}

/// A step of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryRow {
    /// `sha256:…`; empty: not known by itself.
    pub id: String,
    /// Nanoseconds since the epoch.
    pub created: Option<i64>,
    pub created_by: String,
    /// Bytes.
    pub size: u64,
    pub comment: String,
}

impl HistoryRow {
    /// Its id, with `no_trunc` the whole of it.
    pub fn shown_id(&self, no_trunc: bool) -> String {
        if self.id.is_empty() { "<missing>".to_owned() } else { shown_id(&self.id, no_trunc) }
    }
}

/// How a history is shown.
#[derive(Clone, Copy, Debug)]
pub struct HistoryStyle {
    pub no_trunc: bool,
    /// Sizes and times for people.
    pub human: bool,
    /// Nanoseconds since the epoch.
    pub now: i64,
}

/// The `image history` table.
pub fn image_history(rows: &[HistoryRow], style: HistoryStyle) -> String {
    let text = |row: &Value, key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let created = if style.human { "CreatedSince" } else { "CreatedAt" };
    let cells = |row: &Value| ["ID", created, "CreatedBy", "Size", "Comment"].map(|key| text(row, key)).to_vec();
    let rows: Vec<_> = history_objects(rows, style).iter().map(cells).collect();
    let created = if style.human { "CREATED" } else { "CREATED AT" };
    table(&["IMAGE", created, "CREATED BY", "SIZE", "COMMENT"], &rows, 10)
}

/// What `image history --format json` and templates show of each step.
pub fn history_objects(rows: &[HistoryRow], style: HistoryStyle) -> Vec<Value> {
    let HistoryStyle { no_trunc, human: for_people, now } = style;
    let short = |text: &str, most: usize| if no_trunc { text.to_owned() } else { cut(text, most) };
    let object = |row: &HistoryRow| {
        let size = if for_people { human::size(row.size) } else { row.size.to_string() };
        let since = row.created.map_or_else(|| "N/A".to_owned(), |created| ago(created, now));
        json!({"Comment": row.comment, "CreatedAt": row.created.map(second).unwrap_or_default(),
            "CreatedBy": short(&row.created_by.replace('\t', " "), 45), "CreatedSince": since,
            "ID": row.shown_id(no_trunc), "Size": size})
    };
    rows.iter().map(object).collect()
}

/// RFC 3339 without a fraction.
fn second(nanoseconds: i64) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The `image ls` table: everything in the store.
pub fn image_ls(rows: &[ImageRow], digests: bool, no_trunc: bool, now: i64) -> String {
    let cells = |row: &ImageRow| {
        let digest = digests.then(|| row.digest.clone().unwrap_or_else(|| "<none>".to_owned()));
        let rest = [row.shown_id(no_trunc), row.created_ago(now), human::size(row.size)];
        [row.repository.clone(), row.tag.clone()].into_iter().chain(digest).chain(rest).collect()
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    let head: &[&str] = match digests {
        true => &["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"],
        false => &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"],
    };
    table(head, &rows, 10)
}

/// What `image ls --format json` and templates show of each image.
pub fn image_objects(rows: &[ImageRow], no_trunc: bool, now: i64) -> Vec<Value> {
    let object = |row: &ImageRow| {
        let created = row.created.map_or_else(|| "N/A".to_owned(), created_at);
        json!({"Containers": "N/A", "CreatedAt": created, "CreatedSince": row.created_ago(now),
            "Digest": row.digest.as_deref().unwrap_or("<none>"), "ID": row.shown_id(no_trunc),
            "Repository": row.repository, "SharedSize": "N/A", "Size": human::size(row.size), "Tag": row.tag,
            "UniqueSize": "N/A", "VirtualSize": human::size(row.size)})
    };
    rows.iter().map(object).collect()
}

/// What `image inspect` prints.
pub fn inspected(found: &[Value]) -> String {
    let mut text = Vec::new();
    let four = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let written = found.serialize(&mut serde_json::Serializer::with_formatter(&mut text, four));
    debug_assert!(written.is_ok(), "a vector takes everything");
    String::from_utf8_lossy(&text).into_owned() + "\n"
}

/// A volume in `volumes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRow {
    pub name: String,
    /// Where its files are.
    pub folder: std::path::PathBuf,
    pub labels: BTreeMap<String, String>,
}

/// A variable that a project reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcedVariable {
    pub name: String,
    /// `None`: it has none.
    pub value: Option<String>,
    pub source: &'static str,
    pub required: bool,
    pub default: String,
}

/// The table of variables that is shown before a project from elsewhere is run.
pub fn sourced_variables(rows: &[SourcedVariable]) -> String {
    let cells = |row: &SourcedVariable| {
        // Control characters would be the project's to say what the terminal shows.
        let shown = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let value = row.value.as_deref().map_or("<unset>".to_owned(), shown);
        let required = if row.required { "yes" } else { "no" };
        vec![row.name.clone(), value, row.source.to_owned(), required.to_owned(), shown(&row.default)]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    table(&["VARIABLE", "VALUE", "SOURCE", "REQUIRED", "DEFAULT"], &rows, 0)
}

/// The `volumes` table.
pub fn volumes(rows: &[VolumeRow]) -> String {
    let rows: Vec<_> = rows.iter().map(|row| vec!["local".to_owned(), row.name.clone()]).collect();
    table(&["DRIVER", "VOLUME NAME"], &rows, 10)
}

/// What `volumes --format json` and templates show of each volume.
pub fn volume_objects(rows: &[VolumeRow]) -> Vec<Value> {
    let object = |row: &VolumeRow| {
        let labels: Vec<_> = row.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        json!({"Availability": "N/A", "Driver": "local", "Group": "N/A", "Labels": labels.join(","), "Links": "N/A",
            "Mountpoint": row.folder.display().to_string(), "Name": row.name, "Scope": "local", "Size": "N/A",
            "Status": "N/A"})
    };
    rows.iter().map(object).collect()
}

/// A network in `network ls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRow {
    pub id: String,
    pub name: String,
    pub project: String,
    pub driver: &'static str,
    pub internal: bool,
    /// In the notation of CIDR.
    pub subnets: Vec<String>,
    /// Names of those who are on it.
    pub containers: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

/// The `network ls` table.
pub fn networks(rows: &[NetworkRow]) -> String {
    let cells = |row: &NetworkRow| {
        let (driver, subnets) = (row.driver.to_owned(), row.subnets.join(" "));
        vec![row.id.clone(), row.name.clone(), driver, row.project.clone(), subnets, row.containers.join(" ")]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    table(&["NETWORK ID", "NAME", "DRIVER", "PROJECT", "SUBNETS", "CONTAINERS"], &rows, 0)
}

/// What `network ls --format json` and templates show of each network.
pub fn network_objects(rows: &[NetworkRow]) -> Vec<Value> {
    let object = |row: &NetworkRow| {
        let labels: Vec<_> = row.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        json!({"Containers": row.containers, "Driver": row.driver, "ID": row.id, "Internal": row.internal.to_string(),
            "Labels": labels.join(","), "Name": row.name, "Project": row.project, "Scope": "local", "Subnets": row.subnets})
    };
    rows.iter().map(object).collect()
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
