//! Capability sets: names, numbers, Docker's default set, what `cap_add` and `cap_drop` make of it.

use oci_spec::runtime::Capabilities;
use oci_spec::runtime::Capability;

/// Names without `CAP_`, by number (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Docker's fourteen.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A capability name that does not exist.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` in `{attribute}` is not a capability{}", suggestion(.name))]
pub struct UnknownCapability {
    pub attribute: &'static str,
    pub name: String,
}

/// Capabilities as a bit mask by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet(pub u64);

impl CapabilitySet {
    /// All that are known here and to the running kernel.
    pub fn all() -> Self {
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
        let last = last.and_then(|text| text.trim().parse::<usize>().ok()).unwrap_or(NAMES.len() - 1);
        Self((0..NAMES.len()).filter(|number| *number <= last).fold(0, |mask, number| mask | 1 << number))
    }

    /// Docker's default set.
    pub fn docker_default() -> Self {
        Self(DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |mask, bit| mask | bit))
    }

    /// The set of a container, as Docker has it: `ALL` in `add` starts from all, `ALL` in `drop` from none;
    /// a single name wins over `ALL` of the other list.
    ///
    /// # Errors
    /// Names that are no capability.
    pub fn of_container(privileged: bool, add: &[String], drop: &[String]) -> Result<Self, UnknownCapability> {
        let added = parse("cap_add", add)?;
        let dropped = parse("cap_drop", drop)?;
        if privileged {
            return Ok(Self::all());
        }
        let set = match (added, dropped) {
            ((_, true), (dropped, _)) => Self::all().0 & !dropped,
            ((added, _), (_, true)) => added,
            ((added, _), (dropped, _)) => (Self::docker_default().0 & !dropped) | added,
        };
        Ok(Self(set & Self::all().0))
    }

    /// `name` as in capabilities(7), such as `CAP_CHOWN`.
    pub fn has(self, name: &str) -> bool {
        bit(name).is_some_and(|bit| self.0 & bit != 0)
    }

    /// From the runtime specification's names.
    pub fn from_oci(capabilities: &Capabilities) -> Self {
        Self(capabilities.iter().filter_map(|capability| bit(&capability.to_string())).fold(0, |mask, bit| mask | bit))
    }

    /// To the runtime specification's names.
    pub fn to_oci(self) -> Capabilities {
        let names = NAMES.iter().filter(|name| self.has(name));
        names.filter_map(|name| name.parse::<Capability>().ok()).collect()
    }
}

/// The named bits, and whether `ALL` was among them.
fn parse(attribute: &'static str, names: &[String]) -> Result<(u64, bool), UnknownCapability> {
    let mut mask = 0;
    let mut all = false;
    for name in names {
        let upper = name.to_ascii_uppercase();
        match upper.trim_start_matches("CAP_") {
            "ALL" => all = true,
            plain => match bit(plain) {
                Some(bit) => mask |= bit,
                None => return Err(UnknownCapability { attribute, name: name.clone() }),
            },
        }
    }
    Ok((mask, all))
}

fn bit(name: &str) -> Option<u64> {
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

/// The known name that shares the longest start, when it is more than a guess.
fn suggestion(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    let wanted = upper.trim_start_matches("CAP_");
    let shared = |known: &str| known.bytes().zip(wanted.bytes()).take_while(|(a, b)| a == b).count();
    match NAMES.iter().max_by_key(|known| shared(known)).filter(|known| shared(known) >= 4) {
        Some(known) => format!("; did you mean `{known}`?"),
        None => "; capability names are listed in capabilities(7)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn default_set_is_dockers() {
        assert_eq!(CapabilitySet::docker_default().0, 0xa804_25fb);
    }

    #[test]
    fn all_and_single_names_combine_as_in_docker() {
        let set = |add: &[&str], drop: &[&str]| CapabilitySet::of_container(false, &names(add), &names(drop)).unwrap();
        assert_eq!(set(&[], &["ALL"]).0, 0);
        assert_eq!(set(&["NET_ADMIN"], &["ALL"]).0, 1 << 12);
        assert!(!set(&["ALL"], &["MKNOD"]).has("MKNOD"));
        assert!(set(&["ALL"], &["MKNOD"]).has("SYS_ADMIN"));
        assert_eq!(set(&["cap_net_admin"], &["chown"]).0, (0xa804_25fb & !1) | 1 << 12);
    }

    #[test]
    fn unknown_name_is_named_with_a_suggestion() {
        let error = CapabilitySet::of_container(false, &names(&["NET_ADMN"]), &[]).unwrap_err();
        assert_eq!(error.to_string(), "`NET_ADMN` in `cap_add` is not a capability; did you mean `NET_ADMIN`?");
    }

    #[test]
    fn oci_names_round_trip() {
        let set = CapabilitySet::all();
        assert_eq!(CapabilitySet::from_oci(&set.to_oci()), set);
    }
}
