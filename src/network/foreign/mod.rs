//! Other firewalls on this host. What they drop is dropped, whatever our own tables say. So where a chain of theirs lets nothing
//! through by itself (iptables as dockerd and ufw leave it, a hand-made nftables file, firewalld), marked rules let our bridges
//! pass: first in that chain, or in `DOCKER-USER` where there is one, which Docker leaves alone. firewalld since 2.1 lets nobody
//! write to its table, and is asked to trust the bridges.

mod chains;
mod legacy;
mod zone;

use crate::network::NetworkError;
use crate::network::netlink::Netlink;
use crate::network::records::NetworkRecord;

/// Lets the bridges of networks through, where something drops and does not let them pass yet.
///
/// # Errors
/// [`NetworkError::Kernel`]; [`NetworkError::Gate`], [`NetworkError::Zone`] or [`NetworkError::Legacy`] when a firewall goes
/// on cutting them off.
pub fn admit(records: &[&NetworkRecord]) -> Result<(), NetworkError> {
    let bridges: Vec<&str> =
        records.iter().filter(|record| record.as_bridge().is_some()).map(|record| record.bridge.as_str()).collect();
    if bridges.is_empty() {
        return Ok(());
    }
    let gates = Netlink::with_netfilter(chains::gates).map_err(NetworkError::kernel("list the host's firewall"))?;
    let mut trusting = Vec::new();
    for gate in gates {
        let refused = |source| NetworkError::Gate { gate: gate.to_string(), bridges: bridges.join("`, `"), source };
        let owned = Netlink::with_netfilter(|socket| chains::is_owned(socket, &gate)).map_err(refused)?;
        if owned && gate.is_firewalld() {
            let unnamed = Netlink::with_netfilter(|socket| chains::unnamed(socket, &gate, &bridges));
            trusting = unnamed.map_err(refused)?;
        } else {
            Netlink::with_netfilter(|socket| chains::admit(socket, &gate, &bridges)).map_err(refused)?;
        }
    }
    zone::trust(&trusting)?;
    legacy::admit(&bridges)
}

/// Takes back what [`admit`] did.
///
/// # Errors
/// [`NetworkError::Kernel`], [`NetworkError::Legacy`].
pub fn dismiss(record: &NetworkRecord) -> Result<(), NetworkError> {
    let bridge = &record.bridge;
    let trusted = Netlink::with_netfilter(|socket| chains::dismiss(socket, bridge))
        .map_err(NetworkError::kernel(format!("take bridge `{bridge}` out of the host's firewall")))?;
    if trusted {
        zone::distrust(bridge);
    }
    legacy::dismiss(bridge)
}

/// A chain that lets nothing through by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    pub chain: String,
    /// Why bridges cannot be let through, and what mends that, if so.
    pub shut: Option<(String, &'static str)>,
}

/// What of the host's firewall stands in the way of containers. Changes nothing.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn barriers() -> Result<Vec<Barrier>, NetworkError> {
    let found = Netlink::with_netfilter(|socket| {
        let gates = chains::gates(socket)?.into_iter().filter(chains::Gate::is_forward);
        gates.map(|gate| Ok((chains::is_owned(socket, &gate)?, gate))).collect::<std::io::Result<Vec<_>>>()
    });
    let found = found.map_err(NetworkError::kernel("list the host's firewall"))?;
    let shut = |owned: bool, gate: &chains::Gate| match owned {
        false => None,
        true if gate.is_firewalld() => {
            let silent =
                |error| (format!("firewalld does not answer: {error}"), "sudo systemctl restart dbus firewalld");
            zone::check().err().map(silent)
        }
        true => {
            let why = "only the program that made its table can change it";
            Some((why.to_owned(), "have that program let links pass whose names begin with `rc-`"))
        }
    };
    let modern = found.into_iter().map(|(owned, gate)| Barrier { shut: shut(owned, &gate), chain: gate.to_string() });
    Ok(modern.chain(legacy::barriers()).collect())
}

/// What the marks of our rules begin with.
pub(super) const MARK: &str = "rcompose ";

/// What our rules carry, to find them again.
pub(super) fn mark(bridge: &str) -> String {
    format!("{MARK}{bridge}")
}
