//! Labels of SELinux: which ones a container's processes and files get, and giving them to files.
//!
//! They are those of Docker and podman: every container runs as the type that the host's policy has for containers, with two
//! categories of its own, and sees its files with the matching type and the same categories. So neither the host's files nor
//! those of another container are open to it, whatever its user and its capabilities are.

mod files;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use oci_spec::runtime::Spec;

use crate::base::ids::ContainerId;
use crate::spec::ContainerSpec;
use crate::spec::container::NamespaceMode;
use crate::spec::container::Relabel;

pub use files::{RelabelError, is_labelled, relabel};

const MOUNTED_AT: &str = "/sys/fs/selinux";
const CONFIGURATION: &str = "/etc/selinux/config";
/// Docker's own file, which may turn labels off.
const DAEMON: &str = "/etc/docker/daemon.json";
/// How many categories there are to choose from, as in the policies that distributions have.
const CATEGORIES: u16 = 1024;

/// What this host's policy has for containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    process: Context,
    file: Context,
    /// For files that all containers may read.
    read_only_file: Context,
}

/// Why there are no labels, where the kernel has SELinux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The kernel does not have it, or it is not in use.
    Disabled,
    /// `selinux-enabled: false` in Docker's file.
    TurnedOff,
    /// The policy knows no containers.
    NoTypes,
}

/// The labels of one container; none: its processes and files have those that anything else would get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    pub process: Option<String>,
    /// Of its own files.
    pub mount: Option<String>,
}

/// What is wrong with `security_opt: label…`.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    #[error(
        "`security_opt: label:{0}` is not known; known are `label:disable`, and `label:` with `user:`, `role:`, `type:`, `level:` or `filetype:` and a value"
    )]
    Option(String),
    #[error(
        "`security_opt` makes the label `{0}`, which is none of this host's SELinux policy; `seinfo -t` lists its types"
    )]
    NotOfThePolicy(String),
    #[error(
        "the containers whose `pid` and `ipc` are shared have different SELinux labels; set `security_opt: [label:disable]`"
    )]
    Different,
}

/// `user:role:type:level`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Context {
    user: String,
    role: String,
    kind: String,
    level: String,
}

impl Context {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        let context = Self { user: parts.next()?, role: parts.next()?, kind: parts.next()?, level: parts.next()? };
        let plain = |part: &String| !part.is_empty() && !part.contains(['\0', '"', '\\', '\n']);
        let all = [&context.user, &context.role, &context.kind, &context.level].into_iter().all(plain);
        all.then_some(context)
    }
}

impl std::fmt::Display for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}:{}", self.user, self.role, self.kind, self.level)
    }
}

/// Whether the kernel enforces a policy, or would say what it refused.
pub fn is_enabled() -> bool {
    Path::new(MOUNTED_AT).join("enforce").exists()
}

/// Whether what the policy does not allow is refused.
pub fn is_enforcing() -> bool {
    fs::read(Path::new(MOUNTED_AT).join("enforce")).is_ok_and(|text| text.starts_with(b"1"))
}

impl Labels {
    /// Writes them where the runtime specification has them.
    pub fn apply(&self, spec: &mut Spec) {
        if let Some(process) = spec.process_mut() {
            process.set_selinux_label(self.process.clone());
        }
        if let Some(linux) = spec.linux_mut() {
            linux.set_mount_label(self.mount.clone());
        }
    }
}

impl Policy {
    /// The host's. Without SELinux this is one look at a path.
    ///
    /// # Errors
    /// Why there is none.
    pub fn of_host() -> Result<Self, Absent> {
        if !is_enabled() {
            return Err(Absent::Disabled);
        }
        if fs::read(DAEMON).is_ok_and(|text| is_turned_off(&text)) {
            return Err(Absent::TurnedOff);
        }
        let configuration = fs::read_to_string(CONFIGURATION).unwrap_or_default();
        let name = configuration.lines().find_map(|line| line.trim().strip_prefix("SELINUXTYPE="));
        let contexts = Path::new("/etc/selinux").join(name.unwrap_or("targeted").trim()).join("contexts/lxc_contexts");
        let policy = fs::read_to_string(contexts).ok().and_then(|text| Self::parse(&text)).ok_or(Absent::NoTypes)?;
        // The file may come with a policy whose part for containers is a package of its own.
        let known = [&policy.process, &policy.file].into_iter().all(|context| is_of_the_policy(&context.to_string()));
        if known { Ok(policy) } else { Err(Absent::NoTypes) }
    }

    /// `lxc_contexts` of the policy: `NAME = "CONTEXT"` in each line.
    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let pairs = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            let mut pairs = pairs.filter_map(|line| line.split_once('='));
            let (_, value) = pairs.find(|(found, _)| found.trim() == name)?;
            Context::parse(value.trim().trim_matches('"'))
        };
        let file = value("file")?;
        let read_only_file = value("ro_file").unwrap_or_else(|| file.clone());
        Some(Self { process: value("process")?, file, read_only_file })
    }

    /// What a container gets. `joined`: the labels of those whose `pid` and `ipc` namespaces it lives in.
    ///
    /// # Errors
    /// An option that is not known, or makes no label of the policy; joined containers that do not agree.
    pub fn labels(
        &self,
        id: &ContainerId,
        container: &ContainerSpec,
        joined: &[Option<String>],
    ) -> Result<Labels, LabelError> {
        let labels = self.decide(id, container, joined)?;
        let chosen = container.security_opt.iter().any(|option| option.starts_with("label"));
        for label in [&labels.process, &labels.mount].into_iter().flatten().filter(|_| chosen) {
            if Context::parse(label).is_none() || !is_of_the_policy(label) {
                return Err(LabelError::NotOfThePolicy(label.clone()));
            }
        }
        Ok(labels)
    }

    fn decide(
        &self,
        id: &ContainerId,
        container: &ContainerSpec,
        joined: &[Option<String>],
    ) -> Result<Labels, LabelError> {
        let options = container.security_opt.iter().filter_map(|option| {
            let (name, value) = option.split_once(['=', ':'])?;
            (name == "label").then_some(value)
        });
        let options: Vec<&str> = options.collect();
        let of_the_host = |mode: &NamespaceMode| *mode == NamespaceMode::Host;
        if options.contains(&"disable")
            || options.is_empty()
                && (container.privileged || of_the_host(&container.pid) || of_the_host(&container.ipc))
        {
            return Ok(Labels::default());
        }
        let (mut process, mut file) = (self.process.clone(), self.file.clone());
        process.level = format!("{}:{}", process.level, categories(id));
        if let (Some(first), true) = (joined.first(), options.is_empty()) {
            if joined.iter().any(|other| other != first) {
                return Err(LabelError::Different);
            }
            let Some(first) = first else { return Ok(Labels::default()) };
            process = Context::parse(first).ok_or_else(|| LabelError::NotOfThePolicy(first.clone()))?;
        }
        for option in &options {
            let unknown = || LabelError::Option((*option).to_owned());
            let (name, value) = option.split_once(':').filter(|(_, value)| !value.is_empty()).ok_or_else(unknown)?;
            let value = value.to_owned();
            match name {
                "user" => (process.user, file.user) = (value.clone(), value),
                "role" => process.role = value,
                "type" => process.kind = value,
                "level" => process.level = value,
                "filetype" => file.kind = value,
                _ => return Err(unknown()),
            }
        }
        file.level.clone_from(&process.level);
        Ok(Labels { process: Some(process.to_string()), mount: Some(file.to_string()) })
    }

    /// What the files of a volume get: `mount` is the label of the container's own files.
    pub fn label_of_volume(&self, wanted: Relabel, mount: &str) -> String {
        match (wanted, Context::parse(mount)) {
            (Relabel::Shared, Some(context)) => Context { level: self.file.level.clone(), ..context }.to_string(),
            (Relabel::Shared, None) | (Relabel::Private, _) => mount.to_owned(),
        }
    }

    /// Whether files have the type that containers may write to, whichever container's they are.
    pub fn is_for_containers(&self, path: &Path) -> bool {
        let label = files::label_of(path).and_then(|label| Context::parse(&label));
        label.is_some_and(|label| label.kind == self.file.kind)
    }

    /// The label of a file or folder that a process with the label `process` may not even read.
    pub fn closed_label(&self, process: &str, path: &Path) -> Option<String> {
        let class = if path.is_dir() { "dir" } else { "file" };
        let label = files::label_of(path)?;
        let allowed = is_allowed(process, &label, class, "read").unwrap_or(true);
        (!allowed && is_enforcing()).then_some(label)
    }

    /// The type that containers run as.
    pub fn kind(&self) -> &str {
        &self.process.kind
    }

    /// The type of files that are for containers.
    pub fn kind_of_files(&self) -> &str {
        &self.file.kind
    }

    /// Whether a file that a container makes in a folder for all is for all, too. It is where the policy has it take the range
    /// of the folder, as in Fedora's; elsewhere it takes the container's own.
    pub fn shares_new_files(&self) -> bool {
        let process = Context { level: format!("{}:c0,c1", self.process.level), ..self.process.clone() };
        let number = fs::read_to_string(Path::new(MOUNTED_AT).join("class/file/index")).unwrap_or_default();
        let made = ask("create", &format!("{process} {} {}", self.file, number.trim()));
        made.and_then(|made| Context::parse(made.trim_end_matches('\0')))
            .is_none_or(|made| made.level == self.file.level)
    }

    /// What all containers may read.
    pub fn label_of_images(&self) -> String {
        self.read_only_file.to_string()
    }
}

/// Two of the categories, by the container's id: they are the same each time it is started, and nobody has to remember them.
pub fn categories(id: &ContainerId) -> String {
    let digits = |range| id.as_str().get(range).and_then(|digits| u16::from_str_radix(digits, 16).ok());
    let first = digits(0..4).unwrap_or_default() % CATEGORIES;
    let distance = 1 + digits(4..8).unwrap_or_default() % (CATEGORIES - 1);
    let second = (first + distance) % CATEGORIES;
    format!("c{},c{}", first.min(second), first.max(second))
}

fn is_turned_off(daemon: &[u8]) -> bool {
    let read: Option<serde_json::Value> = serde_json::from_slice(daemon).ok();
    read.is_some_and(|value| value.get("selinux-enabled") == Some(&serde_json::Value::Bool(false)))
}

/// Whether the policy allows it; the kernel knows.
fn is_allowed(process: &str, file: &str, class: &str, permission: &str) -> Option<bool> {
    let about = Path::new(MOUNTED_AT).join("class").join(class);
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u32>().ok();
    let (class, bit) = (number(&about.join("index"))?, number(&about.join("perms").join(permission))?);
    let answer = ask("access", &format!("{process} {file} {class}"))?;
    let allowed = u32::from_str_radix(answer.split_whitespace().next()?, 16).ok()?;
    Some(allowed & 1_u32.checked_shl(bit.checked_sub(1)?)? != 0)
}

fn ask(about: &str, question: &str) -> Option<String> {
    let mut file = fs::File::options().read(true).write(true).open(Path::new(MOUNTED_AT).join(about)).ok()?;
    file.write_all(question.as_bytes()).ok()?;
    let mut answer = String::new();
    file.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn is_of_the_policy(label: &str) -> bool {
    fs::write(Path::new(MOUNTED_AT).join("context"), label).is_ok()
}

#[cfg(test)]
mod tests;
