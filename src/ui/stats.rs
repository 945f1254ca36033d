//! `stats` and `top` in the layouts of docker compose 2.40.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::base::ids::ContainerId;
use crate::ui::{human, visible_name};

/// What a container uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub id: ContainerId,
    pub name: String,
    /// Processors in use.
    pub cpu: f64,
    /// Bytes.
    pub memory: u64,
    pub limit: u64,
    pub received: u64,
    pub sent: u64,
    pub read: u64,
    pub written: u64,
    pub pids: u64,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            id: ContainerId::from_bytes([0; 32]),
            name: String::new(),
            cpu: 0.0,
            memory: 0,
            limit: 0,
            received: 0,
            sent: 0,
            read: 0,
            written: 0,
            pids: 0,
        }
    }
}

impl Sample {
    /// Cells of the table, behind the id.
    fn cells(&self) -> [String; 7] {
        #[expect(clippy::cast_precision_loss, reason = "a percentage with two digits")]
        let share = if self.limit == 0 { 0.0 } else { self.memory as f64 / self.limit as f64 };
        [
            self.name.clone(),
            format!("{:.2}%", self.cpu * 100.0),
            format!("{} / {}", human::binary_size(self.memory), human::binary_size(self.limit)),
            format!("{:.2}%", share * 100.0),
            format!("{} / {}", human::size(self.received), human::size(self.sent)),
            format!("{} / {}", human::size(self.read), human::size(self.written)),
            self.pids.to_string(),
        ]
    }
}

/// The `stats` table.
pub fn stats(samples: &[Sample], no_trunc: bool) -> String {
    let head = ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    let rows = samples.iter().map(|sample| {
        let id = if no_trunc { sample.id.as_str() } else { sample.id.short() };
        std::iter::once(id.to_owned()).chain(sample.cells()).collect()
    });
    columns(&head, &rows.collect::<Vec<_>>(), 3, 10)
}

/// What `--format json` and templates are about.
pub fn stats_objects(samples: &[Sample]) -> Vec<Value> {
    let object = |sample: &Sample| {
        let [name, cpu, memory, share, network, blocks, pids] = sample.cells();
        json!({
            "BlockIO": blocks, "CPUPerc": cpu, "Container": sample.id.as_str(), "ID": sample.id.short(),
            "MemPerc": share, "MemUsage": memory, "Name": name, "NetIO": network, "PIDs": pids,
        })
    };
    samples.iter().map(object).collect()
}

/// A process in `top`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopRow {
    pub service: String,
    pub number: u32,
    pub user: String,
    pub pid: i32,
    pub parent: i32,
    /// Device number of the controlling terminal; 0: none.
    pub terminal: u64,
    /// Seconds of processor time.
    pub cpu: u64,
    /// Seconds since it began.
    pub age: u64,
    pub command: String,
}

/// The `top` table; empty when nothing runs. `now`: nanoseconds since the epoch.
pub fn top(rows: &[TopRow], now: i64) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head = ["SERVICE", "#", "UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
    let cells = |row: &TopRow| {
        vec![
            row.service.clone(),
            row.number.to_string(),
            row.user.clone(),
            row.pid.to_string(),
            row.parent.to_string(),
            (row.cpu * 100).checked_div(row.age).unwrap_or(0).min(99).to_string(),
            began(row.age, now),
            terminal(row.terminal),
            format!("{:02}:{:02}:{:02}", row.cpu / 3600, row.cpu / 60 % 60, row.cpu % 60),
            row.command.replace(['\n', '\t'], " "),
        ]
    };
    columns(&head, &rows.iter().map(cells).collect::<Vec<_>>(), 2, 4)
}

/// The time of the day, or the day when it was longer ago.
fn began(age: u64, now: i64) -> String {
    let zone = jiff::tz::TimeZone::system();
    let at = now.saturating_sub(i64::try_from(age).unwrap_or(0).saturating_mul(1_000_000_000));
    let local = |at: i64| {
        let at = jiff::Timestamp::from_nanosecond(i128::from(at)).unwrap_or_default();
        at.to_zoned_datetime(zone.clone())
    };
    let format = if age < 24 * 3600 { "%H:%M" } else { "%b%d" };
    local(at).strftime(format).to_string()
}

/// tty(4) and pts(4) by their device numbers.
fn terminal(device: u64) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match major {
        4 => format!("tty{minor}"),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => "?".to_owned(),
    }
}

fn columns(head: &[&str], rows: &[Vec<String>], gap: usize, least: usize) -> String {
    let head: Vec<Cow<'_, str>> = head.iter().map(|cell| Cow::Borrowed(*cell)).collect();
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| visible_name(cell)).collect()).collect();
    let all = || std::iter::once(&head).chain(&rows);
    let width =
        |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(|column| (width(column) + gap).max(least)).collect();
    let mut text = String::new();
    for row in all() {
        let last = row.len().saturating_sub(1);
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match column == last {
                true => text.push_str(cell),
                false => text.push_str(&format!("{cell:width$}")),
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_docker_composes() {
        let sample = Sample {
            name: "p-a-1".into(),
            memory: 568 << 10,
            limit: 25_275_068_416,
            received: 1040,
            sent: 126,
            pids: 2,
            ..Sample::default()
        };
        assert_eq!(
            stats(&[sample], false),
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O         BLOCK I/O   PIDS\n\
             000000000000   p-a-1     0.00%     568KiB / 23.54GiB   0.00%     1.04kB / 126B   0B / 0B     2\n"
        );
        let row = TopRow {
            service: "a".into(),
            number: 1,
            user: "root".into(),
            pid: 11213,
            parent: 11190,
            terminal: 0,
            cpu: 3,
            age: 100,
            command: "sleep 999".into(),
        };
        let shown = top(&[row], 1_700_000_000_000_000_000);
        assert!(
            shown.starts_with(
                "SERVICE  #   UID   PID    PPID   C   STIME  TTY  TIME      CMD\na        1   root  11213  11190  3   "
            ),
            "{shown}"
        );
        assert_eq!((terminal(34816), terminal(0)), ("pts/0".to_owned(), "?".to_owned()));
    }
}
