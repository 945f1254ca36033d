//! Names of containers: what a query is answered with. Pure; the sockets are in [`crate::network::dns_server`].

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::{A, AAAA, OPT, PTR, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

/// Seconds an answer may be kept, as with Docker.
const TTL: u32 = 600;
/// Bytes that fit a UDP answer without EDNS (RFC 6891), and the most we send with it.
const UDP_LIMIT: u16 = 512;
const UDP_MOST: u16 = 4096;
/// No query has more bytes. In one that had, names that point to each other would take all the others' time to read.
const LONGEST: usize = 4096;

/// A container on a network, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub project: String,
    /// Id of the network.
    pub network: String,
    /// Name of the network, for `NAME.NETWORK`.
    pub network_name: String,
    pub addresses: Vec<IpAddr>,
    /// Name of the container: what an address leads back to.
    pub container: String,
    /// Service, aliases, short id: everything else it answers to here.
    pub names: Vec<String>,
}

impl Endpoint {
    /// Whether it is what a question asks for: by a name in lower case, or by an address that leads back to it.
    pub fn answers(&self, question: &str) -> bool {
        if let Some(address) = reverse(question) {
            return self.addresses.contains(&address);
        }
        let name = question.strip_suffix(&format!(".{}", self.network_name.to_ascii_lowercase())).unwrap_or(question);
        self.names.iter().chain([&self.container]).any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// What a container sees others from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct View {
    pub project: String,
    /// Ids of its networks, the primary one first.
    pub networks: Vec<String>,
    /// Other names are asked of outside servers; not so when all its networks are internal.
    pub forwards: bool,
    /// Names of its own for others: the name, and what it means, both in lower case.
    pub links: BTreeMap<String, String>,
}

/// The names one container can see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    names: HashMap<String, Vec<IpAddr>>,
    pointers: HashMap<IpAddr, String>,
}

/// What to do with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Answer(Vec<u8>),
    /// A name that is not in the zone.
    Unknown,
    /// Not a query that can be answered.
    Ignore,
}

impl Zone {
    /// A name means the containers of the own project before others', and those of the first network that knows it.
    pub fn new(view: &View, endpoints: &[Endpoint]) -> Self {
        let mut zone = Self::default();
        for own in [true, false] {
            for network in &view.networks {
                let here = endpoints.iter().filter(|e| e.network == *network && (e.project == view.project) == own);
                let mut found: HashMap<String, Vec<IpAddr>> = HashMap::new();
                for endpoint in here {
                    zone.note(endpoint, &mut found);
                }
                for (name, addresses) in found {
                    zone.names.entry(name).or_insert(addresses);
                }
            }
        }
        for (name, target) in &view.links {
            if let Some(addresses) = zone.names.get(target).cloned() {
                zone.names.insert(name.clone(), addresses);
            }
        }
        zone
    }

    fn note(&mut self, endpoint: &Endpoint, found: &mut HashMap<String, Vec<IpAddr>>) {
        for name in endpoint.names.iter().chain([&endpoint.container]) {
            let name = name.to_ascii_lowercase();
            for name in [format!("{name}.{}", endpoint.network_name.to_ascii_lowercase()), name] {
                let addresses = found.entry(name).or_default();
                for address in &endpoint.addresses {
                    if !addresses.contains(address) {
                        addresses.push(*address);
                    }
                }
            }
        }
        for address in &endpoint.addresses {
            let name = format!("{}.{}", endpoint.container, endpoint.network_name);
            self.pointers.entry(*address).or_insert(name);
        }
    }
}

/// The name that is asked for, in lower case and without the last dot; `None` when the query cannot be read.
pub fn question(query: &[u8]) -> Option<String> {
    let packet = Packet::parse(query).ok()?;
    let name = packet.questions.first()?.qname.to_string().to_ascii_lowercase();
    Some(name.trim_end_matches('.').to_owned())
}

/// Answers a query out of the zone. Which replica comes first depends on the query's id: resolvers draw it at random, while
/// counting would give a program that always asks for A and AAAA the same one of two replicas each time.
pub fn answer(query: &[u8], zone: &Zone, over_tcp: bool) -> Reply {
    if query.len() > LONGEST {
        return Reply::Ignore;
    }
    let Ok(packet) = Packet::parse(query) else { return Reply::Ignore };
    if packet.has_flags(PacketFlag::RESPONSE) {
        return Reply::Ignore;
    }
    let [question] = packet.questions.as_slice() else {
        return failure(query, RCODE::FormatError).map_or(Reply::Ignore, Reply::Answer);
    };
    let name = question.qname.to_string().to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    let addresses = zone.names.get(name);
    let records: Vec<RData<'_>> = match question.qtype {
        QTYPE::TYPE(TYPE::PTR) => match reverse(name).and_then(|address| zone.pointers.get(&address)) {
            Some(name) => Name::new(name).map(|name| RData::PTR(PTR(name))).into_iter().collect(),
            None => return Reply::Unknown,
        },
        kind => match addresses {
            Some(addresses) => of_type(kind, addresses),
            None => return Reply::Unknown,
        },
    };
    let mut reply = Packet::new_reply(packet.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if packet.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    let first = usize::from(packet.id()).checked_rem(records.len()).unwrap_or_default();
    let mut records = records;
    records.rotate_left(first);
    let owner = &question.qname;
    reply.answers = records.into_iter().map(|data| ResourceRecord::new(owner.clone(), CLASS::IN, TTL, data)).collect();
    reply.questions = vec![question.clone()];
    let mut limit = UDP_LIMIT;
    if let Some(opt) = packet.opt() {
        limit = opt.udp_packet_size.clamp(UDP_LIMIT, UDP_MOST);
        *reply.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: UDP_MOST, version: 0 });
    }
    match reply.build_bytes_vec_compressed() {
        Ok(bytes) if over_tcp || bytes.len() <= usize::from(limit) => Reply::Answer(bytes),
        Ok(_) => {
            reply.answers.clear();
            reply.set_flags(PacketFlag::TRUNCATION);
            reply.build_bytes_vec_compressed().map_or(Reply::Ignore, Reply::Answer)
        }
        Err(_) => failure(query, RCODE::ServerFailure).map_or(Reply::Ignore, Reply::Answer),
    }
}

/// No records of a type is an empty answer: the name exists.
fn of_type<'a>(kind: QTYPE, addresses: &[IpAddr]) -> Vec<RData<'a>> {
    let record = |address: &IpAddr| match (address, kind) {
        (IpAddr::V4(address), QTYPE::TYPE(TYPE::A) | QTYPE::ANY) => Some(RData::A(A { address: address.to_bits() })),
        (IpAddr::V6(address), QTYPE::TYPE(TYPE::AAAA) | QTYPE::ANY) => {
            Some(RData::AAAA(AAAA { address: address.to_bits() }))
        }
        _ => None,
    };
    addresses.iter().filter_map(record).collect()
}

/// An empty answer with that code; `None` when the query cannot be read.
pub fn failure(query: &[u8], code: RCODE) -> Option<Vec<u8>> {
    let packet = Packet::parse(query).ok()?;
    let mut reply = Packet::new_reply(packet.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    reply.questions = packet.questions.clone();
    *reply.rcode_mut() = code;
    reply.build_bytes_vec_compressed().ok()
}

/// The most bytes that an answer to a query over UDP may have.
pub fn udp_limit(query: &[u8]) -> usize {
    let packet = Packet::parse(query).ok();
    let asked = packet.as_ref().and_then(|packet| packet.opt()).map_or(UDP_LIMIT, |opt| opt.udp_packet_size);
    usize::from(asked.max(UDP_LIMIT))
}

/// An empty answer that has the asker come again over TCP; `None` when the query cannot be read.
pub fn truncated(query: &[u8]) -> Option<Vec<u8>> {
    let packet = Packet::parse(query).ok()?;
    let mut reply = Packet::new_reply(packet.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE | PacketFlag::TRUNCATION);
    reply.questions = packet.questions.clone();
    reply.build_bytes_vec_compressed().ok()
}

/// The address in `2.0.18.172.in-addr.arpa` or the `ip6.arpa` form.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let octets: Result<Vec<u8>, _> = labels.rsplit('.').map(str::parse).collect();
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets.ok()?).ok()?).into());
    }
    let digits: String = name.strip_suffix(".ip6.arpa")?.rsplit('.').collect();
    let bits = (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok())??;
    Some(Ipv6Addr::from_bits(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::{QCLASS, Question};

    fn endpoint(project: &str, network: &str, address: &str, container: &str, names: &[&str]) -> Endpoint {
        Endpoint {
            project: project.into(),
            network: network.into(),
            network_name: format!("{network}_name"),
            addresses: vec![address.parse().unwrap()],
            container: container.into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn zone() -> Zone {
        let endpoints = [
            endpoint("p", "n1", "10.0.0.2", "p-web-1", &["web"]),
            endpoint("p", "n1", "10.0.0.3", "p-web-2", &["web"]),
            endpoint("q", "n1", "10.0.0.9", "q-web-1", &["web", "cache"]),
            endpoint("p", "n2", "10.2.0.2", "p-db-1", &["db"]),
        ];
        Zone::new(&view(), &endpoints)
    }

    fn view() -> View {
        let links = BTreeMap::from([("db2".to_owned(), "web".to_owned())]);
        View { project: "p".into(), networks: vec!["n1".into()], forwards: true, links }
    }

    fn query(id: u16, name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(id);
        packet.questions.push(Question::new(Name::new(name).unwrap(), kind.into(), QCLASS::CLASS(CLASS::IN), false));
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn what_no_resolver_sends_is_not_read() {
        let mut long = query(1, "web", TYPE::A);
        assert!(matches!(answer(&long, &zone(), true), Reply::Answer(_)));
        // Thousands of questions more; each name is a pointer to the one before it.
        long[4] = 0x10;
        while long.len() < 60_000 {
            let before = u16::try_from(long.len() - 6).unwrap().min(0x3fff);
            long.extend((0xc000 | before).to_be_bytes());
            long.extend([0, 1, 0, 1]);
        }
        assert_eq!(answer(&long, &zone(), true), Reply::Ignore);
    }

    fn ask(name: &str, kind: TYPE, id: u16) -> Vec<String> {
        let Reply::Answer(bytes) = answer(&query(id, name, kind), &zone(), false) else { panic!("not answered") };
        let reply = Packet::parse(&bytes).unwrap();
        assert_eq!((reply.id(), reply.rcode()), (id, RCODE::NoError));
        let text = |record: &ResourceRecord<'_>| match &record.rdata {
            RData::A(A { address }) => Ipv4Addr::from_bits(*address).to_string(),
            RData::PTR(PTR(name)) => name.to_string(),
            other => panic!("unexpected {other:?}"),
        };
        reply.answers.iter().map(text).collect()
    }

    #[test]
    fn replicas_rotate_and_the_own_project_comes_first() {
        assert_eq!(ask("WEB", TYPE::A, 0), ["10.0.0.2", "10.0.0.3"]);
        assert_eq!(ask("web", TYPE::A, 1), ["10.0.0.3", "10.0.0.2"]);
        assert_eq!(ask("cache", TYPE::A, 0), ["10.0.0.9"]);
        assert_eq!(ask("db2", TYPE::A, 0), ["10.0.0.2", "10.0.0.3"], "a link");
        assert_eq!(ask("web.n1_name", TYPE::A, 0), ["10.0.0.2", "10.0.0.3"]);
        assert_eq!(ask("web", TYPE::AAAA, 0), [""; 0]);
        assert_eq!(ask("3.0.0.10.in-addr.arpa", TYPE::PTR, 0), ["p-web-2.n1_name"]);
    }

    #[test]
    fn other_networks_are_not_seen() {
        assert_eq!(answer(&query(7, "db", TYPE::A), &zone(), false), Reply::Unknown);
        assert_eq!(answer(&query(7, "2.0.2.10.in-addr.arpa", TYPE::PTR), &zone(), false), Reply::Unknown);
    }

    #[test]
    fn a_larger_answer_is_sent_to_who_takes_it() {
        let many: Vec<_> =
            (0..60).map(|n| endpoint("p", "n1", &format!("10.0.1.{n}"), &format!("c{n}"), &["web"])).collect();
        let asked = query(7, "web", TYPE::A);
        let mut packet = Packet::parse(&asked).unwrap();
        *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: 1232, version: 0 });
        let asked = packet.build_bytes_vec().unwrap();
        let Reply::Answer(whole) = answer(&asked, &Zone::new(&view(), &many), false) else { panic!("not answered") };
        let reply = Packet::parse(&whole).unwrap();
        assert!(reply.answers.len() == 60 && reply.opt().is_some());
    }

    #[test]
    fn an_endpoint_answers_to_its_names_and_addresses() {
        let one = endpoint("p", "n1", "10.0.0.2", "p-Web-1", &["web"]);
        let asked = ["web", "web.n1_name", "p-web-1", "2.0.0.10.in-addr.arpa"];
        assert!(asked.into_iter().all(|name| one.answers(name)));
        assert!(!["we", "web.n2_name", "3.0.0.10.in-addr.arpa"].into_iter().any(|name| one.answers(name)));
    }

    #[test]
    fn long_answers_are_cut_on_udp_only() {
        let many: Vec<_> =
            (0..60).map(|n| endpoint("p", "n1", &format!("10.0.1.{n}"), &format!("c{n}"), &["web"])).collect();
        let zone = Zone::new(&view(), &many);
        let Reply::Answer(cut) = answer(&query(7, "web", TYPE::A), &zone, false) else { panic!("not answered") };
        assert!(Packet::parse(&cut).unwrap().has_flags(PacketFlag::TRUNCATION));
        let Reply::Answer(whole) = answer(&query(7, "web", TYPE::A), &zone, true) else { panic!("not answered") };
        assert_eq!(Packet::parse(&whole).unwrap().answers.len(), 60);
    }

    #[test]
    fn compression_without_end_is_seen_through() {
        // Names that lead to themselves, to each other, and to the name before them, as many as there is room for.
        for step in [0, 2, -2_i32] {
            let mut bytes = query(7, "web", TYPE::A);
            bytes[4..12].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
            while bytes.len() < 65_530 {
                let to = (i32::try_from(bytes.len()).unwrap() + step).clamp(12, 0x3fff);
                bytes.extend((u16::try_from(to).unwrap() | 0xc000).to_be_bytes());
                // Type, class: every other name is a question.
                bytes.extend([0, 1, 0, 1]);
            }
            // It ends.
            let _ = answer(&bytes, &zone(), true);
        }
    }

    proptest::proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = answer(&bytes, &zone(), false);
        }
    }
}
