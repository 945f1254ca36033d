//! nftables, which is also what `iptables` writes to unless it is the legacy one.

use std::fmt;
use std::io;

use super::mark;
use crate::network::netlink::{Netlink, u32_at};
use crate::network::nft::{self, INET, IPV4, IPV6, Rule, Transaction};

const OUR_TABLES: &[u8] = b"rcompose-";
const FIREWALLD: &str = "firewalld";
const DROP: [u8; 4] = [0; 4];
/// Of a table whose maker lets nobody else change it.
const OWNER: u32 = 2;

/// A chain of somebody else that packets must pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gate {
    family: u8,
    table: String,
    chain: String,
    /// For what is forwarded; otherwise for what is for the host itself.
    forward: bool,
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            IPV4 => "ip",
            IPV6 => "ip6",
            _ => "inet",
        };
        write!(f, "`{family} {} {}`", self.table, self.chain)
    }
}

impl Gate {
    pub(super) fn is_firewalld(&self) -> bool {
        self.table == FIREWALLD
    }

    pub(super) fn is_forward(&self) -> bool {
        self.forward
    }

    /// Docker's chain for rules of others beside a `FORWARD` chain.
    fn user_chain(&self) -> Self {
        Self { chain: "DOCKER-USER".to_owned(), ..self.clone() }
    }
}

/// Where bridges must be let in: nothing when nothing drops.
pub(super) fn gates(socket: &Netlink) -> io::Result<Vec<Gate>> {
    let all = chains(socket)?;
    let mut found = Vec::new();
    for Chain { gate, policy_drops, .. } in entrances(&all) {
        if *policy_drops || rules(socket, gate)?.iter().any(|rule| rule.closes) {
            let user = gate.user_chain();
            let has_user = gate.forward && all.iter().any(|chain| chain.gate.is_beside(&user));
            found.push(if has_user { user } else { gate.clone() });
        }
    }
    Ok(found)
}

/// Whether the table is of a program that keeps it to itself.
pub(super) fn is_owned(socket: &Netlink, gate: &Gate) -> io::Result<bool> {
    let answers = socket.send(&nft::table_request(gate.family, &gate.table))?;
    let flags = answers.iter().filter_map(|(_, body)| {
        let attributes = nft::parse(body.get(4..)?);
        let value = attributes.iter().find(|(kind, _)| *kind == 2)?.1;
        Some(u32::from_be_bytes(value.try_into().ok()?))
    });
    Ok(flags.fold(0, |all, flags| all | flags) & OWNER != 0)
}

/// Those bridges that no rule of the table names.
pub(super) fn unnamed(socket: &Netlink, gate: &Gate, bridges: &[&str]) -> io::Result<Vec<String>> {
    let rules = socket.dump(&nft::dump_request(gate.family, Some((&gate.table, None))))?;
    let named = |bridge: &str| {
        let name = [bridge.as_bytes(), &[0]].concat();
        rules.iter().any(|(_, body)| body.windows(name.len()).any(|bytes| bytes == name))
    };
    Ok(bridges.iter().filter(|bridge| !named(bridge)).map(|bridge| (*bridge).to_owned()).collect())
}

pub(super) fn admit(socket: &Netlink, gate: &Gate, bridges: &[&str]) -> io::Result<()> {
    let present = rules(socket, gate)?;
    let mut transaction = Transaction::new(gate.family);
    let mut any = false;
    for bridge in bridges {
        let mark = comment(bridge);
        if present.iter().any(|rule| rule.mark == mark) {
            continue;
        }
        any = true;
        let ways = [Rule::default().input(false, bridge), Rule::default().output(false, bridge)];
        for rule in ways.into_iter().take(if gate.forward { 2 } else { 1 }) {
            transaction.insert_marked_rule(&gate.table, &gate.chain, rule.accept(), &mark);
        }
    }
    if any { socket.send(&transaction.end()).map(drop) } else { Ok(()) }
}

/// Deletes our rules for a bridge wherever they may be; whether firewalld's own table, which is its alone, names the bridge.
pub(super) fn dismiss(socket: &Netlink, bridge: &str) -> io::Result<bool> {
    let all = chains(socket)?;
    let mark = comment(bridge);
    let mut named = false;
    // Where it has been let in may not drop any more, or have got a chain for users.
    for Chain { gate, .. } in entrances(&all) {
        if gate.is_firewalld() && is_owned(socket, gate)? {
            named |= unnamed(socket, gate, &[bridge])?.is_empty();
            continue;
        }
        remove_marked(socket, gate, &mark)?;
        if gate.forward {
            remove_marked(socket, &gate.user_chain(), &mark)?;
        }
    }
    Ok(named)
}

/// Deletes the rules with that mark. What somebody else deletes at the same moment fails the whole transaction, so what is
/// left is looked up again.
fn remove_marked(socket: &Netlink, gate: &Gate, mark: &[u8]) -> io::Result<()> {
    loop {
        let ours: Vec<_> = rules(socket, gate)?.into_iter().filter(|rule| rule.mark == mark).collect();
        if ours.is_empty() {
            return Ok(());
        }
        let mut transaction = Transaction::new(gate.family);
        for rule in &ours {
            transaction.delete_rule(&gate.table, &gate.chain, &rule.handle);
        }
        match socket.send(&transaction.end()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            sent => return sent.map(drop),
        }
    }
}

/// The comment as nft and iptables write it: type 0, length, text with its zero.
fn comment(bridge: &str) -> Vec<u8> {
    let text = mark(bridge);
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], text.as_bytes(), &[0]].concat()
}

struct Chain {
    gate: Gate,
    hook: Option<u32>,
    policy_drops: bool,
}

impl Gate {
    fn is_beside(&self, other: &Self) -> bool {
        (self.family, &self.table, &self.chain) == (other.family, &other.table, &other.chain)
    }
}

/// The chains that could keep bridges out: all that what is forwarded passes, and firewalld's for what is for the host, as
/// containers reach the host with Docker there.
fn entrances(all: &[Chain]) -> impl Iterator<Item = &Chain> {
    let of_firewalld = |gate: &Gate| {
        let zones = Gate { chain: "INPUT_ZONES".to_owned(), ..gate.clone() };
        gate.is_firewalld() || all.iter().any(|chain| chain.gate.is_beside(&zones))
    };
    all.iter().filter(move |chain| match chain.hook {
        Some(nft::FORWARD) => true,
        Some(nft::INPUT) => of_firewalld(&chain.gate),
        _ => false,
    })
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
        let hook = hook.iter().find(|(kind, _)| *kind == 1).and_then(|(_, value)| u32_at(value, 0)).map(u32::from_be);
        let gate = Gate {
            family,
            table: String::from_utf8_lossy(table).into_owned(),
            chain: String::from_utf8_lossy(chain).into_owned(),
            forward: hook == Some(nft::FORWARD),
        };
        found.push(Chain { gate, hook, policy_drops: get(5) == Some(&DROP) });
    }
    Ok(found)
}

/// What of a rule concerns us.
struct Seen {
    handle: Vec<u8>,
    mark: Vec<u8>,
    /// Nothing that comes as far as this rule gets through.
    closes: bool,
}

/// The rules of a chain; none when there is no such chain.
fn rules(socket: &Netlink, gate: &Gate) -> io::Result<Vec<Seen>> {
    let rules = match socket.dump(&nft::dump_request(gate.family, Some((&gate.table, Some(&gate.chain))))) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
        rules => rules?,
    };
    let seen = |(_, body): &(u16, Vec<u8>)| {
        let attributes = nft::parse(body.get(4..)?);
        let get = |kind| attributes.iter().find(|(other, _)| *other == kind).map(|(_, value)| *value);
        let here = get(2)?.strip_suffix(&[0]) == Some(gate.chain.as_bytes());
        let mark = get(7).unwrap_or_default().to_vec();
        here.then(|| Some(Seen { handle: get(3)?.to_vec(), mark, closes: closes(get(4).unwrap_or_default()) }))?
    };
    Ok(rules.iter().filter_map(seen).collect())
}

/// Whether a rule's expressions drop or reject without asking anything first.
fn closes(expressions: &[u8]) -> bool {
    let mut ends = false;
    for (_, expression) in nft::parse(expressions) {
        let parts = nft::parse(expression);
        let get = |kind| parts.iter().find(|(other, _)| *other == kind).map_or(&[][..], |(_, value)| *value);
        let data = nft::parse(get(2));
        let named = |names: &[&[u8]]| data.iter().any(|(kind, name)| *kind == 1 && names.contains(name));
        match get(1) {
            b"counter\0" | b"log\0" => {}
            b"match\0" if named(&[b"comment\0"]) => {}
            b"reject\0" => ends = true,
            b"target\0" => ends = named(&[b"REJECT\0", b"DROP\0"]),
            // The verdict lies in the data, in the value, in the verdict.
            b"immediate\0" => {
                let value = data.iter().find(|(kind, _)| *kind == 2).map(|(_, value)| nft::parse(value));
                let verdict =
                    value.unwrap_or_default().iter().find(|(kind, _)| *kind == 2).map(|(_, value)| nft::parse(value));
                ends = verdict.unwrap_or_default().iter().any(|(kind, code)| *kind == 1 && **code == DROP);
            }
            _ => return false,
        }
    }
    ends
}
