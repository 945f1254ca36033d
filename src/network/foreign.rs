//! Other firewalls on this host. A chain of theirs that drops what is forwarded (iptables as dockerd and ufw leave it, a
//! hand-made nftables file, firewalld) would cut our bridges off: an accept in our own table does not count there. Two rules
//! per bridge let it pass, first in that chain, and in `DOCKER-USER` where there is one, which Docker leaves alone.

use std::io;

use crate::network::NetworkError;
use crate::network::netlink::Netlink;
use crate::network::nft::{self, INET, IPV4, IPV6, Rule, Transaction};
use crate::network::records::NetworkRecord;

const OUR_TABLES: &[u8] = b"rcompose-";
const FORWARD_HOOK: [u8; 4] = nft::FORWARD.to_be_bytes();
const DROP: [u8; 4] = [0; 4];

/// A chain of somebody else that what is forwarded must pass.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Gate {
    family: u8,
    table: String,
    chain: String,
}

/// Lets the bridges of networks through, where a chain drops and does not let them pass yet.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn admit(records: &[&NetworkRecord]) -> Result<(), NetworkError> {
    let bridges: Vec<_> = records.iter().copied().filter(|record| record.as_bridge().is_some()).collect();
    if bridges.is_empty() {
        return Ok(());
    }
    let gates = Netlink::with_netfilter(gates).map_err(NetworkError::kernel("list the host's firewall"))?;
    for gate in gates {
        let admitted = Netlink::with_netfilter(|socket| admit_at(socket, &gate, &bridges));
        admitted.map_err(|source| NetworkError::Gate { table: gate.table, chain: gate.chain, source })?;
    }
    Ok(())
}

fn admit_at(socket: &Netlink, gate: &Gate, bridges: &[&NetworkRecord]) -> io::Result<()> {
    let present = marks(socket, gate)?;
    let mut transaction = Transaction::new(gate.family);
    let mut any = false;
    for record in bridges.iter().filter(|record| !present.iter().any(|(_, found)| *found == mark(record))) {
        any = true;
        for rule in [Rule::default().input(false, &record.bridge), Rule::default().output(false, &record.bridge)] {
            transaction.insert_marked_rule(&gate.table, &gate.chain, rule.accept(), &mark(record));
        }
    }
    if any { socket.send(&transaction.end()).map(drop) } else { Ok(()) }
}

/// Deletes the rules with that mark. What somebody else deletes at the same moment fails the whole transaction, so what is
/// left is looked up again.
fn remove_marked(socket: &Netlink, gate: &Gate, mark: &[u8]) -> io::Result<()> {
    loop {
        let ours: Vec<_> = match marks(socket, gate) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            found => found?.into_iter().filter(|(_, found)| *found == mark).collect(),
        };
        if ours.is_empty() {
            return Ok(());
        }
        let mut transaction = Transaction::new(gate.family);
        for (handle, _) in &ours {
            transaction.delete_rule(&gate.table, &gate.chain, handle);
        }
        match socket.send(&transaction.end()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            sent => return sent.map(drop),
        }
    }
}

/// Takes the rules of [`admit`] away again.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn dismiss(record: &NetworkRecord) -> Result<(), NetworkError> {
    let dismissed = Netlink::with_netfilter(|socket| {
        let mark = mark(record);
        // Where it has been let in may not drop any more, or have got a chain for users.
        for gate in forward_chains(socket)?.into_iter().flat_map(|(gate, _)| [user_chain(&gate), gate]) {
            remove_marked(socket, &gate, &mark)?;
        }
        Ok(())
    });
    dismissed.map_err(NetworkError::kernel(format!("take bridge `{}` out of the host's firewall", record.bridge)))
}

/// The comment as nft and iptables write it: type 0, length, text with its zero.
fn mark(record: &NetworkRecord) -> Vec<u8> {
    let text = format!("rcompose {}", record.bridge);
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], text.as_bytes(), &[0]].concat()
}

/// Where bridges must be let in: nothing when nothing drops.
fn gates(socket: &Netlink) -> io::Result<Vec<Gate>> {
    let all = chains(socket)?;
    let dropping = all.iter().filter(|chain| chain.drops && chain.forwards);
    let gate = dropping.map(|chain| {
        let user = user_chain(&chain.gate);
        if all.iter().any(|chain| chain.gate == user) { user } else { chain.gate.clone() }
    });
    Ok(gate.collect())
}

fn forward_chains(socket: &Netlink) -> io::Result<Vec<(Gate, bool)>> {
    let forwards = chains(socket)?.into_iter().filter(|chain| chain.forwards);
    Ok(forwards.map(|chain| (chain.gate, chain.drops)).collect())
}

/// Docker's chain for rules of others beside a `FORWARD` chain.
fn user_chain(gate: &Gate) -> Gate {
    Gate { chain: "DOCKER-USER".to_owned(), ..gate.clone() }
}

struct Chain {
    gate: Gate,
    forwards: bool,
    /// By policy, or, as firewalld does, by its last rule.
    drops: bool,
}

/// Everybody else's chains.
fn chains(socket: &Netlink) -> io::Result<Vec<Chain>> {
    let mut found = Vec::new();
    for (_, body) in socket.dump(&nft::dump_request(0, None))? {
        let family = body.first().copied().unwrap_or_default();
        let attributes = nft::parse(body.get(4..).unwrap_or_default());
        let get = |kind| attributes.iter().find(|(other, _)| *other == kind).map(|(_, value)| *value);
        let text = |kind| get(kind).and_then(|value: &[u8]| value.strip_suffix(&[0]));
        let (Some(table), Some(chain)) = (text(1), text(3)) else { continue };
        if table.starts_with(OUR_TABLES) || ![IPV4, IPV6, INET].contains(&family) {
            continue;
        }
        let hook = get(4).map(nft::parse).unwrap_or_default();
        let forwards = hook.iter().any(|(kind, value)| *kind == 1 && *value == FORWARD_HOOK);
        let gate = Gate {
            family,
            table: String::from_utf8_lossy(table).into_owned(),
            chain: String::from_utf8_lossy(chain).into_owned(),
        };
        let drops = get(5) == Some(&DROP) || (gate.table == "firewalld" && gate.chain == "filter_FORWARD");
        found.push(Chain { gate, forwards, drops });
    }
    Ok(found)
}

/// Handles and comments of the rules of a chain; none when there is no such chain.
fn marks(socket: &Netlink, gate: &Gate) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let rules = match socket.dump(&nft::dump_request(gate.family, Some((&gate.table, &gate.chain)))) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
        rules => rules?,
    };
    let marked = |(_, body): &(u16, Vec<u8>)| {
        let attributes = nft::parse(body.get(4..)?);
        let get = |kind| attributes.iter().find(|(other, _)| *other == kind).map(|(_, value)| value.to_vec());
        let here = get(2)?.strip_suffix(&[0]) == Some(gate.chain.as_bytes());
        here.then(|| Some((get(3)?, get(7)?)))?
    };
    Ok(rules.iter().filter_map(marked).collect())
}
