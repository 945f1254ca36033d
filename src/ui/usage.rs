//! The tables of `system df`.

use serde_json::{Value, json};

use crate::ui::human;
use crate::ui::tables::table;

/// What takes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageKind {
    Image,
    Container,
    Volume,
    Cache,
}

/// One thing that takes room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    pub kind: UsageKind,
    /// Empty: of no project.
    pub project: String,
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Of it, what other images have, too.
    pub shared: u64,
    /// A container was made from it, or it runs, or a container has it.
    pub is_active: bool,
}

const KINDS: [(UsageKind, &str); 4] = [
    (UsageKind::Image, "Images"),
    (UsageKind::Container, "Containers"),
    (UsageKind::Volume, "Local Volumes"),
    (UsageKind::Cache, "Cache"),
];

/// One line per kind, as `docker system df` has it. `layers`: the size of all layers of images, each counted once.
pub fn usage(rows: &[UsageRow], layers: u64) -> String {
    let cells = |(kind, name): &(UsageKind, &str)| {
        let ours: Vec<&UsageRow> = rows.iter().filter(|row| row.kind == *kind).collect();
        let active = ours.iter().filter(|row| row.is_active).count();
        let is_image = *kind == UsageKind::Image;
        let all = if is_image { layers } else { ours.iter().map(|row| row.size).sum() };
        let free: u64 = match is_image && active == 0 {
            true => layers,
            false => ours.iter().filter(|row| !row.is_active).map(|row| row.size - row.shared).sum(),
        };
        let percent = (free * 100).checked_div(all).map(|percent| format!(" ({percent}%)")).unwrap_or_default();
        vec![
            (*name).to_owned(),
            ours.len().to_string(),
            active.to_string(),
            human::size(all),
            format!("{}{percent}", human::size(free)),
        ]
    };
    table(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"], &KINDS.iter().map(cells).collect::<Vec<_>>(), 10)
}

/// A table per kind, with every single thing and its project.
pub fn usage_verbose(rows: &[UsageRow]) -> String {
    let mut text = String::new();
    for (kind, name) in KINDS {
        let cells = |row: &UsageRow| {
            let project = if row.project.is_empty() { "-" } else { &row.project };
            let active = if row.is_active { "yes" } else { "no" };
            let (size, own) = (human::size(row.size), human::size(row.size - row.shared));
            vec![row.name.clone(), project.to_owned(), size, own, active.to_owned()]
        };
        let rows: Vec<_> = rows.iter().filter(|row| row.kind == kind).map(cells).collect();
        let table = table(&["NAME", "PROJECT", "SIZE", "UNIQUE SIZE", "ACTIVE"], &rows, 10);
        text.push_str(&format!("{name}:\n\n{table}\n"));
    }
    text
}

/// One JSON object for each row, a line each.
pub fn usage_json(rows: &[UsageRow]) -> String {
    let object = |row: &UsageRow| {
        let kind = KINDS.iter().find(|(kind, _)| *kind == row.kind).map_or("", |(_, name)| name);
        json!({"Type": kind, "Name": row.name, "Project": row.project, "Size": row.size,
            "SharedSize": row.shared, "Active": row.is_active})
    };
    format!("{}\n", Value::Array(rows.iter().map(object).collect()))
}
