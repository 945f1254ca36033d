//! What happens to containers, written down for `events`.

use std::fs::File;
use std::io::Write;

use serde_json::{Map, Value, json};

use crate::state::ContainerConfig;
use crate::supervisor::host::Host;

/// A file of events that has grown beyond this makes way for a new one; the one before it is kept.
const MAX_BYTES: u64 = 1 << 20;

impl Host {
    /// Appends an event of a container, in the shape of `docker compose events --json`.
    pub(super) fn note(&self, action: &str, config: &ContainerConfig, attributes: &[(&str, String)]) {
        let labels = config.service.container.labels.iter();
        let labels = labels.filter(|(name, _)| !name.starts_with("com.docker.compose."));
        let mut all: Map<String, Value> = labels.map(|(name, value)| (name.clone(), value.clone().into())).collect();
        all.extend(attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())));
        all.insert("image".to_owned(), config.service.container.image.clone().into());
        all.insert("name".to_owned(), config.name.clone().into());
        all.sort_keys();
        let line = json!({"action": action, "attributes": all, "id": config.id, "service": config.service.name,
            "time": format!("{:.9}", jiff::Timestamp::now()), "type": "container"});
        if let Err(error) = self.append(&format!("{line}\n")) {
            self.warn(&format!("an event cannot be written down: {error}"));
        }
    }

    fn append(&self, line: &str) -> std::io::Result<()> {
        let path = self.dir.events();
        let mut file = File::options().append(true).create(true).open(&path)?;
        if file.metadata()?.len() > MAX_BYTES {
            std::fs::rename(&path, self.dir.older_events())?;
            file = File::options().append(true).create(true).open(&path)?;
        }
        // One write, so that a line is whole or not there.
        file.write_all(line.as_bytes())
    }
}
