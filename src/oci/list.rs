//! `state`, `list` and `ps`.

use std::fmt::Write as _;

use crate::oci::arguments::{Format, Global};
use crate::oci::error::OciError;
use crate::oci::state::{Container, Record, Status};
use crate::ui::visible_name;

/// The state of the runtime specification, and what runc adds to it.
fn entry(container: &Container, record: Option<&Record>) -> serde_json::Value {
    let Some(record) = record else {
        return serde_json::json!({ "ociVersion": "1.0.0", "id": container.id, "status": Status::Creating.name(), "pid": 0 });
    };
    let status = container.status(record);
    let pid = if status == Status::Stopped { 0 } else { record.pid };
    serde_json::json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": pid,
        "status": status.name(),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "annotations": record.annotations,
        "owner": "",
    })
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

pub(super) fn state(global: &Global, id: &str) -> Result<String, OciError> {
    let container = Container::open(global, id)?;
    Ok(pretty(&entry(&container, container.record()?.as_ref())))
}

pub(super) fn list(global: &Global, format: Format, quiet: bool) -> Result<String, OciError> {
    let mut entries = Vec::new();
    for container in Container::all(global)? {
        // One that cannot be read does not hide the others, and is shown as what it is.
        let record = container.record().unwrap_or_default();
        entries.push(entry(&container, record.as_ref()));
    }
    if quiet {
        return Ok(entries.iter().map(|entry| format!("{}\n", field(entry, "id"))).collect());
    }
    if format == Format::Json {
        return Ok(format!("{}\n", serde_json::Value::from(entries)));
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED"].map(str::to_owned)];
    rows.extend(
        entries.iter().map(|entry| ["id", "pid", "status", "bundle", "created"].map(|name| field(entry, name))),
    );
    Ok(table(&rows))
}

fn field(entry: &serde_json::Value, name: &str) -> String {
    match entry.get(name) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(|cell| visible_name(cell))).collect();
    let widths: Vec<usize> = (0..N)
        .map(|column| rows.iter().filter_map(|row| row.get(column).map(|cell| cell.len())).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub(super) fn processes(global: &Global, id: &str, format: Format) -> Result<String, OciError> {
    let container = Container::open(global, id)?;
    let pids = container.made()?.group()?.processes()?;
    if format == Format::Json {
        return Ok(format!("{}\n", serde_json::json!(pids)));
    }
    let mut rows = vec![["PID", "COMMAND"].map(str::to_owned)];
    for pid in pids {
        // It can have ended meanwhile.
        let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        rows.push([pid.to_string(), String::from_utf8_lossy(&name).trim().to_owned()]);
    }
    Ok(table(&rows))
}
