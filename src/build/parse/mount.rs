//! `RUN --mount=…`.

/// A mount as written: its options in order. Variables are replaced by [`Mount::resolve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    options: Vec<(String, Option<String>)>,
}

/// A mount with everything decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedMount {
    pub kind: MountKind,
    /// Inside; empty where there is none (a secret as variable).
    pub target: String,
    /// Path in the stage, image or context that `from` names.
    pub source: String,
    pub from: Option<String>,
    pub read_only: bool,
    /// Of caches, secrets and agents.
    pub id: String,
    pub sharing: Sharing,
    pub required: bool,
    pub mode: Option<u32>,
    pub uid: u32,
    pub gid: u32,
    /// Bytes, of a tmpfs.
    pub size: Option<u64>,
    /// A secret as this variable.
    pub env: Option<String>,
}

/// `type=` of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// Who may use a cache at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    Shared,
    /// Each that comes while it is in use gets a new one.
    Private,
    /// One after the other.
    Locked,
}

impl Mount {
    /// Takes `type=cache,target=/x` apart.
    ///
    /// # Errors
    /// What is not an option of a mount.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut options = Vec::new();
        for field in fields(text) {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
                None => (field.to_ascii_lowercase(), None),
            };
            if key == "from" && value.as_deref().is_some_and(|value| value.contains('$')) {
                return Err("`from` takes no variables; name a stage with `FROM … AS` instead".to_owned());
            }
            options.push((key, value));
        }
        let mount = Self { options };
        if !mount.options.iter().any(|(_, value)| value.as_deref().is_some_and(|value| value.contains('$'))) {
            mount.resolve(&mut |value| Ok(value.to_owned()))?;
        }
        Ok(mount)
    }

    /// The stage, image or context that it comes from.
    pub fn from(&self) -> Option<&str> {
        self.options.iter().find(|(key, _)| key == "from").and_then(|(_, value)| value.as_deref())
    }

    /// Replaces variables and checks what the options amount to.
    ///
    /// # Errors
    /// Options that do not go together, or are not known.
    pub fn resolve(&self, expand: &mut dyn FnMut(&str) -> Result<String, String>) -> Result<ResolvedMount, String> {
        let mut values = Vec::new();
        for (key, value) in &self.options {
            values.push((key.as_str(), value.as_deref().map(&mut *expand).transpose()?));
        }
        let kind = match values.iter().find(|(key, _)| *key == "type") {
            None => MountKind::Bind,
            Some((_, value)) => match value.as_deref() {
                Some("bind") => MountKind::Bind,
                Some("cache") => MountKind::Cache,
                Some("tmpfs") => MountKind::Tmpfs,
                Some("secret") => MountKind::Secret,
                Some("ssh") => MountKind::Ssh,
                other => return Err(format!("`{}` is not a type of mount", other.unwrap_or_default())),
            },
        };
        let mut mount = ResolvedMount {
            kind,
            target: String::new(),
            source: String::new(),
            from: None,
            read_only: kind == MountKind::Bind,
            id: String::new(),
            sharing: Sharing::Shared,
            required: false,
            mode: None,
            uid: 0,
            gid: 0,
            size: None,
            env: None,
        };
        for (key, value) in values {
            mount.option(key, value)?;
        }
        mount.finish()
    }
}

impl ResolvedMount {
    fn option(&mut self, key: &str, value: Option<String>) -> Result<(), String> {
        let kind = self.kind;
        let given = value.clone();
        let text = || given.clone().ok_or_else(|| format!("`{key}` needs a value"));
        let switch = || match given.as_deref() {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("`{key}={other}` is neither true nor false")),
        };
        let number = || text()?.parse::<u32>().map_err(|_| format!("`{key}` must be a number"));
        use MountKind::{Bind, Cache, Secret, Ssh, Tmpfs};
        match (key, kind) {
            ("type", _) => {}
            ("target" | "dst" | "destination", _) => self.target = text()?,
            ("source" | "src", Bind | Cache) => self.source = text()?,
            ("source" | "src", Secret) => self.id = text()?,
            ("from", Bind | Cache) => self.from = Some(text()?),
            ("readonly" | "ro", Bind | Cache) => self.read_only = switch()?,
            ("rw" | "readwrite", Bind | Cache) => self.read_only = !switch()?,
            ("id", Cache | Secret | Ssh) => self.id = text()?,
            ("required", Secret | Ssh) => self.required = switch()?,
            ("mode", Cache | Secret | Ssh) => {
                let mode = u32::from_str_radix(&text()?, 8).ok().filter(|mode| *mode <= 0o7777);
                self.mode = Some(mode.ok_or("`mode` must be octal, such as 0400")?);
            }
            ("uid", Cache | Secret | Ssh) => self.uid = number()?,
            ("gid", Cache | Secret | Ssh) => self.gid = number()?,
            ("sharing", Cache) => {
                self.sharing = match text()?.as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    other => return Err(format!("`sharing={other}` is none of `shared`, `private`, `locked`")),
                }
            }
            ("size", Tmpfs) => {
                let size = crate::base::units::parse_bytes(&text()?).and_then(|size| u64::try_from(size).ok());
                self.size = Some(size.ok_or("`size` must be a number of bytes, such as 64m")?);
            }
            ("env", Secret) => self.env = Some(text()?),
            _ => return Err(format!("`{key}` is not an option of this type of mount")),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Self, String> {
        match self.kind {
            MountKind::Secret => {
                if self.id.is_empty() {
                    self.id = self.target.rsplit('/').next().unwrap_or_default().to_owned();
                }
                if self.id.is_empty() {
                    return Err("a secret needs an `id`".to_owned());
                }
                if self.target.is_empty() && self.env.is_none() {
                    self.target = format!("/run/secrets/{}", self.id.rsplit('/').next().unwrap_or(&self.id));
                }
            }
            MountKind::Ssh if self.id.is_empty() => {
                "default".clone_into(&mut self.id);
            }
            _ if self.target.is_empty() => return Err("there is no `target`".to_owned()),
            MountKind::Cache if self.id.is_empty() => self.id = self.target.clone(),
            _ => {}
        }
        Ok(self)
    }
}

/// Fields between commas; one in double quotes may hold commas.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().into_iter().for_each(|field| field.push(c)),
        }
    }
    fields.into_iter().map(|field| field.trim().to_owned()).filter(|field| !field.is_empty()).collect()
}
