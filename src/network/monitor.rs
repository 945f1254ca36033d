//! News from the kernel: the host's firewall has been changed by others, its routes have changed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use ipnetwork::IpNetwork;
use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::network::foreign;
use crate::network::netlink;
use crate::network::nft;
use crate::network::routes;
use crate::sys;
use crate::sys::packet_filter::{self, Instruction};

const NFTABLES_GROUP: u32 = 7;
const IPV4_ROUTES: u32 = 7;
const IPV6_ROUTES: u32 = 11;

/// Message numbers of nftables.
const RULES: [u8; 2] = [6, 8];
const DELETIONS: [u8; 4] = [2, 5, 8, 11];
const NEW_GENERATION: u8 = 15;

/// Changes of nftables that concern a project: deletions from its own table, and what happens to tables of others. Additions
/// to our tables the kernel keeps back, for there may be many listeners.
pub struct FirewallNews {
    socket: AsyncFd<OwnedFd>,
    table: String,
}

/// Routes that come.
pub struct RouteNews(AsyncFd<OwnedFd>);

impl FirewallNews {
    /// For the project whose own table is `table`.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn open(table: String) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        packet_filter::attach(socket.as_fd(), &others_changes())?;
        socket.add_membership(NFTABLES_GROUP)?;
        Ok(Self { socket: follow(&socket)?, table })
    }

    /// Waits for a change that concerns the project, or the rules of others for one of these bridges.
    ///
    /// # Errors
    /// When the socket is broken.
    pub async fn changed(&self, bridges: &[String]) -> io::Result<()> {
        let own: Vec<String> = bridges.iter().map(|bridge| foreign::mark(bridge)).collect();
        while !messages(&self.socket).await?.iter().any(|packet| concerns(packet, &self.table, &own)) {}
        Ok(())
    }
}

/// Whether a packet of changes is more than another project's own affair. To look at the firewall for each of those would
/// keep many projects busy with each other: so it is with the rules that let them pass in others' tables.
fn concerns(packet: &[u8], own: &str, marks: &[String]) -> bool {
    let mut rest = packet;
    while let Some((length, kind)) = head(rest) {
        let Some(message) = rest.get(..length) else { return true };
        if kind != NEW_GENERATION {
            let table = message.get(24..).unwrap_or_default().split(|&byte| byte == 0).next().unwrap_or_default();
            let deleted = DELETIONS.contains(&kind);
            let ours = match RULES.contains(&kind).then(|| mark_in(message)).flatten() {
                _ if table.starts_with(b"rcompose-") => deleted && table == own.as_bytes(),
                Some(mark) => deleted && marks.iter().any(|own| own.as_bytes() == mark),
                None => true,
            };
            if ours {
                return true;
            }
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    // What the kernel had to drop could be anything.
    packet.is_empty()
}

/// What a rule is marked with, if one of our projects made it: attribute 7 of its message is a comment with two bytes before it.
fn mark_in(message: &[u8]) -> Option<&[u8]> {
    let attributes = nft::parse(message.get(20..)?);
    let comment = attributes.iter().find(|(kind, _)| *kind == 7)?.1;
    let text = comment.get(2..)?.strip_suffix(&[0])?;
    text.starts_with(foreign::MARK.as_bytes()).then_some(text)
}

/// Length and number of the first message (`struct nlmsghdr`).
fn head(packet: &[u8]) -> Option<(usize, u8)> {
    let (length, after) = packet.split_first_chunk::<4>()?;
    let (kind, _) = after.split_first_chunk::<2>()?;
    let length = usize::try_from(u32::from_ne_bytes(*length)).ok().filter(|length| *length >= 16)?;
    Some((length, (u16::from_ne_bytes(*kind) & 0xff) as u8))
}

impl RouteNews {
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.add_membership(IPV4_ROUTES)?;
        socket.add_membership(IPV6_ROUTES)?;
        follow(&socket).map(Self)
    }

    /// Waits for news, and returns the ranges that routes have come for.
    ///
    /// # Errors
    /// When the socket is broken.
    pub async fn ranges(&self) -> io::Result<Vec<IpNetwork>> {
        let messages = messages(&self.0).await?;
        Ok(messages
            .iter()
            .flat_map(|bytes| netlink::split(bytes))
            .filter_map(|message| routes::range(&message))
            .collect())
    }
}

fn follow(socket: &Socket) -> io::Result<AsyncFd<OwnedFd>> {
    sys::watch::watch(socket.as_fd().try_clone_to_owned()?, Interest::READABLE)
}

/// What has arrived; when the kernel had to drop some, what is left of it.
async fn messages(socket: &AsyncFd<OwnedFd>) -> io::Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0; 1 << 15];
    loop {
        let mut ready = socket.readable().await?;
        let mut found = Vec::new();
        loop {
            match recv(socket.get_ref(), &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, length)) => found.push(buffer.get(..length).unwrap_or_default().to_vec()),
                Err(Errno::WOULDBLOCK) => break,
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => found.push(Vec::new()),
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        if !found.is_empty() {
            return Ok(found);
        }
    }
}

/// Keeps deletions, and what is about somebody else's table. Of several messages in one packet the first one counts: the
/// kernel packs those of one transaction together, and ours are about our tables only. A message's type is at offset 4, the
/// name of its table at 24.
fn others_changes() -> Vec<Instruction> {
    let word = |text: &[u8; 4]| u32::from_be_bytes(*text);
    let kind = if cfg!(target_endian = "little") { 4 } else { 5 };
    let line = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let mut program = vec![line(packet_filter::LOAD_BYTE, 0, 0, kind)];
    // Jumps go over the rest of these, over the six that follow.
    program.push(line(packet_filter::JUMP_EQUAL, 9, 0, NEW_GENERATION.into()));
    for (kind, left) in DELETIONS.into_iter().zip([3, 2, 1, 0]) {
        program.push(line(packet_filter::JUMP_EQUAL, left + 4, 0, kind.into()));
    }
    program.extend([
        line(packet_filter::LOAD_WORD, 0, 0, 24),
        line(packet_filter::JUMP_EQUAL, 0, 2, word(b"rcom")),
        line(packet_filter::LOAD_WORD, 0, 0, 28),
        line(packet_filter::JUMP_EQUAL, 1, 0, word(b"pose")),
        line(packet_filter::RETURN, 0, 0, packet_filter::ALL),
        line(packet_filter::RETURN, 0, 0, 0),
    ]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program on a packet, as the kernel does.
    fn keeps(packet: &[u8]) -> bool {
        let program = others_changes();
        let (mut at, mut loaded) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                packet_filter::LOAD_BYTE => loaded = packet[k as usize].into(),
                packet_filter::LOAD_WORD => {
                    let Some(bytes) = packet.get(k as usize..k as usize + 4) else { return false };
                    loaded = u32::from_be_bytes(bytes.try_into().unwrap());
                }
                packet_filter::JUMP_EQUAL => at += usize::from(if loaded == k { jt } else { jf }),
                _ => return k != 0,
            }
        }
    }

    #[test]
    fn what_other_projects_do_to_their_tables_is_theirs() {
        let message = |kind: u16, table: &str| {
            let mut bytes = vec![0; 24];
            bytes[4..6].copy_from_slice(&((10 << 8) | kind).to_ne_bytes());
            bytes.extend(table.as_bytes());
            bytes.push(0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            let length = u32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes
        };
        let others = [message(2, "rcompose-b"), message(8, "rcompose-ab"), message(15, "")].concat();
        assert!(!concerns(&others, "rcompose-a", &[]));
        assert!(!concerns(&message(0, "rcompose-a"), "rcompose-a", &[]));
        assert!(concerns(&[others.clone(), message(2, "rcompose-a")].concat(), "rcompose-a", &[]));
        assert!(concerns(&[others, message(3, "filter")].concat(), "rcompose-a", &[]));
        assert!(concerns(&[], "rcompose-a", &[]), "some were lost");
        // Rules in a table of others that let bridges pass: attribute 1 is the table, 7 the comment.
        let rule = |kind: u16, bridge: &str| {
            let comment = [&[0, 0], foreign::mark(bridge).as_bytes(), &[0]].concat();
            let attributes = nft::Attributes::default().text(1, "filter").bytes(7, &comment);
            let mut bytes = message(kind, "")[..20].to_vec();
            bytes.extend(attributes.as_slice());
            let length = u32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes
        };
        let own = [foreign::mark("rc-a")];
        assert!(!concerns(&rule(6, "rc-a"), "rcompose-a", &own) && !concerns(&rule(8, "rc-b"), "rcompose-a", &own));
        assert!(concerns(&rule(8, "rc-a"), "rcompose-a", &own), "its own is taken away");
    }

    #[test]
    fn additions_to_our_own_tables_wake_nobody() {
        let packet = |kind: u16, table: &str| {
            let mut bytes = vec![0; 24];
            bytes[4..6].copy_from_slice(&((10 << 8) | kind).to_ne_bytes());
            bytes.extend(table.as_bytes());
            bytes.extend([0; 8]);
            bytes
        };
        assert!(
            !keeps(&packet(0, "rcompose-x")) && !keeps(&packet(12, "rcompose-x")) && !keeps(&packet(14, "rcompose-x"))
        );
        assert!(!keeps(&packet(15, "")), "the number of the generation");
        assert!(
            DELETIONS.into_iter().all(|kind| keeps(&packet(kind.into(), "rcompose-x"))),
            "also when our table goes"
        );
        assert!(keeps(&packet(3, "filter")) && keeps(&packet(0, "rcom-other")));
    }
}
