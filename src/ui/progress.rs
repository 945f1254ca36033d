//! Progress of a change: a live region on a terminal, plain lines, JSON lines, or nothing.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::ui::{Colour, visible, visible_name};

/// Something that happens to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressEvent {
    /// Kind and name, such as `Container demo-web-1`.
    pub id: String,
    /// docker compose's word, such as `Starting`.
    pub status: String,
    /// More about it; may be empty.
    pub text: String,
    pub state: ProgressState,
}

/// How far a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressState {
    Working,
    Done,
    Warning,
    Error,
}

/// How progress is shown (`--progress`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressMode {
    /// Redrawn in place, with colours when `colour`.
    Terminal {
        colour: bool,
    },
    Plain,
    Json,
    Quiet,
}

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// Columns that a name leaves for what is said of it.
const LEAST: usize = 10;

/// Renders events as they come.
pub struct Progress<W: Write> {
    mode: ProgressMode,
    /// The word in the first line, such as `Running` or `Stopping`.
    title: &'static str,
    out: W,
    /// Columns and rows of the terminal.
    size: (usize, usize),
    tasks: Vec<Task>,
    /// What has been said to be on its way.
    downloading: BTreeSet<String>,
    /// Lines of the region as last drawn.
    drawn: usize,
    frame: usize,
}

struct Task {
    event: ProgressEvent,
    since: Instant,
    /// Set when it is no longer working.
    took: Option<Duration>,
}

impl<W: Write> Progress<W> {
    /// `size`: columns and rows, used in terminal mode only.
    pub fn new(mode: ProgressMode, title: &'static str, size: (usize, usize), out: W) -> Self {
        Self { mode, title, out, size, tasks: Vec::new(), downloading: BTreeSet::new(), drawn: 0, frame: 0 }
    }

    /// Takes in an event and shows it.
    ///
    /// # Errors
    /// What the output returns.
    pub fn event(&mut self, mut event: ProgressEvent, now: Instant) -> io::Result<()> {
        if self.mode != ProgressMode::Json {
            event.id = visible_name(&event.id).into_owned();
            event.status = visible_name(&event.status).into_owned();
            event.text = visible(&event.text).into_owned();
        }
        // Lines cannot be drawn over: that something is on its way is said once.
        let repeated =
            matches!(event.status.as_str(), "Downloading" | "Uploading") && !self.downloading.insert(event.id.clone());
        match self.mode {
            ProgressMode::Quiet => Ok(()),
            ProgressMode::Plain if repeated => Ok(()),
            ProgressMode::Json => {
                let line = json_line(&event);
                writeln!(self.out, "{line}")
            }
            ProgressMode::Plain => {
                let space = if event.text.is_empty() { "" } else { " " };
                writeln!(self.out, " {}  {}{space}{}", event.id, event.status, event.text)
            }
            ProgressMode::Terminal { colour } => {
                self.note(event, now);
                self.draw(colour, now)
            }
        }
    }

    /// Redraws: call it every 100 ms while waiting, so that spinner and seconds move.
    ///
    /// # Errors
    /// What the output returns.
    pub fn tick(&mut self, now: Instant) -> io::Result<()> {
        match self.mode {
            ProgressMode::Terminal { colour } if !self.tasks.is_empty() => {
                self.frame += 1;
                self.draw(colour, now)
            }
            _ => Ok(()),
        }
    }

    /// Ends a live region: what is done stays on the screen, everything else comes as plain lines.
    ///
    /// # Errors
    /// What the output returns.
    pub fn scroll(&mut self, now: Instant) -> io::Result<()> {
        let ProgressMode::Terminal { colour } = self.mode else { return Ok(()) };
        self.mode = ProgressMode::Plain;
        self.tasks.retain(|task| task.took.is_some());
        if self.drawn == 0 { Ok(()) } else { self.draw(colour, now) }
    }

    /// The terminal has another size now.
    pub fn resize(&mut self, columns: usize, rows: usize) {
        self.size = (columns, rows);
    }

    fn note(&mut self, event: ProgressEvent, now: Instant) {
        let working = event.state == ProgressState::Working;
        let task = match self.tasks.iter_mut().position(|task| task.event.id == event.id) {
            Some(at) => self.tasks.get_mut(at),
            None => {
                self.tasks.push(Task { event: event.clone(), since: now, took: None });
                self.tasks.last_mut()
            }
        };
        let Some(task) = task else { return };
        if working && task.took.take().is_some() {
            // A further stage of the same resource (created, now starting) is timed by itself.
            task.since = now;
        }
        if !working {
            task.took = Some(now.saturating_duration_since(task.since));
        }
        task.event = event;
    }

    fn draw(&mut self, colour: bool, now: Instant) -> io::Result<()> {
        let (columns, rows) = self.size;
        let done = self.tasks.iter().filter(|task| task.took.is_some()).count();
        let all = done == self.tasks.len();
        let head = format!("[+] {} {done}/{}", self.title, self.tasks.len());
        let head = cut(&head, columns).into_owned();
        let head = if colour && all { Colour::Blue.paint(&head) } else { head };
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A\x1b[0G", self.drawn));
        }
        text.push_str("\x1b[?25l");
        text.push_str(&head);
        text.push_str("\x1b[K\n");
        // What does not fit on the screen could not be drawn over: unfinished ones go first then.
        let room = rows.saturating_sub(2).max(1);
        let mut shown: Vec<&Task> = self.tasks.iter().collect();
        if shown.len() > room {
            shown.sort_by_key(|task| task.took.is_some());
            shown.truncate(room);
        }
        let ids = shown.iter().map(|task| task.event.id.chars().count()).max().unwrap_or(0);
        for task in &shown {
            text.push_str(&task_line(task, ids, columns, SPINNER.get(self.frame % SPINNER.len()), colour, now));
            text.push_str("\x1b[K\n");
        }
        text.push_str("\x1b[J\x1b[?25h");
        self.drawn = shown.len() + 1;
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

fn task_line(task: &Task, ids: usize, columns: usize, spinner: Option<&&str>, colour: bool, now: Instant) -> String {
    let event = &task.event;
    let (mark, paint) = match event.state {
        ProgressState::Working => (spinner.copied().unwrap_or("-"), Colour::Yellow),
        ProgressState::Done => ("✔", Colour::Green),
        ProgressState::Warning => ("!", Colour::Yellow),
        ProgressState::Error => ("✘", Colour::Red),
    };
    let took = task.took.unwrap_or_else(|| now.saturating_duration_since(task.since));
    let timer = format!("{:.1}s", took.as_secs_f64());
    // ` M ID  STATUS TEXT … TIMER `; text is cut so that the line stays one line, and where that is not enough the name, then
    // the time.
    let others = 5 + timer.len() + 2;
    let ids = ids.min(columns.saturating_sub(others + LEAST).max(columns / 2));
    let (timer, room) = match columns.saturating_sub(others + ids) {
        0 => (String::new(), columns.saturating_sub(5 + ids + 2)),
        room => (timer, room),
    };
    let first_line = event.text.lines().next().unwrap_or_default();
    let plain = if first_line.is_empty() { event.status.clone() } else { format!("{} {first_line}", event.status) };
    let plain: String = plain.chars().take(room).collect();
    let fill = " ".repeat(room.saturating_sub(plain.chars().count()) + 1);
    let id = cut(&event.id, ids);
    if !colour {
        return format!(" {mark} {id:ids$}  {plain}{fill}{timer} ");
    }
    let status = if event.state == ProgressState::Working { plain } else { paint.paint(&plain) };
    format!(" {} {id:ids$}  {status}{fill}{}", paint.paint(mark), Colour::Blue.paint(&format!("{timer} ")))
}

/// A text, or as much of it as fits.
fn cut(text: &str, width: usize) -> Cow<'_, str> {
    match text.chars().count() > width {
        true => Cow::Owned(text.chars().take(width.saturating_sub(1)).chain(['…']).collect()),
        false => Cow::Borrowed(text),
    }
}

fn json_line(event: &ProgressEvent) -> serde_json::Value {
    let mut line = serde_json::Map::new();
    line.insert("id".to_owned(), event.id.clone().into());
    line.insert("status".to_owned(), event.status.clone().into());
    if !event.text.is_empty() {
        line.insert("text".to_owned(), event.text.clone().into());
    }
    if event.state == ProgressState::Error {
        line.insert("error".to_owned(), true.into());
    }
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, status: &str, state: ProgressState) -> ProgressEvent {
        ProgressEvent { id: id.to_owned(), status: status.to_owned(), text: String::new(), state }
    }

    fn shown(mode: ProgressMode) -> String {
        let mut out = Vec::new();
        let mut progress = Progress::new(mode, "Running", (60, 24), &mut out);
        let start = Instant::now();
        let later = start + Duration::from_millis(200);
        progress.event(event("Container x-web-1", "Starting", ProgressState::Working), start).unwrap();
        progress.event(event("Network x", "Created", ProgressState::Done), start).unwrap();
        progress.event(event("Container x-web-1", "Started", ProgressState::Done), later).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_lines_are_docker_composes() {
        let expected = " Container x-web-1  Starting\n Network x  Created\n Container x-web-1  Started\n";
        assert_eq!(shown(ProgressMode::Plain), expected);
    }

    #[test]
    fn names_make_no_lines_and_do_nothing_to_the_terminal() {
        let mut out = Vec::new();
        let mut progress = Progress::new(ProgressMode::Plain, "Running", (60, 24), &mut out);
        progress.event(event("Volume a\x1b[2J\n Volume b", "Cre\rated", ProgressState::Done), Instant::now()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), " Volume a\\u{1b}[2J\\n Volume b  Cre\\rated\n");
    }

    #[test]
    fn json_lines_have_id_and_status() {
        let first = "{\"id\":\"Container x-web-1\",\"status\":\"Starting\"}\n";
        assert!(shown(ProgressMode::Json).starts_with(first));
    }

    #[test]
    fn the_region_is_drawn_over_itself() {
        let text = shown(ProgressMode::Terminal { colour: false });
        let last = text.rsplit("\x1b[3A\x1b[0G").next().unwrap();
        let expected = "\x1b[?25l[+] Running 2/2\x1b[K\n \
            ✔ Container x-web-1  Started                          0.2s \x1b[K\n \
            ✔ Network x          Created                          0.0s \x1b[K\n\x1b[J\x1b[?25h";
        assert_eq!(last, expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for (columns, expected) in [
            (60, " ✔ Container a-project-with-a-very-long-s…  Started    0.0s "),
            (40, " ✔ Container a-project…  Started   0.0s "),
            (20, " ✔ Container…  Sta  "),
        ] {
            let mut out = Vec::new();
            let mut progress =
                Progress::new(ProgressMode::Terminal { colour: false }, "Running", (columns, 9), &mut out);
            let started = event("Container a-project-with-a-very-long-service-1", "Started", ProgressState::Done);
            progress.event(started, Instant::now()).unwrap();
            let text = String::from_utf8(out).unwrap();
            let lines: Vec<&str> = text.lines().map(|line| line.trim_start_matches("\u{1b}[?25l")).collect();
            let line = lines[1].trim_end_matches("\u{1b}[K");
            assert_eq!(line, expected);
            assert!(
                line.chars().count() <= columns && lines[0].trim_end_matches("\u{1b}[K").chars().count() <= columns,
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_region_larger_than_the_screen_shows_what_is_not_done() {
        let mut out = Vec::new();
        let mut progress = Progress::new(ProgressMode::Terminal { colour: false }, "Running", (60, 5), &mut out);
        let now = Instant::now();
        for number in 0..10 {
            let state = if number < 8 { ProgressState::Done } else { ProgressState::Working };
            progress.event(event(&format!("Container {number}"), "x", state), now).unwrap();
        }
        let text = String::from_utf8(out).unwrap();
        let last = text.rsplit("\x1b[0G").next().unwrap();
        assert_eq!(last.matches('\n').count(), 4);
        assert!(last.contains("Container 8") && last.contains("Container 9"));
    }
}
