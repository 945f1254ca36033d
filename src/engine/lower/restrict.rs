//! The last steps before the program: limits, identity, capabilities, system call filter.

use oci_spec::runtime::Capabilities;
use oci_spec::runtime::LinuxPersonality;
use oci_spec::runtime::LinuxPersonalityDomain;
use oci_spec::runtime::LinuxSeccomp;
use oci_spec::runtime::PosixRlimitType;
use oci_spec::runtime::Process;

use crate::engine::capabilities::CapabilitySet;
use crate::engine::lower::LowerError;
use crate::engine::lower::Slots;
use crate::engine::lower::scheduling::scheduling;
use crate::engine::seccomp;
use crate::engine::seccomp::SeccompError;
use crate::init::Listener;
use crate::init::Rlimit;
use crate::init::Step;
use crate::sys::message;

const DEFAULT_UMASK: u32 = 0o022;

/// `as_user` is done as the user that the program runs as, and while no filter forbids what it takes. Returns what must
/// come right before the program, if anything.
pub(super) fn restrict(
    process: &Process,
    filter: Option<Step>,
    as_user: Vec<Step>,
    steps: &mut Vec<Step>,
) -> Result<Option<Step>, LowerError> {
    // The keyring that follows gets it, too.
    let label = process.selinux_label().clone().filter(|label| !label.is_empty());
    steps.extend(label.map(Step::ProcessLabel));
    steps.push(Step::SessionKeyring);
    let limits = process.rlimits().iter().flatten();
    steps.extend(limits.map(|limit| Step::Rlimit {
        resource: rlimit(limit.typ()),
        soft: limit.soft(),
        hard: limit.hard(),
    }));
    scheduling(process, steps)?;
    steps.extend(process.oom_score_adj().map(Step::OomScoreAdj));
    let user = process.user();
    steps.push(Step::Umask(user.umask().unwrap_or(DEFAULT_UMASK)));
    let profile = process.apparmor_profile().iter().filter(|profile| !profile.is_empty());
    steps.extend(profile.map(|profile| Step::AppArmor(profile.clone())));
    let no_new_privileges = process.no_new_privileges() == Some(true);
    let listened = matches!(filter, Some(Step::Seccomp { listener: Some(_), .. }));
    steps.push(Step::Groups(user.additional_gids().clone().unwrap_or_default()));
    steps.push(Step::Identity { uid: user.uid(), gid: user.gid() });
    // Without no_new_privs, installing a filter takes CAP_SYS_ADMIN, so it comes before capabilities go.
    let (early, late) = if no_new_privileges { (None, filter) } else { (filter, None) };
    if let Some(early) = early {
        let effective = process.capabilities().as_ref().and_then(|sets| sets.effective().as_ref());
        if effective.is_some_and(|set| CapabilitySet::from_oci(set).has("DAC_OVERRIDE")) {
            steps.push(Step::RegainCapabilities);
        }
        steps.extend(as_user);
        steps.extend([Step::CloseOnExec, Step::RegainCapabilities, early]);
        steps.push(capabilities(process));
    } else {
        steps.push(capabilities(process));
        steps.extend(no_new_privileges.then_some(Step::NoNewPrivileges));
        steps.extend(as_user);
        if listened {
            // While what the listener is sent with is still open.
            steps.push(Step::CloseOnExec);
            steps.extend(late);
            return Ok(None);
        }
    }
    Ok(late)
}

/// That of the container's files, for a process that has one at all.
pub(super) fn pipe_label(process: &Process, mount_label: Option<&str>) -> Option<String> {
    let confined = process.selinux_label().as_ref().is_some_and(|label| !label.is_empty());
    mount_label.filter(|label| confined && !label.is_empty()).map(str::to_owned)
}

/// What the listener of a filter is told about the container.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    /// The state of the runtime specification as JSON, without pid and status.
    pub state: &'a str,
    pub status: &'static str,
    /// The container's process, where it is not the one that gets the filter.
    pub pid: Option<i32>,
}

/// The system call filter; `described` where the caller may have asked for a listener.
pub(super) fn filter(
    profile: &LinuxSeccomp,
    described: Option<Described<'_>>,
    slots: &mut Slots,
) -> Result<Step, LowerError> {
    let filters = vec![seccomp::compile(profile)?];
    let flags = seccomp::flags(profile)?;
    if !seccomp::notifies(profile) {
        return Ok(Step::Seccomp { filters, flags, listener: None });
    }
    let Described { state, status, pid } =
        described.ok_or_else(|| SeccompError::Unsupported("SCMP_ACT_NOTIFY".to_owned()))?;
    let path = profile.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
    let path = path.ok_or(LowerError::Missing("linux.seccomp.listenerPath"))?;
    let socket = message::connect(path).map_err(|source| LowerError::Listener { path: path.clone(), source })?;
    let listener = Listener {
        socket: slots.add(socket),
        metadata: profile.listener_metadata().clone(),
        state: state.to_owned(),
        status: status.to_owned(),
        pid,
    };
    Ok(Step::Seccomp { filters, flags, listener: Some(listener) })
}

pub(super) fn personality(personality: &LinuxPersonality) -> Result<Step, LowerError> {
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(LowerError::Unsupported("linux.personality.flags".to_owned()));
    }
    Ok(Step::Personality(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

fn capabilities(process: &Process) -> Step {
    let sets = process.capabilities().as_ref();
    let mask = |set: Option<&Option<Capabilities>>| {
        set.and_then(Option::as_ref).map_or(0, |set| CapabilitySet::from_oci(set).0)
    };
    Step::Capabilities {
        bounding: mask(sets.map(|sets| sets.bounding())),
        permitted: mask(sets.map(|sets| sets.permitted())),
        effective: mask(sets.map(|sets| sets.effective())),
        inheritable: mask(sets.map(|sets| sets.inheritable())),
        // The kernel takes none that is not inheritable.
        ambient: mask(sets.map(|sets| sets.ambient())) & mask(sets.map(|sets| sets.inheritable())),
    }
}

fn rlimit(kind: PosixRlimitType) -> Rlimit {
    match kind {
        PosixRlimitType::RlimitCpu => Rlimit::Cpu,
        PosixRlimitType::RlimitFsize => Rlimit::Fsize,
        PosixRlimitType::RlimitData => Rlimit::Data,
        PosixRlimitType::RlimitStack => Rlimit::Stack,
        PosixRlimitType::RlimitCore => Rlimit::Core,
        PosixRlimitType::RlimitRss => Rlimit::Rss,
        PosixRlimitType::RlimitNproc => Rlimit::Nproc,
        PosixRlimitType::RlimitNofile => Rlimit::Nofile,
        PosixRlimitType::RlimitMemlock => Rlimit::Memlock,
        PosixRlimitType::RlimitAs => Rlimit::As,
        PosixRlimitType::RlimitLocks => Rlimit::Locks,
        PosixRlimitType::RlimitSigpending => Rlimit::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Rlimit::Msgqueue,
        PosixRlimitType::RlimitNice => Rlimit::Nice,
        PosixRlimitType::RlimitRtprio => Rlimit::Rtprio,
        PosixRlimitType::RlimitRttime => Rlimit::Rttime,
    }
}
