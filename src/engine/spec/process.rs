//! The process of a container: arguments, environment, user, limits, kernel parameters.

use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;

use oci_spec::runtime::LinuxCapabilities;
use oci_spec::runtime::LinuxNamespace;
use oci_spec::runtime::PosixRlimit;
use oci_spec::runtime::PosixRlimitBuilder;
use oci_spec::runtime::PosixRlimitType;
use oci_spec::runtime::Process;
use oci_spec::runtime::Spec;
use oci_spec::runtime::User;

use crate::engine::capabilities::CapabilitySet;
use crate::engine::lower;
use crate::engine::spec::Request;
use crate::engine::spec::SpecError;
use crate::engine::users::UserDatabase;
use crate::spec::ContainerSpec;
use crate::spec::container::NetworkMode;
use crate::sys::userns;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn process(
    request: &Request<'_>,
    capabilities: CapabilitySet,
    no_new_privileges: bool,
) -> Result<Process, SpecError> {
    let container = request.container;
    let wanted = container.user.as_deref().or(request.image.user.as_deref());
    let user = request.users.resolve(wanted, &container.group_add)?;
    let mut oci_user = User::default();
    oci_user.set_uid(user.uid);
    oci_user.set_gid(user.gid);
    oci_user.set_additional_gids(Some(user.groups));

    let mut process = Process::default();
    process.set_terminal(Some(container.tty));
    process.set_user(oci_user);
    process.set_args(Some(arguments(request)?));
    process.set_env(Some(environment(request, &user.home)));
    process.set_cwd(working_directory(request));
    process.set_capabilities(Some(oci_capabilities(capabilities)));
    process.set_rlimits(Some(rlimits(container)?));
    process.set_no_new_privileges(Some(no_new_privileges));
    process.set_oom_score_adj(Some(container.oom_score_adj.unwrap_or(0)));
    Ok(process)
}

/// Nothing is inheritable or ambient: only root keeps capabilities over `execve`, as with Docker.
fn oci_capabilities(set: CapabilitySet) -> LinuxCapabilities {
    let mut capabilities = LinuxCapabilities::default();
    capabilities.set_bounding(Some(set.to_oci()));
    capabilities.set_effective(Some(set.to_oci()));
    capabilities.set_permitted(Some(set.to_oci()));
    capabilities.set_inheritable(None);
    capabilities.set_ambient(None);
    capabilities
}

/// An entrypoint of the service also clears the image's command.
fn arguments(request: &Request<'_>) -> Result<Vec<String>, SpecError> {
    let image = request.image;
    let (entrypoint, default_command) = match &request.container.entrypoint {
        Some(entrypoint) => (entrypoint, &[] as &[String]),
        None => (&image.entrypoint, image.command.as_slice()),
    };
    let command = request.container.command.as_deref().unwrap_or(default_command);
    let arguments: Vec<_> = entrypoint.iter().chain(command).cloned().collect();
    if arguments.first().is_none_or(String::is_empty) { Err(SpecError::NoCommand) } else { Ok(arguments) }
}

/// Docker's base, then the image's, then the service's; a service's variable without a value is taken away.
fn environment(request: &Request<'_>, home: &str) -> Vec<String> {
    let container = request.container;
    let mut environment: Vec<(String, String)> =
        vec![("PATH".into(), DEFAULT_PATH.into()), ("HOSTNAME".into(), request.hostname.to_owned())];
    if container.tty {
        environment.push(("TERM".into(), "xterm".into()));
    }
    for pair in &request.image.environment {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        set(&mut environment, name, value);
    }
    for (name, value) in &container.environment {
        match value {
            Some(value) => set(&mut environment, name, value),
            None => environment.retain(|(known, _)| known != name),
        }
    }
    if !environment.iter().any(|(name, _)| name == "HOME") {
        set(&mut environment, "HOME", home);
    }
    environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn set(environment: &mut Vec<(String, String)>, name: &str, value: &str) {
    match environment.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => environment.push((name.to_owned(), value.to_owned())),
    }
}

fn working_directory(request: &Request<'_>) -> PathBuf {
    let wanted = request.container.working_dir.as_deref().or(request.image.working_dir.as_deref());
    Path::new("/").join(wanted.unwrap_or("/"))
}

fn rlimits(container: &ContainerSpec) -> Result<Vec<PosixRlimit>, SpecError> {
    let limits = container.ulimits.iter().map(|(name, limit)| {
        let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
        let kind: PosixRlimitType = kind.parse().map_err(|_| SpecError::Ulimit(name.clone()))?;
        // Below zero is unlimited.
        let value = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
        let limit = PosixRlimitBuilder::default().typ(kind).soft(value(limit.soft)).hard(value(limit.hard));
        Ok(limit.build()?)
    });
    limits.collect()
}

/// The service's kernel parameters, each of a namespace that is the container's own, after Docker's two.
pub(super) fn sysctls(
    container: &ContainerSpec,
    namespaces: &[LinuxNamespace],
) -> Result<HashMap<String, String>, SpecError> {
    let has = |kind| namespaces.iter().any(|namespace| namespace.typ() == kind);
    let mut sysctls = HashMap::new();
    if matches!(container.network, NetworkMode::Networks(_) | NetworkMode::None) {
        // All groups: those that there are.
        let groups = format!("0 {}", userns::highest_gid().min(i32::MAX.unsigned_abs()));
        for (name, value) in
            [("net.ipv4.ip_unprivileged_port_start", "0".to_owned()), ("net.ipv4.ping_group_range", groups)]
        {
            if Path::new("/proc/sys").join(name.replace('.', "/")).exists() {
                sysctls.insert(name.to_owned(), value);
            }
        }
    }
    for (name, value) in &container.sysctls {
        let dotted = if name.contains('/') { name.replace('/', ".") } else { name.clone() };
        let error = |problem| Err(SpecError::Sysctl { name: name.clone(), problem });
        let plain = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_@:".contains(&byte))
        };
        if !dotted.split('.').all(plain) {
            return error("is not the name of a kernel parameter");
        }
        if dotted == "kernel.hostname" {
            return error("is set with `hostname`");
        }
        let Some(needed) = lower::namespace_of_sysctl(&dotted) else {
            return error("is a parameter of the whole host; set it there with sysctl(8)");
        };
        if !has(needed) {
            return error("would change the host, whose namespace the service shares; take one of the two out");
        }
        sysctls.insert(dotted, value.clone());
    }
    Ok(sysctls)
}

/// A process to start inside a running container.
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    pub command: Vec<String>,
    /// Added to the container's; `None` takes a variable away.
    pub environment: Vec<(String, Option<String>)>,
    /// `None`: the container's.
    pub user: Option<String>,
    /// The service's `group_add`.
    pub group_add: Vec<String>,
    pub working_dir: Option<String>,
    pub tty: bool,
    /// All capabilities; the system call filter stays.
    pub privileged: bool,
}

/// The process of an exec: the container's own (from its specification) but for what is asked.
///
/// # Errors
/// An unknown user; no command.
pub fn exec_process(spec: &Spec, users: &UserDatabase, options: &ExecOptions) -> Result<Process, SpecError> {
    let mut process = spec.process().clone().unwrap_or_default();
    if options.command.first().is_none_or(String::is_empty) {
        return Err(SpecError::NoCommand);
    }
    let mut environment: Vec<(String, String)> = Vec::new();
    for pair in process.env().iter().flatten() {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        set(&mut environment, name, value);
    }
    if let Some(wanted) = &options.user {
        let before = users.resolve(Some(&process.user().uid().to_string()), &[])?;
        let user = users.resolve(Some(wanted), &options.group_add)?;
        // The container's HOME is its user's unless somebody has set it.
        if environment.contains(&("HOME".to_owned(), before.home)) {
            set(&mut environment, "HOME", &user.home);
        }
        let mut oci_user = process.user().clone();
        oci_user.set_uid(user.uid);
        oci_user.set_gid(user.gid);
        oci_user.set_additional_gids(Some(user.groups));
        process.set_user(oci_user);
    }
    if options.tty && !environment.iter().any(|(name, _)| name == "TERM") {
        set(&mut environment, "TERM", "xterm");
    }
    for (name, value) in &options.environment {
        match value {
            Some(value) => set(&mut environment, name, value),
            None => environment.retain(|(known, _)| known != name),
        }
    }
    process.set_env(Some(environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect()));
    process.set_args(Some(options.command.clone()));
    process.set_terminal(Some(options.tty));
    if let Some(directory) = &options.working_dir {
        process.set_cwd(Path::new("/").join(directory));
    }
    if options.privileged {
        process.set_capabilities(Some(oci_capabilities(CapabilitySet::all())));
    }
    Ok(process)
}
