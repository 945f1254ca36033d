//! One rule: the expressions it is made of, under the names `nft` shows.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{ACCEPT, Attributes, IPV4, IPV6, Map, length, octets, value};

const DROP: u32 = 0;
/// First 16-byte register; the 4-byte ones inside it begin at 8.
const REGISTER: u32 = 1;
const WORD: u32 = 8;
/// Bases of payload expressions.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// A rule as a list of expressions; each method adds what `nft` would show under that name.
#[derive(Default, Clone)]
pub(in crate::network) struct Rule(pub(super) Attributes);

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
    pub(in crate::network) fn input(self, not: bool, name: &str) -> Self {
        self.meta(6, REGISTER).compare(not, &[name.as_bytes(), &[0]].concat())
    }

    /// `oifname [!=] name`.
    pub(in crate::network) fn output(self, not: bool, name: &str) -> Self {
        self.meta(7, REGISTER).compare(not, &[name.as_bytes(), &[0]].concat())
    }

    /// `meta nfproto ipv4` or `ipv6`; the rules of an `inet` table see both.
    pub(in crate::network) fn family(self, family: u8) -> Self {
        self.meta(15, REGISTER).compare(false, &[family])
    }

    /// `ip saddr network` or `ip6 saddr network`.
    pub(in crate::network) fn source(self, network: IpNetwork) -> Self {
        self.address(false, network, 12, 8)
    }

    /// `ip daddr [!=] network` or `ip6 daddr [!=] network`.
    pub(in crate::network) fn destination(self, not: bool, network: IpNetwork) -> Self {
        self.address(not, network, 16, 24)
    }

    fn address(self, not: bool, network: IpNetwork, ipv4_offset: u32, ipv6_offset: u32) -> Self {
        let (family, offset) = if network.is_ipv4() { (IPV4, ipv4_offset) } else { (IPV6, ipv6_offset) };
        let (base, mask) = (octets(network.network()), octets(network.mask()));
        let length = u32::try_from(base.len()).unwrap_or_default();
        self.family(family).payload(NETWORK, offset, length, REGISTER).masked(&mask).compare(not, &base)
    }

    /// `fib daddr type local`.
    pub(in crate::network) fn local_destination(self) -> Self {
        self.expression("fib", Attributes::default().number(1, REGISTER).number(2, 3).number(3, 2))
            .compare(false, &2u32.to_ne_bytes())
    }

    /// `ct state established,related`.
    pub(in crate::network) fn known_connection(self) -> Self {
        self.connection(0, 2 | 4)
    }

    /// `ct status dnat`.
    pub(in crate::network) fn translated(self) -> Self {
        self.connection(2, 1 << 5)
    }

    fn connection(self, key: u32, bits: u32) -> Self {
        self.expression("ct", Attributes::default().number(1, REGISTER).number(2, key))
            .masked(&bits.to_ne_bytes())
            .compare(true, &[0; 4])
    }

    /// `dnat to [daddr .] meta l4proto . th dport map @map`, of the map's family only; goes on with the next rule when
    /// nothing is found.
    pub(in crate::network) fn translate(self, map: Map) -> Self {
        let address = length(map.address_type());
        let family = u32::from(map.family);
        let nat = Attributes::default().number(1, 1).number(2, family).number(3, WORD).number(5, WORD + address / 4);
        self.listed(map).expression("nat", nat)
    }

    /// `[daddr .] meta l4proto . th dport @map`: what it is mapped to is in the registers then.
    pub(in crate::network) fn listed(mut self, map: Map) -> Self {
        self = self.family(map.family);
        let address = length(map.address_type());
        let mut word = WORD;
        if map.key_types.len() == 3 {
            self = self.payload(NETWORK, if map.family == IPV6 { 24 } else { 16 }, address, word);
            word += address / 4;
        }
        let lookup = Attributes::default().text(1, map.name).number(2, REGISTER).number(3, REGISTER).number(4, map.id);
        self.meta(16, word).payload(TRANSPORT, 2, 2, word + 1).expression("lookup", lookup)
    }

    /// `meta l4proto N`.
    pub(in crate::network) fn protocol(self, number: u8) -> Self {
        self.meta(16, REGISTER).compare(false, &[number])
    }

    /// `th sport N` when `source`, otherwise `th dport N`.
    pub(in crate::network) fn port(self, source: bool, number: u16) -> Self {
        self.payload(TRANSPORT, if source { 0 } else { 2 }, 2, REGISTER).compare(false, &number.to_be_bytes())
    }

    /// `th sport set N` or `th dport set N`; the checksum lies at `checksum` in the transport header.
    pub(in crate::network) fn set_port(self, source: bool, number: u16, checksum: u32) -> Self {
        let load = Attributes::default().number(1, REGISTER).nest(2, value(&number.to_be_bytes()));
        let store = Attributes::default()
            .number(5, REGISTER)
            .number(2, TRANSPORT)
            .number(3, if source { 0 } else { 2 })
            .number(4, 2)
            .number(6, 1)
            .number(7, checksum);
        self.expression("immediate", load).expression("payload", store)
    }

    pub(in crate::network) fn masquerade(self) -> Self {
        self.expression("masq", Attributes::default())
    }

    /// `snat to address`.
    pub(in crate::network) fn source_nat(self, address: IpAddr) -> Self {
        let load = Attributes::default().number(1, REGISTER).nest(2, value(&octets(address)));
        let family = u32::from(if address.is_ipv4() { IPV4 } else { IPV6 });
        let nat = Attributes::default().number(1, 0).number(2, family).number(3, REGISTER);
        self.expression("immediate", load).expression("nat", nat)
    }

    pub(in crate::network) fn accept(self) -> Self {
        self.verdict(ACCEPT)
    }

    pub(in crate::network) fn drop(self) -> Self {
        self.verdict(DROP)
    }

    fn verdict(self, code: u32) -> Self {
        let verdict = Attributes::default().nest(2, Attributes::default().number(1, code));
        self.expression("immediate", Attributes::default().number(1, 0).nest(2, verdict))
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

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
}
