//! nftables messages over nfnetlink: only the expressions our tables are made of.
//! Numbers are those of `linux/netfilter/nf_tables.h`; all integers in attributes are big endian.

use std::net::Ipv4Addr;

use crate::network::netlink::{ACK, APPEND, CREATE, REQUEST};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
pub(super) const IPV4: u8 = 2;

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
const DROP: u32 = 0;
/// First 16-byte register; the 4-byte ones inside it begin at 8.
const REGISTER: u32 = 1;
const WORD: u32 = 8;

/// Where a base chain hooks in: `(type, hook number, priority)`.
#[derive(Clone, Copy)]
pub(super) struct Hook(pub &'static str, pub u32, pub i32);
pub(super) const PREROUTING: u32 = 0;
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

/// One transaction: all of it happens or nothing.
pub(super) struct Transaction {
    bytes: Vec<u8>,
    sequence: u32,
}

impl Transaction {
    pub(super) fn new() -> Self {
        let mut transaction = Self { bytes: Vec::new(), sequence: 0 };
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
        self.message((SUBSYSTEM << 8) | kind, flags | REQUEST | ACK, IPV4, 0, attributes);
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

    /// A map from `key` to address and port; types are those `nft` prints.
    pub(super) fn add_map(&mut self, table: &str, map: Map) {
        let set = Attributes::default()
            .text(1, table)
            .text(2, map.name)
            .number(3, 8 | if map.key_types.len() > 1 { 0x80 } else { 0 })
            .number(4, concatenated(map.key_types))
            .number(5, 4 * u32::try_from(map.key_types.len()).unwrap_or_default())
            .number(6, concatenated(&[7, 13]))
            .number(7, 8);
        let fields = map
            .key_types
            .iter()
            .fold(Attributes::default(), |fields, _| fields.nest(1, Attributes::default().number(1, 4)));
        let set = set.nest(9, Attributes::default().nest(2, fields)).number(10, map.id);
        self.push(NEW_SET, CREATE, &set);
    }

    pub(super) fn add_element(&mut self, table: &str, map: &str, key: &[u8], address: Ipv4Addr, port: u16) {
        let data = [&address.octets()[..], &port.to_be_bytes(), &[0, 0]].concat();
        let element = Attributes::default().nest(1, value(key)).nest(2, value(&data));
        self.push(NEW_ELEMENT, CREATE, &elements(table, map, element));
    }

    pub(super) fn delete_element(&mut self, table: &str, map: &str, key: &[u8]) {
        self.push(DELETE_ELEMENT, 0, &elements(table, map, Attributes::default().nest(1, value(key))));
    }
}

/// A map to be made: type numbers 7 address, 12 protocol, 13 port.
pub(super) struct Map {
    pub(super) name: &'static str,
    pub(super) id: u32,
    pub(super) key_types: &'static [u32],
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

/// A request outside a transaction: the chains of a family, or the rules of one chain.
pub(super) fn dump_request(rules_of: Option<(&str, &str)>) -> Vec<u8> {
    let mut request = Transaction { bytes: Vec::new(), sequence: 0 };
    let (kind, attributes) = match rules_of {
        None => (GET_CHAIN, Attributes::default()),
        Some((table, chain)) => (GET_RULE, Attributes::default().text(1, table).text(2, chain)),
    };
    request.message((SUBSYSTEM << 8) | kind, REQUEST | crate::network::netlink::DUMP, IPV4, 0, &attributes);
    request.bytes
}

/// A request outside a transaction: one table, `ENOENT` when it is not there.
pub(super) fn table_request(table: &str) -> Vec<u8> {
    let mut request = Transaction { bytes: Vec::new(), sequence: 0 };
    let attributes = Attributes::default().text(1, table);
    request.message((SUBSYSTEM << 8) | GET_TABLE, REQUEST, IPV4, 0, &attributes);
    request.bytes
}

/// A rule as a list of expressions; each method adds what `nft` would show under that name.
#[derive(Default, Clone)]
pub(super) struct Rule(Attributes);

impl Rule {
    fn expression(self, name: &str, data: Attributes) -> Self {
        Self(self.0.nest(1, Attributes::default().text(1, name).nest(2, data)))
    }

    fn compare(self, not: bool, with: &[u8]) -> Self {
        let data = Attributes::default().number(1, REGISTER).number(2, u32::from(not)).nest(3, value(with));
        self.expression("cmp", data)
    }

    fn meta(self, key: u32, register: u32) -> Self {
        self.expression("meta", Attributes::default().number(1, register).number(2, key))
    }

    fn payload(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        let data = Attributes::default().number(1, register).number(2, base).number(3, offset).number(4, length);
        self.expression("payload", data)
    }

    fn masked(self, mask: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).unwrap_or_default();
        let data = Attributes::default().number(1, REGISTER).number(2, REGISTER).number(3, length);
        self.expression("bitwise", data.nest(4, value(mask)).nest(5, value(&vec![0; mask.len()])))
    }

    /// `iifname [!=] name`, encoded as iptables does, so that its own listing still reads the chain.
    pub(super) fn input(self, not: bool, name: &str) -> Self {
        self.meta(6, REGISTER).compare(not, &[name.as_bytes(), &[0]].concat())
    }

    /// `oifname [!=] name`.
    pub(super) fn output(self, not: bool, name: &str) -> Self {
        self.meta(7, REGISTER).compare(not, &[name.as_bytes(), &[0]].concat())
    }

    /// `ip saddr network`.
    pub(super) fn source(self, network: ipnetwork::Ipv4Network) -> Self {
        self.payload(1, 12, 4, REGISTER).masked(&network.mask().octets()).compare(false, &network.network().octets())
    }

    /// `ip daddr network`.
    pub(super) fn destination(self, network: ipnetwork::Ipv4Network) -> Self {
        self.payload(1, 16, 4, REGISTER).masked(&network.mask().octets()).compare(false, &network.network().octets())
    }

    /// `fib daddr type local`.
    pub(super) fn local_destination(self) -> Self {
        self.expression("fib", Attributes::default().number(1, REGISTER).number(2, 3).number(3, 2))
            .compare(false, &2u32.to_ne_bytes())
    }

    /// `ct state established,related`.
    pub(super) fn known_connection(self) -> Self {
        self.connection(0, 2 | 4)
    }

    /// `ct status dnat`.
    pub(super) fn translated(self) -> Self {
        self.connection(2, 1 << 5)
    }

    fn connection(self, key: u32, bits: u32) -> Self {
        self.expression("ct", Attributes::default().number(1, REGISTER).number(2, key))
            .masked(&bits.to_ne_bytes())
            .compare(true, &[0; 4])
    }

    /// `dnat ip to [ip daddr .] meta l4proto . th dport map @map`; goes on with the next rule when nothing is found.
    pub(super) fn translate(mut self, map: &Map) -> Self {
        let mut word = WORD;
        if map.key_types.len() == 3 {
            self = self.payload(1, 16, 4, word);
            word += 1;
        }
        let lookup = Attributes::default().text(1, map.name).number(2, REGISTER).number(3, REGISTER).number(4, map.id);
        let nat = Attributes::default().number(1, 1).number(2, u32::from(IPV4)).number(3, WORD).number(5, WORD + 1);
        self.meta(16, word).payload(2, 2, 2, word + 1).expression("lookup", lookup).expression("nat", nat)
    }

    pub(super) fn masquerade(self) -> Self {
        self.expression("masq", Attributes::default())
    }

    pub(super) fn accept(self) -> Self {
        self.verdict(ACCEPT)
    }

    pub(super) fn drop(self) -> Self {
        self.verdict(DROP)
    }

    fn verdict(self, code: u32) -> Self {
        let verdict = Attributes::default().nest(2, Attributes::default().number(1, code));
        self.expression("immediate", Attributes::default().number(1, 0).nest(2, verdict))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_has_the_bytes_the_kernel_expects() {
        let mut transaction = Transaction::new();
        transaction.delete_table("t1");
        let bytes = transaction.end();
        let begin = [20, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
        // Length 28, NFT_MSG_DELTABLE, request and ack, sequence 1, family IPv4; the name with its zero, padded.
        let delete = [28, 0, 0, 0, 2, 10, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 7, 0, 1, 0, b't', b'1', 0, 0];
        let end = [20, 0, 0, 0, 0x11, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
        assert_eq!(bytes, [&begin[..], &delete, &end].concat());
    }

    #[test]
    fn an_interface_match_is_meta_then_compare() {
        let Rule(rule) = Rule::default().input(false, "rc-1").accept();
        let names: Vec<String> = parse(&rule.0)
            .iter()
            .map(|(_, expression)| {
                let name = parse(expression).into_iter().find(|(kind, _)| *kind == 1);
                name.map(|(_, name)| String::from_utf8_lossy(name).into_owned()).unwrap_or_default()
            })
            .collect();
        assert_eq!(names, ["meta\0", "cmp\0", "immediate\0"]);
        let compare = parse(&rule.0)[1].1.to_vec();
        assert!(compare.windows(5).any(|window| window == b"rc-1\0"));
    }

    #[test]
    fn foreign_attributes_are_cut_where_they_lie() {
        assert_eq!(parse(&[8, 0, 1, 0, 1, 2, 3, 4, 200, 0, 1, 0]), [(1, &[1, 2, 3, 4][..])]);
        assert!(parse(&[0, 0, 1, 0, 9, 9, 9, 9]).is_empty());
    }
}
