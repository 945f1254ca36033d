//! Other firewalls on this host: an `ip filter FORWARD` chain (iptables) with policy drop, as dockerd leaves it, would
//! cut our bridges off. Two accept rules per bridge go into `DOCKER-USER`, or `FORWARD` where there is none.

use std::io;

use crate::network::NetworkError;
use crate::network::netlink::Netlink;
use crate::network::nft::{self, IPV4, Rule, Transaction};
use crate::network::records::NetworkRecord;

const TABLE: &str = "filter";
const CHAINS: [&str; 2] = ["DOCKER-USER", "FORWARD"];

/// Lets the bridge of a network through, when such a chain drops by default.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn admit(record: &NetworkRecord) -> Result<(), NetworkError> {
    let admitted = (|| {
        let socket = Netlink::netfilter()?;
        let Some(chain) = dropping_chain(&socket)? else { return Ok(()) };
        let mut transaction = Transaction::new(IPV4);
        let rules = [Rule::default().input(false, &record.bridge), Rule::default().output(false, &record.bridge)];
        for rule in rules {
            transaction.insert_marked_rule(TABLE, chain, rule.accept(), &mark(record));
        }
        socket.send(&transaction.end()).map(drop)
    })();
    admitted.map_err(NetworkError::kernel(format!("let bridge `{}` pass the host's firewall", record.bridge)))
}

/// Takes the rules of [`admit`] away again.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn dismiss(record: &NetworkRecord) -> Result<(), NetworkError> {
    let dismissed = (|| {
        let socket = Netlink::netfilter()?;
        let mark = mark(record);
        let mut transaction = Transaction::new(IPV4);
        let mut any = false;
        for chain in CHAINS {
            let rules = match socket.dump(&nft::dump_request(IPV4, Some((TABLE, chain)))) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
                rules => rules?,
            };
            for (_, body) in rules {
                let attributes = nft::parse(body.get(4..).unwrap_or_default());
                let find = |kind| attributes.iter().find(|(other, _)| *other == kind).map(|(_, value)| *value);
                let here = find(2).is_some_and(|name| name.strip_suffix(&[0]) == Some(chain.as_bytes()));
                if let (true, Some(handle), Some(found)) = (here, find(3), find(7))
                    && found == mark.as_slice()
                {
                    transaction.delete_rule(TABLE, chain, handle);
                    any = true;
                }
            }
        }
        if any { socket.send(&transaction.end()).map(drop) } else { Ok(()) }
    })();
    dismissed.map_err(NetworkError::kernel(format!("take bridge `{}` out of the host's firewall", record.bridge)))
}

/// The comment as nft and iptables write it: type 0, length, text with its zero.
fn mark(record: &NetworkRecord) -> Vec<u8> {
    let text = format!("rcompose {}", record.bridge);
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], text.as_bytes(), &[0]].concat()
}

/// The chain our rules belong in; `None` when nothing drops.
fn dropping_chain(socket: &Netlink) -> io::Result<Option<&'static str>> {
    let mut drops = false;
    let mut user = false;
    for (_, body) in socket.dump(&nft::dump_request(IPV4, None))? {
        let attributes = nft::parse(body.get(4..).unwrap_or_default());
        let text = |kind| {
            let value = attributes.iter().find(|(other, _)| *other == kind).map(|(_, value)| *value);
            value.and_then(|value| value.strip_suffix(&[0]))
        };
        if text(1) != Some(TABLE.as_bytes()) {
            continue;
        }
        let policy = attributes.iter().find(|(kind, _)| *kind == 5).map(|(_, value)| *value);
        drops |= text(3) == Some(b"FORWARD") && policy == Some(&[0, 0, 0, 0]);
        user |= text(3) == Some(CHAINS[0].as_bytes());
    }
    Ok(drops.then_some(if user { CHAINS[0] } else { CHAINS[1] }))
}
