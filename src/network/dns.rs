//! Names of containers: what a query is answered with. Pure; the sockets are in [`crate::network::dns_server`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::{A, AAAA, PTR, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

/// Seconds an answer may be kept, as with Docker.
const TTL: u32 = 600;
/// What fits a UDP answer without EDNS.
const UDP_LIMIT: usize = 512;

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

/// The names one container can see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    names: HashMap<String, Vec<IpAddr>>,
    pointers: HashMap<IpAddr, String>,
    /// Other names are asked of the host's servers; not so when all its networks are internal.
    forwards: bool,
}

/// What to do with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Answer(Vec<u8>),
    /// Not ours: ask the host's servers.
    Forward,
    /// Not a query that can be answered.
    Ignore,
}

impl Zone {
    /// The view of a container of `project` on `networks` (ids, the primary one first). A name means the containers
    /// of the own project before others', and those of the first network that knows it.
    pub fn new(project: &str, networks: &[String], endpoints: &[Endpoint], forwards: bool) -> Self {
        let mut zone = Self { forwards, ..Self::default() };
        for own in [true, false] {
            for network in networks {
                let here = endpoints.iter().filter(|e| e.network == *network && (e.project == project) == own);
                let mut found: HashMap<String, Vec<IpAddr>> = HashMap::new();
                for endpoint in here {
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
                        zone.pointers.entry(*address).or_insert(name);
                    }
                }
                for (name, addresses) in found {
                    zone.names.entry(name).or_insert(addresses);
                }
            }
        }
        zone
    }

    pub fn forwards(&self) -> bool {
        self.forwards
    }
}

/// Answers a query out of the zone. Which replica comes first depends on the query's id: resolvers draw it at random, while
/// counting would give a program that always asks for A and AAAA the same one of two replicas each time.
pub fn answer(query: &[u8], zone: &Zone, over_tcp: bool) -> Reply {
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
            None => return elsewhere(zone, query),
        },
        kind => match addresses {
            Some(addresses) => of_type(kind, addresses),
            None => return elsewhere(zone, query),
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
    match reply.build_bytes_vec_compressed() {
        Ok(bytes) if over_tcp || bytes.len() <= UDP_LIMIT => Reply::Answer(bytes),
        Ok(_) => {
            reply.answers.clear();
            reply.set_flags(PacketFlag::TRUNCATION);
            reply.build_bytes_vec_compressed().map_or(Reply::Ignore, Reply::Answer)
        }
        Err(_) => failure(query, RCODE::ServerFailure).map_or(Reply::Ignore, Reply::Answer),
    }
}

fn elsewhere(zone: &Zone, query: &[u8]) -> Reply {
    if zone.forwards {
        return Reply::Forward;
    }
    failure(query, RCODE::ServerFailure).map_or(Reply::Ignore, Reply::Answer)
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
        Zone::new("p", &["n1".to_owned()], &endpoints, true)
    }

    fn query(id: u16, name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(id);
        packet.questions.push(Question::new(Name::new(name).unwrap(), kind.into(), QCLASS::CLASS(CLASS::IN), false));
        packet.build_bytes_vec().unwrap()
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
        assert_eq!(ask("web.n1_name", TYPE::A, 0), ["10.0.0.2", "10.0.0.3"]);
        assert_eq!(ask("web", TYPE::AAAA, 0), [""; 0]);
        assert_eq!(ask("3.0.0.10.in-addr.arpa", TYPE::PTR, 0), ["p-web-2.n1_name"]);
    }

    #[test]
    fn other_networks_are_not_seen_and_unknown_names_go_out() {
        assert_eq!(answer(&query(7, "db", TYPE::A), &zone(), false), Reply::Forward);
        let closed = Zone { forwards: false, ..zone() };
        let Reply::Answer(bytes) = answer(&query(7, "db", TYPE::A), &closed, false) else { panic!("not answered") };
        assert_eq!(Packet::parse(&bytes).unwrap().rcode(), RCODE::ServerFailure);
    }

    #[test]
    fn long_answers_are_cut_on_udp_only() {
        let many: Vec<_> =
            (0..60).map(|n| endpoint("p", "n1", &format!("10.0.1.{n}"), &format!("c{n}"), &["web"])).collect();
        let zone = Zone::new("p", &["n1".to_owned()], &many, true);
        let Reply::Answer(cut) = answer(&query(7, "web", TYPE::A), &zone, false) else { panic!("not answered") };
        assert!(Packet::parse(&cut).unwrap().has_flags(PacketFlag::TRUNCATION));
        let Reply::Answer(whole) = answer(&query(7, "web", TYPE::A), &zone, true) else { panic!("not answered") };
        assert_eq!(Packet::parse(&whole).unwrap().answers.len(), 60);
    }

    proptest::proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = answer(&bytes, &zone(), false);
        }
    }
}
