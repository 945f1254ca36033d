//! nftables messages over nfnetlink: only the expressions our tables are made of.
//! Numbers are those of `linux/netfilter/nf_tables.h`; all integers in attributes are big endian.

mod rule;

use std::net::IpAddr;

use crate::network::netlink::{ACK, APPEND, CREATE, REQUEST};

pub(super) use rule::Rule;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Families of tables, which are also those of packets.
pub(super) const INET: u8 = 1;
pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;

const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

const ACCEPT: u32 = 1;

/// Data types of set keys, as `nft` numbers them.
pub(super) const ADDRESS4: u32 = 7;
pub(super) const ADDRESS6: u32 = 8;
pub(super) const PROTOCOL: u32 = 12;
pub(super) const PORT: u32 = 13;

/// Where a base chain hooks in: `(type, hook number, priority)`.
#[derive(Clone, Copy)]
pub(super) struct Hook(pub &'static str, pub u32, pub i32);
pub(super) const PREROUTING: u32 = 0;
pub(super) const INPUT: u32 = 1;
pub(super) const FORWARD: u32 = 2;
pub(super) const OUTPUT: u32 = 3;
pub(super) const POSTROUTING: u32 = 4;

/// Attributes, written one after the other.
#[derive(Default, Clone)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn nest(self, kind: u16, inner: Self) -> Self {
        self.bytes(kind | 0x8000, &inner.0)
    }
}

/// The attributes in `bytes` as `(type without flags, value)`.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) =
        (crate::network::netlink::u16_at(bytes, 0), crate::network::netlink::u16_at(bytes, 2))
    {
        let Some(value) = bytes.get(4..usize::from(length)) else { break };
        found.push((kind & 0x3fff, value));
        bytes = bytes.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// One transaction in one family: all of it happens or nothing.
pub(super) struct Transaction {
    bytes: Vec<u8>,
    sequence: u32,
    family: u8,
}

impl Transaction {
    pub(super) fn new(family: u8) -> Self {
        let mut transaction = Self { bytes: Vec::new(), sequence: 0, family };
        transaction.message(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, &Attributes::default());
        transaction
    }

    /// The finished bytes.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.message(BATCH_END, REQUEST, 0, SUBSYSTEM, &Attributes::default());
        self.bytes
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &Attributes) {
        let length = u32::try_from(20 + attributes.0.len()).unwrap_or(u32::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(&attributes.0);
        self.sequence += 1;
    }

    fn push(&mut self, kind: u16, flags: u16, attributes: &Attributes) {
        self.message((SUBSYSTEM << 8) | kind, flags | REQUEST | ACK, self.family, 0, attributes);
    }

    pub(super) fn add_table(&mut self, table: &str) {
        self.push(NEW_TABLE, CREATE, &Attributes::default().text(1, table).number(2, 0));
    }

    pub(super) fn delete_table(&mut self, table: &str) {
        self.push(DELETE_TABLE, 0, &Attributes::default().text(1, table));
    }

    pub(super) fn add_chain(&mut self, table: &str, chain: &str, Hook(kind, hook, priority): Hook) {
        let hook = Attributes::default().number(1, hook).number(2, priority.cast_unsigned());
        let chain = Attributes::default().text(1, table).text(3, chain).nest(4, hook).number(5, ACCEPT).text(7, kind);
        self.push(NEW_CHAIN, CREATE, &chain);
    }

    /// Takes all rules out of a chain.
    pub(super) fn flush_chain(&mut self, table: &str, chain: &str) {
        self.push(DELETE_RULE, 0, &Attributes::default().text(1, table).text(2, chain));
    }

    /// Takes all elements out of a map.
    pub(super) fn flush_map(&mut self, table: &str, map: Map) {
        self.push(DELETE_ELEMENT, 0, &Attributes::default().text(1, table).text(2, map.name));
    }

    pub(super) fn add_rule(&mut self, table: &str, chain: &str, rule: Rule) {
        self.push(NEW_RULE, CREATE | APPEND, &Attributes::default().text(1, table).text(2, chain).nest(4, rule.0));
    }

    /// Puts a rule first in somebody else's chain, marked with a comment to find it again by.
    pub(super) fn insert_marked_rule(&mut self, table: &str, chain: &str, rule: Rule, mark: &[u8]) {
        let rule = Attributes::default().text(1, table).text(2, chain).nest(4, rule.0).bytes(7, mark);
        self.push(NEW_RULE, CREATE, &rule);
    }

    pub(super) fn delete_rule(&mut self, table: &str, chain: &str, handle: &[u8]) {
        self.push(DELETE_RULE, 0, &Attributes::default().text(1, table).text(2, chain).bytes(3, handle));
    }

    /// A map from its key to an address of its family and a port; types are those `nft` prints.
    pub(super) fn add_map(&mut self, table: &str, map: Map) {
        let lengths = map.key_types.iter().map(|kind| length(*kind));
        let set = Attributes::default()
            .text(1, table)
            .text(2, map.name)
            .number(3, 8 | if map.key_types.len() > 1 { 0x80 } else { 0 })
            .number(4, concatenated(map.key_types))
            .number(5, lengths.clone().sum())
            .number(6, concatenated(&[map.address_type(), PORT]))
            .number(7, length(map.address_type()) + length(PORT));
        let fields =
            lengths.fold(Attributes::default(), |all, length| all.nest(1, Attributes::default().number(1, length)));
        let set = set.nest(9, Attributes::default().nest(2, fields)).number(10, map.id);
        self.push(NEW_SET, CREATE, &set);
    }

    pub(super) fn add_element(&mut self, table: &str, map: Map, key: &[u8], address: IpAddr, port: u16) {
        let data = [&octets(address)[..], &port.to_be_bytes(), &[0, 0]].concat();
        let element = Attributes::default().nest(1, value(key)).nest(2, value(&data));
        self.push(NEW_ELEMENT, CREATE, &elements(table, map.name, element));
    }

    pub(super) fn delete_element(&mut self, table: &str, map: Map, key: &[u8]) {
        self.push(DELETE_ELEMENT, 0, &elements(table, map.name, Attributes::default().nest(1, value(key))));
    }
}

/// A map to be made.
#[derive(Clone, Copy)]
pub(super) struct Map {
    pub(super) name: &'static str,
    pub(super) id: u32,
    /// Of the addresses it leads to.
    pub(super) family: u8,
    pub(super) key_types: &'static [u32],
}

impl Map {
    fn address_type(self) -> u32 {
        if self.family == IPV6 { ADDRESS6 } else { ADDRESS4 }
    }
}

/// Bytes of a field in a key; each is padded to whole words.
fn length(kind: u32) -> u32 {
    if kind == ADDRESS6 { 16 } else { 4 }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn elements(table: &str, map: &str, element: Attributes) -> Attributes {
    let list = Attributes::default().nest(1, element);
    Attributes::default().text(1, table).text(2, map).nest(3, list)
}

fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, kind| (all << 6) | kind)
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(1, bytes)
}

/// A request outside a transaction: the chains of a family, or the rules of one table or chain.
pub(super) fn dump_request(family: u8, rules_of: Option<(&str, Option<&str>)>) -> Vec<u8> {
    let mut request = Transaction { bytes: Vec::new(), sequence: 0, family };
    let (kind, attributes) = match rules_of {
        None => (GET_CHAIN, Attributes::default()),
        Some((table, None)) => (GET_RULE, Attributes::default().text(1, table)),
        Some((table, Some(chain))) => (GET_RULE, Attributes::default().text(1, table).text(2, chain)),
    };
    request.message((SUBSYSTEM << 8) | kind, REQUEST | crate::network::netlink::DUMP, family, 0, &attributes);
    request.bytes
}

/// A request outside a transaction: one table, `ENOENT` when it is not there.
pub(super) fn table_request(family: u8, table: &str) -> Vec<u8> {
    let mut request = Transaction { bytes: Vec::new(), sequence: 0, family };
    let attributes = Attributes::default().text(1, table);
    request.message((SUBSYSTEM << 8) | GET_TABLE, REQUEST, family, 0, &attributes);
    request.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_has_the_bytes_the_kernel_expects() {
        let mut transaction = Transaction::new(IPV4);
        transaction.delete_table("t1");
        let bytes = transaction.end();
        let begin = [20, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
        // Length 28, NFT_MSG_DELTABLE, request and ack, sequence 1, family IPv4; the name with its zero, padded.
        let delete = [28, 0, 0, 0, 2, 10, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 7, 0, 1, 0, b't', b'1', 0, 0];
        let end = [20, 0, 0, 0, 0x11, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
        assert_eq!(bytes, [&begin[..], &delete, &end].concat());
    }

    #[test]
    fn foreign_attributes_are_cut_where_they_lie() {
        assert_eq!(parse(&[8, 0, 1, 0, 1, 2, 3, 4, 200, 0, 1, 0]), [(1, &[1, 2, 3, 4][..])]);
        assert!(parse(&[0, 0, 1, 0, 9, 9, 9, 9]).is_empty());
    }
}
